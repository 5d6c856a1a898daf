"""Augments the training rows of a task (TaskDA): writes a folder with parquet files, card and statistics."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_distill.commands.corpus_folder import corpus_summary, write_corpus
from hf_distill.commands.folders import writes_folder
from hf_distill.corpus.augment.builder import DEFAULT_NUM_SAMPLES, build_augmented_corpus
from hf_distill.settings import AugmentationArguments, TaskArguments
from hf_distill.tasks.loading import LoadedTask, load_task

logger = logging.getLogger(__name__)

# Samples per text in TinyBERT's code. Its paper gives one number for all tasks, which is used for the others.
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
# Kinds of tasks whose rows are texts or pairs of texts.
AUGMENTED_KINDS = ("text_classification", "question_answering")


@writes_folder("data", "work")
def run(
    task: TaskArguments, augmentation: AugmentationArguments, *, loaded: LoadedTask | None = None
) -> dict[str, Any]:
    """Augment a task's training rows.

    Writes to `augmentation.corpus_dir`: `data/*.parquet` (readable by `--textbook` and `load_dataset`), `README.md`
    (the card), `statistics.json`, `arguments.yaml`, and `work/` (finished steps, unless another folder is named). A
    killed run is continued by the same command.

    Args:
        task: The task and the location of its rows.
        augmentation: The masked language model and the settings of word replacement.
        loaded: The task's rows if they are already loaded.

    Returns:
        `corpus_dir`, `rows`, `statistics`, `seconds`.

    Raises:
        OSError: If model or embeddings do not exist.
        ValueError: If no model is named, the task is of another kind, or data and settings do not match.
    """
    started = time.perf_counter()
    if loaded is None:
        loaded = load_task(task.task, task.data_dir, splits=[], **task.spec_fields())
    spec = loaded.spec
    if spec.kind not in AUGMENTED_KINDS:
        raise ValueError(
            f"`--task` {spec.name!r} is of the kind {spec.kind!r}: its texts cannot be augmented on their own; "
            f"allowed are {', '.join(AUGMENTED_KINDS)}."
        )
    label_column: str | None = spec.label_column
    if spec.is_span:
        logger.warning(f"Task {spec.name!r}: answers are left out, because their positions have changed.")
        label_column = None
    rows = loaded.subset(task.max_train_samples, None, seed=augmentation.seed).train
    folder = Path(augmentation.corpus_dir).expanduser()
    result = build_augmented_corpus(
        rows,
        replace(
            augmentation,
            num_samples=augmentation.num_samples or PAPER_NUM_SAMPLES.get(spec.name, DEFAULT_NUM_SAMPLES),
        ),
        columns=spec.text_columns,
        label_column=label_column if label_column in rows.column_names else None,
        work_dir=augmentation.work_dir or folder / "work",
    )
    written = write_corpus(
        "augment",
        folder,
        result,
        [task, augmentation],
        name=f"Augmented corpus of {spec.name}",
        packages=("datasets", "numpy", "tokenizers", "torch", "transformers"),
        kind="augmented",
        task=spec.name,
        task_licence=spec.licence,
        language=spec.language,
        citations=("tinybert", "contextualized_corpus"),
    )
    return {**written, "task": spec.name, "seconds": round(time.perf_counter() - started, 2)}


summary = corpus_summary
