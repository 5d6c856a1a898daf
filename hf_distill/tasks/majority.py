"""The majority baseline: the score of always predicting the most frequent label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.metrics.compute import compute_scores
from hf_distill.tasks.metrics.scores import SCORES
from hf_distill.tasks.rows.predictions import tag_scores
from hf_distill.tasks.several_labels import SEVERAL_SCORES
from hf_distill.tasks.spec import HIDDEN_LABEL, TaskSpec

# A constant prediction has no correlation with the labels.
CORRELATIONS = ("pearson", "spearman")


def majority_line(majority: Mapping[str, Any] | None) -> str | None:
    """Describe the majority baseline in a line; `None` where there is none."""
    if majority is None:
        return None
    score = "not defined" if majority["score"] is None else f"{majority['score']:.4f}"
    label = majority["label"]
    shown = f"{label:.4g}" if isinstance(label, float) else repr(label)
    return f"majority, {shown} for every row: {score}"


def constant_remark(constant: str | float | None) -> str:
    """Return a remark for a model that predicts the same label for every row; empty for any other model."""
    return "" if constant is None else f" (predicts only {constant!r}, whatever the text says)"


def majority_scores(task: LoadedTask) -> dict[str, Any] | None:
    """Scores of predicting the most frequent label, or the mean in a regression, on every evaluation split.

    The label is counted in the training rows, or in the headline split if no training rows were loaded. In token
    classification it is the most frequent tag. If rows have several labels, each row is predicted to have only this
    one.

    Returns:
        `label`, `scores` (split -> metric -> value; `None` for a correlation, which is undefined for a constant), and
        `score` on the headline split. `None` for tasks without a common label for all rows (question answering), and
        where no label is known.
    """
    spec, splits = task.spec, task.evaluation
    if spec.is_span or not splits:
        return None
    labels = _known(task.dataset.get(spec.train_split) or next(iter(splits.values())), spec)
    if not len(labels):
        return None
    guess = _guess(labels, spec)
    scores = {name: _score(rows, spec.for_split(name), guess) for name, rows in splits.items()}
    scores = {name: found for name, found in scores.items() if found is not None}
    headline = scores.get(spec.headline_split) or next(iter(scores.values()), None)
    if headline is None:
        return None
    label = guess if spec.label_names is None else spec.label_names[int(guess)]
    return {"label": label, "score": headline[spec.headline], "scores": scores}


def constant_label(predictions: np.ndarray, references: np.ndarray, spec: TaskSpec) -> str | float | None:
    """The label that is predicted for every row although the true labels vary; `None` if the predictions vary too.

    Args:
        predictions: Classes or values of rows or words, any shape.
        references: Labels of the same shape; hidden ones are negative (NaN in regression).
        spec: The task.
    """
    shown = ~np.isnan(references) if spec.label_names is None else references >= 0
    # Regression outputs that differ only by rounding count as equal.
    said, known = np.unique(predictions[shown].round(5)), np.unique(references[shown])
    if len(said) != 1 or len(known) < 2:
        return None
    return float(said[0]) if spec.label_names is None else spec.label_names[int(said[0])]


def _guess(labels: np.ndarray, spec: TaskSpec) -> float:
    """The index of the most frequent label, or the mean of the values."""
    if spec.label_names is None:
        return float(labels.mean())
    return int(labels.sum(0).argmax() if spec.several_labels else Counter(labels.tolist()).most_common(1)[0][0])


def _known(rows: Dataset, spec: TaskSpec) -> np.ndarray:
    """All known labels of rows or words; where rows have several labels, an array (rows, labels) of 0 and 1."""
    values = rows[spec.label_column][:]
    if spec.several_labels:
        labels = np.asarray(values, dtype=np.float64).reshape(-1, spec.num_labels)
        return labels[spec.visible(labels)]
    if spec.kind == "token_classification":
        values = [tag for tags in values for tag in tags]
    labels = np.asarray(values, dtype=np.float64)
    return labels[~np.isnan(labels)] if spec.label_names is None else labels[labels > HIDDEN_LABEL]


def _score(rows: Dataset, spec: TaskSpec, guess: float) -> dict[str, float | None] | None:
    """Scores of the same prediction for every row; `None` where no label is known."""
    labels = _known(rows, spec)
    if not len(labels):
        return None
    if spec.several_labels:
        given = np.where(np.arange(spec.num_labels) == guess, np.ones_like(labels), -1.0)
        return {name: SEVERAL_SCORES[name](given, labels) for name in spec.metrics}
    guesses = np.full(len(labels), guess)
    if spec.kind == "token_classification":
        tags = spec.label_names or ()
        gold = [[tags[tag] for tag in row if tag > HIDDEN_LABEL] for row in rows[spec.label_column]]
        return dict(tag_scores(spec, [[tags[int(guess)]] * len(row) for row in gold], gold))
    if spec.label_names is None:
        return {name: None if name in CORRELATIONS else SCORES[name](guesses, labels) for name in spec.metrics}
    return dict(compute_scores(spec, guesses.astype(int), labels.astype(int)))
