"""The second pass over the shards: index each with the statistics of all shards, and find the hits of every anchor.

Shape legend: S shards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

from ...storage.files import remove
from ...storage.steps import Step, WorkFolder
from ..build.anchors import HIT_FEATURES, Anchors, describe_queries, make_queries, search_queries
from ..build.builder import DEFAULT_TOP_K, engine_options, index_settings
from ..search.retrieval import EngineChoice, IndexHandle, choose_engine, save_index, settings_key
from ..search.scoring import CorpusStatistics
from ..text.rows import processes_for
from .first_pass import Shards, checked_rows

logger = logging.getLogger(__name__)

_OWN_STATISTICS = "retriv scores by the statistics of its own rows, not by those of all shards"


class ShardSearch:
    """The search of some anchors in S prepared shards.

    Args:
        shards: The shards, all prepared.
        anchors: The anchors of the build.

    Raises:
        ValueError: If a shard is not prepared, the engine cannot search shards, or the folder belongs to a search with
            other settings; the message lists the differences.
    """

    def __init__(self, shards: Shards, anchors: Anchors) -> None:
        self.shards, self.anchors, self.args = shards, anchors, shards.args
        self.asked_top_k = self.args.top_k or DEFAULT_TOP_K
        self.top_k = min(self.asked_top_k, shards.whole.num_usable)
        self.engine = self._engine()
        self.index_settings = index_settings(self.args, self.engine, shards.analyzer, statistics=shards.whole.checksum)
        self.settings = {
            **self.index_settings,
            "anchors": anchors.checksum(),
            "query": self.args.query,
            "max_phrases": self.args.max_phrases,
            "top_k": self.top_k,
        }
        self.folder = shards.root / "shards"
        WorkFolder(self.folder / "search", self.settings)

    def _engine(self) -> EngineChoice:
        """Return the engine of every shard, which must be suitable for the largest one."""
        if self.args.engine == "retriv":
            raise ValueError(f"`--engine retriv` cannot search shards: {_OWN_STATISTICS}. Name another engine.")
        choice = choose_engine(self.args.engine, self.shards.whole.largest)
        if choice.name != "retriv":
            return choice
        return EngineChoice("blocks", f"{_OWN_STATISTICS}; blocks is always installed")

    @cached_property
    def queries(self) -> Step:
        """Return the step of the terms to search for; the first job that needs them does it."""
        names = ("analysis", "anchors", "query", "max_phrases")
        step = self.shards.step(self.folder, "queries", {name: self.settings[name] for name in names})
        step.make(self._make_queries)
        return step

    def _make_queries(self, folder: Path) -> dict[str, Any]:
        texts, args = self.anchors.texts, self.args
        queries = make_queries(
            texts,
            args.query,
            args.max_phrases,
            self.shards.analyzer,
            _inside(folder, "queries"),
            num_proc=processes_for(args.num_proc, len(texts)),
        )
        return describe_queries(queries)

    def index(self, shard: int) -> Step:
        """Return the index of a shard."""
        name = f"{self.engine.name}-{settings_key(self.index_settings)}-{shard:05d}-of-{self.shards.num_shards:05d}"
        settings = {**self.index_settings, "corpus": self.shards.whole.checksums[shard]}
        return self.shards.step(self.shards.folder, name, settings, shard)

    def hits(self, shard: int) -> Step:
        """Return the step of a shard's hits: Arrow files of `HIT_FEATURES`, rows numbered as in the whole corpus."""
        name = f"hits-{shard:05d}-of-{self.shards.num_shards:05d}"
        settings = {**self.settings, "corpus": self.shards.whole.checksums[shard]}
        return self.shards.step(self.folder, name, settings, shard)

    def unfinished(self) -> list[int]:
        """Return the shards that have not been searched."""
        return [shard for shard in range(self.shards.num_shards) if self.hits(shard).facts() is None]

    def run(self, shard: int, *, num_threads: int | None = None) -> dict[str, Any]:
        """Index and search a shard, and return facts; does nothing if it is finished.

        Args:
            shard: Index of the shard.
            num_threads: Threads of the search; all cores by default.

        Raises:
            ValueError: If a file is damaged.
            OSError: If something cannot be written.
        """
        work: Callable[[Path], dict[str, Any]] = lambda folder: self._search(shard, folder, num_threads)  # noqa: E731
        return self.hits(shard).make(work)

    def _search(self, shard: int, folder: Path, num_threads: int | None) -> dict[str, Any]:
        file = _inside(folder, "hits")
        whole = self.shards.whole
        if whole.usable_bounds[shard] == whole.usable_bounds[shard + 1]:
            with ArrowWriter(path=str(file), features=HIT_FEATURES) as writer:
                writer.finalize()
            return {"hits": 0, "index": {"rows": 0, "bytes": 0, "seconds": 0.0, "reused": False}}
        step = self.index(shard)
        reused = self._is_searchable(step)
        index = step.make(lambda inside: self._make_index(shard, inside))
        queries = checked_rows(self.queries, "queries")
        handle = IndexHandle(step.folder / "index")
        # An engine that is still open may map damaged files.
        handle.close()
        hits: Dataset = search_queries(
            queries,
            handle,
            self.top_k,
            file,
            num_proc=processes_for(self.args.num_proc, len(queries)),
            batch_size=self.args.search_batch_size,
            num_threads=num_threads,
            first_row=whole.usable_bounds[shard],
        )
        handle.close()
        return {"hits": len(hits), "index": {**index, "reused": reused}}

    def _is_searchable(self, step: Step) -> bool:
        """Whether an index exists; one that a server has lost is removed, so that it is made again."""
        if step.facts() is None:
            return False
        try:
            IndexHandle(step.folder / "index").verify(**engine_options(self.args, self.engine))
        except ValueError as error:
            logger.warning(f"{error} That is done now.")
            remove(step.folder)
            return False
        return True

    def _make_index(self, shard: int, folder: Path) -> dict[str, Any]:
        handle = save_index(
            self.shards.streams(shard),
            folder / "index",
            dict(self.index(shard).settings),
            statistics=CorpusStatistics.load(self.shards.statistics.file("statistics.npz")),
            **engine_options(self.args, self.engine),
        )
        return {"rows": handle.num_rows, "bytes": handle.size()}


def _inside(folder: Path, name: str) -> Path:
    """Return a file in a separate folder: with several processes `Dataset.map` writes one file for each."""
    (folder / name).mkdir()
    return folder / name / f"{name}.arrow"
