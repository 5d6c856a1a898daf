"""Capture of queries, keys, values and scores for attention modules outside transformers' attention interface.

MPNet, DeBERTa and DeBERTa-v2 add a positional bias to their scores and always run their own eager attention. Hooks on
the modules of their queries, keys and values record the outputs.

Shape legend: B batch, T padded length, A attention heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hf_distill.capture.architectures import ArchitectureInfo, UnsupportedArchitectureError
from hf_distill.capture.signals import Recorder, ScoreParts

BIAS_METHODS = {"deberta": "disentangled_att_bias", "deberta-v2": "disentangled_attention_bias"}


class AttentionHooks:
    """Hooks on one attention module that feed a recorder.

    Raises:
        UnsupportedArchitectureError: If scores are asked for and the module mixes its heads before the softmax.
    """

    def __init__(self, info: ArchitectureInfo, layer: int, recorder: Recorder) -> None:
        self._spec = info.spec
        self._num_heads = info.num_heads
        self._layer = layer
        self._recorder = recorder
        self._attention = info.attention(layer)
        self._hooked: dict[str, nn.Module] = {}
        self._handles: list[RemovableHandle] = []
        self._wants_scores = layer in recorder.request.attention_scores
        if self._wants_scores and getattr(self._attention, "talking_head", False):
            raise UnsupportedArchitectureError(
                f"attention_scores of layer {layer} of a {info.model_type} model with talking_head=True cannot be "
                "captured: its heads are mixed before the softmax. Ask for projections or hidden_states."
            )

    @property
    def _bias_method(self) -> str | None:
        """Name of the method whose result completes the scores, if this request needs it."""
        name = BIAS_METHODS.get(self._spec.mechanism)
        return name if self._wants_scores and name and self._attention.relative_attention else None

    def ensure_installed(self) -> None:
        """Hook the projections; again if they were replaced, as peft does when it adds an adapter."""
        spec = self._spec
        paths = (
            {"fused": "in_proj"}
            if spec.mechanism == "deberta"
            else {"query": spec.query, "key": spec.key, "value": spec.value}
        )
        modules = {name: self._attention.get_submodule(path) for name, path in paths.items()}
        if self._hooked and all(modules[name] is module for name, module in self._hooked.items()):
            return
        self.remove()
        self._hooked = modules
        for name, module in modules.items():
            self._handles.append(module.register_forward_hook(partial(self._on_projection, name)))
        if spec.mechanism == "mpnet":
            self._handles.append(self._attention.register_forward_pre_hook(self._on_position_bias, with_kwargs=True))

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._hooked = {}

    @contextmanager
    def during_forward(self) -> Iterator[None]:
        """Watch the method that computes the positional bias, where the scores need it."""
        name = self._bias_method
        if name is None:
            yield
            return
        setattr(self._attention, name, partial(self._with_bias, getattr(self._attention, name)))
        try:
            yield
        finally:
            delattr(self._attention, name)

    def _on_position_bias(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """MPNet passes the bias of its scores to every layer."""
        if self._recorder.active and self._wants_scores:
            bias = kwargs.get("position_bias", args[2] if len(args) > 2 else None)
            if bias is not None:
                self._recorder.pending(self._layer)["bias"] = bias

    def _on_projection(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """Collect the parts of one layer; the first output counts, as DeBERTa-v2 may project its positions too."""
        recorder = self._recorder
        if not recorder.active or not recorder.wants_attention(self._layer):
            return
        parts = recorder.pending(self._layer)
        if name == "fused":
            parts.update(self._split_fused(output))
        else:
            parts.setdefault(name, output)
        if "query" in parts and "key" in parts and "value" in parts and self._layer not in recorder.projections:
            self._finish_projections(parts)

    def _split_fused(self, output: Tensor) -> dict[str, Tensor]:
        """DeBERTa v1: (B, T, 3 * A * D) holds query, key and value head by head; biases are added afterwards."""
        query, key, value = output.unflatten(-1, (self._num_heads, -1)).chunk(3, dim=-1)
        return {
            "query": query.flatten(2) + self._attention.q_bias,
            "key": key.flatten(2),
            "value": value.flatten(2) + self._attention.v_bias,
        }

    def _finish_projections(self, parts: dict[str, Tensor]) -> None:
        recorder, layer = self._recorder, self._layer
        query, key, value = parts["query"], parts["key"], parts["value"]
        recorder.record_projections(layer, query, key, value, self._num_heads)
        if self._bias_method is not None:
            return  # the scores follow with their bias
        if self._wants_scores:
            heads = (self._num_heads, -1)
            query, key = (tensor.unflatten(-1, heads).transpose(1, 2) for tensor in (query, key))
            recorder.record_scores(layer, ScoreParts(query, key, self._scaling(query), parts.get("bias")))
        recorder.attention_done(layer)

    def _scaling(self, query: Tensor) -> float:
        """DeBERTa divides by the number of kinds of bias too, even without relative attention."""
        kinds = getattr(self._attention, "pos_att_type", ())
        if self._spec.mechanism == "deberta-v2":
            kinds = [kind for kind in ("c2p", "p2c") if kind in kinds]
        return 1 / math.sqrt(query.shape[-1] * (1 + len(kinds)))

    def _by_head(self, tensor: Tensor) -> Tensor:
        """(B * A, T, X) or (B, A, T, X) -> (B, A, T, X)."""
        return tensor.reshape(-1, self._num_heads, *tensor.shape[-2:])

    def _with_bias(
        self,
        method: Callable[..., Tensor],
        query: Tensor,
        key: Tensor,
        relative_pos: Tensor,
        rel_embeddings: Tensor,
        scale_factor: int,
    ) -> Tensor:
        """Run the bias method and complete the scores.

        Args:
            method: The method of the attention module.
            query: (B, A, T, D), scaled (DeBERTa) or (B * A, T, D), not scaled (DeBERTa-v2).
            key: Like query, never scaled.
            relative_pos: Passed on.
            rel_embeddings: Passed on.
            scale_factor: Number of terms of the score.

        Returns:
            What the method returns: the bias, in the shape of the scores of the module.
        """
        bias = method(query, key, relative_pos, rel_embeddings, scale_factor)
        recorder = self._recorder
        if recorder.active and self._layer not in recorder.score_parts:
            scaling = 1.0 if self._spec.mechanism == "deberta" else 1 / math.sqrt(query.shape[-1] * scale_factor)
            recorder.record_scores(
                self._layer,
                ScoreParts(
                    self._by_head(query),
                    self._by_head(key),
                    scaling,
                    # With no kind of bias the method returns the number 0.
                    self._by_head(bias) if isinstance(bias, Tensor) else None,
                ),
            )
            recorder.attention_done(self._layer)
        return bias
