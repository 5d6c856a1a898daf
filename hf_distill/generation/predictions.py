"""Writes generated texts to a file batch by batch, so that a killed decoding continues where it stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_distill.storage.files import append_text, write_text
from hf_distill.storage.steps import describe_file, mark, read_marker

logger = logging.getLogger(__name__)


class PredictionFile:
    """A file of JSON lines, one for each row, that grows while a model generates.

    The marker of its folder has a key that identifies the model, the settings and the rows: lines with another key are
    not reused. When all rows are there, the lines are sorted.

    Attributes:
        known: Row number -> text, for the rows that are done.
    """

    def __init__(self, path: Path, key: str, facts: Sequence[dict[str, Any]]) -> None:
        """Open the file, with the lines that an interrupted decoding with the same key left.

        Args:
            path: The file.
            key: Hash of model, settings and rows.
            facts: Fields that are written beside the text of each row.
        """
        self.path = path
        self.facts = facts
        self.known: dict[int, str] = {}
        self._settings = {"predictions": key}
        if path.is_file() and (read_marker(path.parent) or {}).get("settings") == self._settings:
            self.known = self._read()
            logger.warning(
                f"{str(path)!r} has {len(self.known)} of {len(facts)} texts already; only the others are generated."
            )
        # Remove a line that a kill cut short, before the marker is written.
        self._write_all()
        mark(path.parent, self._settings)

    def append(self, batch: Sequence[tuple[int, str]]) -> None:
        """Append the texts of one batch, and flush them to the disk."""
        append_text(self.path, "".join(self._line(number, text) for number, text in batch))
        self.known.update(batch)

    def finish(self) -> list[str]:
        """Sort the lines by row.

        Returns:
            The texts.
        """
        self._write_all()
        mark(self.path.parent, self._settings, files={self.path.name: describe_file(self.path)}, finished=True)
        return [self.known[number] for number in range(len(self.facts))]

    def _read(self) -> dict[int, str]:
        # After the last line break there is nothing, or a partial line. Texts may contain other kinds of line breaks.
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        rows = [json.loads(line) for line in lines]
        return {int(row["number"]): str(row["prediction"]) for row in rows}

    def _write_all(self) -> None:
        write_text(self.path, "".join(self._line(number, self.known[number]) for number in sorted(self.known)))

    def _line(self, number: int, text: str) -> str:
        return json.dumps({"number": number, "prediction": text, **self.facts[number]}, ensure_ascii=False) + "\n"
