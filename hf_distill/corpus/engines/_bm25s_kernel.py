"""Sum of score columns and top-k in the total order. Importing this module imports numba.

Shape legend: P postings, V terms, Q queries, T terms of all queries, k hits asked for.
"""
# mypy: disable-error-code="misc"

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _worse(scores: np.ndarray, rows: np.ndarray, a: int, b: int) -> bool:  # pragma: no cover - compiled
    """Whether heap entry a comes after heap entry b in the total order."""
    return scores[a] < scores[b] or (scores[a] == scores[b] and rows[a] > rows[b])


@njit(cache=True, nogil=True)
def _sift_down(scores: np.ndarray, rows: np.ndarray, size: int) -> None:  # pragma: no cover - compiled
    """Restores the heap (worst entry at 0) after entry 0 changed."""
    position = 0
    while True:
        child = 2 * position + 1
        if child >= size:
            return
        if child + 1 < size and _worse(scores, rows, child + 1, child):
            child += 1
        if not _worse(scores, rows, child, position):
            return
        scores[child], scores[position] = scores[position], scores[child]
        rows[child], rows[position] = rows[position], rows[child]
        position = child


@njit(cache=True, nogil=True)
def _offer(
    scores: np.ndarray, rows: np.ndarray, size: int, score: float, row: int
) -> int:  # pragma: no cover - compiled
    """Puts a hit into the heap if it belongs to the best; returns the heap's size."""
    if size < len(scores):
        scores[size], rows[size] = score, row
        position = size
        while position > 0:
            parent = (position - 1) // 2
            if not _worse(scores, rows, position, parent):
                break
            scores[parent], scores[position] = scores[position], scores[parent]
            rows[parent], rows[position] = rows[position], rows[parent]
            position = parent
        return size + 1
    if score > scores[0] or (score == scores[0] and row < rows[0]):
        scores[0], rows[0] = score, row
        _sift_down(scores, rows, size)
    return size


@njit(cache=True, nogil=True)
def _add_up(
    data: np.ndarray,
    posting_rows: np.ndarray,
    indptr: np.ndarray,
    terms: np.ndarray,
    cursors: np.ndarray,
    start: int,
    stop: int,
    sums: np.ndarray,
    touched: np.ndarray,
) -> int:  # pragma: no cover - compiled
    """Adds the postings of some terms within a block of rows to `sums`; returns how many rows it listed in `touched`.

    Each term goes on at its cursor and leaves it at the first posting beyond the block.
    """
    num_touched = 0
    for index in range(len(terms)):
        cursor, end = cursors[index], indptr[terms[index] + 1]
        while cursor < end and posting_rows[cursor] < stop:
            local = posting_rows[cursor] - start
            if sums[local] == 0.0:
                touched[num_touched] = local
                num_touched += 1
            sums[local] += data[cursor]
            cursor += 1
        cursors[index] = cursor
    return num_touched


@njit(cache=True, nogil=True)
def search_columns(
    data: np.ndarray,
    posting_rows: np.ndarray,
    indptr: np.ndarray,
    terms: np.ndarray,
    offsets: np.ndarray,
    k: int,
    num_rows: int,
    block: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # pragma: no cover - compiled
    """Searches queries one after the other, block of rows by block of rows.

    Args:
        data: (P,) float32, score of a posting.
        posting_rows: (P,) int32, row of a posting, ascending within a term.
        indptr: (V + 1,) first posting of a term.
        terms: (T,) int64, term ids of all queries.
        offsets: (Q + 1,) int64, where a query starts in `terms`.
        k: Hits per query.
        num_rows: Rows of the index.
        block: Rows scored together.

    Returns:
        Hits per query (Q,), then rows and scores of all hits, query after query.
    """
    num_queries = len(offsets) - 1
    counts = np.zeros(num_queries, np.int64)
    capacity = 1024
    out_rows, out_scores, filled = np.empty(capacity, np.int64), np.empty(capacity, np.float32), 0
    sums, touched = np.zeros(min(block, num_rows), np.float32), np.empty(min(block, num_rows), np.int32)
    heap_scores, heap_rows = np.empty(k, np.float32), np.empty(k, np.int64)
    for query in range(num_queries):
        first, last = offsets[query], offsets[query + 1]
        cursors = np.empty(last - first, np.int64)
        for index in range(last - first):
            cursors[index] = indptr[terms[first + index]]
        size = 0
        for start in range(0, num_rows, block):
            num_touched = _add_up(
                data, posting_rows, indptr, terms[first:last], cursors, start, start + block, sums, touched
            )
            for index in range(num_touched):
                local = touched[index]
                score = sums[local]
                sums[local] = 0.0
                if size < k or score >= heap_scores[0]:
                    size = _offer(heap_scores, heap_rows, size, score, start + local)
        counts[query] = size
        while filled + size > capacity:
            capacity *= 2
            out_rows = np.concatenate((out_rows, np.empty(capacity - len(out_rows), np.int64)))
            out_scores = np.concatenate((out_scores, np.empty(capacity - len(out_scores), np.float32)))
        for position in range(size - 1, -1, -1):
            out_rows[filled + position], out_scores[filled + position] = heap_rows[0], heap_scores[0]
            heap_rows[0], heap_scores[0] = heap_rows[position], heap_scores[position]
            _sift_down(heap_scores, heap_rows, position)
        filled += size
    return counts, out_rows[:filled].copy(), out_scores[:filled].copy()
