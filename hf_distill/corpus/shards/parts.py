"""Parts: results of jobs that share nothing but a folder. A part is there, whole and checked, or it is not there.

A job writes into a folder of its own, the marker with the checksums of all files last, and gives the folder its name
by a rename. So it does not matter how often a job is started, on how many machines at once, or where it was killed.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from datasets.utils import logging

from ...storage.files import checksum_of, disk_space, is_alive, read_json, remove, write_json
from ..build.work_folder import measured, read_arrow

logger = logging.get_logger(__name__)

_MARKER = "part.json"


class DamagedPartError(ValueError):
    """A file of a finished part is missing or is not what was written."""


@dataclass(frozen=True)
class Part:
    """One result in a folder.

    Attributes:
        folder: Where it is, once it is finished.
        settings: Everything that changes it, JSON-able; a part with others is not this one.
        what: What to call it in messages.
        way_out: What to do if it is damaged.
    """

    folder: Path
    settings: dict[str, Any]
    what: str
    way_out: str

    def facts(self) -> dict[str, Any] | None:
        """Return what `make` returned; None if the part is not finished or was made with other settings."""
        marker = self._marker()
        return None if marker is None else cast("dict[str, Any]", marker["facts"])

    def file(self, name: str) -> Path:
        """A file of the part, after a look at its checksum.

        Raises:
            DamagedPartError: If it is missing or has changed.
        """
        marker = self._marker()
        path = self.folder / name
        if marker is None or name not in marker["files"]:
            raise DamagedPartError(f"{self.what} has no file {str(path)!r}. {self.way_out}")
        if not path.is_file() or checksum_of(path) != marker["files"][name]:
            raise DamagedPartError(
                f"{self.what} is damaged: {str(path)!r} is missing or is not what was written. {self.way_out}"
            )
        return path

    def check(self, folder: str | None = None) -> None:
        """Looks at the checksums of all files, or of those in a folder of the part.

        Raises:
            DamagedPartError: If one is missing or has changed.
        """
        for name in (self._marker() or {"files": ()})["files"]:
            if folder is None or Path(name).parent == Path(folder):
                self.file(name)

    def rows(self, folder: str) -> Dataset:
        """The Arrow files of a folder of the part, after a look at their checksums.

        Raises:
            DamagedPartError: If one is missing or has changed.
        """
        self.check(folder)
        return read_arrow(self.folder / folder)

    def make(self, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Makes the part unless it is there; one that is damaged is made anew.

        Args:
            work: Writes the files into an empty folder and returns facts, JSON-able.

        Returns:
            The facts, with those of `measured` added; those of the first time if the part was finished before.

        Raises:
            OSError: If it cannot be written; what it wrote is removed.
        """
        facts = self.facts()
        if facts is not None:
            try:
                self.check()
            except DamagedPartError as error:
                logger.warning(f"{error} It is made anew.")
                remove(self.folder)
            else:
                return facts
        self._remove_abandoned()
        owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        partial = self.folder.with_name(f"{self.folder.name}.{owner}.partial")
        try:
            with disk_space(self.folder.parent, self.what, "--work_dir, --index_dir"):
                partial.mkdir(parents=True)
                facts = measured(lambda: work(partial), partial)
                files = sorted(path for path in partial.rglob("*") if path.is_file())
                marker = {
                    "settings": self.settings,
                    "facts": facts,
                    "files": {path.relative_to(partial).as_posix(): checksum_of(path) for path in files},
                }
                write_json(partial / _MARKER, marker)
            return self._publish(partial)
        finally:
            remove(partial)

    def _publish(self, partial: Path) -> dict[str, Any]:
        """Gives a finished folder its name, unless another job did so first."""
        facts = self.facts()
        if facts is None:
            # Of other settings, or without a marker.
            remove(self.folder)
            try:
                partial.rename(self.folder)
            except OSError:
                # Between the two lines the same part came from another job: both hold the same.
                if self.facts() is None:
                    raise
        return cast("dict[str, Any]", self.facts())

    def _marker(self) -> dict[str, Any] | None:
        try:
            marker = read_json(self.folder / _MARKER)
        except (OSError, ValueError):
            return None
        return marker if marker.get("settings") == json.loads(json.dumps(self.settings)) else None

    def _remove_abandoned(self) -> None:
        """Remove the unfinished folders of processes that were killed on this machine."""
        mine = f"{self.folder.name}.{socket.gethostname()}-"
        for path in self.folder.parent.glob(f"{self.folder.name}.*.partial"):
            if path.name.startswith(mine) and not is_alive(int(path.name.removeprefix(mine).partition("-")[0])):
                remove(path)
