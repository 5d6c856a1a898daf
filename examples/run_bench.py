"""Time students against their teacher, in every way that they can be run: sizes, latency, throughput, quality.

    python examples/run_bench.py --teacher_shape 12x768 --student_shapes 6x384 4x312 --output_dir outputs/bench

    python examples/run_bench.py --teacher_model outputs/teacher --student_models outputs/sst2 outputs/rte \
        --task glue/qnli --output_dir outputs/bench

Shapes have random weights, which take the time of any other. Folders bring their scores, and then there is a figure
of quality against latency. Flags, or one YAML file with flags after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.bench import bench
from hf_distill.commands.ending import run_command
from hf_distill.hub.disclosure import public_command
from hf_distill.reports.speed.report import format_report
from hf_distill.settings import BenchmarkArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, time, print the tables."""
    words = sys.argv[1:] if argv is None else argv
    command = public_command(["python", "examples/run_bench.py", *words])
    results = bench(*parse((BenchmarkArguments,), words, __doc__), command=command)
    print(format_report(results))
    print(f"{results['seconds']:.0f} s; written to {results['settings']['output_dir']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_bench.py", main))
