"""Texts of validation and test sets, to be kept out of a corpus: equal to a row, inside one, or sharing an n-gram.

Rows and texts are compared without case, punctuation and spacing. Words are counted; in scripts without spaces,
characters.

Shape legend: M rows, W words over all rows, n words of an n-gram.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

from ..text.words import units
from .duplicates import hash_texts, normalize

# An evaluation text is looked for inside longer rows only if it has so many words: shorter ones ("a good movie") turn
# up in unrelated sentences.
MIN_CONTAINED_WORDS = 8

# Odd: powers of it do not vanish modulo 2**64.
_BASE = np.uint64(0x9E3779B97F4A7C15)


class EvaluationTexts:
    """The texts of validation and test sets.

    Args:
        texts: The texts; None and empty ones are ignored.
        contains: Whether to look for them inside longer rows too.
        ngram: Whether rows that share so many words in a row with one are looked for; 13 is the usual number (Brown et
            al. 2020, appendix C). Texts with fewer words have no n-gram.
    """

    def __init__(self, texts: Iterable[str | None], *, contains: bool = False, ngram: int | None = None) -> None:
        normalized = sorted({normalize(text) for text in texts if text is not None and text.strip()})
        self.num_texts = len(normalized)
        self.contains, self.ngram = contains, ngram
        self._hashes = np.sort(hash_texts(normalized))
        self.checksum = xxhash.xxh3_64_hexdigest(self._hashes.astype("<u8").tobytes())
        self._by_opening: dict[str, list[str]] = {}
        for text in normalized if contains else ():
            words = units(text)
            if len(words) >= MIN_CONTAINED_WORDS:
                opening = " ".join(words[:MIN_CONTAINED_WORDS])
                self._by_opening.setdefault(opening, []).append(f" {' '.join(words)} ")
        self._ngrams = np.unique(ngram_hashes(normalized, ngram)[0]) if ngram else np.empty(0, np.uint64)

    def equal(self, normalized_hashes: np.ndarray) -> np.ndarray:
        """(M,) bool: which normalised rows, given by their hashes, equal an evaluation text."""
        return _among(normalized_hashes, self._hashes)

    def contained(self, normalized: Sequence[str]) -> np.ndarray:
        """(M,) bool: which normalised rows hold an evaluation text of at least `MIN_CONTAINED_WORDS` words."""
        if not self._by_opening:
            return np.zeros(len(normalized), dtype=bool)
        return np.fromiter((self._holds_one(units(text)) for text in normalized), dtype=bool, count=len(normalized))

    def shared(self, normalized: Sequence[str]) -> np.ndarray:
        """(M,) bool: which normalised rows share an n-gram with an evaluation text."""
        found = np.zeros(len(normalized), dtype=bool)
        if self.ngram and len(self._ngrams):
            hashes, owners = ngram_hashes(normalized, self.ngram)
            found[owners[_among(hashes, self._ngrams)]] = True
        return found

    def _holds_one(self, words: list[str]) -> bool:
        text = f" {' '.join(words)} "
        for start in range(len(words) - MIN_CONTAINED_WORDS + 1):
            candidates = self._by_opening.get(" ".join(words[start : start + MIN_CONTAINED_WORDS]))
            if candidates and any(candidate in text for candidate in candidates):
                return True
        return False


def ngram_hashes(normalized: Sequence[str], ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all n-grams of some texts, and the text that each belongs to.

    An n-gram's hash is the polynomial of its words' 64-bit hashes modulo 2**64, so that all of a batch are computed
    in n steps.

    Args:
        normalized: Normalised texts.
        ngram: n.

    Returns:
        uint64 hashes and int64 positions of the texts, of the same length.
    """
    split = [units(text) for text in normalized]
    lengths = np.fromiter(map(len, split), dtype=np.int64, count=len(split))
    owners = np.repeat(np.arange(len(split)), lengths)
    words = hash_texts(word for text in split for word in text)
    num_places = len(words) - ngram + 1
    if num_places <= 0:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    hashes = np.zeros(num_places, dtype=np.uint64)
    for offset in range(ngram):
        hashes = hashes * _BASE + words[offset : offset + num_places]
    within = owners[:num_places] == owners[ngram - 1 :]
    return hashes[within], owners[:num_places][within]


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(M,) bool: which values are among the known ones, which ascend."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return known[places] == values
