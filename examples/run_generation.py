"""Fine-tune an encoder to write: question generation or summaries, scored by BLEU-4, METEOR and ROUGE.

    python examples/run_generation.py --task qg/squad --student_model outputs/student --output_dir outputs/qg

Flags, or one YAML file with flags after it. The model is saved so that two lines load it and let it write:

    model = EncoderForGeneration.from_pretrained("outputs/qg")
    model.generate_texts([("Marie Curie was born in Warsaw.", "Warsaw")])

A killed run goes on with `--resume_from_checkpoint last`; `--eval_only` lets a saved model write anew.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.generation import format_generation, generate
from hf_distill.settings import GenerationArguments, GenerationTaskArguments, GenerationTrainingArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, fine-tune, let it write, print scores and speed."""
    classes = (GenerationTaskArguments, GenerationArguments, GenerationTrainingArguments)
    results = generate(*parse(classes, argv, __doc__))
    print(format_generation(results))
    if "predictions" in results:
        print(f"Texts written to {results['predictions']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_generation.py", main))
