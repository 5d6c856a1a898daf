"""Augment the training rows of a task (TaskDA): folder with parquet files, card and statistics."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_distill.commands.corpus_folder import corpus_summary, write_corpus
from hf_distill.commands.folders import writes_folder
from hf_distill.corpus.augment.builder import DEFAULT_NUM_SAMPLES, build_augmented_corpus
from hf_distill.settings import AugmentationArguments, TaskArguments
from hf_distill.tasks.loading import LoadedTask, load_task

# Draws per text in TinyBERT's code. Its paper has one number for all tasks, which stands for the others.
PAPER_NUM_SAMPLES = {
    "glue/cola": 30,
    "glue/mnli": 10,
    "glue/mrpc": 30,
    "glue/sst2": 20,
    "glue/stsb": 30,
    "glue/qqp": 10,
    "glue/qnli": 20,
    "glue/rte": 30,
}


@writes_folder("data", "work")
def run(
    task: TaskArguments, augmentation: AugmentationArguments, *, loaded: LoadedTask | None = None
) -> dict[str, Any]:
    """Augments a task's training rows.

    Writes to `augmentation.corpus_dir`: `data/*.parquet` (which `--textbook` and `load_dataset` open), `README.md`
    (the card), `statistics.json`, `arguments.yaml`, and `work/` (finished steps, unless another folder was named). A
    run that was killed is continued by the same command.

    Args:
        task: The task and where its rows are.
        augmentation: The masked language model and how to replace words.
        loaded: The task's rows if they are already there.

    Returns:
        `corpus_dir`, `rows`, `statistics`, `seconds`.

    Raises:
        OSError: If model or embeddings are not there.
        ValueError: If no model is named, or data and settings do not fit.
    """
    started = time.perf_counter()
    if loaded is None:
        loaded = load_task(task.task, task.data_dir, splits=[], **task.spec_fields())
    rows = loaded.subset(task.max_train_samples, None, seed=augmentation.seed).train
    folder = Path(augmentation.corpus_dir).expanduser()
    result = build_augmented_corpus(
        rows,
        replace(
            augmentation,
            num_samples=augmentation.num_samples or PAPER_NUM_SAMPLES.get(loaded.spec.name, DEFAULT_NUM_SAMPLES),
        ),
        columns=loaded.spec.text_columns,
        label_column=loaded.spec.label_column if loaded.spec.label_column in rows.column_names else None,
        work_dir=augmentation.work_dir or folder / "work",
    )
    written = write_corpus(
        "augment",
        folder,
        result,
        [task, augmentation],
        name=f"Augmented corpus of {loaded.spec.name}",
        packages=("datasets", "numpy", "tokenizers", "torch", "transformers"),
        kind="augmented",
        task=loaded.spec.name,
        task_licence=loaded.spec.licence,
        language=loaded.spec.language,
        citations=("tinybert", "contextualized_corpus"),
    )
    return {**written, "task": loaded.spec.name, "seconds": round(time.perf_counter() - started, 2)}


summary = corpus_summary
