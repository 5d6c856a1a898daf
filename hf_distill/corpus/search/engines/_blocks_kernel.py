"""Kernels of the engine `blocks`, which invert a block of rows and search it. Importing this module imports numba.

A posting is one integer: the row within its block in the lower bits, and above them the index of its pair (occurrences
of the term in the row, length of the row). There are few distinct pairs, so the BM25 factors of all postings fit into
a small table. Rows are scored window by window: the sums of a window stay in the level 2 cache.

Shape legend: V terms of the index, T tokens and P postings of a block, D distinct terms and Q queries of a batch,
C pairs, k hits requested, H hits kept per query (4 k).
"""

from __future__ import annotations

import numpy as np
from numba import njit

# mypy: disable-error-code="misc"


# A hit is one integer: the bits of its score (which order as positive floats do) above its inverted row number. A
# larger integer is a better hit and no two are equal, so selecting and sorting need no rule for ties.
ROW_BITS = np.uint64(32)
LAST_ROW = np.uint64(0xFFFFFFFF)


@njit(cache=True, nogil=True)
def keep_best(hits: np.ndarray, size: int, k: int) -> int:  # pragma: no cover - compiled
    """Move the k best of the first `size` hits to the front, the worst of them first; return how many there are."""
    if size <= k:
        return size
    hits[:size] = np.partition(hits[:size], size - k)
    for index in range(k):
        hits[index] = hits[size - k + index]
    return k


# mypy: disable-error-code="misc"


# Number of rows that are scored together.
WINDOW = 131_072


@njit(cache=True, nogil=True)
def count_rows(
    ids: np.ndarray, offsets: np.ndarray, counts: np.ndarray, last_row: np.ndarray
) -> None:  # pragma: no cover - compiled
    """Count the rows of the block that contain each term.

    Args:
        ids: (T,) int32, terms of the block's rows.
        offsets: starts of the rows in `ids`, and the end.
        counts: (V,) int32, initially zero.
        last_row: (V,) int32, initially -1; modified.
    """
    for row in range(len(offsets) - 1):
        for place in range(offsets[row], offsets[row + 1]):
            term = ids[place]
            if last_row[term] != row:
                last_row[term] = row
                counts[term] += 1


@njit(cache=True, nogil=True)
def fill_postings(
    ids: np.ndarray,
    offsets: np.ndarray,
    cursors: np.ndarray,
    last_row: np.ndarray,
    rows: np.ndarray,
    repeats: np.ndarray,
) -> None:  # pragma: no cover - compiled
    """Write rows (P,) and occurrences (P,) of all postings; `cursors` (V,) has the first position of every term.

    `last_row` (V,) is initially -1 for all terms.
    """
    for row in range(len(offsets) - 1):
        for place in range(offsets[row], offsets[row + 1]):
            term = ids[place]
            cursor = cursors[term]
            if last_row[term] == row:
                repeats[cursor - 1] += 1
            else:
                last_row[term] = row
                rows[cursor] = row
                repeats[cursor] = 1
                cursors[term] = cursor + 1


@njit(cache=True, nogil=True)
def add_pairs(
    rows: np.ndarray, repeats: np.ndarray, pair_of_repeats: np.ndarray, pair_of_row: np.ndarray, row_bits: int
) -> None:  # pragma: no cover - compiled
    """Turn rows (P,) into postings in place: adds the index of the pair above the bits of the row."""
    shift = np.uint64(row_bits)
    for place in range(len(rows)):
        row = np.uint64(rows[place])
        pair = np.uint64(pair_of_repeats[repeats[place]] + pair_of_row[row])
        rows[place] = (pair << shift) | row


@njit(cache=True, nogil=True)
def _advance(
    postings: np.ndarray, mask: np.uint64, limit: int, starts: np.ndarray, stops: np.ndarray, ends: np.ndarray
) -> None:  # pragma: no cover - compiled
    """Find for every term the first posting at or after its start whose row is at least `limit`."""
    for term in range(len(starts)):
        low, high = starts[term], stops[term]
        while low < high:
            middle = (low + high) >> 1
            if np.int64(np.uint64(postings[middle]) & mask) < limit:
                low = middle + 1
            else:
                high = middle
        ends[term] = low


@njit(cache=True, nogil=True)
def search_block(
    postings: np.ndarray,
    row_bits: int,
    rows: int,
    first_row: int,
    starts: np.ndarray,
    stops: np.ndarray,
    idf: np.ndarray,
    scale: float,
    occurrences: np.ndarray,
    denominators: np.ndarray,
    terms: np.ndarray,
    offsets: np.ndarray,
    k: int,
    hits: np.ndarray,
    sizes: np.ndarray,
    bars: np.ndarray,
    window: int,
) -> None:  # pragma: no cover - compiled
    """Add the rows of one block to the hits of every query.

    Args:
        postings: (P,) unsigned.
        row_bits: Number of lower bits of a posting that hold its row.
        rows: Number of rows of the block.
        first_row: Row number of its first row.
        starts: (D,) int64, first posting of each of the batch's terms in this block; modified.
        stops: (D,) int64, the position after its last posting.
        idf: (D,) float64.
        scale: k1 + 1.
        occurrences: (C,) float64, occurrences of the term in the row.
        denominators: (C,) float64, occurrences plus the norm of the row's length.
        terms: terms of all queries, as indices into D.
        offsets: (Q + 1,) int64, where each query starts in `terms`.
        k: Hits per query.
        hits: (Q, H) uint64, hits so far.
        sizes: (Q,) int64, number of hits so far.
        bars: (Q,) uint64, hits below are not among the k best.
        window: Number of rows that are scored together.
    """
    shift, mask = np.uint64(row_bits), (np.uint64(1) << np.uint64(row_bits)) - np.uint64(1)
    sums, touched = np.zeros(min(window, rows), np.float32), np.empty(min(window, rows) + 1, np.uint32)
    bits, capacity, ends = sums.view(np.uint32), hits.shape[1], np.empty_like(starts)
    for start in range(0, rows, window):
        _advance(postings, mask, start + window, starts, stops, ends)
        base = np.uint64(start)
        for query in range(len(offsets) - 1):
            num_touched = 0
            for index in range(offsets[query], offsets[query + 1]):
                term = terms[index]
                weight = idf[term]
                for place in range(starts[term], ends[term]):
                    posting = np.uint64(postings[place])
                    local, pair = (posting & mask) - base, posting >> shift
                    added = np.float32(weight * occurrences[pair] * scale / denominators[pair])
                    before = sums[local]
                    # Always write, but count only a new row: this avoids an unpredictable branch.
                    touched[num_touched] = np.uint32(local)
                    num_touched += before == np.float32(0.0)
                    sums[local] = before + added
            own, size, bar = hits[query], sizes[query], bars[query]
            last_row = LAST_ROW - np.uint64(first_row + start)
            for index in range(num_touched):
                row = touched[index]
                hit = (np.uint64(bits[row]) << ROW_BITS) | (last_row - np.uint64(row))
                sums[row] = np.float32(0.0)
                if hit > bar:
                    if size == capacity:
                        size = keep_best(own, size, k)
                        bar = own[0]
                        if hit <= bar:
                            continue
                    own[size] = hit
                    size += 1
            sizes[query], bars[query] = size, bar
        starts[:] = ends


@njit(cache=True, nogil=True)
def best_hits(
    hits: np.ndarray, sizes: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:  # pragma: no cover - compiled
    """Return rows and scores of the k best hits of every query, best first; `sizes` becomes the number of hits."""
    total = 0
    for query in range(len(sizes)):
        sizes[query] = keep_best(hits[query], sizes[query], k)
        total += sizes[query]
    rows, bits, filled = np.empty(total, np.int64), np.empty(total, np.uint32), 0
    for query in range(len(sizes)):
        best = np.sort(hits[query, : sizes[query]])
        for index in range(len(best) - 1, -1, -1):
            rows[filled] = np.int64(LAST_ROW - (best[index] & LAST_ROW))
            bits[filled] = np.uint32(best[index] >> ROW_BITS)
            filled += 1
    return rows, bits.view(np.float32)
