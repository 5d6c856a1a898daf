"""A key-value cache for an encoder that generates text.

It is an attention function that is registered in transformers, so it works for every encoder that uses transformers'
attention interface. The keys of a source are stored once for all its hypotheses, whose queries are multiplied with
them in one product.

Shape legend: B sources, K hypotheses of each, N = B * K, A attention heads, Q new tokens of a hypothesis, S padded
length of the sources, T tokens written so far, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

CACHED_ATTENTION = "hf_distill_cached_sdpa"


@dataclass
class _Layer:
    """The keys and values that one layer has cached.

    Attributes:
        source_key: (B, A, S, D).
        source_value: (B, A, S, D).
        key: (N, A, T, D) of the generated tokens; None before the first.
        value: (N, A, T, D) of the generated tokens; None before the first.
    """

    source_key: Tensor
    source_value: Tensor
    key: Tensor | None = None
    value: Tensor | None = None


class KeyValueCache:
    """Stores the keys and values of the sources in the first forward pass, and those of each generated token later.

    In a later pass only the first new token is stored: a [MASK] may follow it, which is not part of the text.

    Args:
        source_bias: (B, 1, 1, S) bias of the scores: 0 at real tokens of the sources, the smallest number elsewhere.
    """

    def __init__(self, source_bias: Tensor) -> None:
        self.source_bias = source_bias
        self._layers: list[_Layer] = []
        self._filled = False
        self._next = 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block, let forward passes of the model read from and write to this cache."""
        self._next = 0
        token = _RUNNING.set(self)
        try:
            yield
        finally:
            _RUNNING.reset(token)
        self._filled = True

    def select_hypotheses(self, rows: Tensor) -> None:
        """Keep the N' hypotheses with these indices, in this order."""
        for layer in self._layers:
            if layer.key is not None and layer.value is not None:
                layer.key, layer.value = layer.key[rows], layer.value[rows]

    def select_sources(self, sources: Tensor) -> None:
        """Keep the B' sources with these indices, in this order; hypotheses are selected separately."""
        self.source_bias = self.source_bias[sources]
        for layer in self._layers:
            layer.source_key, layer.source_value = layer.source_key[sources], layer.source_value[sources]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
        """Attention of new tokens to the source, to earlier generated tokens, and to themselves.

        Args:
            query: (N, A, Q, D).
            key: (N, A, Q, D).
            value: (N, A, Q, D).
            bias: (1, 1, Q, Q) bias that says which new tokens see which.
            scaling: Factor of the scores.

        Returns:
            (N, A, Q, D).
        """
        layer = self._layers[self._next]
        self._next += 1
        if layer.key is not None and layer.value is not None:
            key, value = torch.cat([layer.key, key], dim=2), torch.cat([layer.value, value], dim=2)
        past = key.shape[2] - query.shape[2]
        layer.key, layer.value = key[:, :, : past + 1], value[:, :, : past + 1]
        together = _by_source(query, len(layer.source_key))
        to_source = together @ layer.source_key.transpose(-1, -2) * scaling + self.source_bias
        to_written = query @ key.transpose(-1, -2) * scaling
        to_written[..., past:] += bias
        scores = torch.cat([to_source, _by_source(to_written, len(to_source))], dim=-1)
        shares = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
        width = layer.source_key.shape[2]
        from_source = shares[..., :width] @ layer.source_value
        return _by_hypothesis(from_source, query) + _by_hypothesis(shares[..., width:], query) @ value

    def store_sources(self, key: Tensor, value: Tensor) -> None:
        """Store a layer's (B, A, S, D) keys and values of the first pass."""
        # They are transposed views, which every product of a later pass would copy.
        self._layers.append(_Layer(key.contiguous(), value.contiguous()))

    @property
    def filled(self) -> bool:
        """Whether the first pass is done."""
        return self._filled


def _by_source(tensor: Tensor, num_sources: int) -> Tensor:
    """(N, A, Q, X) -> (B, A, K * Q, X)."""
    _, heads, queries, width = tensor.shape
    return tensor.view(num_sources, -1, heads, queries, width).transpose(1, 2).reshape(num_sources, heads, -1, width)


def _by_hypothesis(tensor: Tensor, query: Tensor) -> Tensor:
    """(B, A, K * Q, X) -> (N, A, Q, X)."""
    sources, heads, _, width = tensor.shape
    split = tensor.view(sources, heads, -1, query.shape[2], width).transpose(1, 2)
    return split.reshape(query.shape[0], heads, query.shape[2], width)


_RUNNING: ContextVar[KeyValueCache | None] = ContextVar("hf_distill_cache", default=None)


def cached_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """SDPA attention of transformers that reads and writes a cache if one is in use.

    Args:
        module: The calling attention module.
        query: (rows, A, tokens, D), after rotary embedding.
        key: Shape as `query`, with fewer heads if several query heads share one.
        value: Shape as `key`.
        attention_mask: Added to the scores.
        **kwargs: `scaling` and other arguments of `sdpa_attention_forward`.

    Returns:
        The result of `sdpa_attention_forward`.
    """
    cache = _RUNNING.get()
    if cache is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    groups = query.shape[1] // key.shape[1]
    wide_key, wide_value = (key, value) if groups == 1 else (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if not cache.filled:
        cache.store_sources(wide_key, wide_value)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is None:
        raise RuntimeError(f"{type(module).__name__} was called without the mask that was handed to the model.")
    scaling = kwargs.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return cache.attend(query, wide_key, wide_value, attention_mask, scaling).transpose(1, 2).contiguous(), None


@contextmanager
def caching_attention(model: Any) -> Iterator[None]:
    """Within the block, let the attention of a transformers model use the `KeyValueCache` that is in use."""
    before = model.config._attn_implementation
    model.set_attn_implementation(CACHED_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


# Without a mask function of the same name, transformers would drop the masks that it makes itself.
AttentionInterface.register(CACHED_ATTENTION, cached_attention)
AttentionMaskInterface.register(CACHED_ATTENTION, sdpa_mask)
