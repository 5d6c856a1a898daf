"""One of equal texts, and none of the task's evaluation texts.

Texts are compared as 64-bit xxh3 hashes, of the text itself or of its normalised form. At four million rows a chance
collision has a probability of 4e-7.

Shape legend: M texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

_NON_WORD = re.compile(r"[\W_]+")

# An evaluation text is looked for inside longer rows only if it has so many words: shorter ones ("a good movie") turn
# up in unrelated sentences.
MIN_CONTAINED_WORDS = 8


def normalize(text: str) -> str:
    """Compatibility forms made one (NFKC), case folded, everything between words one space.

    A text without any word ("!!!") stays as it is, so that such texts are not all the same.
    """
    folded = text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return _NON_WORD.sub(" ", folded).strip() or text


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """(M,) uint64."""
    # xxhash 4 takes bytes only. A lone surrogate cannot be encoded strictly, and must not stop a build.
    return np.fromiter((xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) for text in texts), np.uint64)


def first_of_equal(hashes: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """(M,) bool: True for the text of lowest priority number among those with equal hashes.

    Args:
        hashes: (M,) hashes.
        priority: (M,) distinct numbers; the lowest of a group stays, so the result does not depend on the order.
    """
    order = np.lexsort((priority, hashes))
    ordered = hashes[order]
    is_first = np.ones(len(hashes), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    kept = np.empty(len(hashes), dtype=bool)
    kept[order] = is_first
    return kept


class EvaluationTexts:
    """The texts of validation and test sets, to be kept out of a corpus.

    Args:
        texts: The texts; None and empty ones are ignored.
        contains: Whether to look for them inside longer rows too.
    """

    def __init__(self, texts: Iterable[str | None], *, contains: bool = False) -> None:
        normalized = sorted({normalize(text) for text in texts if text is not None and text.strip()})
        self.num_texts = len(normalized)
        self._hashes = np.sort(hash_texts(normalized))
        self.checksum = xxhash.xxh3_64_hexdigest(self._hashes.astype("<u8").tobytes())
        self._by_opening: dict[str, list[str]] = {}
        for text in normalized if contains else ():
            opening = text.split(" ")[:MIN_CONTAINED_WORDS]
            if len(opening) == MIN_CONTAINED_WORDS:
                self._by_opening.setdefault(" ".join(opening), []).append(f" {text} ")

    def equal(self, normalized_hashes: np.ndarray) -> np.ndarray:
        """(M,) bool: which normalised texts, given by their hashes, equal an evaluation text."""
        if not len(self._hashes):
            return np.zeros(len(normalized_hashes), dtype=bool)
        places = np.minimum(np.searchsorted(self._hashes, normalized_hashes), len(self._hashes) - 1)
        return self._hashes[places] == normalized_hashes

    def contained(self, normalized: Sequence[str]) -> np.ndarray:
        """(M,) bool: which normalised texts hold an evaluation text of at least `MIN_CONTAINED_WORDS` words."""
        found = (self._holds_one(text) for text in normalized)
        return np.fromiter(found, dtype=bool, count=len(normalized))

    def _holds_one(self, text: str) -> bool:
        if not self._by_opening:
            return False
        words = text.split(" ")
        for start in range(len(words) - MIN_CONTAINED_WORDS + 1):
            candidates = self._by_opening.get(" ".join(words[start : start + MIN_CONTAINED_WORDS]))
            if candidates and any(candidate in f" {text} " for candidate in candidates):
                return True
        return False
