"""Compare corpora with the text of a task: size, diversity, and words in common with it.

    python examples/run_comparison.py --task glue/rte --corpora cc=outputs/corpus taskda=outputs/augmented \
        general=general.parquet --output_dir outputs/comparison

Any number of corpora: folders that were built here, files, folders, Hub ids. Flags, or one YAML file with flags after
it. `--write_cards` puts tables and figures into the cards of those that were built here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.compare import compare
from hf_distill.commands.ending import run_command
from hf_distill.hub.disclosure import public_command
from hf_distill.settings import ComparisonArguments, TaskArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, compare, show the words in common with the task."""
    words = list(sys.argv[1:] if argv is None else argv)
    task, comparison = parse((TaskArguments, ComparisonArguments), words, __doc__)
    results = compare(task, comparison, public_command(["python", "examples/run_comparison.py", *words]))
    overlap = results["overlap"]
    for name, share in zip(
        overlap["names"], overlap["share"][overlap["names"].index(results["reference"])], strict=True
    ):
        print(f"{name}: {share:.1f} % of its most frequent words in common with {results['task']}")
    print(f"Tables and figures written to {results['output_dir']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_comparison.py", main))
