"""Sum of score columns and top-k in the total order. Importing this module imports numba.

Shape legend: P postings, V terms, Q queries, T terms of all queries, k hits asked for.
"""
# mypy: disable-error-code="misc"

from __future__ import annotations

import numpy as np
from numba import njit

from ._blocks_kernel import LAST_ROW, ROW_BITS, keep_best


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
    bits = sums.view(np.uint32)
    hits = np.empty(max(4 * k, 1024), np.uint64)
    for query in range(num_queries):
        query_terms = terms[offsets[query] : offsets[query + 1]]
        cursors = indptr[query_terms].astype(np.int64)
        size, bar = 0, np.uint64(0)
        for start in range(0, num_rows, block):
            num_touched = _add_up(
                data, posting_rows, indptr, query_terms, cursors, start, start + block, sums, touched
            )
            for index in range(num_touched):
                local = touched[index]
                hit = (np.uint64(bits[local]) << ROW_BITS) | (LAST_ROW - np.uint64(start + local))
                sums[local] = 0.0
                if hit > bar:
                    if size == len(hits):
                        size = keep_best(hits, size, k)
                        bar = hits[0]
                    hits[size] = hit
                    size += 1
        size = keep_best(hits, size, k)
        best = np.sort(hits[:size])[::-1]
        counts[query] = size
        while filled + size > capacity:
            capacity *= 2
            out_rows = np.concatenate((out_rows, np.empty(capacity - len(out_rows), np.int64)))
            out_scores = np.concatenate((out_scores, np.empty(capacity - len(out_scores), np.float32)))
        score_bits = (best >> ROW_BITS).astype(np.uint32)
        out_rows[filled : filled + size] = (LAST_ROW - (best & LAST_ROW)).astype(np.int64)
        out_scores[filled : filled + size] = score_bits.view(np.float32)
        filled += size
    return counts, out_rows[:filled].copy(), out_scores[:filled].copy()
