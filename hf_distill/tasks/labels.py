"""Label columns: converts every label to the task's own order and type, and recognises hidden labels."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List, Value

from hf_distill.storage.plain_values import shown
from hf_distill.tasks.label_names import LabelNames, match_label_order
from hf_distill.tasks.spec import HIDDEN_LABEL, TaskSpec

logger = logging.getLogger(__name__)

# How sources mark a missing label: the GLUE files, SNLI's disagreement mark, empty cells.
HIDDEN_TEXTS = frozenset({"", "-", "-1", "hidden"})
MAX_EXAMPLES = 5

# Label columns of a batch: for rows or tokens, and for spans.
LABEL_COLUMNS = ("labels", "start_positions", "end_positions")


def is_hidden(value: Any, spec: TaskSpec) -> bool:
    """Whether a cell marks a row without a label: it is empty, or holds a mark that is not the name of a class.

    In a regression, -1 may be a real label.
    """
    text = "" if value is None or value != value else str(value).strip()
    marks = {"", "hidden"} if spec.label_names is None else HIDDEN_TEXTS
    return text.casefold() in marks and text not in (spec.label_names or ())


def cast_column(rows: Dataset, column: str, wanted: Any, *, spec: TaskSpec, split: str) -> Dataset:
    """Cast a column to the type that a task needs, such as string.

    Raises:
        ValueError: If its values cannot be cast.
    """
    found = rows.features[column]
    if found == wanted:
        return rows
    try:
        return rows.cast_column(column, wanted)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r}: column {column!r} must hold {wanted}, it holds {found}."
        ) from error


def check_one_label(rows: Dataset, column: str, *, where: str) -> None:
    """Refuse lists or mappings as labels of a task with one label per row.

    Raises:
        ValueError: If the labels are lists or mappings.
    """
    feature = rows.features[column]
    if isinstance(feature, (Value, ClassLabel)):
        return
    first = next((value for value in rows[column] if value), None)
    raise ValueError(
        f"The label column {column!r} of {where!r} must hold one label a row, but holds {first!r}. For several labels "
        "a row give `--several_labels` (`several_labels: true` in task.yaml), for labels of words `kind: "
        "token_classification`."
    )


def normalise_labels(dataset: Dataset, spec: TaskSpec, *, split: str) -> Dataset:
    """Convert the label column to the task's own order and type.

    Classification gets `ClassLabel(names=spec.label_names)` with -1 for a hidden label; regression gets `float32` with
    NaN for a missing label.

    Raises:
        ValueError: If a label is not one of the task's.
    """
    column = spec.label_column
    check_one_label(dataset, column, where=spec.name)
    feature = dataset.features[column]
    if spec.label_names is None:
        if feature == Value("float32") and not np.isinf(np.asarray(dataset[column], dtype=np.float32)).any():
            return dataset
        values: list[Any] = [_score(value, spec, split) for value in dataset[column]]
        return _replace_column(dataset, column, values, Value("float32"))
    if isinstance(feature, ClassLabel) and tuple(feature.names) == spec.label_names:
        _check_range(dataset, spec, split)
        return dataset
    lookup = LabelLookup(feature, spec, split)
    unknown = sorted({shown(value) for value in dataset.unique(column) if lookup.find(value) is None})
    if unknown:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r}: column {column!r} holds {', '.join(unknown[:MAX_EXAMPLES])}"
            f"{' and others' if len(unknown) > MAX_EXAMPLES else ''}; allowed are the names {list(spec.label_names)} "
            f"or their numbers 0 to {spec.num_labels - 1}, and {HIDDEN_LABEL} for a hidden label (`--class_names`)."
        )
    values = [lookup.find(value) for value in dataset[column]]
    return _replace_column(dataset, column, values, ClassLabel(names=list(spec.label_names)))


def drop_labels(dataset: Dataset, spec: TaskSpec, *, split: str) -> Dataset:
    """Drop rows without a label, and count them, if the spec says that they are not part of the task.

    Test splits keep these rows: their labels may be hidden.
    """
    if not spec.dropped_labels or split in spec.test_splits:
        return dataset
    shown = visible_labels(dataset, spec)
    if shown.all():
        return dataset
    logger.warning(
        f"Task {spec.name!r}: {int((~shown).sum())} of {len(dataset)} rows of split {split!r} have no label "
        f"({', '.join(map(repr, spec.dropped_labels))}) and are left out, as the task's authors do."
    )
    return dataset.select(shown.nonzero()[0])


def hide_labels(dataset: Dataset, spec: TaskSpec) -> Dataset:
    """Add a label column in which every label is hidden."""
    if spec.label_names is None:
        return dataset.add_column(spec.label_column, [float("nan")] * len(dataset), feature=Value("float32"))
    if spec.several_labels:
        hidden = [[float(HIDDEN_LABEL)] * spec.num_labels] * len(dataset)
        return dataset.add_column(spec.label_column, hidden, feature=List(Value("float32")))
    feature = ClassLabel(names=list(spec.label_names))
    return dataset.add_column(spec.label_column, [HIDDEN_LABEL] * len(dataset), feature=feature)


def visible_labels(dataset: Dataset, spec: TaskSpec) -> np.ndarray:
    """Boolean array (rows,): which rows of a normalised split have a known label."""
    return spec.visible(np.asarray(dataset[spec.label_column], dtype=np.float64))


class LabelLookup:
    """Converts values of a label column to indices in the task's order, or to the mark of a hidden label."""

    def __init__(self, feature: Any, spec: TaskSpec, split: str) -> None:
        """Read the label names of the column's type, if it has any.

        Args:
            feature: The `datasets` feature of the column, or of the items of its lists.
            spec: The task.
            split: Its split, for the error message.

        Raises:
            ValueError: If the column's label names are not the task's.
        """
        names = spec.label_names or ()
        marks: dict[str, int] = {str(HIDDEN_LABEL): HIDDEN_LABEL}
        if isinstance(feature, ClassLabel):
            self._marks = marks | {str(number): place for number, place in enumerate(_places(feature, spec, split))}
            self._names: LabelNames | None = None
            return
        self._names = LabelNames(names, spec.label_aliases)
        marks |= dict.fromkeys(HIDDEN_TEXTS, HIDDEN_LABEL)
        # If the label names are numbers, a number in a cell is a name and not an index.
        if not any(name.isdecimal() for name in names):
            marks |= {str(index): index for index in range(len(names))}
        if len(names) == 2:
            marks |= {"false": 0, "true": 1}
        self._marks = marks | {label.casefold(): HIDDEN_LABEL for label in spec.dropped_labels}

    def find(self, value: Any) -> int | None:
        """Index of the label that a value means, -1 if it is hidden; `None` if it is not one of the task's labels."""
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return HIDDEN_LABEL
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = str(value).strip()
        found = self._find(text)
        # A numeric column with a missing label is read as floats: `1.0` means `1`.
        return self._find(text[:-2]) if found is None and text.endswith(".0") else found

    def _find(self, text: str) -> int | None:
        named = self._names.find(text) if self._names is not None else None
        return self._marks.get(text.casefold()) if named is None else named


def _places(feature: ClassLabel, spec: TaskSpec, split: str) -> list[int]:
    """Of every class of a column its place in the task's order; a split may lack some of the task's classes.

    Raises:
        ValueError: If it has others.
    """
    known = LabelNames(spec.label_names or (), spec.label_aliases)
    places = [place for name in feature.names if (place := known.find(name)) is not None]
    if len(set(places)) == len(feature.names):
        return places
    where = f"Split {split!r} of task {spec.name!r}"
    order = match_label_order(feature.names, spec.label_names or (), where=where, aliases=spec.label_aliases)
    return [order.index(number) for number in range(len(order))]


def _check_range(dataset: Dataset, spec: TaskSpec, split: str) -> None:
    """Refuse indices in a ClassLabel column that have no name."""
    values = {value for value in dataset.unique(spec.label_column) if value is not None}
    wrong = sorted(value for value in values if not HIDDEN_LABEL <= value < spec.num_labels)
    if wrong:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r} holds the labels {wrong[:MAX_EXAMPLES]}; allowed are 0 to "
            f"{spec.num_labels - 1} and {HIDDEN_LABEL} for a hidden label."
        )


def _score(value: Any, spec: TaskSpec, split: str) -> float:
    """A regression label as a float, NaN where it is missing."""
    if is_hidden(value, spec):
        return float("nan")
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = float("inf")
    if np.isinf(score):
        raise ValueError(
            f"Split {split!r} of regression task {spec.name!r}: column {spec.label_column!r} holds {value!r}, "
            "which is not a finite number."
        )
    return score


def _replace_column(dataset: Dataset, name: str, values: list[Any], feature: Any) -> Dataset:
    """Return the data set with one column replaced."""
    return dataset.remove_columns(name).add_column(name, values, feature=feature)
