"""Build a contextualized corpus for a task: folder with parquet files, card and statistics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_distill.commands.corpus_folder import command_line, shown_settings, write_rows
from hf_distill.commands.corpus_shards import ShardJobs, merge, run_all, run_shard
from hf_distill.commands.folders import writes_folder
from hf_distill.corpus import CorpusResult, build_contextualized_corpus, corpus_label, load_general_corpus
from hf_distill.corpus.build.anchors import task_texts
from hf_distill.hub.dataset_card import CorpusCardFacts, write_dataset_card
from hf_distill.settings import CorpusArguments, ShardArguments, TaskArguments
from hf_distill.settings.parsing import write_arguments
from hf_distill.settings.plugins import loaded_plugins
from hf_distill.storage.files import new_file
from hf_distill.tasks.loading import LoadedTask, load_task

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
def build_corpus(
    task: TaskArguments,
    corpus: CorpusArguments,
    shards: ShardArguments | None = None,
    *,
    loaded: LoadedTask | None = None,
    seed: int = 42,
) -> dict[str, Any]:
    """Builds the corpus for a task.

    Anchors are the texts of the training split, evaluation texts those of all validation and test splits. Writes to
    `corpus.corpus_dir`: `data/*.parquet` (which `load_dataset` and `load_general_corpus` open), `README.md` (the
    card), `statistics.json`, `arguments.yaml`, `work/` (finished steps, unless another folder was named), and where
    it is asked for `dropped.parquet` (rows that were left out, which a push does not take along).

    Args:
        task: The task and where its rows are.
        corpus: The general corpus and how to search it.
        shards: In how many shards, and which to do now; one index by default.
        loaded: The task's rows if they are already there.
        seed: Draws the training rows where `task.max_train_samples` limits them.

    Returns:
        `corpus_dir`, `rows`, `statistics`, `seconds`; of one shard what `run_shard` says.

    Raises:
        ValueError: If no general corpus is named, data and settings do not fit, or a shard is missing or damaged.
        OSError: If something cannot be written, or the processes of a shard die again and again.
    """
    started = time.perf_counter()
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
    _write(folder, result, loaded, task, corpus)
    return {
        "job": "corpus",
        "task": loaded.spec.name,
        "corpus_dir": str(folder),
        "rows": len(result.dataset),
        "statistics": result.statistics,
        "seconds": round(time.perf_counter() - started, 2),
    }


def _evaluation_texts(loaded: LoadedTask) -> Iterator[str | None]:
    for split in (*loaded.spec.evaluation_splits, *loaded.spec.test_splits):
        if split in loaded.dataset:
            yield from task_texts(loaded.dataset[split], loaded.spec.text_columns)


def _write(
    folder: Path, result: CorpusResult, loaded: LoadedTask, task: TaskArguments, corpus: CorpusArguments
) -> None:
    """The corpus as parquet files, with card, statistics and arguments beside it."""
    from importlib.metadata import version

    from hf_distill import __version__

    write_rows(folder, result.dataset, result.statistics)
    (folder / DROPPED_FILE).unlink(missing_ok=True)
    if result.dropped is not None:
        with new_file(folder / DROPPED_FILE) as part:
            result.dropped.to_parquet(str(part))
    write_arguments(folder, task, corpus)
    settings = shown_settings(task, corpus)
    facts = CorpusCardFacts(
        name=f"Contextualized corpus for {loaded.spec.name}",
        statistics=result.statistics,
        task=loaded.spec.name,
        task_licence=loaded.spec.licence,
        corpus_licence=corpus.corpus_licence,
        language=loaded.spec.language,
        settings=settings,
        command=command_line("corpus", settings),
        versions={"hf_distill": __version__, **{name: version(name) for name in ("datasets", "numpy")}},
    )
    write_dataset_card(folder, facts)
