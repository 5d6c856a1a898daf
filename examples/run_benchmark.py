"""Fine-tune models on tasks, with shares of the rows and several seeds, and print the tables.

    python examples/run_benchmark.py --models plain=outputs/student mitkd=outputs/mtl_student \
        --tasks glue/rte glue/mrpc --fractions 0.01 0.1 1 --seeds 1 2 3 4 --output_dir outputs/grid

A grid that was stopped goes on with the same command; one with more models, tasks, shares, seeds or settings runs what
is new. Flags, or one YAML file with flags after it; students that are to be compared may be distilled first
(`examples/configs/minilm_ablation.yaml`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.grid import format_tables, run_grid
from hf_distill.settings import GridArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, run what is missing, print the tables."""
    (arguments,) = parse((GridArguments,), argv, __doc__)
    results = run_grid(arguments)
    print(format_tables(results))
    print(f"{len(results['cells'])} cells; tables written to {arguments.output_dir}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_benchmark.py", main))
