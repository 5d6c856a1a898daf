"""BM25 by the library bm25s: its score matrix, its files (`bm25s.BM25.load` opens them), and its sums.

bm25s stores for every term the rows that contain it, with their final scores; a query is a sum of columns. Two parts
are done here instead of in the library: the matrix is filled from postings, which is several times faster than its
loop over Python lists, and hits are sorted in the total order. The engine `blocks` gives exactly the same hits, in a
fraction of the time for a large corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...text.analysis import TokenStreams
from ..retrieval import Engine
from ..scoring import (
    CorpusStatistics,
    Hits,
    Postings,
    build_postings,
    inverse_document_frequency,
    length_norms,
    posting_scores,
    search_in_threads,
    top_hits,
)

# Number of postings that are scored at a time while building: limits the float64 temporaries to a few dozen MB.
_CHUNK = 2_000_000


class Bm25sEngine(Engine):
    """Builds and searches a bm25s index (method `atire` with Lucene's idf: the formula of retriv)."""

    name = "bm25s"
    # Never chosen by `auto`: `blocks` gives the same hits with less time, memory and disk.
    max_rows = 0

    def __init__(self, folder: Path) -> None:
        import bm25s

        self._model = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        self.num_rows = int(self._model.scores["num_docs"])

    @staticmethod
    def build(
        streams: TokenStreams, folder: Path, *, k1: float, b: float, statistics: CorpusStatistics | None = None
    ) -> None:
        """Index token streams into `folder`, with the statistics of the whole corpus if they are a shard."""
        import bm25s

        model = bm25s.BM25(k1=k1, b=b, method="atire", idf_method="lucene")
        postings = build_postings(streams)
        if statistics is None:
            idf = inverse_document_frequency(np.diff(postings.indptr), streams.num_texts)
            mean_length = postings.mean_length
        else:
            idf, mean_length = statistics.idf_of(streams.vocabulary), statistics.mean_length
        model.scores = {
            "data": _all_scores(postings, idf, length_norms(postings.lengths, mean_length, k1, b), k1),
            "indices": postings.rows,
            "indptr": postings.indptr,
            "num_docs": streams.num_texts,
        }
        model.nonoccurrence_array = None  # only the variants bm25l and bm25+ have one
        model.vocab_dict = {term: index for index, term in enumerate(streams.vocabulary)}
        model.save(folder, show_progress=False)

    def search(self, queries: Sequence[Sequence[str]], k: int, *, num_threads: int | None = None) -> Hits:
        """Add up the columns of every query's terms; see `Engine.search`."""
        return search_in_threads(lambda query: self._search(query, k), queries, num_threads)

    def _search(self, query: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        vocabulary = self._model.vocab_dict
        terms = [vocabulary[term] for term in query if term in vocabulary]
        if not terms:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores = self._model.get_scores_from_ids(terms)
        rows = np.flatnonzero(scores)
        if len(rows) > k:
            # Keep all rows with the k-th best score: `top_hits` breaks the ties.
            rows = rows[scores[rows] >= np.partition(scores[rows], -k)[-k]]
        return top_hits(rows, scores[rows], k)


def _all_scores(postings: Postings, idf: np.ndarray, norms: np.ndarray, k1: float) -> np.ndarray:
    """Return (P,) float32, score of every posting, from the `idf` of the V terms and the `norms` of the N rows."""
    scores = np.empty(len(postings.rows), dtype=np.float32)
    terms = np.repeat(np.arange(len(idf), dtype=np.int32), np.diff(postings.indptr))
    for start in range(0, len(scores), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        counts = postings.counts[chunk].astype(np.float64)
        scores[chunk] = posting_scores(idf[terms[chunk]], counts, norms[postings.rows[chunk]], k1)
    return scores
