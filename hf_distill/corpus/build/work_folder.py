"""The work folder of a build: which steps are finished, for which settings, with which facts.

A step writes its files first and its marker last, by a rename; whatever has no marker is done again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

from datasets import Dataset, concatenate_datasets
from datasets.utils import logging

from ...storage.files import disk_space, read_json, read_mapping, remove, write_json
from ...storage.folders import writing_to
from ...storage.steps import differences

logger = logging.get_logger(__name__)


class WorkFolder:
    """Finished steps of one build.

    Args:
        path: Folder, made if needed.
        settings: Everything that changes the corpus, JSON-able.

    Raises:
        ValueError: If the folder belongs to a build with other settings; the message lists the differences.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps(settings))
        file = self.path / "settings.json"
        if not file.is_file():
            write_json(file, settings)
            return
        before = read_mapping(file)
        if before != settings:
            raise ValueError(
                f"The work folder {str(self.path)!r} belongs to a corpus with other settings "
                f"({differences(before, settings)}). "
                "Choose another one (--work_dir), or delete it to build anew."
            )

    def alone(self) -> AbstractContextManager[Path]:
        """Hold the folder for the build of this process; workers of its own may do steps meanwhile.

        Raises:
            FolderInUseError: If another process builds there.
        """
        return writing_to(self.path, "--work_dir")

    def step(self, name: str, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Does a step unless it is finished.

        Args:
            name: Name of the step.
            work: Does it, given an empty folder to write into, and returns its facts.

        Returns:
            The facts, with those of `measured` added; those of the first time if the step was finished before.
        """
        marker, folder = self.path / f"{name}.json", self.folder(name)
        if marker.is_file():
            logger.info(f"Step {name!r} is finished in {str(self.path)!r}: skipped.")
            return cast("dict[str, Any]", read_json(marker))
        remove(folder)
        folder.mkdir(parents=True)
        with disk_space(folder, f"the step {name!r}", "--work_dir"):
            facts = measured(lambda: work(folder), folder)
            write_json(marker, facts)
        return facts

    def is_finished(self, name: str) -> bool:
        """Whether a step has its marker."""
        return (self.path / f"{name}.json").is_file()

    def folder(self, name: str) -> Path:
        """Return the folder in which a step keeps its files."""
        return self.path / name


def measured(work: Callable[[], dict[str, Any]], folder: Path | None = None) -> dict[str, Any]:
    """Does some work; adds to its facts what it cost.

    Args:
        work: Does it and returns its facts.
        folder: Where it left files.

    Returns:
        The facts, with `seconds`, `disk_bytes` of the folder, and `peak_memory_mb`: the most memory that the process,
        or one of those it started, has had up to here, mapped files included (where the system tells).
    """
    start = time.perf_counter()
    facts = work()
    facts["seconds"] = round(time.perf_counter() - start, 3)
    if folder is not None:
        facts["disk_bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    peak = _peak_memory()
    if peak is not None:
        facts["peak_memory_mb"] = round(peak / 2**20, 1)
    return facts


def _peak_memory() -> int | None:
    """Bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak if sys.platform == "darwin" else peak * 1024


def read_arrow(folder: Path) -> Dataset:
    """The rows that `Dataset.map` wrote into a folder, the parts of several processes in their order."""
    return concatenate_datasets([Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))])
