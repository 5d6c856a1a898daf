"""Several labels a row: how columns hold them, how they are scored, and the thresholds for predicting a label.

In normalised rows the label column holds 0 or 1 for every label in the task's order; a row with hidden labels holds
-1 for all of them.

Shape legend: B rows, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List, Value

from .labels import HIDDEN_TEXTS, LabelLookup
from .metrics.scores import binary_f1
from .spec import HIDDEN_LABEL, TaskSpec

# Maximum number of labels that a message names.
SHOWN = 5


def says_several(rows: Dataset, column: str, separator: str | None) -> bool:
    """Whether a label column holds lists of names or numbers, or texts to be split at a separator."""
    feature = rows.features[column]
    of_items = isinstance(feature, List) and isinstance(feature.feature, (Value, ClassLabel))
    return of_items or separator is not None


def items_of(value: Any, separator: str | None) -> list[Any] | None:
    """The labels of one cell; `None` if they are hidden. An empty cell of separated labels means no label."""
    if value is None:
        return None if separator is None else []
    if not isinstance(value, str):
        return list(value)
    if value.strip() and value.strip().lower() in HIDDEN_TEXTS:
        return None
    parts = value.split(separator) if separator else [value]
    return [part.strip() for part in parts if part.strip()]


def are_places(cells: Sequence[list[Any] | None]) -> bool:
    """Whether lists hold 0 or 1 for every label (multi-hot), instead of the row's labels."""
    known = [cell for cell in cells if cell is not None]
    lengths = {len(cell) for cell in known}
    numbers = all(isinstance(item, (int, float, bool)) and item in (0, 1) for cell in known for item in cell)
    return len(lengths) == 1 and lengths.pop() > 1 and numbers


def names_in(rows: Dataset, column: str, separator: str | None) -> list[str]:
    """The label names in a column: those of its `ClassLabel`, its texts in sorted order, or its numbers.

    Raises:
        ValueError: If there are fewer than two.
    """
    feature: Any = rows.features[column]
    if isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
        return list(feature.feature.names)
    cells = [items_of(value, separator) for value in rows[column]]
    if are_places(cells):
        return [str(number) for number in range(len(next(cell for cell in cells if cell is not None)))]
    items = {item for cell in cells for item in cell or ()}
    if items and all(isinstance(item, (int, float)) for item in items):
        return [str(number) for number in range(int(max(items)) + 1)]
    names = sorted(str(item) for item in items)
    if len(names) < 2:
        raise ValueError(f"Column {column!r} names the labels {names}; several labels a row need at least two.")
    return names


def splits_hold_places(splits: Mapping[str, Sequence[Dataset]], spec: TaskSpec) -> bool:
    """Whether the splits of a task hold 0 or 1 for every label (multi-hot), instead of the row's labels.

    The training split decides for all splits: in a few rows `[0, 1]` may be either. Without it all splits decide
    together.
    """
    column = spec.label_column
    parts = splits.get(spec.train_split) or [part for split in splits.values() for part in split]
    cells = [
        _without_hidden(items_of(value, spec.label_separator), spec)
        for part in parts
        if column in part.column_names and says_several(part, column, spec.label_separator)
        for value in part[column]
    ]
    return are_places(cells) and all(len(cell) == spec.num_labels for cell in cells if cell is not None)


def normalise_several(rows: Dataset, spec: TaskSpec, *, split: str, places: bool) -> Dataset:
    """Convert the label column to 0 or 1 for every label of the task.

    Args:
        rows: Rows of one split.
        spec: The task.
        split: The split, for messages.
        places: Whether the task's rows hold 0 or 1 for every label (`splits_hold_places`), instead of labels.

    Raises:
        ValueError: If a label is not one of the task's, or the split holds the other format.
    """
    column = spec.label_column
    feature: Any = rows.features[column]
    item = feature.feature if isinstance(feature, List) else feature
    cells = [items_of(value, spec.label_separator) for value in rows[column]]
    where = f"Split {split!r} of task {spec.name!r}: column {column!r}"
    if places:
        cells = [_without_hidden(cell, spec) for cell in cells]
        wrong = next((cell for cell in cells if cell is not None and not _is_places(cell, spec.num_labels)), None)
        if wrong is not None:
            raise ValueError(
                f"{where} holds {wrong}, but the task's rows hold 0 or 1 for each of its {spec.num_labels} labels: "
                "write all splits alike."
            )
        values = [
            [float(HIDDEN_LABEL)] * spec.num_labels if cell is None else list(map(float, cell)) for cell in cells
        ]
    else:
        _refuse_places(cells, spec, where)
        lookup = LabelLookup(item, spec, split)
        found = [None if cell is None else [lookup.find(one) for one in cell] for cell in cells]
        unknown = [
            one
            for cell, places in zip(cells, found, strict=True)
            for one, place in zip(cell or (), places or (), strict=True)
            if place is None or place < 0
        ]
        if unknown:
            raise ValueError(
                f"{where} holds the labels "
                f"{sorted({repr(one) for one in unknown})[:SHOWN]}; allowed are the names "
                f"{list(spec.label_names or ())} or their numbers 0 to {spec.num_labels - 1}."
            )
        values = [_places(cell, spec.num_labels) for cell in found]
    return rows.remove_columns(column).add_column(column, values, feature=List(Value("float32")))


def _without_hidden(cell: list[Any] | None, spec: TaskSpec) -> list[Any] | None:
    """A cell of 0 and 1 for every label; `None` if it is empty, or holds only the mark of a hidden label."""
    return None if not cell or cell == [HIDDEN_LABEL] * spec.num_labels else cell


def _is_places(cell: Sequence[Any], count: int) -> bool:
    return len(cell) == count and all(isinstance(item, (int, float)) and item in (0, 1) for item in cell)


def _refuse_places(cells: Sequence[list[Any] | None], spec: TaskSpec, where: str) -> None:
    """Refuse 0 and 1 for every label where the other splits hold labels; a row that repeats a value gives it away."""
    twice = next((cell for cell in cells if cell is not None and len(set(cell)) < len(cell)), None)
    if twice is not None and are_places(cells) and len(twice) == spec.num_labels:
        raise ValueError(
            f"{where} holds {twice}, which is 0 or 1 for each label, but the task's rows hold the labels themselves: "
            "write all splits alike."
        )


def _places(labels: Sequence[Any] | None, count: int) -> list[float]:
    if labels is None:
        return [float(HIDDEN_LABEL)] * count
    return [float(place in labels) for place in range(count)]


# ---- Scores ----


def f1_micro(scores: np.ndarray, labels: np.ndarray) -> float:
    """F1 over all labels of all rows together; a label is predicted if its logit is above 0."""
    return binary_f1(scores > 0, labels == 1)


def f1_macro(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the F1 of every label; 0 for a label that is neither predicted nor true."""
    return float(np.mean([binary_f1(scores[:, place] > 0, labels[:, place] == 1) for place in range(labels.shape[1])]))


def exact_match(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows in which all labels are right."""
    return float(((scores > 0) == (labels == 1)).all(1).mean())


def ranking_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over rows of the average, over the row's labels, of their share among the labels with at least that score.

    A row with no label, or with all labels, counts as 1 (scikit-learn's `label_ranking_average_precision_score`).
    """
    found = []
    for row, gold in zip(scores, labels == 1, strict=True):
        if not gold.any() or gold.all():
            found.append(1.0)
            continue
        own = row[gold]
        ranks = (row[None] >= own[:, None]).sum(1)
        hits = (own[None] >= own[:, None]).sum(1)
        found.append(float((hits / ranks).mean()))
    return float(np.mean(found))


SEVERAL_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "f1_micro": f1_micro,
    "f1_macro": f1_macro,
    "ranking_average_precision": ranking_average_precision,
    "exact_match": exact_match,
}


def best_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return for every label the probability threshold with the best F1; 0.5 if no row has the label.

    Args:
        probabilities: (B, C) for rows that were not used for training.
        labels: (B, C) 0 and 1.
    """
    found = []
    for place in range(labels.shape[1]):
        order = np.argsort(-probabilities[:, place], kind="stable")
        ranked, gold = probabilities[order, place], labels[order, place] == 1
        if not gold.any():
            found.append(0.5)
            continue
        given = np.arange(1, len(gold) + 1)
        scores = 2 * np.cumsum(gold) / (given + gold.sum())
        # A threshold cannot separate rows of equal probability.
        scores[:-1][ranked[:-1] == ranked[1:]] = -1
        best = int(scores.argmax())
        below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
        found.append(float((ranked[best] + below) / 2))
    return found
