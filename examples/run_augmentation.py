"""Augment the training rows of a task (TaskDA): its own texts with words replaced by a masked language model.

    python examples/run_augmentation.py --task glue/sst2 --masked_lm google-bert/bert-base-uncased \
        --embeddings glove.6B.300d.txt --corpus_dir outputs/augmented

    python examples/run_distillation.py --teacher_model outputs/teacher --textbook outputs/augmented \
        --objectives relation:1 logits:1 --output_dir outputs/student

Flags, or one YAML file with flags after it. A killed run continues where it stopped when it is started again.
`run_mlm_head.py` makes a masked language model of an encoder that has no head for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.augment import augment
from hf_distill.commands.ending import run_command
from hf_distill.settings import AugmentationArguments, TaskArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, augment, print what came out."""
    results = augment(*parse((TaskArguments, AugmentationArguments), argv, __doc__))
    statistics = results["statistics"]
    print(
        f"{results['task']}: {results['rows']:,} rows ({statistics['bytes'] / 1e6:.1f} MB), "
        f"{statistics['rows_per_source_row']} per row of the task, in {results['seconds']:.0f} s"
    )
    words = statistics["candidates"]
    print(
        f"Words replaced: {words['one_piece']:,} by the masked language model, {words['several_pieces']:,} by like "
        f"embeddings, of {words['words']:,} in {words['texts']:,} texts"
    )
    print(f"Corpus, card and statistics written to {results['corpus_dir']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_augmentation.py", main))
