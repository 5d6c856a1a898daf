"""The arithmetic of all engines: BM25 scores, the corpus statistics for them, postings, and the total order of hits.

    score = sum over the query's terms of  idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean length))
    idf   = ln(1 + (N - df + 0.5) / (df + 0.5))

The summands are computed in float64, rounded to float32 and added in the order of the query, so that two engines that
use these functions agree exactly. N, df and the mean length may be those of a larger corpus of which an index holds a
part (a shard): the shard then gives the same scores as an index of the whole corpus.

Hits are sorted by score descending, then by row ascending, and only scores above zero count. Libraries return ties in
any order, and at the cutoff drop arbitrary ones. The hits of every engine pass through here, so that a build is
reproducible and a sharded search equals an unsharded one.

Lucene, and with it tantivy and Elasticsearch, stores the length of a row in one byte: exact up to 40 terms, beyond
that rounded down by up to an eighth. Such an index finds candidates; their exact scores are computed here from the
terms, and `settled_hits` tells when no other row can be among the best.

Shape legend: N rows, V terms, P postings (pairs of a term and a row that holds it), Q terms of a query (repeats
included), D distinct ones, C candidates, H hits over all queries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from ..text.analysis import TokenStreams

# --- scores ----------------------------------------------------------------------------------------------------------

# Rows whose repeated terms are counted together: limits the memory of counting to a few dozen MB.
_CHUNK = 100_000


def inverse_document_frequency(frequencies: np.ndarray, num_rows: int) -> np.ndarray:
    """Return (V,) float64, Lucene's idf of terms from their document frequencies among N rows; never negative."""
    frequencies = np.asarray(frequencies, dtype=np.float64)
    return np.log1p((num_rows - frequencies + 0.5) / (frequencies + 0.5))


def relative_lengths(lengths: np.ndarray, mean_length: float) -> np.ndarray:
    """Return (N,) float64, lengths divided by their mean; 1 if no row has any term."""
    return lengths / np.float64(mean_length) if mean_length > 0 else np.ones(len(lengths))


def length_norms(lengths: np.ndarray, mean_length: float, k1: float, b: float) -> np.ndarray:
    """Return (N,) float64, k1 * (1 - b + b * length / mean length)."""
    return k1 * (1 - b + b * relative_lengths(lengths, mean_length))


def posting_scores(idf: np.ndarray | np.float64, counts: np.ndarray, norms: np.ndarray, k1: float) -> np.ndarray:
    """Return (P,) float32, the contribution of each posting to the score of its row.

    Args:
        idf: (P,) float64, idf of the posting's term; or a single value for all.
        counts: (P,) float64, occurrences of the term in the row, above zero.
        norms: (P,) float64, norm of the row's length.
        k1: BM25's k1.
    """
    return (idf * counts * (k1 + 1) / (counts + norms)).astype(np.float32)


def row_scores(counts: np.ndarray, order: Sequence[int], idf: np.ndarray, norms: np.ndarray, k1: float) -> np.ndarray:
    """Return (N,) float32, the scores of some rows for one query.

    Args:
        counts: (D, N) occurrences of the query's distinct terms in the rows.
        order: (Q,) the query as indices into D; a repeated term occurs repeatedly.
        idf: (D,) float64.
        norms: (N,) float64, norms of the rows' lengths.
        k1: BM25's k1.
    """
    scores = np.zeros(counts.shape[1], dtype=np.float32)
    added = {term: _added(counts[term].astype(np.float64), idf[term], norms, k1) for term in set(order)}
    for term in order:
        scores += added[term]
    return scores


def _added(counts: np.ndarray, idf: np.float64, norms: np.ndarray, k1: float) -> np.ndarray:
    """Return the contribution of one term to every row; zero where it does not occur."""
    found = np.flatnonzero(counts)
    added = np.zeros(len(counts), dtype=np.float32)
    added[found] = posting_scores(idf, counts[found], norms[found], k1)
    return added


def hash_terms(terms: Iterable[str]) -> np.ndarray:
    """Return the hash of every term, (V,) uint64; two of a hundred million share one with probability 3e-4."""
    return np.fromiter((xxhash.xxh3_64_intdigest(term.encode("utf-8", "surrogatepass")) for term in terms), np.uint64)


def document_frequencies(streams: TokenStreams) -> np.ndarray:
    """Return (V,) int64, the document frequency of each term of the vocabulary."""
    from scipy.sparse import csr_matrix

    size = len(streams.vocabulary)
    frequencies = np.zeros(size, dtype=np.int64)
    for start in range(0, streams.num_texts, _CHUNK):
        offsets = streams.offsets[start : start + _CHUNK + 1]
        ids = streams.ids[offsets[0] : offsets[-1]].copy()  # summing sorts in place
        # Only the positions matter: a sum that overflows is still an entry.
        rows = csr_matrix((np.ones(len(ids), np.int8), ids, offsets - offsets[0]), shape=(len(offsets) - 1, size))
        rows.sum_duplicates()
        frequencies += np.bincount(rows.indices, minlength=size)
    return frequencies


@dataclass(frozen=True)
class CorpusStatistics:
    """The corpus statistics for BM25. Those of all shards are merged and then given to the index of every shard.

    Attributes:
        num_rows: N.
        num_terms: Number of terms over all rows, with repetitions.
        hashes: (V,) uint64, hashes of the distinct terms, ascending.
        frequencies: (V,) int64, document frequency of each term.
    """

    num_rows: int
    num_terms: int
    hashes: np.ndarray
    frequencies: np.ndarray

    @property
    def mean_length(self) -> np.float64:
        """Return the mean number of terms in a row."""
        return np.float64(self.num_terms / self.num_rows if self.num_rows else 0.0)

    def frequencies_of(self, terms: Sequence[str]) -> np.ndarray:
        """Return (T,) int64, the document frequency of each term; 0 for an unknown one."""
        return self.frequencies_of_hashes(hash_terms(terms))

    def idf_of(self, terms: Sequence[str]) -> np.ndarray:
        """Return (T,) float64, the idf of terms of the corpus.

        Raises:
            ValueError: If the corpus does not have a term, so the statistics are not those of all shards.
        """
        frequencies = self.frequencies_of(terms)
        if len(frequencies) and not frequencies.all():
            unknown = terms[int(np.argmin(frequencies))]
            raise ValueError(
                f"The statistics of the corpus lack the term {unknown!r}, which a row has: merge those of all shards."
            )
        return inverse_document_frequency(frequencies, self.num_rows)

    def checksum(self) -> str:
        """Return a checksum that identifies the statistics: with other statistics it is another index."""
        digest = xxhash.xxh3_128(f"{self.num_rows} {self.num_terms} ".encode())
        digest.update(np.ascontiguousarray(self.hashes, dtype="<u8").data)
        digest.update(np.ascontiguousarray(self.frequencies, dtype="<i8").data)
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write one file (`.npz`)."""
        np.savez(path, size=[self.num_rows, self.num_terms], hashes=self.hashes, frequencies=self.frequencies)

    @classmethod
    def load(cls, path: Path) -> CorpusStatistics:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            num_rows, num_terms = arrays["size"].tolist()
            return cls(num_rows, num_terms, arrays["hashes"], arrays["frequencies"])

    @classmethod
    def of(cls, streams: TokenStreams) -> CorpusStatistics:
        """Compute the statistics of some texts."""
        hashes, frequencies = hash_terms(streams.vocabulary), document_frequencies(streams)
        order = np.argsort(hashes)
        return cls(streams.num_texts, len(streams.ids), hashes[order], frequencies[order])

    @classmethod
    def merged(cls, parts: Sequence[CorpusStatistics]) -> CorpusStatistics:
        """Merge the statistics of the shards of a corpus, in any order."""
        hashes, places = np.unique(np.concatenate([part.hashes for part in parts]), return_inverse=True)
        frequencies = np.zeros(len(hashes), dtype=np.int64)
        np.add.at(frequencies, places, np.concatenate([part.frequencies for part in parts]))
        rows, terms = sum(part.num_rows for part in parts), sum(part.num_terms for part in parts)
        return cls(rows, terms, hashes, frequencies)

    def frequencies_of_hashes(self, hashes: np.ndarray) -> np.ndarray:
        """Return (T,) int64, the document frequency of each term, given by its hash (`hash_terms`)."""
        if not len(self.hashes):
            return np.zeros(len(hashes), dtype=np.int64)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, self.frequencies[places], 0)


# --- postings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Postings:
    """Postings of N rows.

    Attributes:
        indptr: (V + 1,) int64; the postings of term t are `rows[indptr[t]:indptr[t + 1]]`.
        rows: (P,) int32, ascending within a term.
        counts: (P,) int32, occurrences of the term in the row.
        lengths: (N,) int32, number of terms in a row, with repetitions.
    """

    indptr: np.ndarray
    rows: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray

    @property
    def mean_length(self) -> float:
        """Return the mean of the lengths; 0 if there is no row."""
        return float(self.lengths.mean()) if len(self.lengths) else 0.0


def build_postings(streams: TokenStreams) -> Postings:
    """Invert token streams: from the terms of every row to the rows of every term."""
    from scipy.sparse import csr_matrix

    shape = (streams.num_texts, len(streams.vocabulary))
    ones = np.ones(len(streams.ids), dtype=np.int32)
    by_term = csr_matrix((ones, streams.ids, streams.offsets), shape=shape).tocsc()
    by_term.sum_duplicates()
    return Postings(
        indptr=by_term.indptr.astype(np.int64),
        rows=by_term.indices.astype(np.int32, copy=False),
        counts=by_term.data,
        lengths=np.diff(streams.offsets).astype(np.int32),
    )


# --- hits ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hits:
    """Hits of Q queries in flat arrays, in the total order within each query.

    Attributes:
        offsets: (Q + 1,) int64; the hits of query i are `rows[offsets[i]:offsets[i + 1]]`.
        rows: (H,) int64, row numbers.
        scores: (H,) float32, above zero.
    """

    offsets: np.ndarray
    rows: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start, stop in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield self.rows[start:stop], self.scores[start:stop]

    def ranks(self) -> np.ndarray:
        """Return (H,) int32, 0 for the best hit of a query."""
        return (np.arange(len(self.rows)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))).astype(np.int32)

    @classmethod
    def from_lists(cls, rows: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> Hits:
        """Concatenate the sorted hits of every query."""
        lengths = np.fromiter((len(part) for part in rows), dtype=np.int64, count=len(rows))
        return cls(
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            rows=np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64, copy=False),
            scores=np.concatenate([np.empty(0, np.float32), *scores]).astype(np.float32, copy=False),
        )


def top_hits(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first k hits in the total order.

    Args:
        rows: Distinct candidate rows in any order. They must include every row whose score is at least the k-th best.
        scores: Their scores.
        k: Number of hits to keep.
    """
    positive = scores > 0
    if not positive.all():
        rows, scores = rows[positive], scores[positive]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


# --- exact hits of an index with rounded lengths ---------------------------------------------------------------------

# Covers the rounding errors of sums of float32 numbers in any order.
_ROUNDING = 1e-5


def score_slack(
    lengths: np.ndarray, mean_length: float, k1: float, b: float, own_mean: float, own_k1: float, own_b: float
) -> float:
    """Return the largest factor by which an exact score can exceed the index's own score.

    The quotient of the two saturations tf * (k1 + 1) / (tf + norm) is monotone in tf, so its maximum over a row is at
    tf = 1 or at tf = length.

    Args:
        lengths: The distinct lengths of the rows, at most N.
        mean_length: Mean length in the exact scores.
        k1: k1 of the exact scores.
        b: b of the exact scores.
        own_mean: Mean length in the index's scores.
        own_k1: The index's k1.
        own_b: The index's b.
    """
    lengths = np.unique(lengths[lengths > 0]).astype(np.float64)
    if not len(lengths):
        return 1.0
    norms, own_norms = length_norms(lengths, mean_length, k1, b), length_norms(lengths, own_mean, own_k1, own_b)
    factors = [(k1 + 1) / (own_k1 + 1) * (counts + own_norms) / (counts + norms) for counts in (1.0, lengths)]
    return float(np.max(factors)) * (1 + _ROUNDING)


def settled_hits(
    rows: np.ndarray, exact: np.ndarray, worst_own: float, k: int, slack: float, *, complete: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the first k hits in the total order, or None if a row outside the candidates could be among them.

    Args:
        rows: (C,) candidates.
        exact: (C,) float32, their exact scores.
        worst_own: The lowest of the index's own scores of the candidates; no other row has a higher one.
        k: Number of hits.
        slack: See `score_slack`.
        complete: Whether every row that shares a term with the query is a candidate.
    """
    best_rows, best_scores = top_hits(rows, exact, k)
    # Strictly greater: a row outside with the same score could have a lower row number.
    if complete or (len(best_rows) == k and best_scores[-1] > slack * worst_own):
        return best_rows, best_scores
    return None


# --- threads ---------------------------------------------------------------------------------------------------------


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def search_in_threads(
    search: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]],
    queries: Sequence[Sequence[str]],
    num_threads: int | None,
) -> Hits:
    """Search every query separately; each thread searches a part of the queries.

    Args:
        search: Function from the terms of a query to rows and scores of its hits, in the total order.
        queries: Terms of every query.
        num_threads: Threads; all cores by default. With 1 no thread is started.
    """
    threads = min(num_threads or available_cores(), max(1, len(queries)))
    if threads == 1:
        found = [search(query) for query in queries]
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(search, queries))
    return Hits.from_lists([rows for rows, _ in found], [scores for _, scores in found])
