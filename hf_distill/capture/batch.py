"""Batches with facts that the host knows, so that a step does not have to read them from the device.

When a batch is made, these facts are cheap: whether a row is padded, how many labels count, how many rows each teacher
has. Reading each of them from tensors on a GPU makes the host wait until all earlier work is done, and the GPU then
waits for the host. `Batch` computes the facts while the numbers are still on the host, and keeps them beside the
tensors.

Shape legend: B rows, C candidates or choices of a row, T padded length, N numbers that are chosen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

# The attribute of a tensor that came in a `Batch`.
FACTS = "_hf_distill_facts"
# Devices to which a copy may be queued: what uses it is queued behind it.
QUEUING = ("cuda", "xpu")


@dataclass(frozen=True)
class Facts:
    """What is known of one tensor of a batch.

    Attributes:
        has_padding: Of a mask (B, T): whether there may be padding.
        num_shown: Of labels: how many are not negative; of a mask: how many tokens are real.
        num_units: Of a mask: how many rows have a token, or of (B, C, T) how many candidates.
        counts: Of the numbers of teachers: how often each occurs.
        on_host: The numbers themselves, before they went to a device.
    """

    has_padding: bool | None = None
    num_shown: int | None = None
    num_units: int | None = None
    counts: Mapping[int, int] = field(default_factory=dict)
    on_host: Tensor | None = None


class Packed:
    """Several tensors of a batch in one, which becomes them on the device only."""

    def to(self, device: Any, non_blocking: bool = False) -> Packed:
        """The same on a device."""
        raise NotImplementedError

    def tensors(self, mask: Tensor) -> dict[str, Tensor]:
        """Name -> tensor on the device of the mask (B, T) of the batch; nobody waits for it."""
        raise NotImplementedError


class Batch(dict[str, Any]):
    """A batch with the facts of its tensors.

    Attributes:
        facts: Name of a tensor -> what is known of it.
    """

    def __init__(self, values: Mapping[str, Any], facts: Mapping[str, Facts] | None = None) -> None:
        """Take the tensors as they are; facts are kept where a batch is one already."""
        super().__init__(values)
        self.facts = dict(getattr(values, "facts", {}) if facts is None else facts)

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        """The batch on a device; to a GPU its copies are queued, and nobody waits for them."""
        queue = non_blocking or torch.device(device).type in QUEUING
        moved = {name: send_to_device(value, device, non_blocking=queue) for name, value in self.items()}
        for name, value in self.items():
            if isinstance(value, Tensor):
                leaves_host = value.device.type == "cpu" != moved[name].device.type
                _remember(moved[name], replace(self.facts.get(name, Facts()), on_host=value if leaves_host else None))
        for name in [name for name, value in moved.items() if isinstance(value, Packed)]:
            moved |= moved.pop(name).tensors(units_of(moved["attention_mask"]))
        return Batch(moved, self.facts)


class KnowingCollator:
    """A collator whose batches bring facts along.

    Attributes:
        inner: Makes the batch.
        packs: Whether parts of a batch may be `Packed`: it goes to a device as it is.
    """

    def __init__(self, inner: Callable[[Any], Any], *, packs: bool = False) -> None:
        """Wrap a collator."""
        self.inner = inner
        self.packs = packs

    def __call__(self, rows: Any) -> Any:
        """One batch; what is no mapping of names stays as it is."""
        before, NOW.packs = NOW.packs, self.packs
        try:
            batch = self.inner(rows)
        finally:
            NOW.packs = before
        if not isinstance(batch, Mapping) or not all(isinstance(name, str) for name in batch):
            return batch
        known = {name: _facts_of_numbers(name, value) for name, value in batch.items()}
        return Batch(dict(batch), {name: facts for name, facts in known.items() if facts is not None})


def _facts_of_numbers(name: str, values: Any) -> Facts | None:
    """The facts of a tensor on the host by what its name says that it is."""
    if not isinstance(values, Tensor) or values.device.type != "cpu" or values.is_floating_point():
        return None
    if name.endswith("attention_mask") and values.dim() > 1:
        shown = int((values != 0).sum())
        units = int((values != 0).any(-1).sum())
        return Facts(has_padding=shown < values.numel(), num_shown=shown, num_units=units)
    if name == "labels":
        return Facts(num_shown=int((values >= 0).sum()))
    if name == "teacher_id":
        numbers, counts = values.flatten().unique(return_counts=True)
        return Facts(counts=dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    return None


def facts_of(values: Tensor | None) -> Facts:
    """What is known of a tensor: nothing, unless it came in a `Batch` and is as it came."""
    facts, version = getattr(values, FACTS, (Facts(), None))
    return facts if version is None or version == _version(values) else Facts()


def _remember(values: Tensor, facts: Facts) -> None:
    setattr(values, FACTS, (facts, _version(values)))


def _version(values: Any) -> int | None:
    """How often a tensor was changed in place."""
    return None if values.is_inference() else values._version


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Some rows of a tensor of a batch; of rows without padding none has any."""
    return padded_like(values, values.index_select(0, rows))


def padded_like(values: Tensor, made: Tensor) -> Tensor:
    """A mask that was made of one of a batch: without padding where that one has none."""
    has_padding = facts_of(values).has_padding
    if has_padding is not None:
        _remember(made, Facts(has_padding=has_padding))
    return made


def on_host(values: Tensor) -> Tensor:
    """A tensor of a batch on the host: the one that the batch was made of, if the host has it still."""
    known = facts_of(values).on_host
    return values.cpu() if known is None else known


def shown_places(labels: Tensor) -> Tensor:
    """(N,) places of the labels that are not negative, in labels laid out flat."""
    return places_where((labels >= 0).flatten(), facts_of(labels).num_shown)


def shown_cells(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) rows and (N,) columns of the labels (B, T) that are not negative."""
    places = shown_places(labels)
    return places // labels.shape[1], places % labels.shape[1]


def places_where(chosen: Tensor, count: int | None) -> Tensor:
    """(N,) places where a flat tensor is true.

    Args:
        chosen: Of bool.
        count: N, where the host knows it; otherwise it waits for the device to count.
    """
    if count is None or torch.compiler.is_compiling():
        return chosen.nonzero()[:, 0]
    return torch.nonzero_static(chosen, size=count)[:, 0]


def pad_lists(pad: Callable[[list[dict[str, Any]]], Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Rows of several sequences each, padded to the longest sequence and to the most sequences of a row.

    Args:
        pad: Pads sequences, such as `DataCollatorWithPadding`.
        rows: Columns of C lists each; C may differ between rows. Other columns are left out.

    Returns:
        (B, C, T) tensors. Where a row has no sequence its first one stands, with a mask of zeros.
    """
    columns = [name for name, values in rows[0].items() if isinstance(values, list)]
    count = max(len(row["input_ids"]) for row in rows)
    real = [len(row["input_ids"]) for row in rows]
    places = [place if place < number else 0 for number in real for place in range(count)]
    owners = [row for row in rows for _ in range(count)]
    flat = [{name: row[name][place] for name in columns} for row, place in zip(owners, places, strict=True)]
    batch = {name: values.view(len(rows), count, -1) for name, values in pad(flat).items()}
    batch["attention_mask"] = batch["attention_mask"] * (torch.arange(count) < torch.tensor(real)[:, None])[..., None]
    return batch


def units_of(mask: Tensor) -> Tensor:
    """The mask of what a row is made of: tokens (B, T), or of a mask (B, C, T) candidates (B, C)."""
    return mask if mask.dim() < 3 else mask.bool().any(-1)


def as_single_rows(values: Tensor) -> Tensor:
    """(B, C, T) -> (B * C, T) of a batch; of rows without padding none has any."""
    return padded_like(values, values.flatten(0, 1))


class _Read(threading.local):
    """What is so now in this thread."""

    # Of the batch that a model reads: its mask, and its rows if they are packed.
    mask: Tensor | None = None
    rows: Any = None
    # Whether rows may be packed, and whether a batch that is made may have parts that are `Packed`.
    packs_rows: bool = False
    packs: bool = False


NOW = _Read()


@contextmanager
def reading(mask: Tensor | None) -> Iterator[None]:
    """A model reads a batch with this mask (B, T) within this context: its mask function may know of padding."""
    before, NOW.mask = NOW.mask, mask
    try:
        yield
    finally:
        NOW.mask = before


def may_pack() -> bool:
    """Whether parts of the batch that is made now may be `Packed`: a `KnowingCollator` sends it to a device."""
    return NOW.packs


def has_padding(mask: Tensor) -> bool | None:
    """Whether the mask that a model hands to its mask function may have padding; `None` if the host does not know."""
    known = NOW.mask
    # Several choices a row are laid out as rows.
    is_known = known is not None and known.shape[-1] == mask.shape[-1] and known.numel() == mask.numel()
    return facts_of(known).has_padding if is_known else None
