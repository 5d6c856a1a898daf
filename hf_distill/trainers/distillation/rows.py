"""Reads the rows of a trainer: finds out their kind, tokenizes them, checks their lengths, and makes batches.

One `RowReader` answers for the rows of training, of `evaluate` and of `predict` alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
import xxhash
from torch import Tensor
from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding, default_data_collator
from transformers.trainer_utils import has_length

from ...capture.architectures import longest_row
from ...settings import DistillationArguments, MaskedHeadArguments
from ...tasks.rows.text import (
    PAIR_COLUMN,
    check_texts,
    columns_of,
    has_transform,
    stored_lengths,
    tokenize_rows,
    tokenize_text,
)
from ...teachers.alignment import PIECES, AlignedCollator, tokenize_aligned
from ...teachers.base import TeacherSource, TokenColumns, own_tokens_of
from ..base import random_state_kept
from .labels import LABEL_NAMES, SPANS, ClassOrder, LabelReader, has_several_labels, label_kind

TOKENS = ("input_ids", "inputs_embeds")
# Formats of `datasets` that give a batch instead of rows; a loader needs rows.
BATCH_FORMATS = ("pandas", "polars", "arrow", "tensorflow", "jax")
HUGGING_FACE = (datasets.Dataset, datasets.IterableDataset)

Pad = Callable[[list[dict[str, Any]]], dict[str, Any]]


class RowCollator:
    """Makes a batch of rows of any data set: text is tokenized, labels are those that the head wants.

    Attributes:
        labels: Reads the labels; `None` where the collator inside makes them.
        pad: Makes the batch of everything but the labels.
        columns: Those that models read; `None` keeps all that are numbers.
    """

    def __init__(
        self,
        tokenizer: Any,
        labels: LabelReader | None,
        *,
        text_column: str = "text",
        max_length: int = 128,
        pad: Pad | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Make the collator.

        Args:
            tokenizer: The student's; `None` where rows come tokenized and padded.
            labels: Reads the labels.
            text_column: Column of the text in rows that are not tokenized.
            max_length: Where these are cut.
            pad: Makes the batch; by default the tokenizer pads to the longest row.
            columns: The columns that are kept.
        """
        self.tokenizer = tokenizer
        self.labels = labels
        self.text_column = text_column
        self.max_length = max_length
        # What has no `pad` is the processor of something else than text.
        self._pads: Any = DataCollatorWithPadding(tokenizer) if hasattr(tokenizer, "pad") else None
        self.pad: Pad = pad or (default_data_collator if self._pads is None else self._pad)
        self.columns = None if columns is None else frozenset(columns)

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
        batch = dict(self.pad(rows))
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
        wanted = self.columns is None or name in self.columns
        return wanted and not isinstance(value, str) and value is not None

    def _tokenized(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.text_column not in rows[0] or self.tokenizer is None:
            raise ValueError(no_tokens(list(rows[0]), self.text_column))
        return tokenize_rows(rows, self.tokenizer, self.text_column, self.max_length)

    def _pad(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows padded to the longest; where a row is several choices, (B, choices, T)."""
        first = rows[0].get("input_ids")
        if not isinstance(first, list) or not first or not isinstance(first[0], list):
            return dict(self._pads(rows))
        count = len(first)
        flat = [
            {name: values[choice] for name, values in row.items() if isinstance(values, list)}
            for row in rows
            for choice in range(count)
        ]
        batch = self._pads(flat)
        return {name: values.view(len(rows), count, -1) for name, values in batch.items()}


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

    def __post_init__(self) -> None:
        """Keep the seed from the base class, which puts a generator of its own in place of that of the rows."""
        self.mask_seed, self.seed = self.seed or 0, None
        super().__post_init__()

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        """Pad and mask a batch; labels are -100 where nothing was masked."""
        digest = xxhash.xxh3_64(seed=self.mask_seed)
        for example in examples:
            digest.update(json.dumps(list(map(int, example["input_ids"]))).encode())
        # Generators take seeds of 63 bits.
        self.generator = torch.Generator().manual_seed(digest.intdigest() >> 1)
        return super().torch_call(examples)


def masking_collator(
    args: DistillationArguments | MaskedHeadArguments, tokenizer: Any, teachers: Sequence[TeacherSource]
) -> MaskingCollator:
    """The collator for `args.mlm_probability`.

    Raises:
        ValueError: If the tokenizer has nothing to mask with, or a teacher cannot read what is masked.
    """
    if any(teacher.dataset is not None for teacher in teachers):
        raise ValueError(
            "`--mlm_probability` masks other tokens in every epoch, but a stored teacher has read the rows as they "
            "are: give the teacher itself as `--teacher_model`."
        )
    if getattr(tokenizer, "mask_token", None) is None:
        raise ValueError(
            f"`--mlm_probability` is {args.mlm_probability}, but the tokenizer ({type(tokenizer).__name__}) has no "
            "mask token: give that of a masked language model as `processing_class`."
        )
    return MaskingCollator(tokenizer, mlm_probability=args.mlm_probability, seed=args.seed)


class RowReader:
    """Prepares the data sets of a trainer, each once."""

    def __init__(
        self,
        student: Any,
        teacher: TeacherSource | None,
        tokenizer: Any,
        args: DistillationArguments,
        label_names: Sequence[str],
        own_collator: Any = None,
    ) -> None:
        """Find out who reads what.

        Args:
            student: The plain student, whose head decides what labels are.
            teacher: The source of signals, if there is one.
            tokenizer: The student's, or `None`.
            args: Column and length of the text.
            label_names: Columns that hold labels.
            own_collator: The user's collator, if there is one.
        """
        teachers = [] if teacher is None else teacher.members
        self.teacher = teacher
        self.tokenizer = tokenizer
        self.args = args
        self.own_collator = own_collator
        self.leaves_raw = False
        # The columns of other tokenizers, for teachers that read their own tokens.
        self._others = own_tokens_of(teachers)
        self._labels = LabelReader(student, label_names)
        # Columns that stay beside the tokens.
        self._keep = [*(() if teacher is None else teacher.kept_columns), *self._labels.columns]
        # Who reads which column of tokens, and the longest row that it can read.
        self._bounds = _bounds_of(student, teachers)
        self._order = ClassOrder(student)
        self._prepared: list[Any] = []

    def prepare(self, dataset: Any, name: str, *, several: bool = False, predicting: bool = False) -> Any:
        """A data set as the trainer reads it: tokenized where it is text, every row short enough.

        Args:
            dataset: A data set of any kind, or `None`.
            name: What it is, for messages.
            several: Whether it may be a mapping of data sets.
            predicting: Whether only the student reads it.

        Raises:
            ValueError: If it is a mapping and should be one data set, has no rows, nothing to read, or a row that is
                too long.
        """
        if not several:
            check_one_set(dataset, name)
        if isinstance(dataset, Mapping) and not isinstance(dataset, torch.utils.data.Dataset):
            return {
                key: self.prepare(part, f"{name}[{key!r}]", predicting=predicting) for key, part in dataset.items()
            }
        if dataset is None or isinstance(dataset, str) or any(dataset is known for known in self._prepared):
            return dataset
        if has_length(dataset) and not len(dataset):
            raise ValueError(f"`{name}` has no rows.")
        if isinstance(dataset, HUGGING_FACE) and not has_transform(dataset):
            dataset = self._order.apply(dataset, name)
        prepared = self._tokenized(dataset, [] if predicting else self._others)
        self._check_lengths(prepared, name)
        self._prepared.append(prepared)
        return prepared

    def _tokenized(self, dataset: Any, others: Sequence[TokenColumns]) -> Any:
        if self._collator_reads(dataset):
            self.leaves_raw = True
            return dataset
        if not isinstance(dataset, HUGGING_FACE) or has_transform(dataset):
            texts = self._texts_of_list(dataset)
            # The rows of any other are tokenized, if need be, when they are collated.
            return dataset if texts is None else self._tokenized(texts, others)
        if isinstance(dataset, datasets.Dataset) and dataset.format["type"] in BATCH_FORMATS:
            dataset = dataset.with_format(None)
        columns = columns_of(dataset)
        if any(name in columns for name in TOKENS) and all(one.prefix + PIECES in columns for one in others):
            return dataset
        if not others and self.args.text_column not in columns and not is_known(self.own_collator):
            return dataset
        if self.tokenizer is None:
            raise ValueError(f"The data set has no `input_ids` but {columns}: give `processing_class` to tokenize it.")
        if isinstance(dataset, datasets.Dataset):
            # A format may hide columns.
            dataset = dataset.with_format(None)
        options: dict[str, Any] = {"text_column": self.args.text_column, "max_length": self.args.max_length}
        with self.args.main_process_first(desc="tokenizing"):
            if others:
                return tokenize_aligned(dataset, self.tokenizer, others, keep=self._keep, **options)
            return tokenize_text(dataset, self.tokenizer, keep=self._keep, **options)

    def _texts_of_list(self, dataset: Any) -> datasets.Dataset | None:
        """The texts of a list as a data set, with the columns that stay; `None` for anything else."""
        column = self.args.text_column
        if not isinstance(dataset, (list, tuple)) or self.tokenizer is None:
            return None
        rows = [{column: row} if isinstance(row, str) else row for row in dataset]
        if any(not isinstance(row, Mapping) or column not in row or any(t in row for t in TOKENS) for row in rows):
            return None
        theirs = [other.text_column for other in self._others if other.text_column is not None]
        kept = [name for name in (column, PAIR_COLUMN, *theirs, *self._keep) if any(name in row for row in rows)]
        batch = {name: [row.get(name) for row in rows] for name in kept}
        check_texts(batch, column, range(len(rows)))
        return datasets.Dataset.from_dict(batch)

    def _collator_reads(self, dataset: Any) -> bool:
        """Whether the user's collator makes batches of the rows as they are, without tokens in them."""
        if is_known(self.own_collator):
            return False
        rows = first_rows(dataset, self.args.device)
        if not rows or not isinstance(rows[0], Mapping) or any(name in rows[0] for name in TOKENS):
            return False
        try:
            with random_state_kept(self.args.device):
                batch = self.own_collator(rows)
        except Exception:
            # It is one that pads tokens, and found none.
            return False
        return isinstance(batch, Mapping) and any(name in batch for name in TOKENS)

    def _check_lengths(self, dataset: Any, name: str) -> None:
        """Check that both sides have a position for every token; otherwise a batch would fail in hours."""
        for who, column, bound in self._bounds:
            lengths = stored_lengths(dataset, column)
            if lengths and max(lengths) > bound:
                longest = max(lengths)
                raise ValueError(
                    f"`{name}`: row {lengths.index(longest)} has {longest} tokens, but the {who} has {bound} "
                    f"positions. {self._way_out(bound)}"
                )

    def _way_out(self, bound: int) -> str:
        return f"Give at most `--max_length {bound}` where the trainer tokenizes, or cut the rows where you do."

    def collator(self, columns: Sequence[str] | None, *, needs_labels: bool) -> Any:
        """Return the collator: the user's or ours, with the signals of stored teachers.

        Args:
            columns: Those that models read; `None` keeps all.
            needs_labels: Whether an objective learns from labels: then labels that the head does not want are an
                error.
        """
        masks = isinstance(self.own_collator, MaskingCollator)
        found = self.own_collator
        options: dict[str, Any] = {"text_column": self.args.text_column, "max_length": self.args.max_length}
        if found is None or masks:
            self._labels.needed = needs_labels
            labels = None if masks else self._labels
            found = RowCollator(self.tokenizer, labels, pad=found, columns=columns, **options)
        if self._others:
            found = AlignedCollator(self.tokenizer, self._others, found, **options)
        return found if self.teacher is None else self.teacher.collator(found)

    @property
    def collates_any_row(self) -> bool:
        """Whether the collator chooses its columns by itself, or is one of the user's that reads raw rows."""
        return self.leaves_raw or self.own_collator is None or isinstance(self.own_collator, MaskingCollator)

    def check_batch(self, inputs: Mapping[str, Any]) -> None:
        """Check the width of a batch of rows that nobody could look at before.

        Raises:
            ValueError: If it is wider than one side can read.
        """
        for who, column, bound in self._bounds:
            ids = inputs.get(column)
            if isinstance(ids, Tensor) and ids.shape[-1] > bound:
                raise ValueError(
                    f"A batch is {ids.shape[-1]} tokens wide, but the {who} has {bound} positions. "
                    f"{self._way_out(bound)}"
                )


def _bounds_of(student: Any, teachers: Sequence[TeacherSource]) -> list[tuple[str, str, int]]:
    """Return which model reads which column of tokens, and the longest row that it can read.

    Args:
        student: The plain student.
        teachers: Sources of signals; those without a model read no rows.
    """
    sides = [("student", "", student)]
    for index, teacher in enumerate(teachers):
        who = "teacher" if len(teachers) == 1 else f"teacher {index}"
        own = teacher.own_tokens
        sides.append((who, "" if own is None else own.prefix, teacher.model))
    found = [(who, prefix + "input_ids", longest_row(m)) for who, prefix, m in sides if m is not None]
    return [(who, column, bound) for who, column, bound in found if bound is not None]


def settle_problem_type(student: Any, examples: Sequence[Any], device: torch.device) -> None:
    """Say that a head has several labels a row where the rows show it and its configuration does not say.

    A model of transformers does the same, in the first batch that has labels.

    Args:
        student: The plain student.
        examples: Data sets, or mappings of them.
        device: That of the training, whose random numbers stay.
    """
    if label_kind(student) != "row":
        return
    parts = [part for one in examples for part in (one.values() if isinstance(one, Mapping) else [one])]
    rows = (row for part in parts for row in first_rows(part, device) if isinstance(row, Mapping))
    if any(has_several_labels(row) for row in rows):
        student.config.problem_type = "multi_label_classification"


def has_pairs(dataset: Any, text_column: str) -> bool:
    """Whether the rows are pairs of texts: a column of second texts, or a second segment in one of the first rows."""
    if isinstance(dataset, Mapping) and not isinstance(dataset, datasets.Dataset):
        return any(has_pairs(part, text_column) for part in dataset.values())
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list) or "token_type_ids" not in columns:
        return isinstance(columns, list) and text_column in columns and PAIR_COLUMN in columns
    if not isinstance(dataset, datasets.Dataset):
        return False
    return any(1 in types for types in dataset.with_format(None)[:100]["token_type_ids"])


def check_one_set(dataset: Any, name: str) -> None:
    """Refuse several data sets where one is wanted.

    Raises:
        ValueError: If there are several; the message says how to give one.
    """
    if not isinstance(dataset, Mapping) or isinstance(dataset, torch.utils.data.Dataset):
        return
    splits = list(dataset)
    wanted = "train" if name == "train_dataset" else "test"
    example = next((split for split in splits if str(split).startswith(wanted)), splits[0] if splits else wanted)
    raise ValueError(
        f"`{name}` is a {type(dataset).__name__} of the splits {splits}; give one of them, such as "
        f"`{name}=dataset[{example!r}]`."
    )


def first_rows(dataset: Any, device: torch.device) -> list[Any]:
    """The first row of a data set, as a list; nothing of a stream that may be read once only, or of none."""
    if dataset is None or isinstance(dataset, (str, Mapping)):
        return []
    try:
        with random_state_kept(device):
            if isinstance(dataset, datasets.IterableDataset):
                return list(dataset.take(1))
            rows: Any = dataset
            return [rows[0]] if has_length(dataset) and len(rows) else []
    except Exception:
        # Rows of one's own may break; that is for the loader to say.
        return []


def is_known(collator: Any) -> bool:
    """Whether a collator is none of the user's own: those of transformers and of this package pad tokens."""
    collator = getattr(collator, "func", collator)  # Below `functools.partial`.
    module = getattr(collator, "__module__", None) or ""
    return collator is None or module.split(".")[0] in ("transformers", "hf_distill")
