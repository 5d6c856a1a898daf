"""Task rows -> anchors: the sentences whose like is looked for in general text.

Every text column of a pair is taken apart, and each sentence counts once (Contextualized Corpus, section 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import xxhash
from datasets import Dataset

from .cleaning import clean


@dataclass(frozen=True)
class Anchors:
    """Deduplicated anchors in the order of their first appearance, and what became of the rest.

    Attributes:
        texts: The anchors.
        counts: `texts` (all cells looked at), `none`, `empty`, `duplicates`, `beyond_max_anchors`, `anchors`.
    """

    texts: list[str]
    counts: dict[str, int]

    def checksum(self) -> str:
        """Identifies the anchors and their order."""
        encoded = (text.encode("utf-8", "surrogatepass") for text in self.texts)
        return xxhash.xxh3_128_hexdigest(b"".join(b"%d:%b" % (len(text), text) for text in encoded))


def task_texts(rows: Dataset, text_columns: Sequence[str]) -> Iterable[str | None]:
    """The texts of some columns, column after column; lists of words are joined by spaces.

    Raises:
        ValueError: If a column is missing.
    """
    missing = [column for column in text_columns if column not in rows.column_names]
    if missing:
        raise ValueError(f"The task's rows have no column {missing}; they have {rows.column_names}.")
    for column in text_columns:
        for batch in rows.select_columns([column]).with_format("arrow").iter(batch_size=10_000):
            for text in batch[column].to_pylist():
                yield " ".join(text) if isinstance(text, list) else text


def collect_anchors(texts: Iterable[str | None], max_anchors: int | None = None) -> Anchors:
    """Cleans and deduplicates anchors (exact text after stripping).

    Args:
        texts: Sentences; None and empty ones are counted and left out.
        max_anchors: Keep only so many, the first ones.

    Raises:
        ValueError: If there is no anchor left.
        TypeError: If a text is not a string.
    """
    seen: dict[str, None] = {}
    counts = dict.fromkeys(("texts", "none", "empty", "duplicates", "beyond_max_anchors", "anchors"), 0)
    for text in texts:
        counts["texts"] += 1
        if text is None:
            counts["none"] += 1
            continue
        cleaned = clean(text)
        if not cleaned:
            counts["empty"] += 1
        elif cleaned in seen:
            counts["duplicates"] += 1
        else:
            seen[cleaned] = None
    anchors = list(seen)
    if max_anchors is not None and len(anchors) > max_anchors:
        counts["beyond_max_anchors"] = len(anchors) - max_anchors
        anchors = anchors[:max_anchors]
    counts["anchors"] = len(anchors)
    if not anchors:
        raise ValueError(
            f"There are no anchors: of {counts['texts']} texts {counts['none']} are None, the rest empty."
        )
    return Anchors(anchors, counts)
