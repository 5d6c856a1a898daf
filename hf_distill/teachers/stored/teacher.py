"""`StoredTeacher`: the signals of a teacher from disk, for the rows they were computed for.

Shape legend: B rows, T padded length, C classes.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import AutoConfig, DataCollatorWithPadding, PreTrainedConfig

from ...capture.architectures import has_label_outputs
from ...capture.batch import may_pack, units_of
from ...capture.signals import SignalRequest, Signals
from ...hub.loading import load_skeleton, load_tokenizer
from ...students.sentence import read_head
from ...tasks.label_names import label_permutation
from ..base import TeacherSource
from .columns import Column, FlatColumns, StoredSignal, decode_signals
from .manifest import (
    missing_signals,
    read_manifest,
    request_fields,
    request_from,
    shard_paths,
    verify_shards,
)

# What decides the logits of a zero-shot teacher, beside its weights and rows.
ZERO_SHOT = ("candidate_labels", "hypothesis_template", "multi_label", "zero_shot_texts", "zero_shot_tokenizer")
# Name of the signals in a batch that is on its way to a device.
SIGNALS = "stored signals"


class StoredTeacher(TeacherSource):
    """A teacher whose signals were stored by `precompute`: a `TeacherSource` without a model.

    `dataset` holds the rows to train on with the teacher's signals as further columns, memory-mapped. It may be
    shuffled, split and filtered like any data set, but its tokens must stay as they are.

    Attributes:
        folder: Where `precompute` wrote.
        manifest: What was stored, and with which settings.
        config: The teacher's configuration.
        num_layers: Layers of the teacher.
        model_type: `config.model_type` of the teacher.
        input_columns: Columns that `signals` reads: the mask, and those of the signals requested.
        required_columns: Those of the signals requested.
        dataset: Rows in the order in which they were given to `precompute`.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str = "teacher") -> None:
        """Open a folder; nothing is read into memory but the manifest, and shards are compared with their checksums.

        Args:
            folder: Where `precompute` wrote.
            name: Prefix of its columns; several teachers of the same rows need different ones.

        Raises:
            FileNotFoundError: If the folder was not written by `precompute`.
            ValueError: If it is not complete, or a shard is damaged.
        """
        self.folder = str(folder)
        self.manifest = read_manifest(folder)
        self.config: PreTrainedConfig = AutoConfig.from_pretrained(self.folder)
        self.num_layers: int = self.manifest["num_layers"]
        self.model_type: str = self.manifest["model_type"]
        self.stored_request = request_from(self.manifest["request"])
        self.label_order: Tensor | None = None
        # How the teacher made one vector of a text, if it did.
        self.head = read_head(self.folder) if self.stored_request.pooled else None
        self._stored = [StoredSignal(**fields) for fields in self.manifest["signals"]]
        self._written_names = [column.name for signal in self._stored for column in signal.columns]
        self._stored = [replace(signal, owner=name) for signal in self._stored]
        self.dataset = self._open()
        self.request(self.stored_request)

    def _open(self) -> datasets.Dataset:
        verify_shards(self.folder, self.manifest)
        paths = shard_paths(self.folder, self.manifest)
        rows = datasets.concatenate_datasets([datasets.Dataset.from_file(str(path)) for path in paths])
        names = [column.name for signal in self._stored for column in signal.columns]
        renamed = {old: new for old, new in zip(self._written_names, names, strict=True) if old != new}
        return _as_arrays(rows.rename_columns(renamed) if renamed else rows, names)

    @property
    def columns(self) -> list[Column]:
        """Return the columns of the signals requested."""
        return [column for signal in self._requested for column in signal.columns]

    @property
    def all_columns(self) -> set[str]:
        """Return names of the columns of every signal stored."""
        return {column.name for signal in self._stored for column in signal.columns}

    def request(self, request: SignalRequest) -> None:
        """Say which signals `signals` must give.

        Raises:
            ValueError: If one of them was not stored.
        """
        lacking = missing_signals(request, self.stored_request)
        if lacking:
            raise ValueError(
                f"The objectives need {lacking} of the teacher, which {self.folder!r} does not hold; it has "
                f"{request_fields(self.stored_request)}. Run precompute with these objectives into another folder, "
                "or take others (`--objectives`)."
            )
        self._requested = [signal for signal in self._stored if signal.is_part_of(request)]
        self.required_columns = [column.name for column in self.columns]
        self.input_columns = ["attention_mask", *self.required_columns]

    def for_one_more(self) -> StoredTeacher:
        """Another one with the same rows."""
        return copy.copy(self)

    def to(self, device: torch.device) -> None:
        """Move what little there is to the device of training."""
        if self.label_order is not None:
            self.label_order = self.label_order.to(device)

    def match_labels(self, student_config: PreTrainedConfig) -> None:
        """Compare label names with the student's, and permute the stored logits to the student's order.

        Raises:
            ValueError: If the two sides name different labels.
        """
        is_named = has_label_outputs(self.config.architectures or ())
        order = label_permutation(self.config, student_config) if is_named else None
        self.label_order = None if order is None else torch.tensor(order)

    def signals(self, inputs: Mapping[str, Tensor]) -> Signals:
        """Return the requested signals for one batch, in fp32.

        Args:
            inputs: `attention_mask` (B, T) and the padded columns of the signals, as the collator makes them.

        Raises:
            ValueError: If the batch lacks a column of the signals.
        """
        lacking = [name for name in self.required_columns if name not in inputs]
        if lacking:
            raise ValueError(
                f"A batch lacks the stored signals {lacking}: train on the rows of StoredTeacher({self.folder!r})."
                "dataset, with its `collator`."
            )
        return self._decode(inputs, inputs["attention_mask"])

    def probe(self, inputs: Mapping[str, Tensor]) -> Signals:
        """Return signals of zeros for a batch of any rows: their shapes are those of real ones."""
        mask = inputs["attention_mask"]
        return self._decode({column.name: column.zeros(units_of(mask)) for column in self.columns}, mask)

    def _decode(self, tensors: Mapping[str, Tensor], mask: Tensor) -> Signals:
        signals = decode_signals(self._requested, tensors, mask)
        if self.label_order is not None and "logits" in signals.logits:
            order = self.label_order.to(mask.device)
            signals.logits["logits"] = signals.logits["logits"].index_select(-1, order)
        return signals

    def fingerprint(self) -> dict[str, str]:
        """Return the teacher's fingerprint, and what else decides the stored numbers."""
        names = ("teacher", "teacher_weights", "dtype", "top_k", "dataset")
        said = [name for name in ("teacher_vector", *ZERO_SHOT) if name in self.manifest]
        return {
            name if name.startswith("teacher") else f"stored_{name}": str(self.manifest[name])
            for name in (*names, *said)
        }

    def collator(self, inner: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None) -> StoredCollator:
        """Return a collator for rows of `dataset`.

        Args:
            inner: Makes the batch of everything but the signals; it must keep the tokens. Default: padding by the
                teacher's tokenizer.
        """
        return StoredCollator([self], inner or DataCollatorWithPadding(self.tokenizer()))

    def tokenizer(self) -> Any:
        """Return the tokenizer of the stored rows."""
        return load_tokenizer(self.folder, flag="--teacher_model")

    def check_rows(self, dataset: Any, what: str) -> None:
        """Refuse rows without the signals requested.

        Args:
            dataset: A data set, or a mapping of several.
            what: Its name in the message.

        Raises:
            ValueError: If a column is missing.
        """
        if isinstance(dataset, Mapping) and not isinstance(dataset, datasets.Dataset):
            for name, part in dataset.items():
                self.check_rows(part, f"{what}[{name!r}]")
            return
        names = None if dataset is None else getattr(dataset, "column_names", None)
        lacking = [column.name for column in self.columns if isinstance(names, list) and column.name not in names]
        if lacking:
            raise ValueError(
                f"`{what}` has no stored signals ({lacking[0]!r} is missing; it has {names}), and a stored teacher "
                f"knows its own rows only. Leave `train_dataset` out, or take rows from StoredTeacher({self.folder!r})"
                ".dataset (select, filter, train_test_split)."
            )

    def describe(self) -> str:
        """Describe the teacher in words."""
        facts = self.manifest
        top_k = f", top {facts['top_k']} logits" if facts["top_k"] else ""
        return f"{facts['teacher']}, stored: {facts['rows']:,} rows in {facts['dtype']}{top_k}"

    def source(self) -> dict[str, Any]:
        """Return the origin of the model: `name`, and `hub_id` and `revision` if that is the Hub."""
        return self.manifest["source"]

    @property
    def place(self) -> str:
        """Return its folder."""
        return self.folder

    def skeleton(self) -> Any:
        """Return the teacher's model without weights (on the meta device), to count parameters and create students."""
        return load_skeleton(self.folder, flag="--teacher_model")


class StoredCollator:
    """Pads the columns of stored teachers beside those of another collator."""

    def __init__(
        self, teachers: Sequence[StoredTeacher], inner: Callable[[list[dict[str, Any]]], dict[str, Any]]
    ) -> None:
        """Wrap `inner`, which makes `input_ids`, `attention_mask` and labels, padded on either side."""
        self.teachers = teachers
        self.inner = inner

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make one batch; signals that were not requested are left out."""
        stored = set().union(*(teacher.all_columns for teacher in self.teachers))
        batch = dict(self.inner([{k: v for k, v in row.items() if k not in stored} for row in features]))
        if "attention_mask" not in batch:
            raise ValueError(
                f"The collator gave no `attention_mask` but {sorted(batch)}: stored signals are put where it is 1."
            )
        columns = [one for teacher in self.teachers for one in teacher.columns if one.name in features[0]]
        mask = units_of(batch["attention_mask"])
        if may_pack():
            return batch | {SIGNALS: FlatColumns.of(columns, features, mask)}
        for column in columns:
            batch |= FlatColumns.of([column], features, mask).tensors(mask)
        return batch


def join_rows(teachers: Sequence[StoredTeacher]) -> datasets.Dataset:
    """Return the rows of several stored teachers with the signals of all.

    Args:
        teachers: At least one; each with a `name` of its own.

    Raises:
        ValueError: If they were stored for different rows, or two have one name.
    """
    first = teachers[0]
    parts, names = [first.dataset], sorted(first.all_columns)
    for other in teachers[1:]:
        if other.manifest["dataset"] != first.manifest["dataset"]:
            raise ValueError(
                f"{first.folder!r} ({first.manifest['rows']} rows) and {other.folder!r} ({other.manifest['rows']} "
                "rows) were stored for different rows: precompute both on the same text with the same tokenizer."
            )
        twice = sorted(other.all_columns & set(names))
        if twice:
            raise ValueError(f"Two stored teachers have the columns {twice}: give each its own StoredTeacher(name=).")
        names += sorted(other.all_columns)
        parts.append(other.dataset.select_columns(sorted(other.all_columns)))
    return _as_arrays(datasets.concatenate_datasets([part.with_format(None) for part in parts], axis=1), names)


def _as_arrays(rows: datasets.Dataset, names: list[str]) -> datasets.Dataset:
    """Return rows whose signals come as arrays in their own type: lists of numbers would be a hundred times slower."""
    return rows.with_format("numpy", columns=names, output_all_columns=True, dtype=None)
