"""BM25 on a user's own Elasticsearch or OpenSearch server, with exact scores.

A server's Lucene rounds lengths, ignores rows without terms in its statistics, and depending on its version multiplies
scores by k1 + 1 or not. So the server only finds the candidates, using its statistics over all of its shards, ordered
by score and then by row, and returns their terms; the exact scores are computed here
(`hf_distill.corpus.search.scoring`). The hits are exactly those of the engine `bm25s`.

Shape legend: N rows, C candidates, D distinct terms of a query.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datasets.utils import logging, tqdm

from ....storage.files import read_json, write_json
from ...text.analysis import TokenStreams
from ..retrieval import Engine
from ..scoring import (
    CorpusStatistics,
    Hits,
    inverse_document_frequency,
    length_norms,
    row_scores,
    score_slack,
    settled_hits,
)
from .search_server import FLAG, SearchServer, check

logger = logging.get_logger(__name__)

# Version of the mapping and of the stored fields: increase it when either changes.
_FORMAT = 1
# Names of our notes in the index: whether it has all rows, and which process fills it.
_COMPLETE, _BUILDER = "hf_distill_complete", "hf_distill_builder"
_ROWS_PER_CALL = 5_000
# Maximum hits per search of a server with the default setting (index.max_result_window).
_PAGE = 10_000
# Hits of all searches in one request: limits the memory of an answer.
_HITS_PER_CALL = 50_000
# Lucene rounds a length down by less than an eighth, so its score of a row exceeds the exact one by less than that.
_LEAST_QUOTIENT = 7 / 8
_EMPTY = np.empty(0, np.int64), np.empty(0, np.float32)


@dataclass(frozen=True)
class _Where:
    """The facts about an index on a server that are stored in its local folder.

    Attributes:
        url: Address of the server.
        index: Name of the index.
        k1: BM25's k1.
        b: BM25's b.
        filled_rows: Number of rows with at least one term: those that Lucene counts.
        slack: See `score_slack`, for scores of the server.
    """

    url: str
    index: str
    k1: float
    b: float
    filled_rows: int
    slack: float


class ElasticsearchEngine(Engine):
    """Builds and searches an index on a search server; the folder stores its address and its statistics."""

    name = "elasticsearch"
    # Never chosen by `auto`: it needs an address.
    max_rows = 0

    def __init__(self, folder: Path) -> None:
        """Open an index from the address in `folder`, written by `build`; the first search contacts the server."""
        self._where = _Where(**read_json(folder / "server.json"))
        self._server = SearchServer(self._where.url, self._where.index)
        self._own = CorpusStatistics.load(folder / "own_statistics.npz")
        given = folder / "statistics.npz"
        self._statistics = CorpusStatistics.load(given) if given.is_file() else self._own
        self.num_rows = self._own.num_rows

    @staticmethod
    def check() -> None:
        """Raise ImportError with the install command if `requests` is not installed."""
        check()

    @classmethod
    def version(cls) -> str:
        """Return the version of the stored fields: the hits do not depend on the server's own version."""
        return f"rest-{_FORMAT}"

    @staticmethod
    def build(
        streams: TokenStreams,
        folder: Path,
        *,
        k1: float,
        b: float,
        statistics: CorpusStatistics | None = None,
        url: str | None = None,
    ) -> None:
        """Index token streams on a server; an existing complete index of the same streams is reused.

        Args:
            streams: The streams to index.
            folder: Local folder for the facts about the index.
            k1: BM25's k1.
            b: BM25's b.
            statistics: Statistics of the whole corpus if the streams are a shard of it.
            url: Address of the server.

        Raises:
            ValueError: If no address is given.
            ConnectionError: If the server does not answer.
            RuntimeError: If the server refuses rows, its scores are not BM25's, or it has a foreign index of the same
                name.
        """
        if url is None:
            raise ValueError(f"`--engine elasticsearch` needs the address of a server: `{FLAG}` https://host:9200.")
        key = xxhash.xxh3_64_hexdigest(f"{_FORMAT} {streams.checksum()} {k1} {b}".encode())
        server = SearchServer(url, f"hf_distill-{key}")
        _fill(server, streams, k1, b)
        own = CorpusStatistics.of(streams)
        lengths = np.diff(streams.offsets)
        filled_rows = int((lengths > 0).sum())
        own_mean = len(streams.ids) / max(1, filled_rows)
        mean_length = own.mean_length if statistics is None else statistics.mean_length
        slack = score_slack(np.unique(lengths), mean_length, k1, b, own_mean, k1, b)
        where = _Where(server.url, server.index, k1, b, filled_rows, slack)
        where = _Where(**{**asdict(where), "slack": slack * _probe(server, streams, own, where)})
        folder.mkdir(parents=True, exist_ok=True)
        own.save(folder / "own_statistics.npz")
        if statistics is not None:
            statistics.save(folder / "statistics.npz")
        write_json(folder / "server.json", asdict(where))

    @staticmethod
    def lost(folder: Path, *, url: str | None = None) -> str | None:
        """Return the reason why the index of a folder cannot be searched at an address; `None` if it can.

        Args:
            folder: Local folder with the facts about the index.
            url: Address of the server.

        Raises:
            ConnectionError: If the server does not answer.
        """
        where, rows = _Where(**read_json(folder / "server.json")), CorpusStatistics.load(folder / "own_statistics.npz")
        server = SearchServer(where.url if url is None else url, where.index)
        if server.url != where.url:
            return f"it is on {where.url!r}, not on {server.url!r}"
        if not (server.describe() or {}).get(_COMPLETE) or server.count() != rows.num_rows:
            return f"the server {where.url!r} has no complete index {where.index!r} any more"
        return None

    def search(self, queries: Sequence[Sequence[str]], k: int, *, num_threads: int | None = None) -> Hits:
        """Let the server find candidates, and score them exactly; `num_threads` is ignored (see `Engine.search`)."""
        found = [_EMPTY] * len(queries)
        open_searches = [_Search(place, self._known(query)) for place, query in enumerate(queries)]
        open_searches = [search for search in open_searches if search.terms]
        size = min(k + k // 4 + 16, _PAGE)
        while open_searches:
            unsettled = []
            for part in _parts(open_searches, max(1, _HITS_PER_CALL // size)):
                pages = self._server.search([self._body(search, size) for search in part])
                for search, page in zip(part, pages, strict=True):
                    search.add(page)
                    settled = self._settle(search, k, complete=len(page) < size)
                    if settled is None:
                        unsettled.append(search)
                    else:
                        found[search.place] = settled
            open_searches, size = unsettled, min(2 * size, _PAGE)
        return Hits.from_lists([rows for rows, _ in found], [scores for _, scores in found])

    def _known(self, query: Sequence[str]) -> list[str]:
        return [term for term, rows in zip(query, self._own.frequencies_of(query), strict=True) if rows]

    def _body(self, search: _Search, size: int) -> dict[str, Any]:
        """Return the request for the next page, in which the query's terms have the weights of the exact scores."""
        distinct = search.distinct
        own_idf = inverse_document_frequency(self._own.frequencies_of(distinct), self._where.filled_rows)
        weights = self._statistics.idf_of(distinct) / own_idf * [search.terms.count(term) for term in distinct]
        return search_body(distinct, weights.tolist(), size, search.after)

    def _settle(self, search: _Search, k: int, *, complete: bool) -> tuple[np.ndarray, np.ndarray] | None:
        rows, counts, lengths = search.candidates()
        idf = self._statistics.idf_of(search.distinct)
        norms = length_norms(lengths, self._statistics.mean_length, self._where.k1, self._where.b)
        order = [search.distinct.index(term) for term in search.terms]
        scores = row_scores(counts, order, idf, norms, self._where.k1)
        return settled_hits(rows, scores, search.worst, k, self._where.slack, complete=complete)


class _Search:
    """One query and its candidates from the server so far.

    Args:
        place: Index of the query in the batch.
        terms: Its known terms, with repetitions.
    """

    def __init__(self, place: int, terms: list[str]) -> None:
        self.place, self.terms, self.distinct = place, terms, sorted(set(terms))
        self.after: list[float] | None = None
        self.worst = 0.0
        self._hits: list[dict[str, Any]] = []

    def add(self, page: list[dict[str, Any]]) -> None:
        """Add the next page of candidates."""
        self._hits += page
        if page:
            self.after = page[-1]["sort"]
            self.worst = float(page[-1]["sort"][0])

    def candidates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (C,) rows, (D, C) occurrences of the distinct terms, (C,) lengths."""
        place_of = {term: place for place, term in enumerate(self.distinct)}
        counts = np.zeros((len(self.distinct), len(self._hits)), dtype=np.int64)
        for number, hit in enumerate(self._hits):
            for term in hit["_source"]["terms"]:
                place = place_of.get(term)
                if place is not None:
                    counts[place, number] += 1
        rows = np.array([hit["sort"][1] for hit in self._hits], dtype=np.int64)
        lengths = np.array([len(hit["_source"]["terms"]) for hit in self._hits], dtype=np.int64)
        return rows, counts, lengths


def search_body(
    terms: Sequence[str], weights: Sequence[float], size: int, after: list[float] | None
) -> dict[str, Any]:
    """Return a search for any of the terms, ordered by score and then by row.

    Args:
        terms: Distinct terms.
        weights: Factors of their scores.
        size: Number of hits.
        after: Score and row of the last hit of the previous page.
    """
    clauses = [
        {"term": {"terms": {"value": term, "boost": weight}}} for term, weight in zip(terms, weights, strict=True)
    ]
    body: dict[str, Any] = {
        "query": {"bool": {"should": clauses}},
        "size": size,
        "sort": [{"_score": "desc"}, {"row": "asc"}],
        "_source": ["terms"],
        "track_total_hits": False,
    }
    return body if after is None else {**body, "search_after": after}


def _fill(server: SearchServer, streams: TokenStreams, k1: float, b: float) -> None:
    """Send every row with its number and its terms; the terms are not analysed again."""
    notes = server.describe()
    if notes is not None:
        if _COMPLETE not in notes:
            raise RuntimeError(
                f"The search server {server.url!r} ({FLAG}) has an index {server.index!r} that hf_distill did not "
                "make: delete or rename it."
            )
        if notes[_COMPLETE] and server.count() == streams.num_texts:
            logger.info(f"The index {server.index!r} is complete on the server: used as it is.")
            return
        server.delete()
    begun = {_COMPLETE: False, _BUILDER: uuid.uuid4().hex}
    server.create(
        settings={"refresh_interval": "-1", "similarity": {"default": {"type": "BM25", "k1": k1, "b": b}}},
        mapping={
            "dynamic": "strict",
            "_meta": begun,
            "properties": {
                "row": {"type": "long"},
                "terms": {"type": "text", "analyzer": "keyword", "index_options": "freqs"},
            },
        },
    )
    with tqdm(total=streams.num_texts, desc="Indexing (elasticsearch)", unit=" rows", unit_scale=True) as bar:
        for documents in _documents(streams):
            server.add(documents)
            bar.update(len(documents))
    if server.describe() != begun:
        raise RuntimeError(
            f"The index {server.index!r} on the search server was deleted while it was filled: another build makes "
            "it too. Start again when that build has ended; its index is then used."
        )
    if (there := server.count()) != streams.num_texts:
        raise RuntimeError(
            f"The index {server.index!r} on the search server has {there} rows, not {streams.num_texts}: other "
            "programs write to it. Build it again."
        )
    server.note({_COMPLETE: True})


def _documents(streams: TokenStreams) -> Iterator[dict[int, dict[str, Any]]]:
    """Yield rows in batches, number -> document."""
    for start in range(0, streams.num_texts, _ROWS_PER_CALL):
        offsets = streams.offsets[start : start + _ROWS_PER_CALL + 1].tolist()
        ids = streams.ids[offsets[0] : offsets[-1]].tolist()
        terms = [streams.vocabulary[term] for term in ids]
        yield {
            row: {"row": row, "terms": terms[first - offsets[0] : last - offsets[0]]}
            for row, (first, last) in enumerate(pairwise(offsets), start)
        }


def _probe(server: SearchServer, streams: TokenStreams, own: CorpusStatistics, where: _Where) -> float:
    """Return the factor for the server's scores: k1 + 1 if its version leaves that out, else 1.

    Raises:
        RuntimeError: If its scores match neither, so it uses another similarity.
    """
    if not len(streams.ids):
        return 1.0
    term = streams.vocabulary[int(streams.ids[0])]
    search = _Search(0, [term])
    search.add(server.search([search_body([term], [1.0], 1, None)])[0])
    _, counts, lengths = search.candidates()
    idf = inverse_document_frequency(own.frequencies_of([term]), where.filled_rows)
    norms = length_norms(lengths, len(streams.ids) / where.filled_rows, where.k1, where.b)
    exact = float(row_scores(counts, [0], idf, norms, where.k1)[0])
    # Try the larger factor first: if both are possible, it can only cost time.
    for factor in (where.k1 + 1, 1.0):
        if _LEAST_QUOTIENT <= exact / (search.worst * factor) <= 1.0 + 1e-5:
            return factor
    raise RuntimeError(
        f"The search server {server.url!r} ({FLAG}) scored a row {search.worst}, BM25 scores it {exact}: an index "
        "template or plugin of the server changes the similarity."
    )


def _parts(searches: list[_Search], size: int) -> Iterator[list[_Search]]:
    for start in range(0, len(searches), size):
        yield searches[start : start + size]
