"""Packed weights for the linear layers of a frozen model on the CPU: cast and packed once instead of at every use.

Autocast keeps the casts of weights that are trained for as long as its context lasts; those of frozen weights it makes
anew at every use. oneDNN moreover brings every weight into the order of its kernel before it multiplies. Both take
time that does not depend on the rows (`benchmarks/teacher_speed.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from hf_distill.kernels.precision import fast_products_in_force

# Numbers of a weight that are compared before every use of what was packed of it.
SAMPLES = 256


class _Packs(dict[torch.dtype, "_PackedLinear"]):
    """The packed weights of one layer, by arithmetic."""


_SHARED: WeakValueDictionary[nn.Linear, _Packs] = WeakValueDictionary()
"""Teachers that share a base model share what is packed of it; it ends with the last of them."""


class PackedLinears:
    """Stands in for the linear layers of a model while the model runs without gradient on the CPU.

    Under autocast the stand-ins multiply in its arithmetic, for two bytes of memory a weight; without it they need
    oneDNN's path for fp32 products (`hf_distill.kernels.precision`), and cost four. Between two calls the model is as
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
