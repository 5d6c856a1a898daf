"""Finds equal texts, of which a corpus keeps one.

Texts are compared as 64-bit xxh3 hashes, of the text itself or of its normalised form. At four million rows a chance
collision has a probability of 4e-7.

Shape legend: M texts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np
import regex
import xxhash

# Marks belong to words: without its vowel signs a Hindi word is another one.
_NON_WORD = regex.compile(r"[^\p{L}\p{N}\p{M}]+")


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
    """(M,) int64: for each text the position of the one that stays among those with its hash; its own if it stays.

    Args:
        hashes: (M,) hashes.
        priority: (M,) distinct numbers; the lowest of a group stays, so the result does not depend on the order.
    """
    order = np.lexsort((priority, hashes))
    ordered = hashes[order]
    begins = np.ones(len(hashes), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    stays = np.empty(len(hashes), dtype=np.int64)
    stays[order] = order[begins][np.cumsum(begins) - 1]
    return stays
