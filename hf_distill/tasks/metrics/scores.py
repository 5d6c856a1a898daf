"""The scores of tasks as plain functions of two arrays of shape (rows,).

They agree with scikit-learn and scipy, with one exception. Where those return NaN with a warning (a correlation with a
constant), the score here is 0.0 with a logged warning: a constant prediction has no information, NaN is not valid
JSON, and a checkpoint with NaN would never be chosen as the best. If a prediction or a label is not finite, or there
are no rows, an error is raised.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import numpy as np

logger = logging.getLogger(__name__)

Score = Callable[[np.ndarray, np.ndarray], float]


def _of_finite_rows(score: Score) -> Score:
    """Wrap a score so that both inputs are checked first: one finite number for each row."""

    @functools.wraps(score)
    def checked(predictions: np.ndarray, references: np.ndarray) -> float:
        predictions, references = np.asarray(predictions), np.asarray(references)
        if predictions.shape != references.shape or predictions.ndim != 1 or not len(references):
            raise ValueError(
                f"{score.__name__} of predictions {predictions.shape} and labels {references.shape}: both must be one "
                "number a row, of at least one row."
            )
        for side, values in (("prediction", predictions), ("label", references)):
            wrong = np.flatnonzero(~np.isfinite(values))
            if len(wrong):
                raise ValueError(
                    f"{score.__name__}: the {side} of row {wrong[0]} is {values[wrong[0]]} ({len(wrong)} of "
                    f"{len(values)} are not finite); they cannot be scored."
                )
        return score(predictions, references)

    return checked


@_of_finite_rows
def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    """Share of rows with the right class."""
    return float(np.mean(predictions == references))


@_of_finite_rows
def f1(predictions: np.ndarray, references: np.ndarray) -> float:
    """F1 of class 1; 0.0 if class 1 occurs neither in the predictions nor in the labels (as in scikit-learn)."""
    return binary_f1(predictions == 1, references == 1)


@_of_finite_rows
def f1_macro(predictions: np.ndarray, references: np.ndarray) -> float:
    """Unweighted mean of the F1 of every class that occurs in the predictions or the references."""
    classes = np.union1d(predictions, references)
    return float(np.mean([binary_f1(predictions == label, references == label) for label in classes]))


@_of_finite_rows
def matthews_correlation(predictions: np.ndarray, references: np.ndarray) -> float:
    """Matthews correlation for any number of classes; 0.0 if one side has only one class (as in scikit-learn)."""
    classes, codes = np.unique(np.concatenate([predictions, references]), return_inverse=True)
    predicted, actual = codes[: len(predictions)], codes[len(predictions) :]
    rows = float(len(references))
    right = float(np.sum(predicted == actual))
    predicted_counts = np.bincount(predicted, minlength=len(classes)).astype(np.float64)
    actual_counts = np.bincount(actual, minlength=len(classes)).astype(np.float64)
    covariance = right * rows - predicted_counts @ actual_counts
    variances = (rows**2 - predicted_counts @ predicted_counts) * (rows**2 - actual_counts @ actual_counts)
    return float(covariance / np.sqrt(variances)) if variances > 0 else 0.0


@_of_finite_rows
def pearson(predictions: np.ndarray, references: np.ndarray) -> float:
    """Pearson correlation; 0.0 and a logged warning if one side is constant."""
    return _correlation(predictions.astype(np.float64), references.astype(np.float64), "Pearson")


@_of_finite_rows
def spearman(predictions: np.ndarray, references: np.ndarray) -> float:
    """Spearman correlation with average ranks for ties; 0.0 and a logged warning if one side is constant."""
    from scipy.stats import rankdata

    return _correlation(rankdata(predictions), rankdata(references), "Spearman")


SCORES: dict[str, Score] = {
    "accuracy": accuracy,
    "f1": f1,
    "f1_macro": f1_macro,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}


def binary_f1(given: np.ndarray, gold: np.ndarray) -> float:
    """F1 of two boolean arrays, predicted and gold; 0.0 if both are all false."""
    total = int(given.sum()) + int(gold.sum())
    return 2.0 * int((given & gold).sum()) / total if total else 0.0


def _correlation(left: np.ndarray, right: np.ndarray, name: str) -> float:
    """Correlation of two float arrays."""
    directions = []
    for values in (left, right):
        # Scale first, so that the square of a very large or very small value neither overflows nor underflows.
        values = values / max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
        centred = values - values.mean()
        length = np.linalg.norm(centred)
        # After rounding, the norm of a centred constant is tiny relative to its values, but not zero.
        if not length > 1e-13 * np.sqrt(len(values)):
            logger.warning(f"{name} correlation of a constant is not defined: scored as 0.0.")
            return 0.0
        directions.append(centred / length)
    return float(np.clip(directions[0] @ directions[1], -1.0, 1.0))
