"""Report: a page with the curves, scores and settings of one or several runs."""

from __future__ import annotations

import logging
from typing import Any

from hf_distill.reports.page import write_page
from hf_distill.reports.runs import read_runs
from hf_distill.settings import ReportArguments

logger = logging.getLogger(__name__)


def run(arguments: ReportArguments) -> dict[str, Any]:
    """Write a page about runs from the files in their folders.

    Args:
        arguments: Folders of the runs, and the file of the page.

    Returns:
        `output`, the names of the `runs`, the number of `curves`, and `without_curves`: the reason if there are none.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If a folder is not that of a run, or the format of the page is unknown.
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
    """Report how many curves of how many runs are shown, and where the page is."""
    return f"{results['curves']} curves of {len(results['runs'])} runs; page in {results['output']}"
