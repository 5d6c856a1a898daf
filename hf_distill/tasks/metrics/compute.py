"""Computes the metrics of a task: a `compute_metrics` for any `Trainer`, and the scores of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_distill.tasks.metrics.scores import SCORES
from hf_distill.tasks.rows.predictions import score_answers, score_words
from hf_distill.tasks.several_labels import SEVERAL_SCORES
from hf_distill.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import EvalPrediction


def build_compute_metrics(
    spec: TaskSpec, rows: Dataset | None = None, tokens: Dataset | None = None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """The `compute_metrics` of a task for any `Trainer`.

    Args:
        spec: The task.
        rows: The normalised rows of the split from `load_task`, needed to score words and answers; not needed if a
            label belongs to a whole row.
        tokens: Their tokens from `tokenize_task`, in the order of evaluation; needed in the same cases.

    Returns:
        A function from an `EvalPrediction` to the task's scores by name. Predictions are logits (B, C), or a tuple
        that starts with them; in token classification logits (B, T, C) or the best tags (B, T); in question answering
        start and end scores, (B, T) each. Hidden labels are ignored.

    Raises:
        ValueError: If rows or tokens are missing but needed.
    """
    if not spec.is_of_rows and (rows is None or tokens is None):
        raise ValueError(
            f"Task {spec.name!r} ({spec.kind}) is scored on its words: `build_compute_metrics(spec, rows, tokens)` "
            "needs the rows of `load_task` and the tokens of `tokenize_task`."
        )

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        outputs: Any = prediction.predictions
        if rows is not None and tokens is not None and spec.kind == "token_classification":
            return score_words(spec, rows, tokens, np.asarray(_first(outputs)))
        if rows is not None and tokens is not None and spec.is_span:
            return score_answers(spec, rows, tokens, np.asarray(outputs[0]), np.asarray(outputs[1]))
        labels = np.asarray(_first(prediction.label_ids))
        return compute_scores(spec, predictions_of(spec, np.asarray(_first(outputs))), labels)

    return compute_metrics


def _first(values: Any) -> Any:
    """Return the first of several outputs, or the only output."""
    return values[0] if isinstance(values, tuple) else values


def predictions_of(spec: TaskSpec, logits: np.ndarray) -> np.ndarray:
    """Classes or values (B,) from logits (B, C); the logits themselves if rows have several labels.

    Raises:
        ValueError: If the head's number of outputs is not the task's number of labels, or an output is not finite.
    """
    if logits.ndim == 1:
        logits = logits[:, None]
    if logits.ndim != 2 or logits.shape[-1] != spec.num_labels:
        raise ValueError(
            f"Task {spec.name!r} needs {spec.num_labels} outputs per row, the model gives {logits.shape[1:]}."
        )
    if not np.isfinite(logits).all():
        raise ValueError(
            f"The model's outputs on task {spec.name!r} are not finite: the training diverged. "
            "Lower `--learning_rate`, or train without `--fp16`."
        )
    if spec.several_labels:
        return logits
    return logits[:, 0] if spec.label_names is None else logits.argmax(axis=-1)


def compute_scores(spec: TaskSpec, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """The task's scores over the rows with a known label.

    Args:
        spec: The task.
        predictions: Classes or values, (rows,); logits (rows, C) if rows have several labels.
        references: Labels, (rows,), or 0 and 1 for each label, (rows, C); hidden ones (-1, NaN in regression) are
            ignored.

    Raises:
        ValueError: If the lengths differ, or no label is known.
    """
    if predictions.shape != references.shape:
        raise ValueError(f"{predictions.shape} predictions do not fit {references.shape} references.")
    shown = spec.visible(references)
    if not shown.any():
        raise ValueError(
            f"Task {spec.name!r}: all {len(references)} labels are hidden; evaluate on {list(spec.evaluation_splits)}."
        )
    scores = SEVERAL_SCORES if spec.several_labels else SCORES
    return {name: scores[name](predictions[shown], references[shown]) for name in spec.metrics}
