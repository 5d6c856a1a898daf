"""Requests for signals of a model (`SignalRequest`), and the signals that a forward pass gives (`Signals`).

Shape legend: B batch, T padded length, A attention heads, G key/value heads, D head size, H hidden size, C classes.
Layers are 1-based; 0 is the embedding output (hidden states only).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class SignalRequest:
    """The signals to record during one forward pass of one model.

    Attributes:
        logits: Whether the head's outputs are needed.
        hidden_states: Layers whose output (B, T, H) is needed; 0 = embeddings. Always the raw output of the layer,
            before a final norm of the model.
        projections: Layers whose queries, keys and values are needed.
        attention_scores: Layers whose attention scores before mask and softmax (B, A, T, T) are needed.
        pooled: Whether the one vector of a text (B, D) is needed, which a sentence encoder makes of its last hidden
            states.
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

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        layers = self.hidden_states or self.projections or self.attention_scores
        return self.logits or self.pooled or bool(layers)


@dataclass
class Projections:
    """Queries, keys and values of one layer, heads side by side, exactly as the attention used them.

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
        attention_scores: Layer -> (B, A, T, T), scaled, without padding mask, before softmax and dropout; a
            positional bias that belongs to the score is in it.
        pooled: (B, D), the vector of every text, or `None`.
    """

    attention_mask: Tensor
    logits: dict[str, Tensor] = field(default_factory=dict)
    hidden_states: dict[int, Tensor] = field(default_factory=dict)
    projections: dict[int, Projections] = field(default_factory=dict)
    attention_scores: dict[int, Tensor] = field(default_factory=dict)
    pooled: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Signals:
        """The same with every tensor changed, the mask too."""
        return Signals(
            attention_mask=change(self.attention_mask),
            logits={name: change(values) for name, values in self.logits.items()},
            hidden_states={layer: change(values) for layer, values in self.hidden_states.items()},
            projections={layer: found.map(change) for layer, found in self.projections.items()},
            attention_scores={layer: change(values) for layer, values in self.attention_scores.items()},
            pooled=None if self.pooled is None else change(self.pooled),
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
