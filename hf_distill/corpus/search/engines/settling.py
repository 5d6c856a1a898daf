"""Turns the hits of an index with approximate scores into exact ones: more are fetched, and scored again.

Lucene, and with it tantivy and Elasticsearch, keeps the length of a row in one byte: exact up to 40 terms, beyond that
rounded down by up to an eighth. So it finds the candidates here, and their exact scores are computed from the terms
themselves. A candidate list is settled once no row outside it can still be among the first k: a shorter length only
raises a score, hence exact <= slack * own for every row, with a slack that depends on the lengths alone.

Shape legend: N rows of the corpus, C candidates.
"""

from __future__ import annotations

import numpy as np

from ..ranking import top_hits
from ..scoring import length_norms

# Covers the rounding of sums of float32 numbers, which are added in any order.
_ROUNDING = 1e-5


def score_slack(
    lengths: np.ndarray, mean_length: float, k1: float, b: float, own_mean: float, own_k1: float, own_b: float
) -> float:
    """The largest factor by which an exact score can exceed the index's own.

    The quotient of the two saturations tf * (k1 + 1) / (tf + norm) is monotone in tf, so its maximum over a row is at
    tf = 1 or at tf = length.

    Args:
        lengths: (N,) or fewer: the different lengths of the rows.
        mean_length: Mean length that the exact scores use.
        k1: BM25's k1 of the exact scores.
        b: BM25's b of the exact scores.
        own_mean: Mean length that the index uses.
        own_k1: The index's k1.
        own_b: The index's b.
    """
    lengths = np.unique(lengths[lengths > 0]).astype(np.float64)
    if not len(lengths):
        return 1.0
    norms, own_norms = length_norms(lengths, mean_length, k1, b), length_norms(lengths, own_mean, own_k1, own_b)
    factors = [(k1 + 1) / (own_k1 + 1) * (counts + own_norms) / (counts + norms) for counts in (1.0, lengths)]
    return float(np.max(factors)) * (1 + _ROUNDING)


def settle(
    rows: np.ndarray, exact: np.ndarray, worst_own: float, k: int, slack: float, *, complete: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """The first k hits in the total order, or None if a row that is no candidate could be among them.

    Args:
        rows: (C,) candidates.
        exact: (C,) float32, their exact scores.
        worst_own: The lowest of the index's own scores of the candidates; no other row has a higher one.
        k: Hits asked for.
        slack: See `score_slack`.
        complete: Whether every row that shares a term with the query is a candidate.
    """
    best_rows, best_scores = top_hits(rows, exact, k)
    # Strictly above: a row outside with the same score could have the lower number.
    if complete or (len(best_rows) == k and best_scores[-1] > slack * worst_own):
        return best_rows, best_scores
    return None
