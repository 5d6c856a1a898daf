"""Rows that were looked at and are not in the corpus, each with its reason: for a user who wants to see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value
from datasets.arrow_writer import ArrowWriter

from ..text.cleaning import LengthLimits, UsableRows, judge, read_texts
from .selection import REASONS, Selection

DROPPED_FEATURES = Features(
    {"row": Value("int64"), "text": Value("string"), "reason": Value("string"), "instead": Value("int64")}
)


def write_dropped(
    path: Path,
    corpus: Dataset,
    text_column: str,
    limits: LengthLimits,
    usable: UsableRows,
    selection: Selection,
) -> int:
    """Writes an Arrow file with the columns `row` (of the general corpus), `text`, `reason` and `instead`.

    A row is in it if it could not be used, or if an anchor found it and it was left out after all; `instead` is the
    row that stays for a duplicate.

    Args:
        path: File to write.
        corpus: The general corpus.
        text_column: Its column with the text.
        limits: By which rows were judged.
        usable: The rows that could be used.
        selection: What became of those that were found.

    Returns:
        Rows written.
    """
    gone = np.flatnonzero(selection.fates >= 0)
    rows = usable.rows[selection.candidates.rows[gone]]
    reasons = [REASONS[fate] for fate in selection.fates[gone].tolist()]
    # A row number of -1 would count from the end.
    instead = [usable.rows[row].item() if row >= 0 else None for row in selection.instead[gone].tolist()]
    found = dict(zip(rows.tolist(), zip(reasons, instead, strict=True), strict=True))
    is_usable = np.zeros(len(corpus), dtype=bool)
    is_usable[usable.rows] = True
    num_rows, start = 0, 0
    with ArrowWriter(path=str(path), features=DROPPED_FEATURES) as writer:
        for texts in read_texts(corpus, text_column, "Writing dropped rows"):
            lines: list[tuple[int, str | None, str, int | None]] = []
            for row, text in enumerate(texts, start):
                if not is_usable[row]:
                    lines.append((row, text, judge(text, limits)[0], None))
                elif row in found:
                    lines.append((row, text, *found[row]))
            if lines:
                writer.write_table(_table(lines))
            num_rows += len(lines)
            start += len(texts)
        writer.finalize()
    return num_rows


def _table(lines: list[tuple[int, str | None, str, int | None]]) -> pa.Table:
    columns = zip(*lines, strict=True)
    arrays = [
        pa.array(column, type=feature.pa_type)
        for column, feature in zip(columns, DROPPED_FEATURES.values(), strict=True)
    ]
    return pa.Table.from_arrays(arrays, names=list(DROPPED_FEATURES))
