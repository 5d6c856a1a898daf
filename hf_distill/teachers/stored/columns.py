"""Signals as columns of a data set: flat rows without padding, and back to padded tensors.

Shape legend: B rows, T padded length, t real tokens of a row, W numbers per position, A attention heads, C classes,
K stored classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from datasets import LargeList, Value
from torch import Tensor

from ...capture.batch import Packed, as_single_rows, places_where, units_of
from ...capture.signals import ABSENT, Projections, SignalRequest, Signals
from ...storage.plain_values import NotFiniteError

# bfloat16 is stored by its bits: neither numpy nor Arrow knows it.
STORE_DTYPES = {"float16": np.float16, "bfloat16": np.int16, "float32": np.float32}
SIDES = ("query", "key", "value")


@dataclass(frozen=True)
class Column:
    """One tensor of a batch as a column of the data set.

    A row is flat and holds real tokens only: W numbers, t * W, or t * t * W. Of a query with candidates these take the
    place of the tokens.

    Attributes:
        name: Name in the data set.
        positions: How many axes run over the tokens: 0 for (B, W), 1 for (B, T, W), 2 for (B, T, T, W).
        width: W.
        dtype: A name of `STORE_DTYPES`, or `int32`.
    """

    name: str
    positions: int
    width: int
    dtype: str

    @property
    def numpy_dtype(self) -> Any:
        """Return the type of the stored numbers."""
        return STORE_DTYPES.get(self.dtype, np.int32)

    @property
    def feature(self) -> LargeList:
        """Return the type of the column in the data set."""
        return LargeList(Value(np.dtype(self.numpy_dtype).name))

    def pack(self, tensor: Tensor, mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of all rows of a padded batch, flat, and how many belong to each row.

        Args:
            tensor: (B, W), (B, T, W) or (B, T, T, W).
            mask: (B, T), 1 on real tokens.

        Raises:
            ValueError: If a number is not finite, or too large for float16.
        """
        packed = tensor[_real(mask, self.positions)].flatten()
        low, high = (float(bound) for bound in packed.aminmax()) if packed.numel() else (0.0, 0.0)
        # What the rest has beside the largest classes is minus infinity where there is no rest.
        if math.isnan(high) or high == math.inf or (low == -math.inf and high > low):
            raise NotFiniteError(
                f"The teacher's signals are not finite (NaN or infinite) in {self.name}: nothing is stored of these "
                "rows. Look at its weights, or compute it in float32 (`--teacher_dtype`)."
            )
        values = packed.to(getattr(torch, self.dtype))
        if self.dtype == "float16" and not values.isfinite().all():
            raise ValueError(
                f"{self.name} holds {packed.abs().max().item():.3g}, which is too large for float16 (65504): store "
                "it with `--store_dtype bfloat16` or float32."
            )
        if self.dtype == "bfloat16":
            values = values.view(torch.int16)
        counts = mask.sum(1) ** self.positions * self.width
        return values.cpu().numpy(), counts.cpu().numpy()

    def check(self, rows: Sequence[np.ndarray], mask: Tensor) -> None:
        """Check that stored rows have a number for every token of a batch.

        Args:
            rows: B flat rows.
            mask: (B, T) of the batch, on the host.

        Raises:
            ValueError: If the batch has other numbers of tokens than the stored rows.
        """
        stored = [len(row) for row in rows]
        wanted = (mask.sum(1) ** self.positions * self.width).tolist()
        if stored != wanted:
            row = next(i for i, pair in enumerate(zip(stored, wanted, strict=True)) if pair[0] != pair[1])
            raise ValueError(
                f"Row {row} of a batch has {int(mask[row].sum())} tokens, but {self.name!r} was stored for another "
                f"number of them ({stored[row]} numbers instead of {wanted[row]}). The collator must neither cut "
                "nor change the stored rows."
            )

    def pad(self, values: Tensor, mask: Tensor) -> Tensor:
        """Put the numbers of all rows where the mask has their tokens; zeros elsewhere.

        Args:
            values: Those of all rows one after the other, flat, in the type of the store; see `check`.
            mask: (B, T) of the batch, padded on either side, on the device of the values.

        Returns:
            (B, W), (B, T, W) or (B, T, T, W).
        """
        padded = self.zeros(mask)
        values = values.view(padded.dtype).view(-1, self.width)
        places = places_where(_real(mask, self.positions).flatten(), len(values))
        padded.view(-1, self.width).index_copy_(0, places, values)
        return padded

    def zeros(self, mask: Tensor) -> Tensor:
        """Return a batch of zeros of the column's shape."""
        shape = (mask.shape[0], *[mask.shape[1]] * self.positions, self.width)
        return torch.zeros(shape, dtype=getattr(torch, self.dtype), device=mask.device)


@dataclass(frozen=True)
class FlatColumns(Packed):
    """The columns of a batch without padding, in one tensor: one copy to the device, and padding is added there.

    Attributes:
        memory: Bytes of all columns, one after the other.
        parts: Each column, and how many of the bytes are its own.
    """

    memory: Tensor
    parts: Sequence[tuple[Column, int]]

    @classmethod
    def of(cls, columns: Sequence[Column], features: Sequence[Mapping[str, Any]], mask: Tensor) -> FlatColumns:
        """Lay the columns of some rows into one tensor.

        Args:
            columns: Those that the rows have.
            features: B rows.
            mask: (B, T) of the batch.

        Raises:
            ValueError: If the batch has other numbers of tokens than the stored rows.
        """
        found = []
        # Wide numbers first, so that each stands at a multiple of its size.
        for column in sorted(columns, key=lambda one: -np.dtype(one.numpy_dtype).itemsize):
            rows = [np.asarray(row[column.name], dtype=column.numpy_dtype) for row in features]
            column.check(rows, mask)
            found.append((column, rows))
        sizes = [sum(row.nbytes for row in rows) for _, rows in found]
        memory, first = np.empty(sum(sizes), dtype=np.uint8), 0
        for (column, rows), size in zip(found, sizes, strict=True):
            np.concatenate(rows, out=memory[first : first + size].view(column.numpy_dtype))
            first += size
        columns = [column for column, _ in found]
        return cls(torch.from_numpy(memory), list(zip(columns, sizes, strict=True)))

    def to(self, device: Any, non_blocking: bool = False) -> FlatColumns:
        """The same on a device."""
        return replace(self, memory=self.memory.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> FlatColumns:
        """The same in memory from which copies to a device are queued; loaders ask for it."""
        return replace(self, memory=self.memory.pin_memory())

    def tensors(self, mask: Tensor) -> dict[str, Tensor]:
        """Name -> padded tensor."""
        sizes = [size for _, size in self.parts]
        numbers = zip(self.parts, self.memory.split(sizes), strict=True)
        return {column.name: column.pad(values, mask) for (column, _), values in numbers}


@dataclass(frozen=True)
class StoredSignal:
    """One tensor of `Signals` and how it is stored.

    Attributes:
        kind: `logits`, `hidden_states`, `query`, `key`, `value`, `attention_scores` or `pooled`.
        key: Name of the output, or the layer as text; "" of the vector of a text.
        positions: Axes over the tokens.
        width: Numbers per position: classes, hidden or projection width, heads of attention scores; 0 where the
            signal has no such axis (start and end scores, (B, T)).
        dtype: Type of the store.
        num_heads: Heads of a projection.
        top_k: K, for logits of which only the largest are stored.
        owner: Begins the names of the columns.
    """

    kind: str
    key: str
    positions: int
    width: int
    dtype: str
    num_heads: int = 0
    top_k: int | None = None
    owner: str = "teacher"

    @property
    def name(self) -> str:
        """Return the name of the (first) column."""
        parts = {"logits": [self.key], "pooled": [self.kind]}.get(self.kind, [self.kind, self.key])
        return "_".join([self.owner, *parts])

    @property
    def columns(self) -> list[Column]:
        """Return the columns that hold it; three for top-k logits: values, classes, and the rest of the classes."""
        if self.top_k is None:
            return [Column(self.name, self.positions, max(self.width, 1), self.dtype)]
        return [
            Column(self.name, self.positions, self.top_k, self.dtype),
            Column(f"{self.name}_index", self.positions, self.top_k, "int32"),
            Column(f"{self.name}_rest", self.positions, 1, "float32"),
        ]

    def is_part_of(self, request: SignalRequest) -> bool:
        """Return whether a request asks for it."""
        if self.kind in ("logits", "pooled"):
            return getattr(request, self.kind)
        return int(self.key) in getattr(request, "projections" if self.kind in SIDES else self.kind)

    def encode(self, signals: Signals) -> list[Tensor]:
        """Return the padded tensors of its columns, positions before numbers."""
        tensor = self._find(signals)
        if self.kind == "attention_scores":
            tensor = tensor.permute(0, 2, 3, 1)
        if self.width == 0:
            tensor = tensor.unsqueeze(-1)
        return [tensor] if self.top_k is None else list(keep_largest(tensor, self.top_k))

    def decode(self, tensors: Sequence[Tensor], signals: Signals) -> None:
        """Put the signal, in fp32, into `signals`; the reverse of `encode`."""
        if self.top_k is None:
            tensor = tensors[0].float()
        else:
            tensor = spread_rest(tensors[0].float(), tensors[1].long(), tensors[2], self.width)
        if self.kind == "logits":
            signals.logits[self.key] = tensor.squeeze(-1) if self.width == 0 else tensor
        elif self.kind == "pooled":
            signals.pooled = tensor
        elif self.kind == "attention_scores":
            signals.attention_scores[int(self.key)] = tensor.permute(0, 3, 1, 2)
        elif self.kind == "hidden_states":
            signals.hidden_states[int(self.key)] = tensor
        else:
            layer = int(self.key)
            found = signals.projections.setdefault(layer, Projections(tensor, tensor, tensor, self.num_heads))
            setattr(found, self.kind, tensor)

    def _find(self, signals: Signals) -> Tensor:
        if self.kind == "pooled":
            return cast(Tensor, signals.pooled)
        if self.kind in SIDES:
            return getattr(signals.projections[int(self.key)], self.kind)
        found: dict[Any, Tensor] = getattr(signals, self.kind)
        return found[self.key if self.kind == "logits" else int(self.key)]

    def describe(self) -> dict[str, Any]:
        """Return its fields, for the manifest; `StoredSignal(**fields)` is the way back."""
        return asdict(self)


def keep_largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k largest logits (..., K), their classes (..., K), and the log-sum-exp of all others (..., 1).

    Without others (K = C) that is minus infinity.
    """
    values, index = logits.float().topk(k, dim=-1)
    rest = logits.float().scatter(-1, index, -math.inf).logsumexp(-1, keepdim=True)
    return values, index, rest


def spread_rest(values: Tensor, index: Tensor, rest: Tensor, num_classes: int) -> Tensor:
    """Make logits (..., C) of what `keep_largest` gave.

    The classes that are not stored share their mass equally. At temperature 1 the stored classes therefore have the
    very probabilities that the teacher gave them, and the rest its true sum.
    """
    others = num_classes - values.shape[-1]
    fill = rest - math.log(others) if others else rest
    return fill.expand(*rest.shape[:-1], num_classes).scatter(-1, index, values)


def signals_of(short: Signals, long: Signals, dtype: str, top_k: int | None) -> list[StoredSignal]:
    """Plan how the signals of a teacher are stored, from two probe batches of different lengths T.

    An axis that is as long as the probe in both is one of positions; a head of four classes is so told from scores of
    four tokens.

    Raises:
        ValueError: If `top_k` is more than there are classes.
    """
    lengths = tuple(
        (one.attention_mask if one.candidates is None else one.candidates).shape[1] for one in (short, long)
    )

    def axes(one: Tensor, other: Tensor) -> tuple[int, int]:
        """Return the axes over positions, and the size of the one that is none (0 without)."""
        sizes = [a for a, b in zip(one.shape[1:], other.shape[1:], strict=True) if (a, b) != lengths]
        return one.dim() - 1 - len(sizes), sizes[0] if sizes else 0

    stored = []
    for name, logits in short.logits.items():
        positions, classes = axes(logits, long.logits[name])
        if top_k is not None and 0 < classes < top_k:
            raise ValueError(f"`--top_k` is {top_k}, but the teacher's {name!r} has {classes} classes.")
        stored.append(
            StoredSignal("logits", name, positions, classes, dtype, top_k=top_k if classes else None),
        )
    for layer, hidden in sorted(short.hidden_states.items()):
        stored.append(StoredSignal("hidden_states", str(layer), 1, hidden.shape[-1], dtype))
    for layer, found in sorted(short.projections.items()):
        for side in SIDES:
            width = getattr(found, side).shape[-1]
            stored.append(StoredSignal(side, str(layer), 1, width, dtype, num_heads=found.num_heads))
    for layer, scores in sorted(short.attention_scores.items()):
        stored.append(StoredSignal("attention_scores", str(layer), 2, scores.shape[1], dtype))
    if short.pooled is not None:
        stored.append(StoredSignal("pooled", "", 0, short.pooled.shape[-1], dtype))
    return stored


def decode_signals(stored: Sequence[StoredSignal], tensors: Mapping[str, Tensor], mask: Tensor) -> Signals:
    """Make `Signals` of the padded tensors of the columns.

    Args:
        stored: The signals wanted.
        tensors: Column name -> padded tensor.
        mask: (B, T), or (B, C, T) of candidates.
    """
    signals = Signals(attention_mask=mask)
    for signal in stored:
        signal.decode([tensors[column.name] for column in signal.columns], signals)
    if mask.dim() == 3:
        signals.attention_mask, signals.candidates = as_single_rows(mask), units_of(mask)
        absent = ~signals.candidates
        signals.logits = {name: values.masked_fill(absent, ABSENT) for name, values in signals.logits.items()}
    return signals


def _real(mask: Tensor, positions: int) -> Tensor:
    """Mark the numbers that belong to real tokens: (B,), (B, T) or (B, T, T) bool."""
    real = mask.bool()
    if positions == 0:
        return torch.ones_like(real[:, 0])
    return real if positions == 1 else real[:, :, None] & real[:, None, :]
