"""Faster arithmetic on the CPU: oneDNN for fp32 products, and packed weights and sliced attention for frozen models.

**Products.** `configure_fp32_matmul` chooses the library for fp32 products, after checking its precision.

**Packed linear layers.** Autocast caches the casts of trainable weights within its context, but casts frozen weights
again at every use. In addition, oneDNN reorders every weight for its kernel before each product. The time for both
does not depend on the number of rows (`benchmarks/teacher_speed.py`), and is saved here.

**Attention in slices.** PyTorch's fused attention for CPUs multiplies small tiles with its own code, not with the
library chosen for fp32 products. If that library is oneDNN, two of its products and a softmax over a few rows at a
time are faster; in float32 the shorter the rows, the larger the gain. A slice limits the memory: its scores stay in
the cache.

Shape legend: B batch, T queries, U keys, A attention heads, D head size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

# The relative error of a true fp32 product is about 4e-7; with inputs rounded to bf16 it is about 3e-3.
MAX_FP32_ERROR = 1e-5
# Number of sampled values of a weight that are compared before every use of its packed copy.
SAMPLES = 256
# Dtypes of queries for attention in slices. Scores are always computed in float32, as in SDPA; so are the attention
# weights, which SDPA rounds.
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
# Maximum scores of a slice of more than one row: 4 MB.
SLICE_SCORES = 2**20

MatmulMode = Literal["auto", "strict", "fast"]


# ---- Products ----


def matmul_error() -> float:
    """Relative error of an fp32 product under the current setting, compared with float64."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(64, 256, generator=generator)
    right = torch.randn(256, 64, generator=generator)
    exact = left.double() @ right.double()
    return (((left @ right).double() - exact).norm() / exact.norm()).item()


def fast_products_in_force() -> bool:
    """Whether fp32 products on the CPU currently use oneDNN's fast path."""
    backend = getattr(getattr(torch.backends, "mkldnn", None), "matmul", None)
    return backend is not None and backend.fp32_precision == "bf16"


def configure_fp32_matmul(mode: MatmulMode = "auto") -> str:
    """Let oneDNN compute fp32 products on the CPU with its bf16-allowed setting, where that still is fp32 arithmetic.

    On processors without bf16 matrix units the setting only changes the library (about twice as fast on AMD); on
    processors with such units, inputs really would be rounded to bf16. `auto` therefore changes the setting, measures
    the error of a small product, and undoes the change if the error exceeds that of fp32. `fast` keeps the setting in
    any case, `strict` never changes it.

    Returns:
        The active setting: `"strict"` or `"fast"`.

    Raises:
        ValueError: If `mode` is unknown.
    """
    if mode not in ("auto", "strict", "fast"):
        raise ValueError(f"`--fp32_matmul` is {mode!r}; allowed are 'auto', 'strict' and 'fast'.")
    backend = getattr(getattr(torch.backends, "mkldnn", None), "matmul", None)
    if backend is None or not torch.backends.mkldnn.is_available():
        return "strict"
    backend.fp32_precision = "ieee" if mode == "strict" else "bf16"
    if mode == "auto" and matmul_error() > MAX_FP32_ERROR:
        backend.fp32_precision = "ieee"
        logger.info("fp32 matrix products stay on the strict path: the fast one rounds to bf16 on this processor.")
    return "fast" if backend.fp32_precision == "bf16" else "strict"


# ---- Packed linear layers ----


class _Packs(dict[torch.dtype, "_PackedLinear"]):
    """The packed weights of one layer, by dtype."""


_SHARED: WeakValueDictionary[nn.Linear, _Packs] = WeakValueDictionary()
"""Teachers that share a base model share its packed weights, which are freed with the last of them."""


class PackedLinears:
    """Replaces the linear layers of a model while it runs on the CPU without gradients.

    Under autocast the replacements multiply in its dtype, and need two bytes of memory per weight; without autocast
    they need oneDNN's path for fp32 products (`configure_fp32_matmul`), and four bytes. Between two calls the model is
    unchanged.

    A weight that was changed or replaced in the meantime is packed again. PyTorch does not count changes through
    `.data`; they are detected in a sample of the values. A change of a tenth of the weight is detected, a change of a
    few values may not be.
    """

    def __init__(self, model: nn.Module) -> None:
        """Collect the linear layers of `model`; nothing is packed yet."""
        self._packs = {layer: _SHARED.setdefault(layer, _Packs()) for layer in _linears(model)}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Use the replacements within this context, where possible; a layer that never runs is never packed."""
        if _dtype_of_products() is None:
            yield
            return
        replaced = [layer for layer in self._packs if _can_be_packed(layer)]
        try:
            for layer in replaced:
                # An entry in the instance's dictionary hides the class's method; `nn.Module` does not notice it.
                layer.__dict__["forward"] = partial(_forward, layer, self._packs[layer])
            yield
        finally:
            for layer in replaced:
                layer.__dict__.pop("forward", None)


def packed_bytes(models: Iterable[nn.Module]) -> int:
    """Memory of the models' packed layers in bytes; shared ones are counted once."""
    layers = {layer for model in models for layer in _linears(model)}
    return sum(packed.num_bytes for layer in layers for packed in _SHARED.get(layer, _Packs()).values())


def _forward(layer: nn.Linear, packs: _Packs, x: Tensor) -> Tensor:
    dtype = _dtype_of_products()
    # Only autocast casts inputs, and oneDNN's function gives no useful error for wrong shapes.
    if dtype is None or (dtype == torch.float32 and x.dtype != dtype) or x.shape[-1] != layer.in_features:
        return nn.Linear.forward(layer, x)
    packed = packs.get(dtype)
    if packed is None or not packed.is_of(layer):
        packed = packs[dtype] = _PackedLinear(layer, dtype)
    return packed.product(x.to(dtype))


class _PackedLinear:
    """The packed weight and bias of a layer, and the state of the originals."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        self._made_of = [_State(tensor) for tensor in _tensors(layer)]
        weight = layer.weight.detach().to(dtype)
        bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.num_bytes = sum(tensor.nbytes for tensor in (weight, bias) if tensor is not None)
        self.product: Callable[[Tensor], Tensor] = partial(nn.functional.linear, weight=weight, bias=bias)
        if _can_be_ordered(dtype):
            ordered = torch.ops.mkldnn._reorder_linear_weight(weight)
            self.product = partial(_ordered_product, weight=ordered, bias=bias)

    def is_of(self, layer: nn.Linear) -> bool:
        """Whether the layer still has the weights that were packed."""
        now = _tensors(layer)
        return len(now) == len(self._made_of) and all(map(_State.is_of, self._made_of, now))


class _State:
    """A record of a tensor that shows whether it was changed."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._version = tensor._version
        # Sample values from all rows and columns.
        generator = torch.Generator().manual_seed(0)
        self._places = torch.randint(tensor.numel(), (min(SAMPLES, tensor.numel()),), generator=generator)
        self._sample = self._sample_of(tensor)

    def is_of(self, tensor: Tensor) -> bool:
        return (
            tensor is self._tensor
            and tensor._version == self._version
            and torch.equal(self._sample_of(tensor), self._sample)
        )

    def _sample_of(self, tensor: Tensor) -> Tensor:
        return torch.take(tensor.detach(), self._places)


def _tensors(layer: nn.Linear) -> list[Tensor]:
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]


def _ordered_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _linears(model: nn.Module) -> Iterator[nn.Linear]:
    return (module for module in model.modules() if isinstance(module, nn.Linear))


def _can_be_packed(layer: nn.Linear) -> bool:
    # Leave alone: subclasses with their own product, shards of a parallel strategy, and quantised weights, which are
    # tensor subclasses.
    return (
        type(layer).forward is nn.Linear.forward
        and "forward" not in layer.__dict__
        and all(
            weight.device.type == "cpu"
            and weight.dtype == torch.float32
            and type(weight.data) is Tensor
            and not weight.is_inference()  # such a tensor does not count its changes
            for weight in _tensors(layer)
        )
    )


def _dtype_of_products() -> torch.dtype | None:
    """Return the dtype in which packed layers multiply now; `None` if packing would save nothing, or lose a gradient.

    It is checked at every product: parts of a model may leave autocast, and a compiler cannot trace oneDNN's tensors.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return torch.float32 if fast_products_in_force() else None


def _can_be_ordered(dtype: torch.dtype) -> bool:
    """Whether oneDNN is available and multiplies in this dtype on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


# ---- Attention in slices ----


def products_apply(
    module: nn.Module, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
) -> bool:
    """Whether `attention_by_products` computes the same as SDPA, with oneDNN.

    Args:
        module: The attention module.
        query: (B, A, T, D).
        key: (B, A, U, D); SDPA is used if there are fewer heads than the queries have.
        attention_mask: A mask for `attention_by_products`.
        options: Other arguments that the model passes to its attention function.
    """
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return (
        query.device.type == "cpu"
        and query.dtype in DTYPES
        and query.shape[:2] == key.shape[:2]
        and (attention_mask is not None or not causal)
        and not options.get("dropout")
        and all(options.get(name) is None for name in ("position_bias", "softcap", "cache"))
        and not torch.is_grad_enabled()
        # Reentrant checkpointing first runs a training model without gradients, and must then use the same kernel.
        and not any(parameter.requires_grad for parameter in module.parameters())
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and fast_products_in_force()
    )


def attention_by_products(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None
) -> Tensor:
    """Softmax attention. A query whose keys are all masked attends to all of them equally.

    Args:
        query: (B, A, T, D), of `DTYPES`.
        key: (B, A, U, D).
        value: (B, A, U, D).
        attention_mask: Broadcastable to (B, A, T, U): True for a visible key, or numbers to add to the scores.
        scaling: Factor of the scores; `None` for 1 / sqrt(D).

    Returns:
        (B, T, A, D), contiguous.
    """
    (rows, heads, queries, size), keys = query.shape, key.shape[2]
    bias = None if attention_mask is None else _as_bias(attention_mask).expand(rows, -1, -1, -1)
    step = max(1, SLICE_SCORES // (heads * queries * keys))
    result = query.new_empty(rows, queries, heads, size)
    buffer = query.new_empty(min(step, rows), heads, queries, keys, dtype=torch.float32)
    with torch.autocast("cpu", enabled=False):
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            scores = buffer[: part.stop - start]
            torch.matmul(query[part].float(), key[part].float().transpose(2, 3), out=scores)
            scores.mul_(size**-0.5 if scaling is None else scaling)
            if bias is not None:
                scores.add_(bias[part])
            torch.softmax(scores, dim=-1, out=scores)
            result[part] = torch.matmul(scores, value[part].float()).transpose(1, 2)
    return result


def _as_bias(mask: Tensor) -> Tensor:
    """Return a bias to add to the scores; a mask of numbers is one already."""
    if mask.dtype != torch.bool:
        return mask
    bias = torch.zeros_like(mask, dtype=torch.float32)
    return bias.masked_fill_(~mask, torch.finfo(torch.float32).min)
