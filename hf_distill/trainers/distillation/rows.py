"""Reads the rows of a trainer: recognises their kind, tokenizes them, and checks their lengths and classes.

The same `RowReader` reads the rows of training, `evaluate` and `predict`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, cast

import datasets
import torch
from torch import Tensor
from transformers.trainer_utils import has_length
from transformers.utils import logging

from hf_distill.tasks.label_names import LabelNames, is_generic, names_of_head

from ...capture.architectures import LabelHead, label_head, longest_row
from ...settings import DistillationArguments
from ...tasks.rows.text import (
    CANDIDATES_COLUMN,
    PAIR_COLUMN,
    check_texts,
    columns_of,
    has_transform,
    stored_lengths,
    stored_maximum,
    tokenize_text,
)
from ...teachers.alignment import PIECES, AlignedCollator, tokenize_aligned
from ...teachers.base import TeacherSource, TokenColumns, own_tokens_of
from ..base import random_state_kept
from .collators import LABEL_NAMES, SPANS, TOKENS, LabelReader, MaskingCollator, RowCollator, plain

# Formats of `datasets` that give a batch instead of rows; a loader needs rows.
BATCH_FORMATS = ("pandas", "polars", "arrow", "tensorflow", "jax")
# Rows that projections are fitted to, and how many are read at once, whatever the batch size of the training.
SAMPLE_ROWS, SAMPLE_BATCH = 1024, 32
# Of what transformers has to read other things than text, or several things at once.
OTHER_PROCESSORS = ("ImageProcessingMixin", "FeatureExtractionMixin", "ProcessorMixin")
HUGGING_FACE = (datasets.Dataset, datasets.IterableDataset)

logger = logging.get_logger(__name__)


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
        self._head = label_head(student)
        self._own_names = [name for name in label_names if name not in (*LABEL_NAMES, *SPANS)]
        # Columns that stay beside the tokens.
        kept = () if teacher is None else teacher.kept_columns
        self._keep = [*kept, *LABEL_NAMES, *SPANS, *self._own_names]
        # Who reads which column of tokens, and the longest row that it can read.
        self._bounds = _bounds_of(student, teachers)
        self._pieces = _pieces_of(student)
        self._order = ClassOrder(self._head)
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
        self._check_pieces(prepared, name)
        self._prepared.append(prepared)
        return prepared

    @staticmethod
    def sample(dataset: Any) -> list[list[Any]]:
        """Give `SAMPLE_ROWS` rows, a few at a time: spread over the data, or the first ones of a stream.

        A stream that cannot be read twice gives none, so that the training misses no row.
        """
        rows: list[Any] = []
        if has_length(dataset):
            count = min(len(dataset), SAMPLE_ROWS)
            rows = [cast(Any, dataset)[row * len(dataset) // count] for row in range(count)]
        elif isinstance(dataset, HUGGING_FACE):
            rows = list(islice(dataset, SAMPLE_ROWS))
        return [rows[first : first + SAMPLE_BATCH] for first in range(0, len(rows), SAMPLE_BATCH)]

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
        known = (column, PAIR_COLUMN, CANDIDATES_COLUMN, *theirs, *self._keep)
        kept = [name for name in known if any(name in row for row in rows)]
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

    def _check_pieces(self, dataset: Any, name: str) -> None:
        """Check that the student has an embedding for every token: rows of another tokenizer may be at hand."""
        found = None if self._pieces is None else stored_maximum(dataset, "input_ids")
        if found is not None and found >= cast(int, self._pieces):
            raise ValueError(
                f"`{name}` has the token {found}, but the student has {self._pieces} word embeddings: its rows are of "
                "another tokenizer. Give text, or rows of the student's tokenizer."
            )

    def _way_out(self, bound: int) -> str:
        return f"Give at most `--max_length {bound}` where the trainer tokenizes, or cut the rows where you do."

    def collator(self, columns: Sequence[str] | None, *, needs_labels: bool, evaluating: bool = False) -> Any:
        """Return the collator: the user's or ours, with the signals of stored teachers.

        Args:
            columns: Those that models read; `None` keeps all.
            needs_labels: Whether an objective learns from labels: then labels that the head does not want are an
                error.
            evaluating: Whether rows are masked by themselves, so that no size of the batches changes a score.
        """
        found, masks = self.own_collator, self.masks
        if masks and evaluating:
            found = found.of_each_row()
        options: dict[str, Any] = {"text_column": self.args.text_column, "max_length": self.args.max_length}
        if found is None or masks:
            labels = None if masks else LabelReader(self._head, self._own_names, needed=needs_labels)
            if needs_labels and not evaluating:
                self._say_unanswered()
            read = None if columns is None else frozenset(columns)
            found = RowCollator(self.tokenizer, labels, pad=found, columns=read, **options)
        if self._others:
            found = AlignedCollator(self.tokenizer, self._others, found, **options)
        return found if self.teacher is None else self.teacher.collator(found)

    def _say_unanswered(self) -> None:
        """Count the queries without a relevant candidate, whose labels teach nothing."""
        for rows in self._prepared:
            if not isinstance(rows, datasets.Dataset):
                continue
            column = next((name for name in LABEL_NAMES if name in rows.column_names), None)
            ids = getattr(rows.features.get("input_ids"), "feature", None)
            if column is None or not isinstance(ids, datasets.List) or self._head.kind != "value":
                continue
            count = sum(not any(values or ()) for values in rows.with_format(None)[column])
            if count:
                logger.warning_once(
                    f"{count:,} of {len(rows):,} queries have no candidate above 0 in {column!r}: the objective "
                    "`labels` learns nothing from them."
                )

    @property
    def masks(self) -> bool:
        """Whether the collator masks tokens, which are what is learnt."""
        return isinstance(self.own_collator, MaskingCollator)

    @property
    def collates_any_row(self) -> bool:
        """Whether the collator chooses its columns by itself, or is one of the user's that reads raw rows."""
        return self.leaves_raw or self.own_collator is None or self.masks

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


def _pieces_of(student: Any) -> int | None:
    """Word embeddings of a student; `None` of one that has no such table."""
    try:
        return getattr(student.get_input_embeddings(), "num_embeddings", None)
    except (AttributeError, NotImplementedError):
        return None


def settle_problem_type(student: Any, examples: Sequence[Any], device: torch.device) -> None:
    """Say that a head has several labels a row where the rows show it and its configuration does not say.

    A model of transformers does the same, in the first batch that has labels.

    Args:
        student: The plain student.
        examples: Data sets, or mappings of them.
        device: That of the training, whose random numbers stay.
    """
    if label_head(student).kind != "row":
        return
    parts = [part for one in examples for part in (one.values() if isinstance(one, Mapping) else [one])]
    rows = (row for part in parts for row in first_rows(part, device) if isinstance(row, Mapping))
    if any(has_several_labels(row) for row in rows):
        student.config.problem_type = "multi_label_classification"


def has_several_labels(row: Mapping[str, Any]) -> bool:
    """Whether the label of a row is a list of fractional numbers: a 0 or 1 for each of several classes."""
    value: Any = next((row[name] for name in LABEL_NAMES if row.get(name) is not None), None)
    value = value.tolist() if hasattr(value, "tolist") else value
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(one, float) for one in value)


class ClassOrder:
    """Brings the numbers of classes that a data set has names for into the order of the head's outputs.

    Names are compared as everywhere (`hf_distill.tasks.label_names.LabelNames`). Names that say nothing leave the
    numbers as they are.
    """

    def __init__(self, head: LabelHead) -> None:
        """Remember the student's head."""
        self._head = head
        self._reordered: list[str] | None = None

    @cached_property
    def names(self) -> list[str]:
        """Names of the head's classes, in their order; none where they say nothing."""
        if self._head.kind not in ("class", "row", "tokens") or self._head.has_choices:
            return []
        names = names_of_head(self._head.config)
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
                "class 0 is taken for output 0 of the head, and so on. Set `id2label` of the student to have names "
                "compared."
            )
            return dataset
        if places == list(range(len(places))):
            return dataset
        self._reordered = found
        numbers: dict[Any, Any] = dict(enumerate(places))

        def in_order(batch: dict[str, Any]) -> dict[str, list[Any]]:
            # A format of the rows may make tensors of their numbers.
            values = plain(batch[column])
            if is_list:
                return {column: [v if v is None else [numbers.get(one, one) for one in v] for v in values]}
            return {column: [numbers.get(value, value) for value in values]}

        classes = datasets.ClassLabel(names=self.names)
        features = datasets.Features({**features, column: datasets.List(classes) if is_list else classes})
        return dataset.map(in_order, batched=True, features=features)

    def _doubt_numbers(self, name: str) -> None:
        if self._reordered is not None:
            logger.warning_once(
                f"The labels of `{name}` are numbers without names: they are taken for numbers of the head's outputs "
                f"({', '.join(self.names[:5])}), not of the classes of the other rows "
                f"({', '.join(self._reordered[:5])})."
            )


def refuse_other_processor(processing_class: Any) -> None:
    """Refuse what reads no text where a tokenizer is wanted.

    Raises:
        ValueError: If it is no tokenizer.
    """
    kinds = {base.__name__ for base in type(processing_class).__mro__}
    if processing_class is not None and (not callable(processing_class) or not kinds.isdisjoint(OTHER_PROCESSORS)):
        raise ValueError(
            f"`processing_class` is a {type(processing_class).__name__}: a distillation reads text, so give the "
            "tokenizer of the models."
        )


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
    """Refuse several data sets where one is wanted, and what is no data set.

    Raises:
        ValueError: If there are several, or the rows of a path, a table or an iterator are wanted; the message says
            how to give one.
    """
    _refuse_other_kinds(dataset, name)
    if not isinstance(dataset, Mapping) or isinstance(dataset, torch.utils.data.Dataset):
        return
    splits = list(dataset)
    wanted = "train" if name == "train_dataset" else "test"
    example = next((split for split in splits if str(split).startswith(wanted)), splits[0] if splits else wanted)
    raise ValueError(
        f"`{name}` is a {type(dataset).__name__} of the splits {splits}; give one of them, such as "
        f"`{name}=dataset[{example!r}]`."
    )


def _refuse_other_kinds(dataset: Any, name: str) -> None:
    """Refuse what would be taken for rows (the letters of a path, the columns of a table), or can be read once only.

    The name of one of several evaluation sets is a text too.
    """
    kind = type(dataset)
    if isinstance(dataset, (str, os.PathLike)) and not name.startswith("eval_dataset"):
        place = os.fspath(dataset)
        given = f"{place!r}, which is no data set; give its rows, such as `load_dataset({place!r}, split='train')`"
    elif isinstance(dataset, Iterator) and not isinstance(dataset, torch.utils.data.Dataset):
        given = f"a {kind.__name__}, which can be read once; give a list, or `Dataset.from_generator`"
    elif kind.__module__.partition(".")[0] in ("pandas", "polars"):
        given = f"a {kind.__name__} of {kind.__module__.partition('.')[0]}; give `Dataset.from_pandas(...)`"
    else:
        return
    raise ValueError(f"`{name}` is {given}.")


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
