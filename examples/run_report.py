"""Make one page about runs: curves, scores and the settings in which they differ.

    python examples/run_report.py --runs outputs/student outputs/other --output outputs/report.html

Runs are folders of distill, teach, evaluate or pipeline, or of any training with checkpoints. The ending of the page
says what it is: .html is one file that needs nothing else, .md has its pictures beside it. Flags, or one YAML file
with flags after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.ending import run_command
from hf_distill.commands.report import report
from hf_distill.settings import ReportArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, read, say where the page is."""
    results = report(*parse((ReportArguments,), argv, __doc__))
    print(f"{results['curves']} curves of {len(results['runs'])} runs; page written to {results['output']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("run_report.py", main))
