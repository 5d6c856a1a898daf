"""A contextualized corpus in shards: one job per shard and pass, and the merge at the end.

A job takes names of files and leaves files (`hf_distill.corpus.shards.parts`), so it can run anywhere where the same
files are: in a process here, in a task of Ray, in a job of a scheduler that calls `hf-distill corpus --shard`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from hf_distill.commands.shard_runners import run_in_processes, run_with_ray
from hf_distill.corpus import CorpusResult, corpus_label, load_general_corpus
from hf_distill.corpus.build.anchors import Anchors, collect_anchors, task_texts
from hf_distill.corpus.search.engines.cores import available_cores
from hf_distill.corpus.shards.first_pass import Shards
from hf_distill.corpus.shards.merging import merge_shards
from hf_distill.corpus.shards.second_pass import ShardSearch
from hf_distill.settings import CorpusArguments, TaskArguments
from hf_distill.settings.plugins import load_plugins
from hf_distill.tasks.loading import LoadedTask, load_task


@dataclass(frozen=True)
class ShardJobs:
    """The jobs of one build. It pickles as its settings: every job opens the data itself.

    Attributes:
        task: The task and where its rows are.
        corpus: The general corpus and how to search it; `work_dir` and `top_k` are given.
        num_shards: Shards of the general corpus.
        seed: Draws the training rows where `task.max_train_samples` limits them.
        plugins: Modules that register an engine of the user's own, which every process has to import.
    """

    task: TaskArguments
    corpus: CorpusArguments
    num_shards: int
    seed: int
    plugins: tuple[str, ...] = ()

    def shards(self) -> Shards:
        """The general corpus in shards."""
        load_plugins(self.plugins)
        args, name = self.corpus, self.corpus.corpus or ""
        general = load_general_corpus(name, args.corpus_config, split=args.corpus_split, max_rows=args.max_corpus_rows)
        return Shards(args, general, self.num_shards, name=corpus_label(name), work_dir=args.work_dir or "work")

    def anchors(self, loaded: LoadedTask | None = None) -> Anchors:
        """The anchors: texts of the training rows."""
        if loaded is None:
            loaded = load_task(self.task.task, self.task.data_dir, **self.task.spec_fields())
        rows = loaded.subset(self.task.max_train_samples, None, seed=self.seed).train
        return collect_anchors(task_texts(rows, loaded.spec.text_columns), self.corpus.max_anchors)

    def prepare(self, shard: int, *, cores: int | None = None) -> None:
        """The first pass over a shard; by default by all cores."""
        self.shards().prepare(shard, num_proc=cores)

    def search(self, shard: int, *, cores: int | None = None) -> None:
        """The second pass over a shard; by default by all cores."""
        ShardSearch(self.shards(), self.anchors()).run(shard, num_threads=cores)


def run_shard(jobs: ShardJobs, shard: int, loaded: LoadedTask | None = None) -> dict[str, Any]:
    """Does what can be done for one shard: its first pass, and its second once all shards had their first.

    Args:
        jobs: The build.
        shard: Which, counted from 0.
        loaded: The task's rows if they are already there.

    Returns:
        `shard`, `num_shards`, `rows` (usable ones of this shard), `hits` (None if it was not searched yet),
        `unprepared` and `unsearched` (other shards that the next step waits for), `seconds` of this call.
    """
    started = time.perf_counter()
    shards = jobs.shards()
    rows = shards.prepare(shard)["usable"]
    unprepared = shards.unprepared()
    hits, unsearched = None, list(range(jobs.num_shards))
    if not unprepared:
        search = ShardSearch(shards, jobs.anchors(loaded))
        hits, unsearched = search.run(shard)["hits"], search.unfinished()
    return {
        "job": "corpus_shard",
        "shard": shard,
        "num_shards": jobs.num_shards,
        "rows": rows,
        "hits": hits,
        "unprepared": unprepared,
        "unsearched": unsearched,
        "seconds": round(time.perf_counter() - started, 2),
    }


def format_shard(results: dict[str, Any]) -> str:
    """Say in one line what was done for a shard, and what comes next."""
    name = f"shard {results['shard']} of {results['num_shards']} (counted from 0)"
    done = f"{name}: {results['rows']:,} rows read"
    if results["unprepared"]:
        return (
            f"{done}; the search needs the statistics of all shards, and {_listed(results['unprepared'])} are not "
            "read yet. Run the same command again when they are."
        )
    done += f", {results['hits']:,} hits"
    if results["unsearched"]:
        return f"{done}; not searched yet: {_listed(results['unsearched'])}."
    return f"{done}; all shards are searched. Now run it with `--merge` in place of `--shard`."


def _listed(shards: list[int]) -> str:
    first = ", ".join(map(str, shards[:10]))
    return first if len(shards) <= 10 else f"{first} and {len(shards) - 10} more"


def run_all(jobs: ShardJobs, runner: str, workers: int | None) -> None:
    """Both passes over all shards, each finished one left as it is.

    Args:
        jobs: The build.
        runner: `processes` of this machine, or `ray`.
        workers: Processes at a time; by default one per core.
    """
    shards = jobs.shards()
    cores = available_cores()
    workers = min(workers or cores, jobs.num_shards)
    run = run_with_ray if runner == "ray" else partial(run_in_processes, workers=workers)
    each = 1 if runner == "ray" else max(1, cores // workers)
    run(partial(jobs.prepare, cores=each), shards.unprepared(), what="Reading shards")
    search = ShardSearch(shards, jobs.anchors())
    run(partial(jobs.search, cores=each), search.unfinished(), what="Searching shards")


def merge(jobs: ShardJobs, loaded: LoadedTask | None, evaluation_texts: Iterable[str | None]) -> CorpusResult:
    """The corpus of shards that were all searched.

    Raises:
        ValueError: If a shard is missing or damaged; the message says which, and what to run.
    """
    return merge_shards(ShardSearch(jobs.shards(), jobs.anchors(loaded)), evaluation_texts)
