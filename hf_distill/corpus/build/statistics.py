"""Facts about a built corpus, JSON-able: what the dataset card and the results show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset

_READ = 100_000
# What a step cost, which is no fact about the corpus.
_COSTS = ("seconds", "disk_bytes", "peak_memory_mb")


def describe_rows(corpus: Dataset) -> dict[str, Any]:
    """Rows, UTF-8 bytes of the texts, mean length, rows per source, mean of the ranks where it has ranks.

    Args:
        corpus: A built corpus (columns `text`, `source`, and of one that was retrieved `rank`).
    """
    num_bytes, num_words, ranks = 0, 0, 0
    ranked = "rank" in corpus.column_names
    sources: Counter[str] = Counter()
    columns = ["text", "source", *(["rank"] if ranked else [])]
    for batch in corpus.select_columns(columns).with_format("arrow").iter(batch_size=_READ):
        for text in batch["text"].to_pylist():
            num_bytes += len(text.encode())
            num_words += len(text.split())
        if ranked:
            ranks += int(batch["rank"].to_numpy().sum())
        sources.update(batch["source"].to_pylist())
    rows = max(1, len(corpus))
    return {
        "rows": len(corpus),
        "bytes": num_bytes,
        "mean_words": round(num_words / rows, 2),
        **({"mean_rank": round(ranks / rows, 2)} if ranked else {}),
        "sources": dict(sorted(sources.items(), key=lambda item: (-item[1], item[0]))),
    }


def describe_queries(queries: Dataset) -> dict[str, Any]:
    """Queries, how many fell back to the anchor's text, how many have no term at all, mean terms."""
    fallback = np.asarray(queries.with_format("arrow")["fallback"][:].to_numpy(zero_copy_only=False))
    lengths = np.asarray(queries.with_format("arrow")["terms"][:].combine_chunks().value_lengths().to_numpy())
    return {
        "queries": len(queries),
        "searched_by_text": int((fallback & (lengths > 0)).sum()),
        "without_terms": int((lengths == 0).sum()),
        "mean_terms": round(float(lengths.mean()), 2) if len(lengths) else 0.0,
    }


def kept_share(rows: int, hits: int) -> float:
    """Rows of the corpus over hits of all anchors (Contextualized Corpus: 0.24 to 0.69)."""
    return round(rows / hits, 4) if hits else 0.0


def describe_build(steps: Mapping[str, Mapping[str, Any]], **facts: Any) -> dict[str, Any]:
    """The statistics of a build.

    Args:
        steps: Facts of the steps, by their names.
        facts: What is no step's: anchors, top_k, general_corpus, engine, settings, ...
    """
    rows, hits, selection, index = (steps[name] for name in ("rows", "hits", "selection", "index"))
    engine = {**facts.pop("engine"), "index_bytes": index["bytes"], "index_terms": index["terms"]}
    return {
        **_without_costs(rows),
        "kept_share": kept_share(rows["rows"], hits["hits"]),
        "hits": hits["hits"],
        "retrieved_rows": selection["retrieved_rows"],
        "dropped": selection["dropped"],
        "queries": {**_without_costs(steps["queries"]), "without_hits": hits["queries_without_hits"]},
        **facts,
        "engine": engine,
        "seconds": total_seconds(steps),
        "costs": costs(steps),
    }


def _without_costs(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in _COSTS}


def costs(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows, seconds, bytes on disk and peak memory of every step, and of the parts that a step tells of (`parts`)."""
    told: dict[str, dict[str, Any]] = {}
    for name, facts in steps.items():
        told |= costs(facts.get("parts", {}))
        told[name] = {key: facts[key] for key in ("rows", *_COSTS) if key in facts}
    return told


def total_seconds(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of every step and their sum."""
    seconds = {name: float(facts["seconds"]) for name, facts in steps.items()}
    return {**seconds, "total": round(sum(seconds.values()), 3)}
