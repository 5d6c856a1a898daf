"""Label names and label values: one order, compared by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Value
from transformers.utils import logging

from hf_distill.tasks.spec import HIDDEN_LABEL, TaskSpec

logger = logging.get_logger(__name__)

# How sources write "no label": the GLUE files, SNLI's disagreement mark, empty cells.
HIDDEN_TEXTS = frozenset({"", "-", "-1", "hidden"})
MAX_EXAMPLES = 5


def is_generic(names: Sequence[str]) -> bool:
    """Whether names say nothing: numbers, or the `LABEL_0` of an unnamed head."""
    return all(re.fullmatch(r"(label_)?\d+", name, flags=re.IGNORECASE) for name in names)


def order_by_name(found: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Positions in `found` of the labels of `wanted`, whatever their case; `None` if they are not the same names."""
    plain = [name.casefold() for name in found]
    if sorted(plain) != sorted(name.casefold() for name in wanted):
        return None
    return [plain.index(name.casefold()) for name in wanted]


def match_label_order(found: Sequence[str], wanted: Sequence[str], *, where: str) -> list[int]:
    """Positions in `found` of the labels of `wanted`, compared by name, whatever their case.

    `logits[..., order]` puts outputs in the order of `found` into the order of `wanted`. Names that say nothing
    (`LABEL_0`, `0`) are taken to be in the wanted order already.

    Args:
        found: Label names as they are.
        wanted: Label names as they should be.
        where: What `found` belongs to, for the error.

    Raises:
        ValueError: If the two are not the same names.
    """
    order = order_by_name(found, wanted)
    if order is not None:
        return order
    if len(found) == len(wanted) and (is_generic(found) or is_generic(wanted)):
        return list(range(len(wanted)))
    raise ValueError(
        f"{where} has the labels {list(found)}, the task has {list(wanted)}: they cannot be matched by name. "
        "Rename them in the source, or give the task its own names (`label_names` in a task.yaml, `--class_names`)."
    )


def names_of(label2id: Mapping[str, int]) -> list[str]:
    """Label names in the order of their indices."""
    return [name for name, _ in sorted(label2id.items(), key=lambda item: item[1])]


def normalise_labels(dataset: Dataset, spec: TaskSpec, *, split: str) -> Dataset:
    """Give the label column the task's own order and type.

    Classification gets `ClassLabel(names=spec.label_names)` with -1 for a hidden label, regression `float32` with NaN
    for a missing one.

    Raises:
        ValueError: If a label is none of the task's.
    """
    column = spec.label_column
    feature = dataset.features[column]
    if spec.label_names is None:
        if feature == Value("float32"):
            return dataset
        values: list[Any] = [_score(value, spec, split) for value in dataset[column]]
        return _replace_column(dataset, column, values, Value("float32"))
    if isinstance(feature, ClassLabel) and tuple(feature.names) == spec.label_names:
        _check_range(dataset, spec, split)
        return dataset
    lookup = label_lookup(feature, spec, split)
    unknown = sorted({repr(value) for value in dataset.unique(column) if label_key(value) not in lookup})
    if unknown:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r}: column {column!r} holds {unknown[:MAX_EXAMPLES]}"
            f"{' and others' if len(unknown) > MAX_EXAMPLES else ''}; allowed are the names {list(spec.label_names)} "
            f"or their numbers 0 to {spec.num_labels - 1}, and {HIDDEN_LABEL} for a hidden label."
        )
    values = [lookup[label_key(value)] for value in dataset[column]]
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
    feature = ClassLabel(names=list(spec.label_names))
    return dataset.add_column(spec.label_column, [HIDDEN_LABEL] * len(dataset), feature=feature)


def visible_labels(dataset: Dataset, spec: TaskSpec) -> np.ndarray:
    """Boolean array (rows,): which rows of a normalised split have a known label."""
    return spec.visible(np.asarray(dataset[spec.label_column], dtype=np.float64))


def label_lookup(feature: Any, spec: TaskSpec, split: str) -> dict[Any, int]:
    """Every value that a column may hold, as `label_key` writes it -> index in the task's order.

    Raises:
        ValueError: If the column's own names are not the task's.
    """
    names = spec.label_names or ()
    lookup: dict[Any, int] = {None: HIDDEN_LABEL, str(HIDDEN_LABEL): HIDDEN_LABEL}
    own = {other.casefold(): name for name, others in spec.label_aliases.items() for other in others}
    if isinstance(feature, ClassLabel):
        found = [own.get(name.casefold(), name) for name in feature.names]
        order = match_label_order(found, names, where=f"Split {split!r} of task {spec.name!r}")
        return lookup | {str(found): index for index, found in enumerate(order)}
    lookup |= dict.fromkeys(HIDDEN_TEXTS, HIDDEN_LABEL)
    lookup |= {str(index): index for index in range(len(names))}
    if len(names) == 2:
        lookup |= {"false": 0, "true": 1}
    lookup |= {label.casefold(): HIDDEN_LABEL for label in spec.dropped_labels}
    lookup |= {name.casefold(): index for index, name in enumerate(names)}
    return lookup | {other: names.index(name) for other, name in own.items()}


def label_key(value: Any) -> Any:
    """What a label is looked up by: 1, 1.0, "1" and True-as-text meet here."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()


def _check_range(dataset: Dataset, spec: TaskSpec, split: str) -> None:
    """A ClassLabel column may still hold numbers that have no name."""
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
        return float(value)
    except ValueError:
        raise ValueError(
            f"Split {split!r} of regression task {spec.name!r}: column {spec.label_column!r} holds {value!r}, "
            "which is not a number."
        ) from None


def _replace_column(dataset: Dataset, name: str, values: list[Any], feature: Any) -> Dataset:
    """The data set with one column replaced."""
    return dataset.remove_columns(name).add_column(name, values, feature=feature)
