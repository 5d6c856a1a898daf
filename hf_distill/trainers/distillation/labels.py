"""Finds the label of a row: head and `config.problem_type` decide, whatever the data set and the collator.

Shape legend: B rows, T padded length, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.utils import logging

from hf_distill.tasks.labels import LABEL_COLUMNS

from ...objectives.logits import IGNORED

logger = logging.get_logger(__name__)

# What objectives read, and other names for the first of them, in the order in which they are looked for.
LABEL_NAMES = ("labels", "label", "label_ids")
SPANS = LABEL_COLUMNS[1:]

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
    "several": "a list with a 0 or 1 for every output of the head",
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
        self.ids: dict[str, int] = {str(k): int(v) for k, v in (getattr(model.config, "label2id", None) or {}).items()}
        self.own_names = [name for name in label_names or () if name not in (*LABEL_NAMES, *SPANS)]

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
        except KeyError:
            self._say_left_out(name, known)
            return None
        are_lists = [isinstance(value, list) for value in known]
        wants_lists = {"class": False, "value": None, "several": True, "row": False, "tokens": True, "words": True}
        wants = wants_lists.get(self.kind)
        if wants is None or (all(one == wants for one in are_lists) and (wants or not _have_fraction(values))):
            return values
        # Text often comes with a class a row, which a masked language model never looked at.
        if self.kind != "words" or self.needed:
            self._say_left_out(name, known)
        return None

    def _numbers(self, value: Any) -> Any:
        """A label whose names of classes are replaced by their numbers.

        Raises:
            KeyError: If the head has no such class.
        """
        if isinstance(value, list):
            return [self._numbers(one) for one in value]
        return self.ids[value] if isinstance(value, str) else value

    def _say_left_out(self, name: str, known: list[Any]) -> None:
        shown = repr(known[0])
        hint = ""
        if self.kind in ("class", "row") and not isinstance(known[0], (list, str)):
            hint = " (for values set `config.problem_type` to 'regression' and `num_labels` to 1)"
        elif self.kind in ("class", "row") and isinstance(known[0], list):
            hint = " (or set `config.problem_type` to 'multi_label_classification')"
        elif self.ids:
            hint = f"; its names are {', '.join(list(self.ids)[:5])}"
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
        if self.needed and self.kind != "spans" and self.num_outputs is not None and max(classes) >= self.num_outputs:
            raise ValueError(
                f"The column {name!r} has the class {max(classes)}, but {self.model_name} has {self.num_outputs} "
                f"outputs, whose classes are 0 to {self.num_outputs - 1}."
            )
        return torch.tensor(classes)


def _label_of(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of some columns that holds something."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def _plain(value: Any) -> Any:
    """Tensors and arrays as Python numbers and lists; tuples as lists."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, tuple) else value


def _have_fraction(values: Iterable[Any]) -> bool:
    """Whether a number is none of a class; NaN is the class of nobody, which is hidden."""
    return any(value is not None and value == value and not float(value).is_integer() for value in values)


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
