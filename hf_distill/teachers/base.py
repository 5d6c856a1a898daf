"""A teacher is a source of signals.

Shape legend: B rows, T padded length, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, get_args

import torch
import xxhash
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..capture.outputs import capture_of
from ..capture.signals import SignalRequest, Signals
from ..capture.transformer import SignalCapture
from ..hub.loading import forward_columns, update_digest
from ..hub.model_card import shown_name
from ..kernels.packed_linears import PackedLinears
from ..settings.models import TeacherDtype
from ..storage.finite import check_weights
from ..tasks.labels import names_of_head, order_by_name, order_by_number
from .int8 import int8_copy

logger = logging.get_logger(__name__)


class TeacherSource(Protocol):
    """The base of teachers: everything that a trainer asks of one."""

    num_layers: int
    model_type: str
    input_columns: list[str]

    def request(self, request: SignalRequest) -> None:
        """Say which signals `signals` must give."""

    def to(self, device: torch.device) -> None:
        """Move to the device of training."""

    def signals(self, inputs: Mapping[str, Tensor]) -> Signals:
        """The requested signals for one batch, without gradient, on the batch's device."""

    def fingerprint(self) -> dict[str, str]:
        """Return the values that identify this teacher; a resumed run must find the same."""


class LiveTeacher:
    """A frozen model, always in evaluation mode, that runs beside the student.

    It is no part of the trained model: the optimizer, checkpoints and `save_model` never see it. It stops right after
    the last signal that was requested.
    """

    def __init__(self, model: Any, dtype: str = "auto", device: str | torch.device | None = None) -> None:
        """Freeze `model`.

        Args:
            model: The teacher, a transformers model with or without head and adapters. Its parameters stop requiring
                gradients.
            dtype: Arithmetic of its forward pass: `float32`, `bfloat16`, `float16` (by autocast, so that
                normalisations stay in float32), `int8` (on the CPU, see `hf_distill.teachers.int8`), or `auto`:
                whatever is in force where it is called.
            device: Where it stays, whatever the device of training; `None` follows that device.

        Raises:
            ValueError: If there is no such arithmetic or device, int8 does not apply to the model, or a weight is not
                finite.
        """
        if dtype not in get_args(TeacherDtype):
            raise ValueError(f"`--teacher_dtype` is {dtype!r}; allowed are {', '.join(get_args(TeacherDtype))}.")
        self.own_device = None if device is None else _existing_device(device)
        check_weights(model, "The teacher's")
        frozen = model.requires_grad_(False).eval()
        self.model: Any = int8_copy(frozen) if dtype == "int8" else frozen
        self.dtype = dtype
        self.label_order: Tensor | None = None
        self._capture = capture_of(self.model, SignalRequest())
        if isinstance(self._capture, SignalCapture):
            self._capture.prefer_products()
        self._packed_linears = PackedLinears(self.model)
        self.num_layers = self._capture.num_layers
        self.model_type: str = self.model.config.model_type
        self.input_columns = forward_columns(self.model)

    @property
    def config(self) -> PreTrainedConfig:
        """The configuration of the model."""
        return self.model.config

    def request(self, request: SignalRequest) -> None:
        """Say which signals `signals` must give."""
        self._capture = capture_of(self.model, request)

    def to(self, device: torch.device) -> None:
        """Move to the device of training, or to the own one.

        Raises:
            ValueError: If int8 would have to leave the CPU.
        """
        device = device if self.own_device is None else self.own_device
        if self.dtype == "int8":
            if device.type != "cpu":
                raise ValueError(
                    f"`--teacher_dtype int8` computes on the CPU, but the teacher is to be on {str(device)!r}: add "
                    "`--teacher_device cpu`, or take bfloat16."
                )
            return
        self.model.to(device)
        if self.label_order is not None:
            self.label_order = self.label_order.to(device)

    def match_labels(self, student_config: PreTrainedConfig) -> None:
        """Compare label names with the student's, and permute the teacher's logits to the student's order.

        Raises:
            ValueError: If the two sides name different labels.
        """
        order = label_permutation(self.model.config, student_config)
        self.label_order = None if order is None else torch.tensor(order, device=self.model.device)

    @torch.no_grad()
    def signals(self, inputs: Mapping[str, Tensor]) -> Signals:
        """The requested signals for one batch.

        Args:
            inputs: `input_ids` (B, T), `attention_mask` (B, T) and what else the teacher's `forward` knows; other
                columns are ignored.

        Returns:
            Signals on the device of the inputs, wherever the teacher is.
        """
        if self.model.training:
            # Someone called `.train()` on it: dropout noise must never reach a target.
            self.model.eval()
        known = {name: value for name, value in inputs.items() if name in self.input_columns and name != "labels"}
        there = next(value.device for value in known.values() if torch.is_tensor(value))
        here = self.model.device
        if here != there:
            known = {name: value.to(here) if torch.is_tensor(value) else value for name, value in known.items()}
        with self._arithmetic(), self._packed_linears.in_place():
            signals = self._capture(**known)
        if self.label_order is not None and "logits" in signals.logits:
            signals.logits["logits"] = signals.logits["logits"].index_select(-1, self.label_order)
        return signals.to(there)

    def fingerprint(self) -> dict[str, str]:
        """Class and a hash of every weight, as it is in memory."""
        digest = xxhash.xxh3_128()
        update_digest(digest, self.model.state_dict())
        found = {"teacher": type(self.model).__name__, "teacher_weights": digest.hexdigest()}
        # Other arithmetic rounds the same weights; int8 weights are others.
        return {**found, "teacher_dtype": "int8"} if self.dtype == "int8" else found

    def describe(self) -> str:
        """Describe the teacher in words."""
        size = sum(parameter.numel() for parameter in self.model.parameters())
        arithmetic = "" if self.dtype == "auto" else f", {self.dtype}"
        place = "" if self.own_device is None else f", on {self.own_device}"
        return f"{type(self.model).__name__}, {size:,} parameters{arithmetic}{place}"

    def source(self) -> dict[str, Any]:
        """Return the origin of the model: `name`, and `hub_id` and `revision` if that is the Hub."""
        path = getattr(self.config, "name_or_path", "") or type(self.model).__name__
        # Only what came from the Hub has a commit; a folder is nothing a stranger could open.
        commit = getattr(self.config, "_commit_hash", None)
        return {"name": shown_name(path), "hub_id": path if commit else None, "revision": commit}

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.dtype == "auto":
            return nullcontext()
        device = self.model.device.type
        if self.dtype in ("float32", "int8"):
            return torch.autocast(device, enabled=False)
        return torch.autocast(device, dtype=getattr(torch, self.dtype))


def connect_teacher(
    teacher: TeacherSource, request: SignalRequest, student_config: PreTrainedConfig, num_tokens: int | None = None
) -> None:
    """Say which signals a teacher must give, and compare its vocabulary and labels with the student's.

    Args:
        teacher: The teacher.
        request: The signals.
        student_config: The student's configuration.
        num_tokens: Ids of the tokenizer that both sides are known to have in common: their tables of embeddings may
            have more rows than that, and not the same number.

    Raises:
        ValueError: If they do not fit.
    """
    teacher.request(request)
    config = getattr(teacher, "config", None)
    if config is None:
        return  # Somebody's own source of signals, of which nothing more is known.
    sizes = config.vocab_size, student_config.vocab_size
    are_padded = num_tokens is not None and min(sizes) >= num_tokens
    if sizes[0] != sizes[1] and not are_padded and not getattr(teacher, "reads_own_tokens", False):
        raise ValueError(
            f"The teacher's vocabulary has {sizes[0]} entries, the student's {sizes[1]}, but both read the same "
            "`input_ids`. Create the student from the teacher: create_student(teacher, shape); or show that both have "
            "one tokenizer, with rows to spare: give the teacher's as `teacher_processing_class`."
        )
    if request.logits and hasattr(teacher, "match_labels"):
        teacher.match_labels(student_config)


def _existing_device(name: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: If this machine has no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    known = ["cpu"]
    if accelerator is not None:
        count = torch.accelerator.device_count()
        known += [accelerator.type, *(f"{accelerator.type}:{index}" for index in range(count))]
    if str(name) not in known:
        raise ValueError(f"`--teacher_device` is {str(name)!r}; this machine has {', '.join(known)}.")
    return torch.device(name)


def label_permutation(teacher: PreTrainedConfig, student: PreTrainedConfig) -> list[int] | None:
    """For every label of the student its index in the teacher; `None` if the orders agree.

    Names are compared as everywhere (`hf_distill.tasks.labels.LabelNames`). Where one side has only default names
    (`LABEL_0` …), their numbers count the names of the other: one warning says so.

    Raises:
        ValueError: If the names or their number differ.
    """
    theirs, ours = names_of_head(teacher), names_of_head(student)
    order = order_by_name(theirs, ours)
    if order is None:
        order = order_by_number(theirs, ours)
        if order is not None:
            logger.warning_once(
                f"Label names cannot be compared: the teacher's are {theirs}, the student's {ours}. Their orders are "
                "taken to be the same; set `id2label` in both configurations to have them checked."
            )
    if order is not None:
        return None if order == list(range(len(order))) else order
    raise ValueError(
        f"Teacher and student have different labels: {theirs} against {ours}. Create the student from this teacher, "
        "set `id2label` on either side, or leave `logits` out of `--objectives`."
    )
