"""BM25 on the score matrix of bm25s.

bm25s keeps, for every term, the rows that hold it with their finished scores; a query is a sum of columns. Index and
files are bm25s's own (`bm25s.BM25.load` opens them). Two things are done here instead of by the library: the matrix
is filled from postings (the library's loop over Python lists is several times slower), and the columns are summed
and ranked by a kernel that owns the order of ties, needs no score for every row, releases the GIL and is compiled
once per machine, so that threads replace the parallel region that breaks forked workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...text.analysis import TokenStreams
from ..scoring import (
    CorpusStatistics,
    Hits,
    Postings,
    available_cores,
    build_postings,
    inverse_document_frequency,
    length_norms,
    posting_scores,
)

# Postings scored at a time while the index is built: bounds the float64 temporaries to a few dozen MB.
_CHUNK = 2_000_000
# Rows scored together: a block of accumulators stays in the second-level cache.
_BLOCK = 131_072


class Bm25sEngine:
    """Builds and searches a bm25s index (method `atire` with Lucene's idf: the formula of retriv)."""

    name = "bm25s"
    # Hits and speed of search are those of `blocks`, which beyond this needs less memory to build and half the disk.
    max_rows = 1_000_000

    def __init__(self, folder: Path) -> None:
        """Opens a saved index, memory-mapped.

        Args:
            folder: Where `build` saved it.
        """
        import bm25s

        self._model = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        scores = self._model.scores
        self._data, self._rows = np.asarray(scores["data"]), np.asarray(scores["indices"])
        self._indptr = np.asarray(scores["indptr"])
        self.num_rows = int(scores["num_docs"])

    @staticmethod
    def check() -> None:
        """Nothing to check: bm25s is always installed."""

    @staticmethod
    def version() -> str:
        """Version of the library."""
        from importlib.metadata import version

        return version("bm25s")

    @staticmethod
    def build(
        streams: TokenStreams, folder: Path, *, k1: float, b: float, statistics: CorpusStatistics | None = None
    ) -> None:
        """Indexes token streams into `folder`, with the statistics of the whole corpus where they are a shard."""
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
        """The k best rows of every query, in the total order.

        Args:
            queries: Terms of every query; unknown terms are ignored, repeated ones count repeatedly.
            k: Hits per query; a query with fewer matching rows has fewer.
            num_threads: Threads; all cores by default.
        """
        vocabulary = self._model.vocab_dict
        ids = [[vocabulary[term] for term in query if term in vocabulary] for query in queries]
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        flat = np.fromiter((term for query in ids for term in query), dtype=np.int64, count=int(offsets[-1]))
        threads = min(num_threads or available_cores(), max(1, len(ids)))
        parts = np.linspace(0, len(ids), threads + 1).astype(np.int64)

        def part(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            span = offsets[parts[index] : parts[index + 1] + 1]
            k_used = min(k, max(1, self.num_rows))
            return _kernel()(self._data, self._rows, self._indptr, flat, span, k_used, self.num_rows, _BLOCK)

        if threads == 1:
            found = [part(0)]
        else:
            _kernel()
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(part, range(threads)))
        counts = np.concatenate([counts for counts, _, _ in found])
        return Hits(
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            rows=np.concatenate([rows for _, rows, _ in found]),
            scores=np.concatenate([scores for _, _, scores in found]),
        )


def _all_scores(postings: Postings, idf: np.ndarray, norms: np.ndarray, k1: float) -> np.ndarray:
    """(P,) float32, score of every posting; `idf` is that of the V terms, `norms` that of the N rows."""
    scores = np.empty(len(postings.rows), dtype=np.float32)
    terms = np.repeat(np.arange(len(idf), dtype=np.int32), np.diff(postings.indptr))
    for start in range(0, len(scores), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        counts = postings.counts[chunk].astype(np.float64)
        scores[chunk] = posting_scores(idf[terms[chunk]], counts, norms[postings.rows[chunk]], k1)
    return scores


@lru_cache(maxsize=1)
def _kernel() -> Any:
    """The compiled search kernel; numba is imported on first use."""
    from ._bm25s_kernel import search_columns

    return search_columns
