"""The two functions that `Dataset.map` applies: anchors -> queries, queries -> hits.

Both are classes of this package with a small pickled state, so that fingerprints are cheap, stable and the same for
any number of processes. Neither holds an index: the search holds a handle that opens it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from ..search.retrieval import IndexHandle
from ..text.analysis import Analyzer
from .keywords import QueryMode, make_query

QUERY_FEATURES = Features(
    {"anchor": Value("string"), "terms": List(Value("string")), "fallback": Value("bool")},
)
HIT_FEATURES = Features(
    {"anchor": Value("int32"), "row": Value("int64"), "rank": Value("int32"), "score": Value("float32")}
)


class MakeQueries:
    """Batch of anchors -> terms to search for.

    An anchor without keywords is searched by its whole text. If that has no term either (stop words and punctuation
    only), its terms are empty and it finds nothing; the builder counts it.

    Args:
        mode: How queries are made (`hf_distill.corpus.build.keywords.make_query`).
        max_phrases: RAKE phrases per query.
        analyzer: The same as for the corpus.
    """

    def __init__(self, mode: QueryMode, max_phrases: int, analyzer: Analyzer) -> None:
        self.mode, self.max_phrases, self.analyzer = mode, max_phrases, analyzer

    def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        """Adds the columns `terms` and `fallback`."""
        analyzer = self.analyzer
        terms: list[list[str]] = []
        fallback: list[bool] = []
        for anchor in batch["anchor"]:
            query = make_query(anchor, self.mode, analyzer.stop_words, self.max_phrases, analyzer.words_and_marks)
            found = analyzer.tokens(query) if self.mode == "text" else analyzer.tokens_of_words(query)
            fallback.append(not found)
            terms.append(found or analyzer.tokens(anchor))
        return {"terms": terms, "fallback": fallback}


class SearchHits:
    """Batch of queries -> their hits, one row each.

    Args:
        handle: The index.
        k: Hits per query.
        num_threads: Threads per search; all cores by default. Must be 1 in forked workers.
        first_row: Number of the index's first row in the corpus of which it is a shard.
    """

    def __init__(self, handle: IndexHandle, k: int, num_threads: int | None, first_row: int = 0) -> None:
        self.handle, self.k, self.num_threads, self.first_row = handle, k, num_threads, first_row

    def __call__(self, batch: dict[str, list[Any]], indices: list[int]) -> dict[str, Any]:
        """Columns of `HIT_FEATURES`; `row` counts the rows of the index from `first_row`, `anchor` the queries."""
        import numpy as np

        hits = self.handle.open().search(batch["terms"], self.k, num_threads=self.num_threads)
        anchors = np.repeat(np.asarray(indices, dtype=np.int32), np.diff(hits.offsets))
        return {"anchor": anchors, "row": hits.rows + self.first_row, "rank": hits.ranks(), "score": hits.scores}


def make_queries(
    anchors: Sequence[str], mode: QueryMode, max_phrases: int, analyzer: Analyzer, file: Path, *, num_proc: int | None
) -> Dataset:
    """Anchors to terms.

    Args:
        anchors: The anchors.
        mode: How queries are made.
        max_phrases: RAKE phrases per query.
        analyzer: The same as for the corpus.
        file: Where the queries (`QUERY_FEATURES`) are written, anchor after anchor.
        num_proc: Processes; by default this one.
    """
    return Dataset.from_dict({"anchor": anchors}).map(
        MakeQueries(mode, max_phrases, analyzer),
        batched=True,
        num_proc=num_proc,
        features=QUERY_FEATURES,
        cache_file_name=str(file),
        desc="Making queries",
    )


def search_queries(
    queries: Dataset,
    handle: IndexHandle,
    k: int,
    file: Path,
    *,
    num_proc: int | None,
    batch_size: int,
    num_threads: int | None = None,
    first_row: int = 0,
) -> Dataset:
    """Terms to hits, by all cores: threads of one process, or one thread in each of several.

    Args:
        queries: Rows with the column `terms`.
        handle: The index.
        k: Hits per query.
        file: Where the hits (`HIT_FEATURES`) are written, query after query.
        num_proc: Processes; by default this one.
        batch_size: Queries searched together.
        num_threads: Threads of this process; all cores by default.
        first_row: Number of the index's first row in the corpus of which it is a shard.
    """
    queries = queries.select_columns(["terms"])
    if num_proc is not None:
        # Compiled once here, not once in every worker.
        handle.open().search([queries[0]["terms"]], 1, num_threads=1)
    return queries.map(
        SearchHits(handle, k, num_threads if num_proc is None else 1, first_row),
        batched=True,
        batch_size=batch_size,
        with_indices=True,
        remove_columns=queries.column_names,
        num_proc=num_proc,
        features=HIT_FEATURES,
        cache_file_name=str(file),
        desc=f"Searching ({handle.settings['engine']})",
    )
