"""Merges the hits of all shards into exactly the corpus that a single index would have given.

Shape legend: S shards, A anchors, k hits per anchor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from datasets.utils import tqdm

from ..build.anchors import HIT_FEATURES
from ..build.builder import CorpusBuild, CorpusResult
from ..search.retrieval import EngineChoice
from ..text.rows import UsableRows, table_of
from .first_pass import checked_rows, total_cost
from .second_pass import ShardSearch

# Hits of all shards that are sorted together: limits the memory to about 200 MB.
_TOGETHER = 4_000_000
_READ = 1_000_000


def merge_shard_hits(shards: Sequence[Dataset], file: Path, num_anchors: int, k: int) -> tuple[int, int]:
    """Write every anchor's k best hits over all shards, in the total order: score descending, then row ascending.

    Args:
        shards: S data sets of `HIT_FEATURES`, in the order of the anchors, each with the k best hits of the shard for
            every anchor; row numbers are those of the whole corpus.
        file: Arrow file to write, with the same features.
        num_anchors: A.
        k: Hits per anchor.

    Returns:
        The number of hits, and the number of anchors without hits.
    """
    per_batch = max(1, _TOGETHER // (k * max(1, len(shards))))
    bounds = np.append(np.arange(0, num_anchors, per_batch), num_anchors)
    starts = [_first_rows(shard, bounds) for shard in shards]
    readers = [shard.with_format("arrow") for shard in shards]
    num_hits, num_found = 0, 0
    with (
        ArrowWriter(path=str(file), features=HIT_FEATURES) as writer,
        tqdm(total=num_anchors, desc="Merging the hits of the shards", unit=" anchors", unit_scale=True) as bar,
    ):
        for batch in range(len(bounds) - 1):
            tables = [
                reader[int(start[batch]) : int(start[batch + 1])]
                for reader, start in zip(readers, starts, strict=True)
                if start[batch] < start[batch + 1]
            ]
            if tables:
                merged, found = _merge(pa.concat_tables(tables), k)
                writer.write_table(merged)
                num_hits, num_found = num_hits + merged.num_rows, num_found + found
            bar.update(int(bounds[batch + 1] - bounds[batch]))
        writer.finalize()
    return num_hits, num_anchors - num_found


def _first_rows(hits: Dataset, bounds: np.ndarray) -> np.ndarray:
    """Return the number of hits before each of some ascending anchors."""
    before = np.zeros(len(bounds), dtype=np.int64)
    for batch in hits.select_columns(["anchor"]).with_format("arrow").iter(batch_size=_READ):
        before += np.searchsorted(batch["anchor"].to_numpy(), bounds)
    return before


def _merge(hits: pa.Table, k: int) -> tuple[pa.Table, int]:
    """Return the k best hits of every anchor, and the number of anchors."""
    anchors, rows, scores = (hits[name].to_numpy() for name in ("anchor", "row", "score"))
    order = np.lexsort((rows, -scores, anchors))
    anchors = anchors[order]
    begins = np.concatenate([[True], anchors[1:] != anchors[:-1]])
    places = np.arange(len(anchors))
    ranks = places - np.maximum.accumulate(np.where(begins, places, 0))
    kept = ranks < k
    columns = {"anchor": anchors[kept], "row": rows[order][kept], "rank": ranks[kept], "score": scores[order][kept]}
    return table_of(columns, HIT_FEATURES), int(begins.sum())


def merge_shards(search: ShardSearch, evaluation_texts: Iterable[str | None] = ()) -> CorpusResult:
    """Build the corpus from shards that have all been searched.

    Args:
        search: The search.
        evaluation_texts: Texts of validation and test sets, which must not be in the result.

    Returns:
        The result of `build_contextualized_corpus` for the same data without shards; the statistics also have the
        number of shards.

    Raises:
        ValueError: If a shard was not searched, a file is damaged, or nothing is found.
    """
    missing = search.unfinished()
    if missing:
        shards = search.shards
        raise ValueError(f"Shards {missing} of {shards.num_shards} are not searched. {shards.way_out()}")
    for shard in range(search.shards.num_shards):
        search.shards.check_documents(shard)
    return _MergedBuild(search, evaluation_texts).run()


class _MergedBuild(CorpusBuild):
    """The steps of a build after the search, from the hits of all shards."""

    def __init__(self, search: ShardSearch, evaluation_texts: Iterable[str | None]) -> None:
        self.search, shards = search, search.shards
        whole = shards.whole
        super().__init__(
            shards.args,
            search.anchors,
            shards.all_units(),
            len(shards.corpus),
            UsableRows(shards.usable_rows(), whole.counts, whole.bytes, whole.checksum),
            evaluation_texts,
            shards.name,
            shards.root,
        )

    def _choose_engine(self) -> EngineChoice:
        return self.search.engine

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "num_shards": self.search.shards.num_shards}

    def _facts(self) -> list[dict[str, Any]]:
        """Return the facts of the search of every shard."""
        return [self.search.hits(shard).facts() or {} for shard in range(self.search.shards.num_shards)]

    def _make_queries(self, folder: Path) -> dict[str, Any]:
        return dict(self.search.queries.facts() or {})

    def _make_index(self, folder: Path) -> dict[str, Any]:
        indexes = [facts["index"] for facts in self._facts()]
        statistics = self.search.shards.statistics.facts() or {}
        return {
            "rows": sum(index["rows"] for index in indexes),
            "terms": statistics["terms"],
            "bytes": sum(index["bytes"] for index in indexes),
            "reused": all(index["reused"] for index in indexes if index["rows"]),
        }

    def _search(self, folder: Path) -> dict[str, Any]:
        shards = [checked_rows(self.search.hits(shard), "hits") for shard in range(self.search.shards.num_shards)]
        num_hits, without = merge_shard_hits(shards, folder / "hits.arrow", len(self.anchors.texts), self.k)
        if num_hits == 0:
            raise ValueError(f"None of the {len(self.anchors.texts)} anchors shares a word with the general corpus.")
        return {"hits": num_hits, "queries_without_hits": without}

    def _statistics(self, steps: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the statistics of a build, with the seconds of all jobs."""
        hits, merge = self._facts(), steps["hits"]
        # A reused index of an earlier task costs nothing now; the costs of a search include those of its index.
        indexes = [part["index"] for part in hits if part["index"]["rows"] and not part["index"]["reused"]]
        index, search = total_cost(indexes), total_cost(hits)
        search["seconds"] = round(search["seconds"] - index["seconds"], 3)
        jobs = {
            "prepare": {"rows": self.search.shards.whole.unit_bounds[-1], **self.search.shards.whole.cost},
            "index": {**steps["index"], **index},
            "hits": {**merge, **search},
            "merge": {name: merge[name] for name in merge if name in {"seconds", "disk_bytes", "peak_memory_mb"}},
        }
        return {**super()._statistics({**steps, **jobs}), "num_shards": self.search.shards.num_shards}
