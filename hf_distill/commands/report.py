"""Report: one page with the curves, scores and settings of one run or several."""

from __future__ import annotations

import logging
from typing import Any

from hf_distill.reports.page import write_page
from hf_distill.reports.runs import read_runs
from hf_distill.settings import ReportArguments

logger = logging.getLogger(__name__)


def run(arguments: ReportArguments) -> dict[str, Any]:
    """Write a page about runs, from what lies in their folders.

    Args:
        arguments: Folders of the runs, and where the page goes.

    Returns:
        `output`, the names of the `runs`, the number of `curves`, and `without_curves`: why there are none.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a folder is no run, or the page would be of an unknown kind.
    """
    runs = read_runs(arguments.runs, arguments.names)
    names = [run.name for run in runs]
    path, reason = write_page(runs, arguments.output, arguments.title or ", ".join(names))
    if reason is not None:
        logger.warning(f"{path} has no curves: {reason}")
    return {
        "job": "report",
        "output": str(path),
        "runs": names,
        "curves": sum(len(curves) for run in runs for curves in run.curves.values()),
        "without_curves": reason,
    }


def summary(results: dict[str, Any]) -> str:
    """Say how many curves of how many runs are shown, and where the page is."""
    return f"{results['curves']} curves of {len(results['runs'])} runs; page in {results['output']}"
