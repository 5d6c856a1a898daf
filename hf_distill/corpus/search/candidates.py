"""The top documents of BM25 for queries: candidates for a reranker, and hard negatives to train it with."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..text.analysis import Analyzer
from .retrieval import choose_engine, engine_class, make_engine


def best_documents(
    queries: Sequence[str],
    documents: Sequence[str],
    depth: int,
    *,
    analyzer: Analyzer | None = None,
    engine: str = "bm25s",
    k1: float = 1.2,
    b: float = 0.75,
) -> list[list[int]]:
    """Return for every query the row numbers of its top documents, best first.

    The index is built in a temporary folder.

    Args:
        queries: The queries.
        documents: The texts to search.
        depth: Maximum number of documents for each query; documents without a common word are never returned.
        analyzer: Analyzer from text to terms; by default that of English.
        engine: BM25 engine, as in `--engine`.
        k1: BM25's k1: a larger value makes repeated words count more.
        b: BM25's b: the strength of the length normalisation.
    """
    analyzer = analyzer or Analyzer("english")
    name = choose_engine(engine, len(documents)).name
    terms = [analyzer.tokens(query) for query in queries]
    with tempfile.TemporaryDirectory() as scratch:
        engine_class(name).build(analyzer.encode([documents]), Path(scratch), k1=k1, b=b)
        hits = make_engine(name, scratch).search(terms, min(depth, len(documents)))
        return [rows.tolist() for rows, _ in hits]
