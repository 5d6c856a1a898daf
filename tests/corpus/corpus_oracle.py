"""BM25 in plain Python and float64, and a comparison of hits that allows for ties."""

import math

import numpy as np


def bm25_scores(texts, query, k1=1.2, b=0.75):
    """Score of every text (lists of terms) for a query, by the textbook: Lucene's idf, (k1 + 1) in the numerator."""
    mean = sum(map(len, texts)) / len(texts)
    scores = np.zeros(len(texts))
    for term in query:
        frequency = sum(term in text for text in texts)
        idf = math.log(1 + (len(texts) - frequency + 0.5) / (frequency + 0.5))
        for row, text in enumerate(texts):
            count = text.count(term)
            if count:
                scores[row] += idf * count * (k1 + 1) / (count + k1 * (1 - b + b * len(text) / mean))
    return scores


def assert_hits_are_right(rows, scores, truth, k):
    """The hits are the k best of `truth` above zero, in the total order, up to rounding of equal scores."""
    assert len(rows) == len(set(rows.tolist())) == min(k, int((truth > 0).sum()))
    np.testing.assert_allclose(scores, truth[rows], rtol=2e-6)
    if len(rows):
        np.testing.assert_allclose(scores, np.sort(truth)[::-1][: len(rows)], rtol=2e-6)
    assert_in_total_order(rows, scores)


def assert_in_total_order(rows, scores):
    """Score descending, then row ascending."""
    order = np.lexsort((rows, -scores))
    assert np.array_equal(order, np.arange(len(rows)))


def assert_same_up_to_ties(first, second):
    """Two engines' hits of one query: equal scores, and other rows only where scores are equal."""
    (rows, scores), (other_rows, other_scores) = first, second
    assert len(rows) == len(other_rows)
    np.testing.assert_allclose(scores, other_scores, rtol=2e-6)
    for position in np.flatnonzero(rows != other_rows):
        near = np.isclose(scores, scores[position], rtol=2e-6)
        is_cut = np.isclose(scores[position], scores[-1], rtol=2e-6)
        assert is_cut or set(rows[near]) == set(other_rows[near])
