"""Finds the label of a row: head and `config.problem_type` decide, whatever the data set and the collator.

Shape legend: B rows, T padded length, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import datasets
import torch
from torch import Tensor
from transformers.utils import logging

from hf_distill.tasks.labels import HIDDEN_TEXTS, LABEL_COLUMNS, LabelNames, is_generic, names_of_head

from ...objectives.logits import IGNORED

logger = logging.get_logger(__name__)

# What objectives read, and other names for the first of them, in the order in which they are looked for.
LABEL_NAMES = ("labels", "label", "label_ids")
SPANS = LABEL_COLUMNS[1:]

# What marks a hidden class; a value of a regression may be just that, but hardly is.
MARK = float(IGNORED)

# A class, a value or several yes-or-no answers of a row; a class of every token, of a vocabulary or not; positions of
# an answer; `row`: a class or, where the rows say so, several answers; `any`: no head that is known.
LabelKind = Literal["class", "value", "several", "row", "tokens", "words", "spans", "any"]
_KINDS: dict[str, LabelKind] = {
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "spans",
    "ForMultipleChoice": "class",
    "ForSequenceClassification": "row",
    "ForMaskedLM": "words",
    "ForCausalLM": "words",
    "LMHead": "words",
}
_PROBLEMS: dict[str | None, LabelKind] = {
    "regression": "value",
    "multi_label_classification": "several",
    "single_label_classification": "class",
}
_WANTED: dict[str, str] = {
    "class": "one class a row",
    "row": "one class a row",
    "value": "one value a row",
    "several": "a list with a 0 or 1 (or what lies between) for every output of the head",
    "tokens": "a list with one class for every token",
    "words": "a list with one token for every token",
}


def label_kind(model: Any) -> LabelKind:
    """Return the kind of labels that the head of a model needs.

    Args:
        model: A model, perhaps with adapters around it.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    names = [base.__name__ for base in type(inner).__mro__]
    kinds = [kind for name in names for part, kind in _KINDS.items() if part in name]
    kind: LabelKind = kinds[0] if kinds else "any"
    if kind != "row":
        return kind
    problem, outputs = getattr(inner.config, "problem_type", None), getattr(inner.config, "num_labels", None)
    return _PROBLEMS.get(problem, "value" if outputs == 1 else "row")


def has_choices(model: Any) -> bool:
    """Whether a row of a model's batches is several texts, one of which is the answer."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return any("ForMultipleChoice" in base.__name__ for base in type(inner).__mro__)


def has_several_labels(row: Mapping[str, Any] | None) -> bool:
    """Whether the label of a row is a list of fractional numbers: a 0 or 1 for each of several classes."""
    value = _plain(_label_of(row or {}, LABEL_NAMES))
    return isinstance(value, list) and bool(value) and all(isinstance(one, float) for one in value)


class LabelReader:
    """Takes the labels out of rows and makes a batch of them.

    Labels are in `labels`, `label` or `label_ids`, in `start_positions` and `end_positions` for heads that look for
    answers, or in the columns that `TrainingArguments.label_names` names. A label that is missing (None) among others
    is hidden: -100, of values NaN. What the head does not want as labels, such as one class a row for a head on
    tokens, is left out.
    """

    def __init__(self, model: Any, label_names: Sequence[str] | None = None, *, needed: bool = False) -> None:
        """Look at a model.

        Args:
            model: The student.
            label_names: The user's own names of label columns.
            needed: Whether an objective learns from labels: then labels that the head does not want are an error.
        """
        self.needed = needed
        self.kind = label_kind(model)
        self.model_name = type(model).__name__
        # The outputs of a head of multiple choice are as many as a row has choices.
        self.num_outputs: int | None = None if has_choices(model) else getattr(model.config, "num_labels", None)
        self._config = model.config
        self.own_names = [name for name in label_names or () if name not in (*LABEL_NAMES, *SPANS)]

    @cached_property
    def names(self) -> list[str]:
        """Names of the head's classes."""
        return names_of_head(self._config)

    @cached_property
    def _ids(self) -> LabelNames:
        return LabelNames(self.names)

    @property
    def columns(self) -> list[str]:
        """Every column that may hold labels."""
        return [*LABEL_NAMES, *SPANS, *self.own_names]

    def take(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """Take the label columns out of the rows.

        Args:
            rows: Rows, without their label columns afterwards.

        Returns:
            The labels that the head wants, by the name that they have in a batch.

        Raises:
            ValueError: If labels are needed, and these are none that the head wants.
        """
        found: dict[str, list[Any]] = {}
        own = {name: [_plain(row.get(name)) for row in rows] for name in self.own_names}
        spans = {name: [_plain(row.get(name)) for row in rows] for name in SPANS}
        labels = [_plain(_label_of(row, LABEL_NAMES)) for row in rows]
        column = next((name for name in LABEL_NAMES if any(row.get(name) is not None for row in rows)), "labels")
        for row in rows:
            for name in self.columns:
                row.pop(name, None)
        if self.kind == "spans":
            found |= {name: values for name, values in spans.items() if _any_known(values)}
            labels = [None] * len(rows)
        for name, values in {"labels": labels, **own}.items():
            wanted = self._wanted(column if name == "labels" else name, values) if _any_known(values) else None
            if wanted is not None:
                found[name] = wanted
        if len(own) == 1 and "labels" not in found and self.own_names[0] in found:
            # The one name that the user gives is that of the labels.
            found["labels"] = found[self.own_names[0]]
        return found

    def tensors(self, labels: Mapping[str, list[Any]], mask: Tensor | None, sizes: Sequence[int]) -> dict[str, Tensor]:
        """The labels of a batch: (B,), (B, C) for several answers, (B, T) for tokens, -100 on padding.

        Args:
            labels: What `take` gave.
            mask: (B, T) attention mask of the batch, which says on which side the padding is.
            sizes: Tokens of each row.

        Raises:
            ValueError: If a row has more or fewer labels than it has tokens, or the head has outputs.
        """
        return {name: self._tensor(name, values, mask, sizes) for name, values in labels.items()}

    def _wanted(self, name: str, values: list[Any]) -> list[Any] | None:
        """Labels of one column as the head wants them, `None` where it wants others."""
        known = [value for value in values if value is not None]
        try:
            values = [self._numbers(value) for value in values]
        except KeyError as error:
            self._say_left_out(name, error.args)
            return None
        if self.kind == "value":
            return self._values(name, values)
        are_lists = [isinstance(value, list) for value in known]
        wants_lists = {"class": False, "value": None, "several": True, "row": False, "tokens": True, "words": True}
        wants = wants_lists.get(self.kind)
        if wants is None or (all(one == wants for one in are_lists) and self._are_of_kind(values)):
            return values
        # Text often comes with a class a row, which a masked language model never looked at.
        if self.kind != "words" or self.needed:
            numbers = [value for value in values if value is not None]
            of_kind = [isinstance(one, list) == wants and self._are_of_kind([one]) for one in numbers]
            self._say_left_out(name, [one for one, fits in zip(known, of_kind, strict=True) if not fits])
        return None

    def _are_of_kind(self, values: list[Any]) -> bool:
        """Whether numbers are classes, or answers between no and yes, as the head wants them."""
        if self.kind == "several":
            # Where nothing learns from them, they are whatever a metric makes of them.
            flat = [one for value in values for one in value or ()]
            return not self.needed or all(one != one or 0 <= one <= 1 for one in flat)
        return not _have_fraction(one for value in values for one in (value if isinstance(value, list) else [value]))

    def _values(self, name: str, values: list[Any]) -> list[Any]:
        """Values of a regression, of which a row may have a list of one."""
        if self.num_outputs == 1:
            values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
        if self.needed and any(value == MARK for value in values):
            logger.warning_once(
                f"The column {name!r} holds {IGNORED}, which {self.model_name} learns as a value: for rows without "
                "one write NaN or nothing, and leave them out."
            )
        return values

    def _numbers(self, value: Any) -> Any:
        """A label whose names of classes are replaced by their numbers, or by a 0 or 1 for every class.

        Raises:
            KeyError: If the head has no such class.
        """
        if isinstance(value, list):
            numbers = [self._numbers(one) for one in value]
            if self.kind == "several" and value and all(isinstance(one, str) for one in value):
                return [float(index in numbers) for index in range(len(self.names))]
            return numbers
        if not isinstance(value, str):
            return value
        found = self._ids.find(value)
        if found is None and value.strip() in HIDDEN_TEXTS and self.kind not in ("several", "value"):
            return IGNORED
        if found is None:
            raise KeyError(value)
        return found

    def _say_left_out(self, name: str, known: Sequence[Any]) -> None:
        shown = repr(known[0])
        hint = ""
        if self.kind in ("class", "row") and not isinstance(known[0], (list, str)):
            hint = " (for values set `config.problem_type` to 'regression' and `num_labels` to 1)"
        elif self.kind in ("class", "row") and isinstance(known[0], list):
            hint = " (or set `config.problem_type` to 'multi_label_classification')"
        elif self.names:
            hint = f"; its names are {', '.join(self.names[:5])}"
        message = (
            f"The column {name!r} holds {shown[:60]}, but {self.model_name} wants {_WANTED.get(self.kind, 'numbers')} "
            f"as label{hint}"
        )
        if self.needed:
            raise ValueError(f"{message}.")
        logger.warning_once(f"{message}: it is left out.")

    def _tensor(self, name: str, values: list[Any], mask: Tensor | None, sizes: Sequence[int]) -> Tensor:
        first = next(value for value in values if value is not None)
        if not isinstance(first, list):
            return self._one_each(name, values)
        if self.kind in ("tokens", "words") or (self.kind == "any" and _fit(values, sizes)):
            if self.kind == "tokens":
                self._check_classes(name, [one for value in values for one in value or ()])
            return _padded(name, values, mask, sizes)
        size = len(first) if self.kind != "several" or self.num_outputs is None else self.num_outputs
        wrong = next((value for value in values if value is None or len(value) != size), None)
        if wrong is not None or any(value is None for value in values):
            raise ValueError(
                f"The column {name!r} must hold {size} numbers in every row, one for each output of "
                f"{self.model_name}; a row has {wrong}."
            )
        stacked = torch.tensor(values)
        # Yes-or-no answers are targets of a binary cross-entropy, which takes fractions.
        return stacked.float() if self.kind == "several" or stacked.is_floating_point() else stacked

    def _one_each(self, name: str, values: list[Any]) -> Tensor:
        """(B,) classes, or values as they are."""
        if self.kind in ("value", "any"):
            if self.needed and any(value is None for value in values):
                raise ValueError(f"The column {name!r} must hold {_WANTED['value']}; some rows have none.")
            stacked = torch.tensor([float("nan") if value is None else value for value in values])
            return stacked.float() if stacked.is_floating_point() else stacked
        classes = [IGNORED if value is None or value != value else int(value) for value in values]
        if self.kind != "spans":
            self._check_classes(name, classes)
        return torch.tensor(classes)

    def _check_classes(self, name: str, classes: Sequence[int]) -> None:
        """Check that the head has an output for every class that something learns."""
        highest = max(classes, default=IGNORED)
        if self.needed and self.num_outputs is not None and highest >= self.num_outputs:
            raise ValueError(
                f"The column {name!r} has the class {highest}, but {self.model_name} has {self.num_outputs} "
                f"outputs, whose classes are 0 to {self.num_outputs - 1}."
            )


class ClassOrder:
    """Brings the numbers of classes that a data set has names for into the order of the head's outputs.

    Names are compared as everywhere (`hf_distill.tasks.labels.LabelNames`). Names that say nothing leave the numbers
    as they are.
    """

    def __init__(self, model: Any) -> None:
        """Look at the student's head.

        Args:
            model: The student.
        """
        self._has_classes = label_kind(model) in ("class", "row", "tokens") and not has_choices(model)
        self._config = model.config
        self._reordered: list[str] | None = None

    @cached_property
    def names(self) -> list[str]:
        """Names of the head's classes, in their order; none where they say nothing."""
        names = names_of_head(self._config) if self._has_classes else []
        return [] if is_generic(names) else names

    def apply(self, dataset: Any, name: str) -> Any:
        """A data set with the numbers of the head.

        Args:
            dataset: A data set of `datasets`, whose features may be known.
            name: What it is, for messages.
        """
        features = dataset.features or {}
        column = next((one for one in LABEL_NAMES if one in features), None)
        if column is None or not self.names:
            return dataset
        feature = features[column]
        is_list = hasattr(feature, "feature")
        found = getattr(feature.feature if is_list else feature, "names", None)
        if found is None:
            self._doubt_numbers(name)
            return dataset
        if found == self.names or is_generic(found):
            return dataset
        known = LabelNames(self.names)
        places = [known.find(one) for one in found]
        if None in places or len(set(places)) < len(places):
            logger.warning_once(
                f"The classes of `{name}` ({', '.join(found[:5])}) are not the head's ({', '.join(self.names[:5])}): "
                "their numbers are taken to count the head's outputs. Set `id2label` of the student to have them "
                "checked."
            )
            return dataset
        if places == list(range(len(places))):
            return dataset
        self._reordered = found
        numbers: dict[Any, Any] = dict(enumerate(places))

        def in_order(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            if is_list:
                return {column: [v if v is None else [numbers.get(one, one) for one in v] for v in batch[column]]}
            return {column: [numbers.get(value, value) for value in batch[column]]}

        classes = datasets.ClassLabel(names=self.names)
        features = datasets.Features({**features, column: datasets.List(classes) if is_list else classes})
        return dataset.map(in_order, batched=True, features=features)

    def _doubt_numbers(self, name: str) -> None:
        if self._reordered is not None:
            logger.warning_once(
                f"The labels of `{name}` are numbers without names: they are taken to count the head's outputs "
                f"({', '.join(self.names[:5])}), and not the classes of other rows ({', '.join(self._reordered[:5])})."
            )


def _label_of(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of some columns that holds something."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def _plain(value: Any) -> Any:
    """Tensors and arrays as Python numbers and lists; tuples as lists."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, tuple) else value


def _have_fraction(values: Iterable[Any]) -> bool:
    """Whether a number is none of a class; NaN is the class of nobody, which is hidden."""
    return any(
        type(one) is not int and one is not None and one == one and not float(one).is_integer() for one in values
    )


def _any_known(values: Iterable[Any]) -> bool:
    return any(value is not None for value in values)


def _fit(values: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Whether every row has a whole number for each of its tokens."""
    pairs = list(zip(values, sizes, strict=True))
    return all(v is None or (len(v) == n and all(isinstance(one, int) for one in v)) for v, n in pairs)


def _padded(name: str, values: Sequence[Any], mask: Tensor | None, sizes: Sequence[int]) -> Tensor:
    """(B, T) labels of tokens where the tokens are, -100 elsewhere."""
    for value, size in zip(values, sizes, strict=True):
        if value is not None and len(value) != size:
            raise ValueError(
                f"The column {name!r} must hold a label for every token, but a row has {len(value)} labels and {size} "
                "tokens: give rows that are tokenized with their labels (`input_ids`)."
            )
    rows = [[IGNORED] * size if value is None else value for value, size in zip(values, sizes, strict=True)]
    width = max(sizes) if mask is None else mask.shape[1]
    padded = torch.full((len(rows), width), IGNORED)
    for place, row in enumerate(rows):
        # Rows may be padded already, with labels for the padding too.
        left = mask is not None and len(row) < width and not bool(mask[place, 0])
        start = width - len(row) if left else 0
        padded[place, start : start + len(row)] = torch.tensor(row, dtype=torch.long)
    return padded
