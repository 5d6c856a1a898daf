"""Makes batches of rows: pads or masks tokens, and gives the labels the form that the student's head needs.

Shape legend: B rows, T padded length, C outputs of the head.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor
from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding, default_data_collator
from transformers.utils import logging

from hf_distill.tasks.label_names import LabelNames, names_of_head
from hf_distill.tasks.labels import HIDDEN_TEXTS, LABEL_COLUMNS

from ...capture.architectures import LabelHead
from ...capture.batch import pad_lists
from ...objectives.logits import IGNORED
from ...settings import DistillationArguments, MaskedHeadArguments
from ...tasks.rows.text import tokenize_rows
from ...teachers.base import TeacherSource

logger = logging.get_logger(__name__)

# What objectives read, and other names for the first of them, in the order in which they are looked for.
LABEL_NAMES = ("labels", "label", "label_ids")
SPANS = LABEL_COLUMNS[1:]
# Columns of tokens.
TOKENS = ("input_ids", "inputs_embeds")

Pad = Callable[[list[dict[str, Any]]], dict[str, Any]]

# What marks a hidden class; a value of a regression may be just that, but hardly is.
MARK = float(IGNORED)

_WANTED: dict[str, str] = {
    "class": "one class a row",
    "row": "one class a row",
    "value": "one value a row",
    "several": "a list with a 0 or 1 (or what lies between) for every output of the head",
    "tokens": "a list with one class for every token",
    "words": "a list with one token for every token",
}


@dataclass
class LabelReader:
    """Takes the labels out of rows and makes a batch of them.

    Labels are in `labels`, `label` or `label_ids`, in `start_positions` and `end_positions` for heads that look for
    answers, or in the columns that `TrainingArguments.label_names` names. A label that is missing (None) among others
    is hidden: -100, of values NaN. What the head does not want as labels, such as one class a row for a head on
    tokens, is left out.

    Attributes:
        head: That of the student.
        own_names: The user's own names of label columns.
        needed: Whether an objective learns from labels: then labels that the head does not want are an error.
    """

    head: LabelHead
    own_names: Sequence[str] = ()
    needed: bool = False

    @cached_property
    def names(self) -> list[str]:
        """Names of the head's classes."""
        return names_of_head(self.head.config)

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
        own = {name: [plain(row.get(name)) for row in rows] for name in self.own_names}
        spans = {name: [plain(row.get(name)) for row in rows] for name in SPANS}
        labels = [plain(next((row[one] for one in LABEL_NAMES if row.get(one) is not None), None)) for row in rows]
        column = next((name for name in LABEL_NAMES if any(row.get(name) is not None for row in rows)), "labels")
        for row in rows:
            for name in self.columns:
                row.pop(name, None)
        if self.head.kind == "spans":
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

        Of rows with candidates: (B, C), how well each answers the query, 0 where there is none.

        Args:
            labels: What `take` gave.
            mask: (B, T) attention mask of the batch, which says on which side the padding is.
            sizes: Tokens of each row.

        Raises:
            ValueError: If a row has more or fewer labels than it has tokens or candidates, or the head has outputs.
        """
        if self.head.kind == "value" and mask is not None and mask.dim() == 3:
            return {name: _of_candidates(name, values, sizes) for name, values in labels.items()}
        return {name: self._tensor(name, values, mask, sizes) for name, values in labels.items()}

    def _wanted(self, name: str, values: list[Any]) -> list[Any] | None:
        """Labels of one column as the head wants them, `None` where it wants others."""
        known = [value for value in values if value is not None]
        try:
            values = [self._numbers(value) for value in values]
        except KeyError as error:
            self._say_left_out(name, error.args)
            return None
        if self.head.kind == "value":
            return self._values(name, values)
        are_lists = [isinstance(value, list) for value in known]
        wants_lists = {"class": False, "value": None, "several": True, "row": False, "tokens": True, "words": True}
        wants = wants_lists.get(self.head.kind)
        if wants is None or (all(one == wants for one in are_lists) and self._are_of_kind(values)):
            return values
        # Text often comes with a class a row, which a masked language model never looked at.
        if self.head.kind != "words" or self.needed:
            numbers = [value for value in values if value is not None]
            of_kind = [isinstance(one, list) == wants and self._are_of_kind([one]) for one in numbers]
            self._say_left_out(name, [one for one, fits in zip(known, of_kind, strict=True) if not fits])
        return None

    def _are_of_kind(self, values: list[Any]) -> bool:
        """Whether numbers are classes, or answers between no and yes, as the head wants them."""
        if self.head.kind == "several":
            # Where nothing learns from them, they are whatever a metric makes of them.
            flat = [one for value in values for one in value or ()]
            return not self.needed or all(one != one or 0 <= one <= 1 for one in flat)
        return not _have_fraction(one for value in values for one in (value if isinstance(value, list) else [value]))

    def _values(self, name: str, values: list[Any]) -> list[Any]:
        """Values of a regression, of which a row may have a list of one."""
        if self.head.num_outputs == 1:
            values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
        if self.needed and any(value == MARK for value in values):
            logger.warning_once(
                f"The column {name!r} holds {IGNORED}, which {self.head.model_name} learns as a value, for its head "
                "is one of regression: write NaN or None where a value is missing, or leave these rows out."
            )
        return values

    def _numbers(self, value: Any) -> Any:
        """A label whose names of classes are replaced by their numbers, or by a 0 or 1 for every class.

        Raises:
            KeyError: If the head has no such class.
        """
        if isinstance(value, list):
            numbers = [self._numbers(one) for one in value]
            # Of an empty list no label is one of the row's.
            if self.head.kind == "several" and all(isinstance(one, str) for one in value):
                return [float(index in numbers) for index in range(len(self.names))]
            return numbers
        if not isinstance(value, str):
            return value
        found = self._ids.find(value)
        if found is None and value.strip() in HIDDEN_TEXTS and self.head.kind not in ("several", "value"):
            return IGNORED
        if found is None:
            raise KeyError(value)
        return found

    def _say_left_out(self, name: str, known: Sequence[Any]) -> None:
        shown = repr(known[0])
        hint = ""
        if self.head.kind in ("class", "row") and not isinstance(known[0], (list, str)):
            hint = " (for values set `config.problem_type` to 'regression' and `num_labels` to 1)"
        elif self.head.kind in ("class", "row") and isinstance(known[0], list):
            hint = " (or set `config.problem_type` to 'multi_label_classification')"
        elif self.names:
            hint = f"; its names are {', '.join(self.names[:5])}"
        message = (
            f"The column {name!r} holds {shown[:60]}, but {self.head.model_name} wants "
            f"{_WANTED.get(self.head.kind, 'numbers')} as label{hint}"
        )
        if self.needed:
            raise ValueError(f"{message}.")
        logger.warning_once(f"{message}: it is left out.")

    def _tensor(self, name: str, values: list[Any], mask: Tensor | None, sizes: Sequence[int]) -> Tensor:
        first = next(value for value in values if value is not None)
        if self.head.kind == "spans" and name in SPANS:
            return _behind_padding(self._one_each(name, values), mask, sizes)
        if not isinstance(first, list):
            return self._one_each(name, values)
        if self.head.kind in ("tokens", "words") or (self.head.kind == "any" and _fit(values, sizes)):
            if self.head.kind == "tokens":
                self._check_classes(name, [one for value in values for one in value or ()])
            return _padded(name, values, mask, sizes)
        size = len(first) if self.head.kind != "several" or self.head.num_outputs is None else self.head.num_outputs
        wrong = next((value for value in values if value is None or len(value) != size), None)
        if wrong is not None or any(value is None for value in values):
            raise ValueError(
                f"The column {name!r} must hold {size} numbers in every row, one for each output of "
                f"{self.head.model_name}; a row has {wrong}."
            )
        stacked = torch.tensor(values)
        # Yes-or-no answers are targets of a binary cross-entropy, which takes fractions.
        return stacked.float() if self.head.kind == "several" or stacked.is_floating_point() else stacked

    def _one_each(self, name: str, values: list[Any]) -> Tensor:
        """(B,) classes, or values as they are."""
        if self.head.kind in ("value", "any"):
            if self.needed and any(value is None for value in values):
                raise ValueError(f"The column {name!r} must hold {_WANTED['value']}; some rows have none.")
            stacked = torch.tensor([float("nan") if value is None else value for value in values])
            return stacked.float() if stacked.is_floating_point() else stacked
        classes = [IGNORED if value is None or value != value else int(value) for value in values]
        if self.head.kind != "spans":
            self._check_classes(name, classes)
        return torch.tensor(classes)

    def _check_classes(self, name: str, classes: Sequence[int]) -> None:
        """Check that the head has an output for every class that something learns."""
        highest = max(classes, default=IGNORED)
        if self.needed and self.head.num_outputs is not None and highest >= self.head.num_outputs:
            raise ValueError(
                f"The column {name!r} has the class {highest}, but {self.head.model_name} has {self.head.num_outputs} "
                f"outputs, whose classes are 0 to {self.head.num_outputs - 1}."
            )


def plain(value: Any) -> Any:
    """Tensors and arrays, and lists or tuples of them, as Python numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _have_fraction(values: Iterable[Any]) -> bool:
    """Whether a number is none of a class; NaN is the class of nobody, which is hidden."""
    return any(
        type(one) is not int and one is not None and one == one and not float(one).is_integer() for one in values
    )


def _is_numeric(value: Any) -> bool:
    """Whether a value is a number, or holds nothing else."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_numeric, value))
    return isinstance(value, (int, float, np.number, np.bool_)) or (
        hasattr(value, "dtype") and getattr(value.dtype, "kind", "f") in "biuf"
    )


def _any_known(values: Iterable[Any]) -> bool:
    return any(value is not None for value in values)


def _fit(values: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Whether every row has a whole number for each of its tokens."""
    pairs = list(zip(values, sizes, strict=True))
    return all(v is None or (len(v) == n and all(isinstance(one, int) for one in v)) for v, n in pairs)


def _of_candidates(name: str, values: Sequence[Any], sizes: Sequence[int]) -> Tensor:
    """(B, C) numbers of the candidates of every row."""
    lists = [value if isinstance(value, list) else [value] for value in values]
    for row, size in zip(lists, sizes, strict=True):
        if len(row) != size or any(one is None or not one >= 0 for one in row):
            raise ValueError(
                f"The column {name!r} must hold a number of at least 0 for every candidate, but a row with {size} "
                f"candidates has {row}."
            )
    return torch.tensor([[*row, *[0.0] * (max(sizes) - len(row))] for row in lists], dtype=torch.float32)


def _behind_padding(places: Tensor, mask: Tensor | None, sizes: Sequence[int]) -> Tensor:
    """(B,) places of tokens that were counted in rows without padding, where the padding is on the left."""
    if mask is None:
        return places
    missing = (mask.shape[1] - torch.tensor(sizes)) * (mask[:, 0] == 0)
    return torch.where(places >= 0, places + missing, places)


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


@dataclass
class RowCollator:
    """Makes a batch of rows of any data set: text is tokenized, labels are those that the head wants.

    Attributes:
        tokenizer: The student's; `None` where rows come tokenized and padded.
        labels: Reads the labels; `None` where the collator inside makes them.
        text_column: Column of the text in rows that are not tokenized.
        max_length: Where these are cut.
        pad: Makes the batch of everything but the labels; by default the tokenizer pads to the longest row.
        columns: Those that models read; `None` keeps all that are numbers.
    """

    tokenizer: Any
    labels: LabelReader | None
    text_column: str = "text"
    max_length: int = 128
    pad: Pad | None = None
    columns: frozenset[str] | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One batch.

        Raises:
            ValueError: If the rows have neither tokens nor text.
        """
        rows = [self._as_mapping(row) for row in features]
        if not any(name in rows[0] for name in TOKENS):
            rows = self._tokenized(rows)
        labels = self.labels.take(rows) if self.labels is not None else {}
        if self.labels is None:
            rows = [{k: v for k, v in row.items() if k not in (*LABEL_NAMES, *SPANS)} for row in rows]
        rows = [{k: v for k, v in row.items() if self._is_read(k, v)} for row in rows]
        sizes = [len(row.get("input_ids", row.get("inputs_embeds", ()))) for row in rows]
        batch = dict((self.pad or self._pad)(rows))
        return batch | (self.labels.tensors(labels, batch.get("attention_mask"), sizes) if self.labels else {})

    def _as_mapping(self, row: Any) -> dict[str, Any]:
        """The columns of a row, which may be a text alone."""
        if isinstance(row, str):
            return {self.text_column: row}
        if isinstance(row, Mapping):
            return dict(row)
        raise ValueError(
            f"A row must be a mapping of columns, such as {{{self.text_column!r}: ...}}, or a text, but one is of "
            f"type {type(row).__name__}."
        )

    def _is_read(self, name: str, value: Any) -> bool:
        return (self.columns is None or name in self.columns) and _is_numeric(value)

    def _tokenized(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.text_column not in rows[0] or self.tokenizer is None:
            raise ValueError(no_tokens(list(rows[0]), self.text_column))
        return tokenize_rows(rows, self.tokenizer, self.text_column, self.max_length)

    def _pad(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows padded to the longest; where a row is several choices or candidates, (B, C, T)."""
        if not hasattr(self.tokenizer, "pad"):
            # The processor of something else than text, or none.
            return dict(default_data_collator(rows))
        pads: Any = DataCollatorWithPadding(self.tokenizer)
        first = rows[0].get("input_ids")
        if not isinstance(first, list) or not first or not isinstance(first[0], list):
            return dict(pads(rows))
        numbers = {name: value for name, value in rows[0].items() if isinstance(value, (int, float))}
        return pad_lists(pads, rows) | {name: torch.tensor([row[name] for row in rows]) for name in numbers}


def no_tokens(columns: Sequence[str], text_column: str) -> str:
    """The message for rows that nobody can read."""
    return (
        f"The data set has no `input_ids` and no column {text_column!r} to tokenize (`--text_column`, with a "
        f"`processing_class`); it has {list(columns)}."
    )


@dataclass
class MaskingCollator(DataCollatorForLanguageModeling):
    """Masks tokens as BERT does (15 %: 80 % mask, 10 % random, 10 % kept) and puts what was there into `labels`.

    The stock collator draws from the global generator, one batch ahead of the update, so a resumed run masks other
    tokens. This one draws from a generator that is seeded with `seed` and the rows of the batch: random batches of
    another epoch are masked anew, and every evaluation of the same rows is comparable.
    """

    # Whether a row is masked by its own tokens alone, whatever it shares a batch with.
    _each_row = False

    def of_each_row(self) -> MaskingCollator:
        """The collator of an evaluation: no size or order of the batches changes what is masked."""
        other = copy.copy(self)
        other._each_row = True
        return other

    def __post_init__(self) -> None:
        """Keep the seed from the base class, which puts a generator of its own in place of that of the rows."""
        self.mask_seed, self.seed = self.seed or 0, None
        super().__post_init__()

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        """Pad and mask a batch; labels are -100 where nothing was masked."""
        self._rows = [list(map(int, example["input_ids"])) for example in examples]
        self.generator = self._generator_of(self._rows)
        return super().torch_call(examples)

    def torch_mask_tokens(
        self, inputs: Any, special_tokens_mask: Any | None = None, offset_mapping: Any | None = None
    ) -> tuple[Any, Any]:
        """Mask a padded batch, as a whole or row by row."""
        if not self._each_row:
            return super().torch_mask_tokens(inputs, special_tokens_mask, offset_mapping)
        labels = torch.full_like(inputs, -100)
        for number, row in enumerate(self._rows):
            self.generator = self._generator_of([row])
            cells = slice(len(row)) if self.tokenizer.padding_side == "right" else slice(-len(row), None)
            place = slice(number, number + 1), cells
            special = None if special_tokens_mask is None else special_tokens_mask[place]
            inputs[place], labels[place] = super().torch_mask_tokens(inputs[place].clone(), special)
        return inputs, labels

    def _generator_of(self, rows: Sequence[Sequence[int]]) -> torch.Generator:
        digest = xxhash.xxh3_64(seed=self.mask_seed)
        for row in rows:
            digest.update(json.dumps(row).encode())
        # Generators take seeds of 63 bits.
        return torch.Generator().manual_seed(digest.intdigest() >> 1)


def masking_collator(
    args: DistillationArguments | MaskedHeadArguments, tokenizer: Any, teachers: Sequence[TeacherSource]
) -> MaskingCollator:
    """The collator for `args.mlm_probability`.

    Raises:
        ValueError: If the tokenizer has nothing to mask with, or a teacher cannot read what is masked.
    """
    if any(teacher.dataset is not None for teacher in teachers):
        raise ValueError(
            "`--mlm_probability` masks other tokens in every epoch, but a stored teacher has read the rows without "
            "masks: give the teacher itself as `--teacher_model`."
        )
    if getattr(tokenizer, "mask_token", None) is None:
        raise ValueError(
            f"`--mlm_probability` is {args.mlm_probability}, but the tokenizer ({type(tokenizer).__name__}) has no "
            "mask token: give that of a masked language model as `processing_class`."
        )
    return MaskingCollator(tokenizer, mlm_probability=args.mlm_probability, seed=args.seed)
