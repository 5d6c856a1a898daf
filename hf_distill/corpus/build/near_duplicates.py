"""Rows that are nearly another row: the share of common shingles (Jaccard) reaches a threshold.

MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3) finds the
pairs worth comparing, by datasketch's signatures; each pair is then compared exactly, so chance decides nothing about
what is dropped, only, once in a hundred pairs at the threshold, that one is overlooked.

Shape legend: M texts in order of priority, B bands of a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import xxhash

from hf_distill._optional import require

from ..text.words import units

# Words of a shingle; in scripts without spaces, characters.
SHINGLE = 3
_PERMUTATIONS = 128
_SEED = 1
# An odd number without pattern (the golden ratio's fraction): multiplied, each bit changes about half of those above.
_MIXER = np.uint64(0x9E3779B97F4A7C15)
# A pair at the threshold shares a band, and so is compared, with at least this probability.
_RECALL = 0.99


def shingles(text: str) -> np.ndarray:
    """(S,) uint32, ascending distinct hashes of a text's shingles; of the whole text where it is shorter than one."""
    words = units(text)
    parts = (" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1)))
    return np.unique(np.fromiter((xxhash.xxh32_intdigest(part.encode()) for part in parts), dtype=np.uint32))


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Common elements over all elements of two sets, given as ascending distinct numbers."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


def rows_per_band(threshold: float) -> int:
    """The most numbers of a signature in one band with which a pair at the threshold is still found."""
    for rows in range(_PERMUTATIONS, 1, -1):
        if 1 - (1 - threshold**rows) ** (_PERMUTATIONS // rows) >= _RECALL:
            return rows
    return 1


def find_near_duplicates(
    num_texts: int,
    texts_of: Callable[[np.ndarray], Iterable[list[str]]],
    threshold: float,
) -> np.ndarray:
    """Find the texts that are nearly equal to one that stays.

    Texts are looked at in their order, and a text is dropped if it is nearly an earlier one that was kept. So the
    first texts alone give the same result for them as all texts do.

    Args:
        num_texts: M.
        texts_of: Texts of some positions, ascending, in batches.
        threshold: Least Jaccard similarity of near-duplicates.

    Returns:
        (M,) int64, the position of the kept text that a text nearly is, or -1 for a text that stays.

    Raises:
        ImportError: If datasketch is not installed.
    """
    bands = np.concatenate(
        [_band_hashes(texts, threshold) for texts in texts_of(np.arange(num_texts))] or [np.empty((0, 1), np.uint32)]
    )
    suspects = _share_a_band(bands)
    nearly = np.full(num_texts, -1, dtype=np.int64)
    kept: list[dict[int, list[int]]] = [{} for _ in range(bands.shape[1])]
    sets: dict[int, np.ndarray] = {}
    for position, text in zip(suspects.tolist(), _flat(texts_of(suspects)), strict=True):
        own = shingles(text)
        keys = bands[position].tolist()
        others = sorted({other for band, key in zip(kept, keys, strict=True) for other in band.get(key, ())})
        nearest = next((other for other in others if jaccard(own, sets[other]) >= threshold), None)
        if nearest is not None:
            nearly[position] = nearest
            continue
        sets[position] = own
        for band, key in zip(kept, keys, strict=True):
            band.setdefault(key, []).append(position)
    return nearly


def _band_hashes(texts: list[str], threshold: float) -> np.ndarray:
    """(M, B) uint32, equal in a band where the signatures are; 32 bits do, as every pair is compared."""
    datasketch: Any = require("datasketch", extra="near_duplicates", needed_by="`--deduplicate near`")
    # The shingles are hashed already.
    signatures = datasketch.MinHash.bulk(
        (shingles(text).tolist() for text in texts), num_perm=_PERMUTATIONS, seed=_SEED, hashfunc=int
    )
    rows = rows_per_band(threshold)
    num_bands = _PERMUTATIONS // rows
    values = np.stack([signature.hashvalues for signature in signatures])[:, : num_bands * rows]
    parts = values.astype(np.uint64).reshape(len(texts), num_bands, rows)
    mixed = np.zeros((len(texts), num_bands), dtype=np.uint64)
    for row in range(rows):
        mixed = (mixed ^ parts[:, :, row]) * _MIXER
    return (mixed >> np.uint64(32)).astype(np.uint32)


def _share_a_band(bands: np.ndarray) -> np.ndarray:
    """Ascending positions of texts that share a band with another."""
    shared = np.zeros(len(bands), dtype=bool)
    for band in bands.T:
        _, places, counts = np.unique(band, return_inverse=True, return_counts=True)
        shared |= counts[places] > 1
    return np.flatnonzero(shared)


def _flat(batches: Iterable[list[str]]) -> Iterator[str]:
    for batch in batches:
        yield from batch
