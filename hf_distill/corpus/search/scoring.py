"""BM25 as every engine here computes it, and the statistics of the whole corpus that it needs.

    score = sum over the query's terms of  idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean length))
    idf   = ln(1 + (N - df + 0.5) / (df + 0.5))

The terms of the sum are float64 rounded to float32 and added in the order of the query, so that two engines that use
these functions agree in the last bit. N, df and the mean length may be those of a larger corpus of which an index
holds a part (a shard): then the shard scores as the whole would.

Shape legend: N rows, V terms, P postings, Q terms of a query (repeats included), D distinct ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from ..text.analysis import TokenStreams

# Rows whose repeated terms are looked for together: bounds the memory of counting to some dozen MB.
_CHUNK = 100_000


def inverse_document_frequency(frequencies: np.ndarray, num_rows: int) -> np.ndarray:
    """(V,) float64, Lucene's idf of terms that `frequencies` of the N rows hold; never negative."""
    frequencies = np.asarray(frequencies, dtype=np.float64)
    return np.log1p((num_rows - frequencies + 0.5) / (frequencies + 0.5))


def relative_lengths(lengths: np.ndarray, mean_length: float) -> np.ndarray:
    """(N,) float64, lengths over their mean; 1 where no row has any term."""
    return lengths / np.float64(mean_length) if mean_length > 0 else np.ones(len(lengths))


def length_norms(lengths: np.ndarray, mean_length: float, k1: float, b: float) -> np.ndarray:
    """(N,) float64, k1 * (1 - b + b * length / mean length)."""
    return k1 * (1 - b + b * relative_lengths(lengths, mean_length))


def posting_scores(idf: np.ndarray | np.float64, counts: np.ndarray, norms: np.ndarray, k1: float) -> np.ndarray:
    """(P,) float32, what each posting adds to the score of its row.

    Args:
        idf: (P,) float64, of the posting's term; or one for all.
        counts: (P,) float64, occurrences of the term in the row, above zero.
        norms: (P,) float64, of the row's length.
        k1: BM25's k1.
    """
    return (idf * counts * (k1 + 1) / (counts + norms)).astype(np.float32)


def row_scores(counts: np.ndarray, order: Sequence[int], idf: np.ndarray, norms: np.ndarray, k1: float) -> np.ndarray:
    """(N,) float32, scores of some rows for one query.

    Args:
        counts: (D, N) occurrences of the query's distinct terms in the rows.
        order: (Q,) the query: positions in D, a repeated term repeatedly.
        idf: (D,) float64.
        norms: (N,) float64, of the rows' lengths.
        k1: BM25's k1.
    """
    scores = np.zeros(counts.shape[1], dtype=np.float32)
    added = {term: _added(counts[term].astype(np.float64), idf[term], norms, k1) for term in set(order)}
    for term in order:
        scores += added[term]
    return scores


def _added(counts: np.ndarray, idf: np.float64, norms: np.ndarray, k1: float) -> np.ndarray:
    """Return the score that one term adds to every row; zero where it does not occur."""
    found = np.flatnonzero(counts)
    added = np.zeros(len(counts), dtype=np.float32)
    added[found] = posting_scores(idf, counts[found], norms[found], k1)
    return added


def hash_terms(terms: Iterable[str]) -> np.ndarray:
    """(V,) uint64. At a hundred million terms two share a hash with a probability of 3e-4."""
    return np.fromiter((xxhash.xxh3_64_intdigest(term.encode("utf-8", "surrogatepass")) for term in terms), np.uint64)


def document_frequencies(streams: TokenStreams) -> np.ndarray:
    """(V,) int64, in how many rows each term of the vocabulary occurs."""
    from scipy.sparse import csr_matrix

    size = len(streams.vocabulary)
    frequencies = np.zeros(size, dtype=np.int64)
    for start in range(0, streams.num_texts, _CHUNK):
        offsets = streams.offsets[start : start + _CHUNK + 1]
        ids = streams.ids[offsets[0] : offsets[-1]].copy()  # summing sorts in place
        # Only the places matter: a sum that wraps around is still there.
        rows = csr_matrix((np.ones(len(ids), np.int8), ids, offsets - offsets[0]), shape=(len(offsets) - 1, size))
        rows.sum_duplicates()
        frequencies += np.bincount(rows.indices, minlength=size)
    return frequencies


@dataclass(frozen=True)
class CorpusStatistics:
    """The statistics of a corpus that BM25 needs. Those of shards are merged, and given to the index of every shard.

    Attributes:
        num_rows: N.
        num_terms: Terms over all rows, repeats counted.
        hashes: (V,) uint64, ascending hashes of the different terms.
        frequencies: (V,) int64, rows that hold the term.
    """

    num_rows: int
    num_terms: int
    hashes: np.ndarray
    frequencies: np.ndarray

    @property
    def mean_length(self) -> np.float64:
        """Mean number of terms of a row."""
        return np.float64(self.num_terms / self.num_rows if self.num_rows else 0.0)

    def frequencies_of(self, terms: Sequence[str]) -> np.ndarray:
        """(T,) int64, in how many rows each term occurs; 0 for an unknown one."""
        return self.frequencies_of_hashes(hash_terms(terms))

    def idf_of(self, terms: Sequence[str]) -> np.ndarray:
        """(T,) float64, idf of terms of the corpus.

        Raises:
            ValueError: If the corpus has no such term: the statistics are not those of all shards.
        """
        frequencies = self.frequencies_of(terms)
        if len(frequencies) and not frequencies.all():
            unknown = terms[int(np.argmin(frequencies))]
            raise ValueError(
                f"The statistics of the corpus lack the term {unknown!r}, which a row has: merge those of all shards."
            )
        return inverse_document_frequency(frequencies, self.num_rows)

    def checksum(self) -> str:
        """Identifies the statistics: an index that was made with others is another index."""
        digest = xxhash.xxh3_128(f"{self.num_rows} {self.num_terms} ".encode())
        digest.update(np.ascontiguousarray(self.hashes, dtype="<u8").data)
        digest.update(np.ascontiguousarray(self.frequencies, dtype="<i8").data)
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Writes one file (`.npz`)."""
        np.savez(path, size=[self.num_rows, self.num_terms], hashes=self.hashes, frequencies=self.frequencies)

    @classmethod
    def load(cls, path: Path) -> CorpusStatistics:
        """Reads what `save` wrote."""
        with np.load(path) as arrays:
            num_rows, num_terms = arrays["size"].tolist()
            return cls(num_rows, num_terms, arrays["hashes"], arrays["frequencies"])

    @classmethod
    def of(cls, streams: TokenStreams) -> CorpusStatistics:
        """Those of some texts."""
        hashes, frequencies = hash_terms(streams.vocabulary), document_frequencies(streams)
        order = np.argsort(hashes)
        return cls(streams.num_texts, len(streams.ids), hashes[order], frequencies[order])

    @classmethod
    def merged(cls, parts: Sequence[CorpusStatistics]) -> CorpusStatistics:
        """Those of a corpus, from those of its shards, in any order."""
        hashes, places = np.unique(np.concatenate([part.hashes for part in parts]), return_inverse=True)
        frequencies = np.zeros(len(hashes), dtype=np.int64)
        np.add.at(frequencies, places, np.concatenate([part.frequencies for part in parts]))
        rows, terms = sum(part.num_rows for part in parts), sum(part.num_terms for part in parts)
        return cls(rows, terms, hashes, frequencies)

    def frequencies_of_hashes(self, hashes: np.ndarray) -> np.ndarray:
        """(T,) int64, in how many rows each term, given by its hash (`hash_terms`), occurs."""
        if not len(self.hashes):
            return np.zeros(len(hashes), dtype=np.int64)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, self.frequencies[places], 0)
