"""Label names and label values: one order, compared by name."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List, Value

from hf_distill.tasks.spec import HIDDEN_LABEL, TaskSpec

logger = logging.getLogger(__name__)

# How sources write "no label": the GLUE files, SNLI's disagreement mark, empty cells.
HIDDEN_TEXTS = frozenset({"", "-", "-1", "hidden"})
MAX_EXAMPLES = 5
_GENERIC = re.compile(r"(label_)?\d+", flags=re.IGNORECASE)

# Columns of a batch that hold labels: of rows or tokens, and of spans.
LABEL_COLUMNS = ("labels", "start_positions", "end_positions")


@cache
def _warn_once(message: str) -> None:
    """Warn about something that is met again with every model or batch."""
    logger.warning(message)


def cast_column(rows: Dataset, column: str, wanted: Any, *, spec: TaskSpec, split: str) -> Dataset:
    """Cast a column to the type that a task needs, such as texts.

    Raises:
        ValueError: If its values are of another kind.
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


def is_generic(names: Sequence[str]) -> bool:
    """Whether names are placeholders: numbers, or the `LABEL_0` of an unnamed head."""
    return all(_GENERIC.fullmatch(name) for name in names)


class LabelNames:
    """Matches written labels with names, by one rule: exactly, by a declared alias, or regardless of case.

    Spaces around a name, and the way in which its accents are written, count as little as its case. Names that differ
    by case only stay two: a text that is neither of them exactly is then none of them.
    """

    def __init__(self, names: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None) -> None:
        """Map every name and every alias to its label.

        Args:
            names: Label names in their order.
            aliases: Name -> other texts that mean it.

        Raises:
            ValueError: If there is an alias of no label, or one of two.
        """
        self._exact = {name: index for index, name in enumerate(names)}
        for name, others in (aliases or {}).items():
            if name not in names:
                raise ValueError(f"`label_aliases` has {name!r}; the labels are {list(names)}.")
            for other in others:
                if self._exact.setdefault(other, self._exact[name]) != self._exact[name]:
                    raise ValueError(f"`label_aliases`: {other!r} would mean {name!r} and another label too.")
        places: dict[str, set[int]] = {}
        for text, index in self._exact.items():
            places.setdefault(_folded(text), set()).add(index)
        self._folded = {text: min(found) for text, found in places.items() if len(found) == 1}

    def find(self, text: str) -> int | None:
        """Index of the label that a text means; `None` if it means none, or could mean several."""
        exact = self._exact.get(text)
        return self._folded.get(_folded(text)) if exact is None else exact


def _folded(text: str) -> str:
    """Return a text without differences that do not matter: case, spaces around it, the encoding of accents."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def order_by_name(
    found: Sequence[str], wanted: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None
) -> list[int] | None:
    """Positions in `found` of the labels of `wanted` by the rule of `LabelNames`; `None` if they are not the same.

    Args:
        found: Label names as they are.
        wanted: Label names as they should be.
        aliases: Name in `wanted` -> other texts that mean it.
    """
    if list(found) == list(wanted):
        return list(range(len(wanted)))
    names = LabelNames(wanted, aliases)
    places = [names.find(name) for name in found]
    if sorted(-1 if place is None else place for place in places) != list(range(len(wanted))):
        return None
    return [places.index(index) for index in range(len(wanted))]


def order_by_number(found: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Positions in `found` of the labels of `wanted` where one side has numbers only, which count the other's names.

    `None` if neither side is generic, their sizes differ, or a number is there twice.
    """
    sides = [_places(found), _places(wanted)]
    if len(found) != len(wanted) or None in sides or not (is_generic(found) or is_generic(wanted)):
        return None
    theirs, ours = sides
    return None if theirs is None or ours is None else [theirs.index(place) for place in ours]


def _places(names: Sequence[str]) -> list[int] | None:
    """The place that every name has by its number, or by its position; `None` if two have one number."""
    if not is_generic(names):
        return list(range(len(names)))
    numbers = [int(name.rpartition("_")[2]) for name in names]
    ranks = {number: rank for rank, number in enumerate(sorted(numbers))}
    return [ranks[number] for number in numbers] if len(ranks) == len(numbers) else None


def match_label_order(
    found: Sequence[str],
    wanted: Sequence[str],
    *,
    where: str,
    aliases: Mapping[str, Sequence[str]] | None = None,
) -> list[int]:
    """Positions in `found` of the labels of `wanted`, compared by name (see `LabelNames`).

    `logits[..., order]` puts outputs in the order of `found` into the order of `wanted`. Names that say nothing
    (`LABEL_0`, `0`) are taken to count the wanted ones.

    Args:
        found: Label names as they are.
        wanted: Label names as they should be.
        where: What `found` belongs to, for the error.
        aliases: Name in `wanted` -> other texts that mean it.

    Raises:
        ValueError: If the two are not the same names.
    """
    order = order_by_name(found, wanted, aliases)
    if order is None:
        order = order_by_number(found, wanted)
    if order is not None:
        return order
    raise ValueError(
        f"{where} has the labels {list(found)}, the task has {list(wanted)}: they cannot be matched by name. "
        "Rename them in the source, or give the task its own names (`label_names` in a task.yaml, `--class_names`)."
    )


def names_of_head(config: Any) -> list[str]:
    """Names of a model's outputs in the order of `id2label`; a warning says where `label2id` contradicts it.

    Args:
        config: Configuration of a model.
    """
    by_index = {int(index): str(name) for index, name in (getattr(config, "id2label", None) or {}).items()}
    names = [by_index[index] for index in sorted(by_index)]
    label2id = {str(name): int(index) for name, index in (getattr(config, "label2id", None) or {}).items()}
    # A configuration that was given `id2label` alone has generic names in `label2id`.
    if not is_generic(list(label2id)) and any(by_index.get(index) != name for name, index in label2id.items()):
        _warn_once(
            f"The configuration of {getattr(config, 'name_or_path', '') or type(config).__name__!r} contradicts "
            f"itself: `id2label` is {by_index}, `label2id` is {label2id}. `id2label` counts; mend the other one."
        )
    return names


def check_one_label(rows: Dataset, column: str, *, where: str) -> None:
    """Refuse labels that are lists or mappings where a row has one.

    Raises:
        ValueError: If they are.
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
    """Give the label column the task's own order and type.

    Classification gets `ClassLabel(names=spec.label_names)` with -1 for a hidden label, regression `float32` with NaN
    for a missing one.

    Raises:
        ValueError: If a label is none of the task's.
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
    unknown = sorted({repr(value) for value in dataset.unique(column) if lookup.find(value) is None})
    if unknown:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r}: column {column!r} holds {unknown[:MAX_EXAMPLES]}"
            f"{' and others' if len(unknown) > MAX_EXAMPLES else ''}; allowed are the names {list(spec.label_names)} "
            f"or their numbers 0 to {spec.num_labels - 1}, and {HIDDEN_LABEL} for a hidden label."
        )
    values = [lookup.find(value) for value in dataset[column]]
    return _replace_column(dataset, column, values, ClassLabel(names=list(spec.label_names)))


def drop_labels(dataset: Dataset, spec: TaskSpec, *, split: str) -> Dataset:
    """Leave out rows without a label where the task says that they do not belong to it; they are counted.

    The rows of test splits stay: their labels may be hidden.
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
    """Looks up the values of a label column: an index in the task's order, or the mark of a hidden label."""

    def __init__(self, feature: Any, spec: TaskSpec, split: str) -> None:
        """Read the column's own names, if it has any.

        Args:
            feature: What `datasets` knows of the column, or of the items of its lists.
            spec: The task.
            split: Its split, for the error.

        Raises:
            ValueError: If the column's own names are not the task's.
        """
        names = spec.label_names or ()
        marks: dict[str, int] = {str(HIDDEN_LABEL): HIDDEN_LABEL}
        if isinstance(feature, ClassLabel):
            where = f"Split {split!r} of task {spec.name!r}"
            order = match_label_order(feature.names, names, where=where, aliases=spec.label_aliases)
            self._names: LabelNames | None = None
            self._marks = marks | {str(found): index for index, found in enumerate(order)}
            return
        self._names = LabelNames(names, spec.label_aliases)
        marks |= dict.fromkeys(HIDDEN_TEXTS, HIDDEN_LABEL)
        # Where names are numbers, a number is a name.
        if not any(name.isdecimal() for name in names):
            marks |= {str(index): index for index in range(len(names))}
        if len(names) == 2:
            marks |= {"false": 0, "true": 1}
        self._marks = marks | {label.casefold(): HIDDEN_LABEL for label in spec.dropped_labels}

    def find(self, value: Any) -> int | None:
        """The label that a value means, -1 if a hidden one; `None` if it is none of the task's."""
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return HIDDEN_LABEL
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = str(value).strip()
        found = self._find(text)
        # A table in which a label is missing writes the others with a fraction.
        return self._find(text[:-2]) if found is None and text.endswith(".0") else found

    def _find(self, text: str) -> int | None:
        named = self._names.find(text) if self._names is not None else None
        return self._marks.get(text.casefold()) if named is None else named


def _check_range(dataset: Dataset, spec: TaskSpec, split: str) -> None:
    """Refuse numbers in a ClassLabel column that have no name."""
    values = {value for value in dataset.unique(spec.label_column) if value is not None}
    wrong = sorted(value for value in values if not HIDDEN_LABEL <= value < spec.num_labels)
    if wrong:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r} holds the labels {wrong[:MAX_EXAMPLES]}; allowed are 0 to "
            f"{spec.num_labels - 1} and {HIDDEN_LABEL} for a hidden label."
        )


def _score(value: Any, spec: TaskSpec, split: str) -> float:
    """A regression label as a number, NaN where there is none."""
    if value is None or (isinstance(value, str) and value.strip() in ("", "hidden")):
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
    """The data set with one column replaced."""
    return dataset.remove_columns(name).add_column(name, values, feature=feature)


def label_permutation(teacher: Any, student: Any) -> list[int] | None:
    """For every label of the student its index in the teacher; `None` if the orders agree.

    Names are compared by the rule of `LabelNames`. Where one side has only default names
    (`LABEL_0` …), their numbers count the names of the other: one warning says so.

    Args:
        teacher: Configuration of the teacher's model.
        student: That of the student's.

    Raises:
        ValueError: If the names or their number differ.
    """
    theirs, ours = names_of_head(teacher), names_of_head(student)
    order = order_by_name(theirs, ours)
    if order is None:
        order = order_by_number(theirs, ours)
        if order is not None:
            _warn_once(
                f"Label names cannot be compared: the teacher's are {theirs}, the student's {ours}. Their orders are "
                "taken to be the same; set `id2label` in both configurations to have them checked."
            )
    if order is not None:
        return None if order == list(range(len(order))) else order
    raise ValueError(
        f"Teacher and student have different labels: {theirs} against {ours}. Create the student from this teacher, "
        "set `id2label` on either side, or leave `logits` out of `--objectives`."
    )
