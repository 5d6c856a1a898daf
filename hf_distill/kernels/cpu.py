"""Faster arithmetic on the CPU: oneDNN's path for fp32 products, and packed weights and attention of frozen models.

**Products.** `configure_fp32_matmul` chooses the library that multiplies in fp32, after checking what it computes.

**Packed linear layers.** Autocast keeps the casts of weights that are trained for as long as its context lasts; those
of frozen weights it makes anew at every use. oneDNN moreover brings every weight into the order of its kernel before
it multiplies. Both take time that does not depend on the rows (`benchmarks/teacher_speed.py`), and are saved here.

**Attention in slices.** PyTorch's fused attention for CPUs multiplies small tiles by a path of its own, not by the one
that was chosen for fp32 products. Where that is oneDNN's, two such products and a softmax over a few rows at a time
are faster, in float32 the more so the shorter the rows. The slice bounds the memory: its scores stay in the cache.

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

# A product in true fp32 is off by some 4e-7, one whose inputs were rounded to bf16 by some 3e-3.
MAX_FP32_ERROR = 1e-5
# Numbers of a weight that are compared before every use of what was packed of it.
SAMPLES = 256
# Queries that attention in slices takes. Scores are float32 for all of them, as in SDPA; so are the weights, which
# SDPA rounds.
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
# Most scores of a slice that is more than one row: 4 MB.
SLICE_SCORES = 2**20

MatmulMode = Literal["auto", "strict", "fast"]


# ---- Products ----


def matmul_error() -> float:
    """Relative error of one fp32 product as it is computed now, against float64."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(64, 256, generator=generator)
    right = torch.randn(256, 64, generator=generator)
    exact = left.double() @ right.double()
    return (((left @ right).double() - exact).norm() / exact.norm()).item()


def fast_products_in_force() -> bool:
    """Whether fp32 products on the CPU take oneDNN's path now."""
    backend = getattr(getattr(torch.backends, "mkldnn", None), "matmul", None)
    return backend is not None and backend.fp32_precision == "bf16"


def configure_fp32_matmul(mode: MatmulMode = "auto") -> str:
    """Send fp32 products on the CPU to oneDNN's bf16-allowed path where that is still true fp32 arithmetic.

    On processors without bf16 matrix units the switch only changes the library that multiplies (about twice as fast
    on AMD); on those with such units it would really round to bf16. `auto` therefore switches, measures the error of
    a small product, and switches back if it is more than fp32 rounding. `fast` keeps the switch in any case,
    `strict` never sets it.

    Returns:
        The setting in force: `"strict"` or `"fast"`.

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
    """The packed weights of one layer, by arithmetic."""


_SHARED: WeakValueDictionary[nn.Linear, _Packs] = WeakValueDictionary()
"""Teachers that share a base model share what is packed of it; it ends with the last of them."""


class PackedLinears:
    """Stands in for the linear layers of a model while the model runs without gradient on the CPU.

    Under autocast the stand-ins multiply in its arithmetic, for two bytes of memory a weight; without it they need
    oneDNN's path for fp32 products (`configure_fp32_matmul`), and cost four. Between two calls the model is as
    it was.

    A weight that was changed or replaced meanwhile is packed again. PyTorch keeps no count of changes through `.data`;
    they are seen in a sample of the numbers: one of a tenth of the weight is, one of a few numbers may not be.
    """

    def __init__(self, model: nn.Module) -> None:
        """Remember the linear layers of `model`; nothing is packed yet."""
        self._packs = {layer: _SHARED.setdefault(layer, _Packs()) for layer in _linears(model)}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The stand-ins compute within this context, where they may; what never runs is never packed."""
        if _dtype_of_products() is None:
            yield
            return
        replaced = [layer for layer in self._packs if _can_be_packed(layer)]
        try:
            for layer in replaced:
                # In the layer's own dictionary it hides the method of the class; `nn.Module` need not know.
                layer.__dict__["forward"] = partial(_forward, layer, self._packs[layer])
            yield
        finally:
            for layer in replaced:
                layer.__dict__.pop("forward", None)


def packed_bytes(models: Iterable[nn.Module]) -> int:
    """Memory of what is packed of the models' layers, those that they share counted once."""
    layers = {layer for model in models for layer in _linears(model)}
    return sum(packed.num_bytes for layer in layers for packed in _SHARED.get(layer, _Packs()).values())


def _forward(layer: nn.Linear, packs: _Packs, x: Tensor) -> Tensor:
    dtype = _dtype_of_products()
    # Only autocast casts what goes in, and oneDNN's own function would not say what does not fit.
    if dtype is None or (dtype == torch.float32 and x.dtype != dtype) or x.shape[-1] != layer.in_features:
        return nn.Linear.forward(layer, x)
    packed = packs.get(dtype)
    if packed is None or not packed.is_of(layer):
        packed = packs[dtype] = _PackedLinear(layer, dtype)
    return packed.product(x.to(dtype))


class _PackedLinear:
    """One layer's weight and bias as a kernel wants them, and what they were made of."""

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
    """The marks by which a changed tensor is told from the same one."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._version = tensor._version
        # Spread over rows and columns alike.
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
    # Somebody's own product has the say, and so have shards of a parallel strategy and quantised weights, which are
    # tensors of classes of their own.
    return (
        type(layer).forward is nn.Linear.forward
        and "forward" not in layer.__dict__
        and all(
            weight.device.type == "cpu"
            and weight.dtype == torch.float32
            and type(weight.data) is Tensor
            and not weight.is_inference()  # which keeps no count of changes
            for weight in _tensors(layer)
        )
    )


def _dtype_of_products() -> torch.dtype | None:
    """Return the dtype in which packed layers multiply now; `None` if they would save nothing, or lose a gradient.

    It is asked at every product: parts of a model may leave autocast, and a compiler traces no tensor of oneDNN's.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return torch.float32 if fast_products_in_force() else None


def _can_be_ordered(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and multiplies in this arithmetic on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


# ---- Attention in slices ----


def products_apply(
    module: nn.Module, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
) -> bool:
    """Whether `attention_by_products` computes what SDPA would, on oneDNN's path.

    Args:
        module: The attention module.
        query: (B, A, T, D).
        key: (B, A, U, D); fewer heads than the queries have are left to SDPA.
        attention_mask: What `attention_by_products` takes.
        options: What the model gives its attention function beside tensors and mask.
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
        # Reentrant checkpointing runs a model in training without gradients first, and must then see the same kernel.
        and not any(parameter.requires_grad for parameter in module.parameters())
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and fast_products_in_force()
    )


def attention_by_products(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None
) -> Tensor:
    """Softmax attention. A query whose keys are all masked sees them all alike.

    Args:
        query: (B, A, T, D), of `DTYPES`.
        key: (B, A, U, D).
        value: (B, A, U, D).
        attention_mask: Broadcast to (B, A, T, U): True where a key is seen, or numbers to add to the scores.
        scaling: Factor of the scores; 1 / sqrt(D) if `None`.

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
    """Return the bias to add to the scores; a mask of numbers is one already."""
    if mask.dtype != torch.bool:
        return mask
    bias = torch.zeros_like(mask, dtype=torch.float32)
    return bias.masked_fill_(~mask, torch.finfo(torch.float32).min)
