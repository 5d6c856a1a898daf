"""Anchors: the sentences of a task's rows for which similar sentences are looked for in general text.

Every text column of a pair is taken apart, and each sentence counts once (Contextualized Corpus, section 2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import xxhash
from datasets import Dataset
from datasets.utils.logging import get_logger

from ..text.cleaning import clean

logger = get_logger(__name__)

STRING_TYPES = ("string", "large_string", "string_view")
_NAMES = (
    "label labels class classes category tag tags id ids idx index uid uuid guid split url lang language annotator"
)
NAMES_OF_LABELS = frozenset(_NAMES.split(" "))
# Rows that are looked at, the share of different values below which they are labels, and letters of a short text.
LOOKED_AT = 1000
FEW_VALUES = 0.1
SHORT_TEXT = 5


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


def find_text_columns(rows: Dataset) -> list[str]:
    """The columns that hold the texts of a data set: its string columns without labels and ids.

    Labels and ids are known by their names, and by their values: single words, or few values again and again. One
    warning says what was left out.

    Raises:
        ValueError: If the data set has no column of strings.
    """
    strings = [name for name, feature in rows.features.items() if getattr(feature, "dtype", None) in STRING_TYPES]
    if not strings:
        raise ValueError(f"The anchors' data set has no text column; it has {rows.column_names}.")
    named = [name for name in strings if not _is_name_of_label(name)] or strings
    chosen = [name for name in named if len(named) == 1 or _looks_like_text(rows, name)] or named
    left_out = [name for name in strings if name not in chosen]
    if left_out:
        logger.warning(
            f"Anchors are the texts of the columns {chosen}; {left_out} look like labels or ids and are left out. "
            "Name the columns with `anchor_columns` to decide otherwise."
        )
    return chosen


def _is_name_of_label(name: str) -> bool:
    """Whether a column is named as columns of labels and ids are: `label`, `gold_label`, `doc_id`, `pairID`."""
    parts = [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return any(part in NAMES_OF_LABELS for part in parts)


def _looks_like_text(rows: Dataset, name: str) -> bool:
    """Whether most values have several words, or the letters of a script without spaces, and few come again."""
    values = [text.strip() for text in rows.select_columns([name])[:LOOKED_AT][name] if text and text.strip()]
    several = sum(" " in text or (len(text) >= SHORT_TEXT and not text.isascii()) for text in values)
    return 2 * several >= len(values) and len(set(values)) > len(values) * FEW_VALUES


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
