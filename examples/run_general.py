"""Mix general corpora into one: cut into sentences, without repeats, drawn in chosen shares.

    python examples/run_general.py --corpora wikipedia.parquet books.jsonl --weights 2 1 --rows 1000000 \
        --unit sentence --corpus_dir outputs/general

    python examples/run_distillation.py --teacher_model outputs/teacher --textbook outputs/general \
        --output_dir outputs/student

Files, folders or Hub ids. Flags, or one YAML file with flags after it. A killed run continues where it stopped when it
is started again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.general import mix_general
from hf_distill.settings import GeneralCorpusArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, mix, print what every corpus gave."""
    results = mix_general(*parse((GeneralCorpusArguments,), argv, __doc__))
    for name, corpus in results["statistics"]["corpora"].items():
        print(f"{name}: {corpus['drawn']:,} of {corpus['kept']:,} usable rows, {corpus['duplicates']:,} repeated")
    print(f"{results['rows']:,} rows in {results['seconds']:.0f} s, written to {results['corpus_dir']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_general.py", main))
