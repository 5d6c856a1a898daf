"""Requests for signals of a model, the signals that a forward pass gives, and the recorder that collects them.

Signals, terms, gradients and weights that are not finite (NaN, infinite) are found here too, before they are trained
on, saved or shown. They are checked on their own device, and the host waits for the result only when it is read.

Shape legend: B batch, T padded length, A attention heads, G key/value heads, D head size, H hidden size, C classes.
Layers are 1-based; 0 is the embedding output (hidden states only).
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..storage.plain_values import NotFiniteError, listed

RECORDERS_ATTRIBUTE = "_hf_distill_recorders"

# The score where a row has no candidate: below every other, finite in all arithmetic, and of no weight in a softmax.
ABSENT = -1e4

Pool = Callable[[Tensor, Tensor], Tensor]
"""(B, T, H) last hidden states and (B, T) mask -> (B, D) vectors of the texts."""

IN_ATTENTION, AFTER_LAYER = 0, 1
# After the base model, behind whose layers a final norm may come.
AFTER_BASE = (sys.maxsize, AFTER_LAYER)


@dataclass(frozen=True)
class SignalRequest:
    """The signals to record during one forward pass of one model.

    Attributes:
        logits: Whether the head's outputs are needed.
        hidden_states: Layers whose output (B, T, H) is needed; 0 = embeddings. Always the raw output of the layer,
            before a final norm of the model.
        projections: Layers whose queries, keys and values are needed.
        attention_scores: Layers whose attention scores before mask and softmax (B, A, T, T) are needed.
        pooled: Whether the pooled vector of every text (B, D) of a sentence encoder is needed.
    """

    logits: bool = False
    hidden_states: frozenset[int] = frozenset()
    projections: frozenset[int] = frozenset()
    attention_scores: frozenset[int] = frozenset()
    pooled: bool = False

    def __or__(self, other: SignalRequest) -> SignalRequest:
        """Everything that either request asks for."""
        return SignalRequest(
            logits=self.logits or other.logits,
            hidden_states=self.hidden_states | other.hidden_states,
            projections=self.projections | other.projections,
            attention_scores=self.attention_scores | other.attention_scores,
            pooled=self.pooled or other.pooled,
        )

    @classmethod
    def union(cls, requests: Iterable[SignalRequest]) -> SignalRequest:
        """Everything that any of the requests asks for."""
        return functools.reduce(operator.or_, requests, cls())

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        layers = self.hidden_states or self.projections or self.attention_scores
        return self.logits or self.pooled or bool(layers)


@dataclass
class Projections:
    """Queries, keys and values of one layer, heads concatenated, exactly as the attention used them.

    Attributes:
        query: (B, T, A * D), after rotary embedding where the model has one.
        key: (B, T, G * D).
        value: (B, T, G * D).
        num_heads: A.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    num_heads: int

    def map(self, change: Callable[[Tensor], Tensor]) -> Projections:
        """The same with every tensor changed."""
        return Projections(change(self.query), change(self.key), change(self.value), self.num_heads)


@dataclass
class Signals:
    """The signals that one forward pass of one model gave.

    Attributes:
        attention_mask: (B, T), 1 on real tokens.
        logits: Output of the head by its name in the model's output: `{"logits": (B, C) or (B, T, C)}`, or
            `{"start_logits": (B, T), "end_logits": (B, T)}` for extractive question answering.
        hidden_states: Layer -> (B, T, H).
        projections: Layer -> `Projections`.
        attention_scores: Layer -> (B, A, T, T), scaled, without padding mask, before softmax and dropout, with a
            positional bias if the model adds one.
        pooled: (B, D), the vector of every text, or `None`.
        candidates: Rows with candidates (rerankers): (B, C), true where a row has a candidate. Then `logits` are (B,
            C), one score for each candidate, `ABSENT` where there is none, and all other signals have one row for
            every candidate, (N, ...).
    """

    attention_mask: Tensor
    logits: dict[str, Tensor] = field(default_factory=dict)
    hidden_states: dict[int, Tensor] = field(default_factory=dict)
    projections: dict[int, Projections] = field(default_factory=dict)
    attention_scores: dict[int, Tensor] = field(default_factory=dict)
    pooled: Tensor | None = None
    candidates: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Signals:
        """The same with every tensor changed, the mask too."""
        return Signals(
            attention_mask=change(self.attention_mask),
            logits={name: change(values) for name, values in self.logits.items()},
            hidden_states={layer: change(values) for layer, values in self.hidden_states.items()},
            projections={layer: found.map(change) for layer, found in self.projections.items()},
            attention_scores={layer: change(values) for layer, values in self.attention_scores.items()},
            pooled=None if self.pooled is None else change(self.pooled),
            candidates=None if self.candidates is None else change(self.candidates),
        )

    def to(self, device: torch.device) -> Signals:
        """The same on a device; itself if all of it is there already."""
        tensors = [self.attention_mask, *(tensor for _, tensor in named_signals(self))]
        if all(tensor.device == device for tensor in tensors):
            return self
        # What goes to the CPU is read by the next line; a device keeps the order of copy and use by itself.
        return self.map(lambda tensor: tensor.to(device, non_blocking=device.type != "cpu"))


def named_signals(signals: Signals) -> Iterable[tuple[str, Tensor]]:
    """Every tensor of signals by a name that a reader knows."""
    yield from signals.logits.items()
    for layer, states in signals.hidden_states.items():
        yield f"hidden states of layer {layer}", states
    for layer, found in signals.projections.items():
        for name in ("query", "key", "value"):
            yield f"{name} of layer {layer}", getattr(found, name)
    for layer, scores in signals.attention_scores.items():
        yield f"attention scores of layer {layer}", scores
    if signals.pooled is not None:
        yield "vectors of texts", signals.pooled


def checked_signals(given: Any, teacher: str) -> Any:
    """What a teacher said, if it is signals, or those of each objective.

    Raises:
        ValueError: If it is something else.
    """
    said = list(given.values()) if isinstance(given, Mapping) else [given]
    wrong = next((type(one).__name__ for one in said if not isinstance(one, Signals)), None)
    if wrong is not None:
        raise ValueError(
            f"The teacher ({teacher}) must return `Signals`, or those of each objective by its name, but "
            f"its `signals` gave a {'mapping with a ' if isinstance(given, Mapping) else ''}{wrong}."
        )
    return given


def check_rows(objective: str, student: Signals, teacher: Signals | None) -> None:
    """Refuse signals of other rows than the batch's, which would be repeated for all of them.

    Raises:
        ValueError: If there are such.
    """
    if teacher is None:
        return
    for name, values in named_signals(teacher):
        rows = len(student.logits.get(name, student.attention_mask))
        if len(values) != rows and (name in student.logits or name not in teacher.logits):
            raise ValueError(
                f"The objective {objective!r}: the teacher's {name} have {len(values)} rows, but the batch has {rows}."
            )


class EarlyStopError(Exception):
    """Raised inside the model once everything was recorded; `SignalCapture` catches it."""


class ScoreParts(NamedTuple):
    """The tensors that attention scores are computed from.

    They are put together after the forward pass: inside a layer with activation checkpointing, the product would be
    missing from the recomputation.

    Attributes:
        query: (B, A, T, D).
        key: (B, G, T, D); each key head serves A / G neighbouring query heads.
        scaling: Factor of the product.
        bias: Added to the scaled product, broadcast to (B, A, T, T).
    """

    query: Tensor
    key: Tensor
    scaling: float
    bias: Tensor | None = None

    def scores(self) -> Tensor:
        """(B, A, T, T) scores before mask and softmax."""
        groups = self.query.shape[1] // self.key.shape[1]
        key = self.key.repeat_interleave(groups, dim=1) if groups > 1 else self.key
        scores = torch.matmul(self.query, key.transpose(-1, -2)) * self.scaling
        return scores if self.bias is None else scores + self.bias


class Recorder:
    """The signals of the forward pass that is running.

    The recorder stays attached to the model, so that a compiled model is traced once; it records only while active.
    Its state is plain attributes because `torch.compile` cannot trace a `ContextVar`.

    Attributes:
        active: Whether a forward pass of the capture is running.
        stop_early: Whether that pass ends with the last signal.
        current: Number of the running layer in a model whose layers share modules.
    """

    def __init__(self, request: SignalRequest) -> None:
        self.request = request
        self.last = _last_position(request)
        self.active = False
        self.stop_early = False
        self.current = 0
        self.hidden_states: dict[int, Tensor] = {}
        self.projections: dict[int, Projections] = {}
        self.score_parts: dict[int, ScoreParts] = {}
        self.last_states: Tensor | None = None
        self._pending: dict[int, dict[str, Tensor]] = {}

    def start(self, *, stop_early: bool) -> None:
        """Begin to record."""
        self.clear()
        self.stop_early = stop_early
        self.active = True

    def clear(self) -> None:
        """End recording and let go of every tensor."""
        self.active = False
        self.current = 0
        self.hidden_states = {}
        self.projections = {}
        self.score_parts = {}
        self.last_states = None
        self._pending = {}

    def pending(self, layer: int) -> dict[str, Tensor]:
        """Parts of a layer's attention that hooks have seen so far."""
        return self._pending.setdefault(layer, {})

    def wants_attention(self, layer: int) -> bool:
        """Whether anything of the layer's attention is asked for and was not recorded yet."""
        return (layer in self.request.projections and layer not in self.projections) or (
            layer in self.request.attention_scores and layer not in self.score_parts
        )

    def record_hidden_state(self, layer: int, hidden_state: Tensor) -> None:
        """Store the output of a layer, (B, T, H)."""
        if layer in self.request.hidden_states and layer not in self.hidden_states:
            self.hidden_states[layer] = hidden_state
            self._stop_at((layer, AFTER_LAYER))

    def record_last_states(self, states: Tensor) -> None:
        """Store what the base model gives, (B, T, H)."""
        self.last_states = states
        self._stop_at(AFTER_BASE)

    def record_projections(self, layer: int, query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> None:
        """Store (B, T, A * D) queries and (B, T, G * D) keys and values."""
        if layer in self.request.projections:
            self.projections[layer] = Projections(query, key, value, num_heads)

    def record_scores(self, layer: int, parts: ScoreParts) -> None:
        """Store what the scores of a layer are made of."""
        self.score_parts[layer] = parts

    def attention_done(self, layer: int) -> None:
        """End the pass if the attention of this layer was the last thing needed."""
        self._stop_at((layer, IN_ATTENTION))

    def _stop_at(self, position: tuple[int, int]) -> None:
        # A traced graph has no way out in the middle; the compiler drops what nobody uses.
        if self.stop_early and position == self.last and not torch.compiler.is_compiling():
            raise EarlyStopError


def recorders_of(module: nn.Module) -> tuple[tuple[Recorder, int | None], ...]:
    """The recorders attached to a module, each with the layer that the module is in."""
    # Not getattr: torch.compile cannot guard on a missing attribute of a module.
    return module.__dict__.get(RECORDERS_ATTRIBUTE, ())


def attach(module: nn.Module, recorder: Recorder, layer: int | None) -> None:
    """Let others find the recorder through a module; `layer` is None if the module is not in one layer only."""
    setattr(module, RECORDERS_ATTRIBUTE, (*recorders_of(module), (recorder, layer)))


def detach(module: nn.Module, recorder: Recorder) -> None:
    """Undo `attach`."""
    left = tuple(entry for entry in recorders_of(module) if entry[0] is not recorder)
    if left:
        setattr(module, RECORDERS_ATTRIBUTE, left)
    elif hasattr(module, RECORDERS_ATTRIBUTE):
        delattr(module, RECORDERS_ATTRIBUTE)


def _last_position(request: SignalRequest) -> tuple[int, int] | None:
    """Return the place of the last signal, as (layer, inside its attention or after it)."""
    inside = [(layer, IN_ATTENTION) for layer in request.projections | request.attention_scores]
    after = [(layer, AFTER_LAYER) for layer in request.hidden_states]
    return max(inside + after + ([AFTER_BASE] if request.pooled else []), default=None)


# ---- Numbers that are not finite (NaN, infinite) ----


def are_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Return whether all values of each tensor are finite, (N,), on the device of the first, without waiting."""
    bounds = [bound for values in tensors for bound in values.detach().aminmax()]
    device = bounds[0].device
    return torch.stack([bound.to(device, torch.float32) for bound in bounds]).isfinite().view(-1, 2).all(1)


def not_finite(named: Iterable[tuple[str, Any]]) -> list[str]:
    """Return names of the tensors of which a value is not finite; every device is waited for once.

    Args:
        named: Names and tensors. Integers, rounded weights and tensors that other processes hold a part of are not
            looked at.
    """
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, values in named:
        if is_plain(values):
            by_device.setdefault(values.device, {})[name] = values
    found = []
    for tensors in by_device.values():
        finite = are_finite(list(tensors.values())).tolist()
        found += [name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite]
    return found


def is_plain(values: Any) -> bool:
    """Return whether a tensor holds its own floating-point numbers, of two bytes at least."""
    return (
        isinstance(values, Tensor)
        and type(values.data) is Tensor
        and values.is_floating_point()
        and values.itemsize > 1
        and values.numel() > 0
        and values.device.type != "meta"
    )


def check_weights(model: Any, who: str) -> None:
    """Check that every weight of a model is finite.

    Args:
        model: A module.
        who: Whose weights they are, for the message: "The teacher's".

    Raises:
        NotFiniteError: If one is not; the message names the tensors.
    """
    found = not_finite([*model.named_parameters(), *model.named_buffers()])
    if found:
        raise NotFiniteError(f"{who} weights are not finite (NaN or infinite): {listed(found)}.")


class FiniteWatch:
    """The first step at which each of many numbers was not finite, kept on the device."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._first: dict[tuple[str, ...], Tensor] = {}

    @torch.no_grad()
    def see(self, step: int, values: Mapping[str, Any]) -> None:
        """Look at some numbers of a step; nothing waits for the device.

        Args:
            step: Number of the update that they belong to, from 1.
            values: Tensors by name, of any shape; what has no floating-point numbers is passed over.
        """
        plain = {name: tensor for name, tensor in values.items() if is_plain(tensor)}
        if not plain:
            return
        now = are_finite(list(plain.values()))
        first = torch.full(now.shape, float("inf"), device=now.device).masked_fill(~now, step)
        key = tuple(plain)
        self._first[key] = first if key not in self._first else torch.minimum(self._first[key], first)

    def first_steps(self) -> dict[str, int]:
        """Return the first step of each number that was not finite, by its name; waits for the device."""
        found: dict[str, int] = {}
        for names, values in self._first.items():
            steps = zip(names, values.tolist(), strict=True)
            found |= {name: int(step) for name, step in steps if step < float("inf")}
        return found


def needed_pool(request: SignalRequest, pool: Pool | None) -> Pool | None:
    """The pooling of a capture whose request asks for the vector of a text, else `None`.

    Raises:
        ValueError: If it is asked for, and there is none.
    """
    if request.pooled and pool is None:
        raise ValueError("SignalRequest.pooled: say how tokens become the vector of a text (`pool`).")
    return pool if request.pooled else None


def have_candidates(model: nn.Module, inputs: dict[str, Any]) -> bool:
    """Whether rows are lists, (B, C, T); a model of multiple choice reads such rows by itself."""
    ids = inputs.get("input_ids")
    is_list = ids is not None and ids.dim() == 3
    return is_list and not any("ForMultipleChoice" in one.__name__ for one in type(model).__mro__)


def attention_mask_of(inputs: dict[str, Any]) -> Tensor:
    """(B, T) mask of the inputs; all ones if they have none."""
    mask = inputs.get("attention_mask")
    if mask is not None:
        return mask
    tokens = inputs.get("input_ids")
    tokens = inputs["inputs_embeds"] if tokens is None else tokens
    return torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)


def logits_of(output: Any, inner: nn.Module) -> dict[str, Tensor]:
    """Everything in the output whose name ends in `logits`."""
    if not isinstance(output, Mapping):
        raise ValueError(
            f"{type(inner).__name__} returned a {type(output).__name__}: its `forward` must return its outputs by "
            "name, as a `ModelOutput` or a mapping with `logits`."
        )
    found = {name: value for name, value in output.items() if name.endswith("logits")}
    if not found:
        raise RuntimeError(f"{type(inner).__name__} returned {list(output)}: none of these is named `*logits`.")
    return found
