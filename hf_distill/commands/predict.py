"""Writes the predictions of a classifier for texts, or for the rows of a task for its leaderboard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from hf_distill.capture.architectures import num_positions
from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import finish
from hf_distill.commands.textbook import read_rows
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.settings import PredictionArguments, TextbookArguments
from hf_distill.storage.files import write_text
from hf_distill.tasks.loading import LoadedTask, load_task
from hf_distill.tasks.rows.text import PAIR_COLUMN, check_texts, remembered_length
from hf_distill.tasks.rows.tokenizing import check_max_length
from hf_distill.tasks.submissions import submission
from hf_distill.trainers.fine_tuning.heads import RowHead
from hf_distill.trainers.fine_tuning.predictions import predict_texts, prediction_records, write_predictions
from hf_distill.trainers.fine_tuning.task_models import check_positions, label_order

# Maximum tokens of a text, if no flag, task or tokenizer file says otherwise.
LONGEST_TEXT = 128


@writes_folder()
def run(arguments: PredictionArguments) -> dict[str, Any]:
    """Predict the labels of texts with a classifier.

    Writes to `output_dir`: `predictions.jsonl` or `predictions.csv` with one line for each row, in order; with
        `submission` the leaderboard's file; `results.json` and `arguments.yaml`.

    Args:
        arguments: The model, the texts, and the format of the file.

    Returns:
        The content of `results.json`: `rows`, `file`, and `submission` (the file, or `None`).

    Raises:
        ValueError: If the model is not a text classifier, or its labels do not match the rows.
        OSError: If the model does not exist.
    """
    if arguments.model is None:
        raise ValueError("`--model` is missing: give the Hub id or folder of the model that predicts.")
    started = time.perf_counter()
    model = load_model(arguments.model, flag="--model", revision=arguments.revision).eval()
    if not type(model).__name__.endswith(RowHead.suffix):
        raise ValueError(
            f"`--model` {arguments.model!r} is a {type(model).__name__}; texts are predicted by a ...{RowHead.suffix}."
        )
    tokenizer = load_tokenizer(arguments.model, flag="--model", revision=arguments.revision)
    task, split = _task_of(arguments)
    columns = _texts(arguments) if task is None else [task.split(split)[name][:] for name in task.spec.text_columns]
    limit = arguments.max_length or _usual_length(task, model, tokenizer)
    check_max_length(limit, tokenizer, pair=len(columns) > 1)
    check_positions(model.config, limit)
    if not arguments.use_cpu:
        model.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=arguments.bf16):
        logits = predict_texts(model, tokenizer, *columns, batch_size=arguments.eval_batch_size, max_length=limit)
    folder = Path(arguments.output_dir)
    records = prediction_records(model.config, logits)
    file = write_predictions(folder / f"predictions.{arguments.file_format}", records, arguments.file_format)
    facts = {
        "job": "predict",
        "model": arguments.model,
        "task": None if task is None else task.spec.name,
        "split": split or None,
        "rows": len(records),
        "file": file.name,
        "submission": _submit(task, split, logits, model, folder)
        if task is not None and arguments.submission
        else None,
    }
    return finish(arguments.output_dir, facts, started, arguments)


def summary(results: dict[str, Any]) -> str:
    """Report how many rows were predicted, and where the file is."""
    more = f", for the leaderboard {results['submission']}" if results["submission"] else ""
    return f"{results['rows']:,} rows predicted in {results['seconds']:.1f} s: {results['file']}{more}"


def _usual_length(task: LoadedTask | None, model: Any, tokenizer: Any) -> int:
    """Maximum tokens of a row: for a task, the length that `evaluate` uses; for plain text, that of the training."""
    if task is not None:
        return task.spec.fine_tuning.max_length
    return min(remembered_length(tokenizer) or LONGEST_TEXT, num_positions(model.config) or LONGEST_TEXT)


def _task_of(arguments: PredictionArguments) -> tuple[LoadedTask | None, str]:
    """The task whose rows are predicted, and the split."""
    if arguments.task is None:
        return None, ""
    task = load_task(arguments.task, arguments.data_dir, splits=[], **arguments.column_fields())
    there = list(task.dataset)
    split = arguments.split or next((name for name in task.spec.test_splits if name in there), None)
    if split is None or split not in there or task.spec.kind != "text_classification":
        raise ValueError(
            f"`--task` {arguments.task!r} ({task.spec.kind}) has no split "
            f"{arguments.split or ' or '.join(task.spec.test_splits)!r} of texts to classify; it has {sorted(there)}: "
            "name one with `--split`."
        )
    return task, str(split)


def _texts(arguments: PredictionArguments) -> list[list[str]]:
    """The texts of files, and the second texts if there are any."""
    column = arguments.text_column
    rows = read_rows(TextbookArguments(arguments.text), column, flag="--text")
    columns = {name: rows[name][:] for name in (column, PAIR_COLUMN) if name in rows.column_names}
    check_texts(columns, column, range(len(rows)))
    return list(columns.values())


def _submit(task: LoadedTask, split: str, logits: Any, model: Any, folder: Path) -> str:
    """Write the leaderboard's file and return its name."""
    spec, rows = task.spec, task.split(split)
    ordered = logits[:, label_order(model.config, spec, where="`--model`")]
    said = ordered[:, 0] if spec.label_names is None else ordered.argmax(1)
    ids = next((rows[name][:] for name in ("idx", "id") if name in rows.column_names), None)
    name, content = submission(spec, split, said.tolist(), ids)
    write_text(folder / name, content)
    return name
