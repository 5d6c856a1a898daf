"""BM25 by the library bm25s: its score matrix, its files (`bm25s.BM25.load` opens them), its sums.

bm25s keeps, for every term, the rows that hold it with their finished scores; a query is a sum of columns. Two things
are done here instead of by the library: the matrix is filled from postings, which is several times faster than its
loop over Python lists, and the sums are ranked in the one order of hits. The engine `blocks` gives the same hits, to
the last bit, in a fraction of the time of a large corpus.
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

# Postings scored at a time while the index is built: bounds the float64 temporaries to a few dozen MB.
_CHUNK = 2_000_000


class Bm25sEngine(Engine):
    """Builds and searches a bm25s index (method `atire` with Lucene's idf: the formula of retriv)."""

    name = "bm25s"
    # Never taken by `auto`: `blocks` has the same hits in less time, memory and disk.
    max_rows = 0

    def __init__(self, folder: Path) -> None:
        import bm25s

        self._model = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        self.num_rows = int(self._model.scores["num_docs"])

    @staticmethod
    def build(
        streams: TokenStreams, folder: Path, *, k1: float, b: float, statistics: CorpusStatistics | None = None
    ) -> None:
        """Index token streams into `folder`, with the statistics of the whole corpus where they are a shard."""
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
            # All rows of the k-th best score: `top_hits` decides among equal ones.
            rows = rows[scores[rows] >= np.partition(scores[rows], -k)[-k]]
        return top_hits(rows, scores[rows], k)


def _all_scores(postings: Postings, idf: np.ndarray, norms: np.ndarray, k1: float) -> np.ndarray:
    """Return (P,) float32, score of every posting; `idf` is that of the V terms, `norms` that of the N rows."""
    scores = np.empty(len(postings.rows), dtype=np.float32)
    terms = np.repeat(np.arange(len(idf), dtype=np.int32), np.diff(postings.indptr))
    for start in range(0, len(scores), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        counts = postings.counts[chunk].astype(np.float64)
        scores[chunk] = posting_scores(idf[terms[chunk]], counts, norms[postings.rows[chunk]], k1)
    return scores
