"""Packs hits into numbers, and picks the best of them. Importing this module imports numba.

numba's cached code of a kernel that calls this one is made anew when the kernel's own file changes, not this one:
whoever changes this file clears `__pycache__`.
"""
# mypy: disable-error-code="misc"

from __future__ import annotations

import numpy as np
from numba import njit

# A hit is one number: the bits of its score (which order as positive floats do) above its row counted down. The
# larger number is the better hit, no two are equal, and so selecting and sorting know nothing of ties.
ROW_BITS = np.uint64(32)
LAST_ROW = np.uint64(0xFFFFFFFF)


@njit(cache=True, nogil=True)
def keep_best(hits: np.ndarray, size: int, k: int) -> int:  # pragma: no cover - compiled
    """Moves the k best of the first `size` hits to the front, the worst of them first; returns how many there are."""
    if size <= k:
        return size
    hits[:size] = np.partition(hits[:size], size - k)
    for index in range(k):
        hits[index] = hits[size - k + index]
    return k
