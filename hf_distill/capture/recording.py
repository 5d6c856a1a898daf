"""The store that a capture fills while a model runs, and the attention function that hands it queries and keys.

Shape legend: B batch, T padded length, A attention heads, G key/value heads, D head size, H hidden size.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from hf_distill.capture.batch import has_padding
from hf_distill.capture.signals import Projections, SignalRequest
from hf_distill.kernels.product_attention import attention_by_products, products_apply

ATTENTION_NAME = "hf_distill_sdpa"
"""Name of the attention implementation. transformers asks for a name with `sdpa` in it to tell that a model that only
has eager attention cannot use it."""

RECORDERS_ATTRIBUTE = "_hf_distill_recorders"

IN_ATTENTION, AFTER_LAYER = 0, 1
# After the base model, behind whose layers a final norm may come.
AFTER_BASE = (sys.maxsize, AFTER_LAYER)


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


def merge_heads(tensor: Tensor) -> Tensor:
    """(B, A, T, D) -> (B, T, A * D); a view where the memory allows it, as it does after a projection."""
    return tensor.transpose(1, 2).flatten(2)


def recording_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """SDPA attention that shows its queries, keys and values to the active recorders of the module.

    The kernel is transformers' choice, or products in slices where these are faster.

    Args:
        module: The attention module that calls.
        query: (B, A, T, D), after rotary embedding.
        key: (B, G, T, D), after rotary embedding.
        value: (B, G, T, D).
        attention_mask: Passed on, as is everything in `kwargs` (scaling, dropout, position bias ...).
        **kwargs: See `attention_mask`.

    Returns:
        What `sdpa_attention_forward` returns.
    """
    for recorder, fixed_layer in recorders_of(module):
        if recorder.active:
            layer = recorder.current if fixed_layer is None else fixed_layer
            _record(recorder, layer, query, key, value, kwargs)
    if products_apply(module, query, key, attention_mask, kwargs):
        return attention_by_products(query, key, value, attention_mask, kwargs.get("scaling")), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _record(recorder: Recorder, layer: int, query: Tensor, key: Tensor, value: Tensor, kwargs: dict[str, Any]) -> None:
    if not recorder.wants_attention(layer):
        return
    recorder.record_projections(layer, merge_heads(query), merge_heads(key), merge_heads(value), query.shape[1])
    if layer in recorder.request.attention_scores:
        scaling = kwargs.get("scaling")
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        recorder.record_scores(layer, ScoreParts(query, key, scaling, kwargs.get("position_bias")))
    recorder.attention_done(layer)


def _last_position(request: SignalRequest) -> tuple[int, int] | None:
    """Return the place of the last signal, as (layer, inside its attention or after it)."""
    inside = [(layer, IN_ATTENTION) for layer in request.projections | request.attention_scores]
    after = [(layer, AFTER_LAYER) for layer in request.hidden_states]
    return max(inside + after + ([AFTER_BASE] if request.pooled else []), default=None)


def known_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The mask of SDPA as transformers makes it, without asking a device whether a batch has padding.

    Args:
        args: As for `sdpa_mask`.
        attention_mask: (B, T); of a batch whose host knows that it has no padding, none is needed.
        kwargs: As for `sdpa_mask`.

    Returns:
        What `sdpa_mask` returns.
    """
    padded = None if attention_mask is None or torch.compiler.is_compiling() else has_padding(attention_mask)
    if padded:
        # Skipped are masks without padding alone; to find one, the device would have to be asked.
        kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*args, attention_mask=None if padded is False else attention_mask, **kwargs)


AttentionInterface.register(ATTENTION_NAME, recording_attention)
# Without the mask function of the same name, transformers would leave out the padding mask. Where no facts are known,
# it is that of transformers.
for _name in (ATTENTION_NAME, "sdpa"):
    AttentionMaskInterface.register(_name, known_mask)
