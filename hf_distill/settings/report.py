"""Settings of a page about runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from .values import setting


@dataclass
class ReportArguments:
    """The runs of a report, and where it goes."""

    runs: list[str] = field(
        metadata={
            "help": "Folders of runs of teach, distill, adapt, evaluate or pipeline, or of any training with "
            "checkpoints, also while it runs."
        }
    )
    output: str = setting(
        "report.html", "The page: .html is a single file that needs nothing else, .md has its pictures beside it."
    )
    names: list[str] | None = setting(
        None, "Names of the runs on the page, in their order. Default: the parts of their paths that differ."
    )
    title: str | None = setting(None, "Heading of the page. Default: the names of the runs.")

    def __post_init__(self) -> None:
        """A single run may be given as a string."""
        if isinstance(self.runs, str):
            self.runs = [self.runs]
