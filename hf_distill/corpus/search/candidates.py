"""The documents that BM25 finds for queries: what a reranker puts in order, and hard negatives to train it with."""

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
    """For every query the row numbers of its best documents, the best first.

    The index is one of a folder that is gone afterwards.

    Args:
        queries: The queries.
        documents: The texts that are searched.
        depth: Documents of each query at most; those that share no word with it are not among them.
        analyzer: From text to terms; by default that of English.
        engine: BM25 engine, as `--engine`.
        k1: How fast repeats of a word saturate.
        b: How much long documents are held back.
    """
    analyzer = analyzer or Analyzer("english")
    name = choose_engine(engine, len(documents)).name
    terms = [analyzer.tokens(query) for query in queries]
    with tempfile.TemporaryDirectory() as scratch:
        engine_class(name).build(analyzer.encode([documents]), Path(scratch), k1=k1, b=b)
        hits = make_engine(name, scratch).search(terms, min(depth, len(documents)))
        return [rows.tolist() for rows, _ in hits]
