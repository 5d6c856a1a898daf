"""The scores of tasks as plain functions of two arrays of shape (rows,).

They agree with scikit-learn and scipy; where those give NaN and a warning (a correlation with a constant) the score
here is 0.0 with a logged warning: a constant prediction knows nothing, and NaN is no JSON and never becomes a best
model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from transformers.utils import logging

logger = logging.get_logger(__name__)

Score = Callable[[np.ndarray, np.ndarray], float]


def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    """Share of rows whose class is right."""
    return float(np.mean(predictions == references))


def f1(predictions: np.ndarray, references: np.ndarray) -> float:
    """F1 of class 1; 0.0 where class 1 is neither predicted nor there (scikit-learn's `zero_division`)."""
    return _class_f1(predictions, references, 1)


def f1_macro(predictions: np.ndarray, references: np.ndarray) -> float:
    """Unweighted mean of the F1 of every class that occurs in predictions or references."""
    classes = np.union1d(predictions, references)
    return float(np.mean([_class_f1(predictions, references, label) for label in classes]))


def matthews_correlation(predictions: np.ndarray, references: np.ndarray) -> float:
    """Matthews correlation for any number of classes; 0.0 where either side holds one class only (scikit-learn)."""
    classes, codes = np.unique(np.concatenate([predictions, references]), return_inverse=True)
    predicted, actual = codes[: len(predictions)], codes[len(predictions) :]
    rows = float(len(references))
    right = float(np.sum(predicted == actual))
    predicted_counts = np.bincount(predicted, minlength=len(classes)).astype(np.float64)
    actual_counts = np.bincount(actual, minlength=len(classes)).astype(np.float64)
    covariance = right * rows - predicted_counts @ actual_counts
    variances = (rows**2 - predicted_counts @ predicted_counts) * (rows**2 - actual_counts @ actual_counts)
    return float(covariance / np.sqrt(variances)) if variances > 0 else 0.0


def pearson(predictions: np.ndarray, references: np.ndarray) -> float:
    """Pearson correlation; 0.0 and a logged warning where a side is constant."""
    return _correlation(predictions.astype(np.float64), references.astype(np.float64), "Pearson")


def spearman(predictions: np.ndarray, references: np.ndarray) -> float:
    """Spearman correlation with average ranks for ties; 0.0 and a logged warning where a side is constant."""
    return _correlation(_ranks(predictions), _ranks(references), "Spearman")


SCORES: dict[str, Score] = {
    "accuracy": accuracy,
    "f1": f1,
    "f1_macro": f1_macro,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}


def _class_f1(predictions: np.ndarray, references: np.ndarray, label: int) -> float:
    """F1 of one class against the rest."""
    predicted, actual = predictions == label, references == label
    total = int(predicted.sum()) + int(actual.sum())
    return 2.0 * int((predicted & actual).sum()) / total if total else 0.0


def _correlation(left: np.ndarray, right: np.ndarray, name: str) -> float:
    """Correlation of two float arrays."""
    left, right = left - left.mean(), right - right.mean()
    scale = np.linalg.norm(left) * np.linalg.norm(right)
    # Rounding leaves a constant with a norm that is tiny against any real spread, but not zero.
    if not scale > 1e-13 * len(left):
        logger.warning(f"{name} correlation of a constant is not defined: scored as 0.0.")
        return 0.0
    return float(np.clip(left @ right / scale, -1.0, 1.0))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2.0)[inverse]
