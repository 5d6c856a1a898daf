"""BM25 on disk by tantivy, with exact scores.

tantivy writes its index with bounded memory and reads it through memory maps. It finds candidates. Their scores are
computed here from the rows' terms, which are stored beside the index as flat arrays, because tantivy rounds lengths
and has fixed k1 and b (`hf_distill.corpus.search.scoring`). So its hits are exactly those of the engine `bm25s`, for
any k1 and b, and also for the statistics of a larger corpus.

Shape legend: N rows, V terms of the vocabulary, T terms over all rows, C candidates, D distinct terms of a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_distill._optional import require

from ...text.analysis import TokenStreams
from ..retrieval import Engine
from ..scoring import (
    CorpusStatistics,
    Hits,
    document_frequencies,
    hash_terms,
    inverse_document_frequency,
    length_norms,
    row_scores,
    score_slack,
    search_in_threads,
    settled_hits,
)

# The constants that tantivy always uses.
_OWN_K1, _OWN_B = 1.2, 0.75
# tantivy computes idf in float32 as ln(1 + x), which loses precision if x is tiny, for terms that occur in nearly
# every row. The error of a posting is at most this much, times the term's boost.
_IDF_ERROR = (_OWN_K1 + 1) * 2.0**-22
# Memory of the writer; when it is full, a segment is written to disk.
_HEAP_BYTES = 128_000_000
_BATCH = 20_000
_EMPTY = np.empty(0, np.int64), np.empty(0, np.float32)


class TantivyEngine(Engine):
    """Builds and searches a tantivy index."""

    name = "tantivy"
    # Never chosen by `auto`: `blocks` gives the same hits in a fraction of the time, at any size.
    max_rows = 0

    def __init__(self, folder: Path) -> None:
        self._tantivy = _library()
        index = self._tantivy.Index.open(str(folder / "tantivy"))
        # Nothing writes to the index any more, and a thread that watches it would not survive a fork.
        index.config_reader(reload_policy="manual")
        self._schema, self._searcher = index.schema, index.searcher()
        self._terms, self._offsets = _load(folder, "terms"), _load(folder, "offsets")
        self._hashes, self._ids = _load(folder, "hashes"), _load(folder, "ids")
        self._idf, self._boosts = _load(folder, "idf"), _load(folder, "boosts")
        self._k1, self._b, self._mean_length, self._slack = np.load(folder / "parameters.npy").tolist()
        self.num_rows = len(self._offsets) - 1

    @staticmethod
    def check() -> None:
        """Raise ImportError with the install command if tantivy is not installed."""
        _library()

    @staticmethod
    def build(
        streams: TokenStreams, folder: Path, *, k1: float, b: float, statistics: CorpusStatistics | None = None
    ) -> None:
        """Index token streams into `folder`, with the statistics of the whole corpus if they are a shard."""
        frequencies = document_frequencies(streams)
        own_idf = inverse_document_frequency(frequencies, streams.num_texts)
        own_mean = len(streams.ids) / max(1, streams.num_texts)
        idf = own_idf if statistics is None else statistics.idf_of(streams.vocabulary)
        mean_length = own_mean if statistics is None else statistics.mean_length
        hashes = hash_terms(streams.vocabulary)
        order = np.argsort(hashes)
        lengths = np.unique(np.diff(streams.offsets))
        slack = score_slack(lengths, mean_length, k1, b, own_mean, _OWN_K1, _OWN_B)
        arrays = {
            "terms": streams.ids,
            "offsets": streams.offsets,
            "hashes": hashes[order],
            "ids": order.astype(np.int32),
            "idf": idf,
            "boosts": idf / own_idf,
            "parameters": np.array([k1, b, mean_length, slack]),
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        _write_index(streams, folder / "tantivy")

    def search(self, queries: Sequence[Sequence[str]], k: int, *, num_threads: int | None = None) -> Hits:
        """Let tantivy find candidates, and compute their exact scores; see `Engine.search`."""
        return search_in_threads(lambda query: self._search(query, k), queries, num_threads)

    def _search(self, query: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        terms = self._known_terms(query)
        if not len(terms):
            return _EMPTY
        search = self._query(terms)
        error = _IDF_ERROR * float(self._boosts[terms].sum())
        limit = k + k // 4 + 16
        while True:
            limit = min(limit, self.num_rows)
            # Without the count, tantivy can skip blocks of rows that cannot be among the best.
            found = self._searcher.search(search, limit=limit, count=False).hits
            rows = np.array(self._searcher.fast_field_values("row", [place for _, place in found]), dtype=np.int64)
            complete = len(found) < limit or limit == self.num_rows
            exact = self._scores(rows, terms)
            settled = settled_hits(rows, exact, found[-1][0] + error, k, self._slack, complete=complete)
            if settled is not None:
                return settled
            limit *= 2

    def _known_terms(self, query: Sequence[str]) -> np.ndarray:
        """Return the ids of the query's known terms, in order and with repetitions."""
        if not len(query) or not len(self._hashes):
            return np.empty(0, np.int32)
        hashes = hash_terms(query)
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return self._ids[places[self._hashes[places] == hashes]]

    def _query(self, terms: np.ndarray) -> Any:
        """Return a query for any of the terms; a term is boosted if its idf comes from a larger corpus."""
        query, should = self._tantivy.Query, self._tantivy.Occur.Should
        clauses = []
        for term in terms.tolist():
            clause = query.term_query(self._schema, "terms", str(term), index_option="freq")
            boost = float(self._boosts[term])
            clauses.append((should, clause if boost == 1.0 else query.boost_query(clause, boost)))
        return query.boolean_query(clauses)

    def _scores(self, rows: np.ndarray, terms: np.ndarray) -> np.ndarray:
        """Return (C,) float32, the exact scores of some rows."""
        starts, stops = self._offsets[rows], self._offsets[rows + 1]
        lengths = stops - starts
        before = np.cumsum(lengths) - lengths
        flat = self._terms[np.arange(lengths.sum()) + np.repeat(starts - before, lengths)]
        owners = np.repeat(np.arange(len(rows)), lengths)
        distinct, order = np.unique(terms, return_inverse=True)
        counts = np.stack([np.bincount(owners[flat == term], minlength=len(rows)) for term in distinct])
        norms = length_norms(lengths, self._mean_length, self._k1, self._b)
        return row_scores(counts, order.tolist(), self._idf[distinct], norms, self._k1)


def _library() -> Any:
    return require("tantivy", extra="tantivy", needed_by="`--engine tantivy`")


def _write_index(streams: TokenStreams, folder: Path) -> None:
    """Write rows as term numbers separated by blanks, so that no term is too long and none is analysed again."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tantivy = _library()
    folder.mkdir()
    schema = tantivy.SchemaBuilder()
    schema.add_text_field("terms", tokenizer_name="numbers", index_option="freq")
    # tantivy-py's writer crashes on an unsigned field.
    schema.add_integer_field("row", fast=True)
    index = tantivy.Index(schema.build(), path=str(folder))
    index.register_tokenizer("numbers", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
    writer = index.writer(heap_size=_HEAP_BYTES, num_threads=1)
    for start in range(0, streams.num_texts, _BATCH):
        offsets = streams.offsets[start : start + _BATCH + 1]
        numbers = pa.array(streams.ids[offsets[0] : offsets[-1]]).cast(pa.string())
        rows = pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), numbers)
        for row, text in enumerate(pc.binary_join(rows, " ").to_pylist(), start):
            document = tantivy.Document()
            document.add_integer("row", row)
            document.add_text("terms", text)
            writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    for lock in folder.glob("*.lock"):
        lock.unlink()


def _load(folder: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
