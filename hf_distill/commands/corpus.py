"""Builds a contextualized corpus for a task: writes a folder with parquet files, card and statistics.

With shards there is one job for each shard and pass, and a merge at the end. A job communicates only through files
(`hf_distill.storage.steps`), so it can run anywhere that has the same files: in a local process, in a Ray task, or in
a job of a scheduler that calls `hf-distill corpus --shard`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_distill.commands.corpus_folder import corpus_summary, write_corpus, write_rows
from hf_distill.commands.folders import writes_folder
from hf_distill.corpus.build.anchors import Anchors, collect_anchors, task_texts
from hf_distill.corpus.build.builder import CorpusResult, build_contextualized_corpus
from hf_distill.corpus.build.loading import corpus_label, load_general_corpus
from hf_distill.corpus.search.candidates import best_documents
from hf_distill.corpus.search.retrieval import choose_engine
from hf_distill.corpus.search.scoring import available_cores
from hf_distill.corpus.shards.first_pass import Shards
from hf_distill.corpus.shards.merging import merge_shards
from hf_distill.corpus.shards.runners import run_in_processes, run_with_ray
from hf_distill.corpus.shards.second_pass import ShardSearch
from hf_distill.corpus.text.analysis import Analyzer
from hf_distill.settings import CorpusArguments, ShardArguments, TaskArguments
from hf_distill.settings.parsing import changed_arguments, load_plugins, loaded_plugins, write_arguments
from hf_distill.storage.files import new_file
from hf_distill.tasks.loading import LoadedTask, load_task
from hf_distill.tasks.rows.choices import choices_of
from hf_distill.tasks.rows.text import CANDIDATES_COLUMN
from hf_distill.tasks.vectors import is_retrieval, training_queries

DROPPED_FILE = "dropped.parquet"

# Rows per anchor in the paper (Contextualized Corpus, Table 1), chosen there so that every corpus has 1.6 to 1.8 GB.
PAPER_TOP_K = {
    "glue/mnli": 10,
    "glue/sst2": 150,
    "glue/rte": 1000,
    "glue/mrpc": 800,
    "glue/cola": 900,
    "glue/stsb": 500,
    "glue/qqp": 20,
    "glue/qnli": 50,
}


@writes_folder("data", "work", "dropped.parquet")
def run(
    task: TaskArguments,
    corpus: CorpusArguments,
    shards: ShardArguments | None = None,
    *,
    loaded: LoadedTask | None = None,
    seed: int = 42,
) -> dict[str, Any]:
    """Build the corpus for a task.

    For a task folder in BEIR's layout, the rows are for rerankers: every query with candidates (`training_queries`).

    Anchors are the texts of the training split; evaluation texts are those of all validation and test splits. Writes
    to `corpus.corpus_dir`: `data/*.parquet` (readable by `load_dataset` and `load_general_corpus`), `README.md` (the
    card), `statistics.json`, `arguments.yaml`, `work/` (finished steps, unless another folder is named), and
    optionally `dropped.parquet` (dropped rows, which are never pushed).

    Args:
        task: The task and the location of its rows.
        corpus: The general corpus and the settings of the search.
        shards: The number of shards, and which one to do now; by default a single index.
        loaded: The task's rows if they are already loaded.
        seed: Seed for drawing training rows if `task.max_train_samples` limits them.

    Returns:
        `corpus_dir`, `rows`, `statistics`, `seconds`; for a single shard the result of `run_shard`.

    Raises:
        ValueError: If no general corpus is named, data and settings do not match, or a shard is missing or damaged.
        OSError: If something cannot be written, or the processes of a shard die repeatedly.
    """
    started = time.perf_counter()
    searches_own_documents = is_retrieval(task.task)
    _refuse_flags_without_use(task, corpus, shards, searches_own_documents)
    if searches_own_documents:
        return {**_rows_with_candidates(task, corpus), "seconds": round(time.perf_counter() - started, 2)}
    if corpus.corpus is None:
        raise ValueError("Name a general corpus: `--corpus` FILE, FOLDER or Hub id.")
    if loaded is None:
        loaded = load_task(task.task, task.data_dir, **task.spec_fields())
    folder = Path(corpus.corpus_dir).expanduser()
    settings = replace(
        corpus,
        top_k=corpus.top_k or PAPER_TOP_K.get(loaded.spec.name),
        work_dir=corpus.work_dir or str(folder / "work"),
    )
    if shards is None or shards.num_shards is None:
        result = build_contextualized_corpus(
            loaded.subset(task.max_train_samples, None, seed=seed).train,
            load_general_corpus(
                corpus.corpus, corpus.corpus_config, split=corpus.corpus_split, max_rows=corpus.max_corpus_rows
            ),
            settings,
            evaluation_texts=_evaluation_texts(loaded),
            anchor_columns=loaded.spec.text_columns,
            corpus_name=corpus_label(corpus.corpus),
        )
    else:
        jobs = ShardJobs(task, settings, shards.num_shards, seed, tuple(loaded_plugins()))
        if shards.shard is not None:
            return run_shard(jobs, shards.shard, loaded)
        if not shards.merge:
            run_all(jobs, shards.runner, shards.shard_workers)
        result = merge(jobs, loaded, _evaluation_texts(loaded))
    (folder / DROPPED_FILE).unlink(missing_ok=True)
    written = write_corpus(
        "corpus",
        folder,
        result,
        [task, corpus],
        name=f"Contextualized corpus for {loaded.spec.name}",
        task=loaded.spec.name,
        task_licence=loaded.spec.licence,
        corpus_licence=corpus.corpus_licence,
        language=loaded.spec.language,
    )
    if result.dropped is not None:
        with new_file(folder / DROPPED_FILE) as part:
            result.dropped.to_parquet(str(part))
    return {**written, "task": loaded.spec.name, "seconds": round(time.perf_counter() - started, 2)}


def summary(results: dict[str, Any]) -> str:
    """Report which engine found how many rows, and where they are; for a shard, what was done and what comes next."""
    if "shard" in results:
        return _shard_summary(results)
    engine = results["statistics"]["engine"]
    return f"BM25 engine: {engine['name']} ({engine['why']})\n{corpus_summary(results)}"


# Settings for candidates of queries, and settings without an effect on them.
_OF_CANDIDATES = {
    *("corpus_dir", "work_dir", "num_candidates", "num_proc"),
    *("engine", "language", "stem", "token_analysis", "bm25_k1", "bm25_b"),
}


def _refuse_flags_without_use(
    task: TaskArguments, corpus: CorpusArguments, shards: ShardArguments | None, searches_own_documents: bool
) -> None:
    """Refuse flags that belong to the other kind of corpus.

    Raises:
        ValueError: If there are any.
    """
    given = changed_arguments(corpus, *(() if shards is None else (shards,)))
    if searches_own_documents:
        for name in given:
            if name not in _OF_CANDIDATES:
                raise ValueError(
                    f"`--{name}` is {given[name]!r}, but `--task` {task.task!r} is a folder with documents of its "
                    "own, which are searched for candidates of its queries: leave it out."
                )
    elif "num_candidates" in given:
        raise ValueError(
            f"`--num_candidates` is {corpus.num_candidates}, but `--task` {task.task!r} is not a folder of documents "
            "and queries: `--top_k` says how many rows an anchor finds."
        )


def _rows_with_candidates(task: TaskArguments, corpus: CorpusArguments) -> dict[str, Any]:
    """Write queries with candidates: first the known relevant documents, then the best documents by BM25.

    Raises:
        ValueError: If no query has two candidates.
    """
    found = training_queries(task.task, task.max_train_samples)
    documents, queries = found.texts[: len(found.documents)], list(found.texts[len(found.documents) :])
    choice = choose_engine(corpus.engine, len(documents))
    analyzer = Analyzer(corpus.language, stem=corpus.stem, token_analysis=corpus.token_analysis)
    depth = corpus.num_candidates + max(map(len, found.gains), default=0) + 1
    hits = best_documents(
        queries, documents, depth, analyzer=analyzer, engine=choice.name, k1=corpus.bm25_k1, b=corpus.bm25_b
    )
    rows: list[tuple[str, list[str], list[float]]] = []
    for query, text, places, gains in zip(found.queries, queries, hits, found.gains, strict=True):
        first = sorted(gains, key=lambda place: (-gains[place], place))
        # Of duplicate documents only that of the known answer is kept: the others would be taught as wrong.
        places_of = {documents[p]: p for p in reversed([*first, *places]) if found.documents[p] != query}
        chosen = [p for p in dict.fromkeys([*first, *places]) if places_of.get(documents[p]) == p]
        chosen = chosen[: corpus.num_candidates]
        if len(chosen) > 1:
            candidates, labels = [documents[place] for place in chosen], [gains.get(place, 0.0) for place in chosen]
            rows.append((text, candidates, labels))
    if not rows:
        raise ValueError(f"`--task` {task.task!r}: none of {len(queries):,} queries has two candidates.")
    folder = Path(corpus.corpus_dir).expanduser()
    statistics = {
        "rows": len(rows),
        "queries": len(queries),
        "queries_with_answers": sum(1 for gains in found.gains if gains),
        "documents": len(documents),
        "num_candidates": corpus.num_candidates,
        "bytes": sum(len(text.encode()) for query, texts, _ in rows for text in (query, *texts)),
        "engine": {"name": choice.name, "why": choice.why},
    }
    columns = dict(zip(("text", CANDIDATES_COLUMN, "labels"), map(list, zip(*rows, strict=True)), strict=True))
    write_rows(folder, Dataset.from_dict(columns), statistics)
    write_arguments(folder, task, corpus)
    return {
        "job": "corpus",
        "task": found.name,
        "corpus_dir": str(folder),
        "rows": len(rows),
        "statistics": statistics,
    }


def _evaluation_texts(loaded: LoadedTask) -> Iterator[str | None]:
    """The texts of all validation and test rows; each choice of a row is a separate text."""
    spec = loaded.spec
    for split in (*spec.evaluation_splits, *spec.test_splits):
        if split in loaded.dataset:
            rows = loaded.dataset[split]
            yield from task_texts(rows, spec.text_columns)
            for choices in choices_of(rows[:], spec) if spec.choice_columns else ():
                yield from choices


# --- shards ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardJobs:
    """The jobs of one build. It is pickled as its settings: every job opens the data itself.

    Attributes:
        task: The task and the location of its rows.
        corpus: The general corpus and the settings of the search; `work_dir` and `top_k` must be set.
        num_shards: Shards of the general corpus.
        seed: Seed for drawing training rows if `task.max_train_samples` limits them.
        plugins: Modules that register a user's own engine, which every process must import.
    """

    task: TaskArguments
    corpus: CorpusArguments
    num_shards: int
    seed: int
    plugins: tuple[str, ...] = ()

    def shards(self) -> Shards:
        """The shards of the general corpus."""
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
        """Do the first pass over a shard, by default with all cores."""
        self.shards().prepare(shard, num_proc=cores)

    def search(self, shard: int, *, cores: int | None = None) -> None:
        """Do the second pass over a shard, by default with all cores."""
        ShardSearch(self.shards(), self.anchors()).run(shard, num_threads=cores)


def run_shard(jobs: ShardJobs, shard: int, loaded: LoadedTask | None = None) -> dict[str, Any]:
    """Do everything possible for one shard: the first pass, and the second if all shards have had their first.

    Args:
        jobs: The build.
        shard: The index of the shard, counted from 0.
        loaded: The task's rows if they are already loaded.

    Returns:
        `shard`, `num_shards`, `rows` (usable rows of this shard), `hits` (None if it was not searched yet),
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


def run_all(jobs: ShardJobs, runner: str, workers: int | None) -> None:
    """Do both passes over all shards; finished ones are skipped.

    Args:
        jobs: The build.
        runner: `processes` on this machine, or `ray`.
        workers: Number of parallel processes; by default one per core.
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
    """Make the corpus from shards that have all been searched.

    Raises:
        ValueError: If a shard is missing or damaged; the message says which one, and what to run.
    """
    return merge_shards(ShardSearch(jobs.shards(), jobs.anchors(loaded)), evaluation_texts)


def _shard_summary(results: dict[str, Any]) -> str:
    """Report what was done for a shard, and what comes next."""
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
