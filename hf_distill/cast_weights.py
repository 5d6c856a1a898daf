"""A frozen model's weights in the arithmetic of autocast, cast once instead of in every forward pass.

Autocast keeps the casts of weights that are trained for as long as its context lasts; those of frozen weights it makes
anew at every use. On a CPU that is a third of a large teacher's forward pass over a short batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class CastWeights:
    """Stands in for the weights of a model's linear layers while the model runs under autocast on the CPU.

    Between two calls the model has its own weights. A weight that was changed or replaced meanwhile is cast again.
    Costs two bytes a weight.
    """

    def __init__(self, model: nn.Module) -> None:
        """Remember the linear layers of `model`; nothing is cast yet."""
        self._layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        self._casts: dict[tuple[int, str], tuple[Tensor, int, nn.Parameter]] = {}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Cast weights stand in the layers within this context, if autocast is in force for the CPU."""
        if not torch.is_autocast_enabled("cpu"):
            yield
            return
        dtype = torch.get_autocast_dtype("cpu")
        own: list[tuple[dict[str, nn.Parameter | None], str, nn.Parameter]] = []
        try:
            for index, layer in enumerate(self._layers):
                for name, weight in layer._parameters.items():
                    if weight is not None and _can_be_cast(weight):
                        own.append((layer._parameters, name, weight))
                        layer._parameters[name] = self._cast((index, name), weight, dtype)
            yield
        finally:
            for parameters, name, weight in own:
                parameters[name] = weight

    def _cast(self, key: tuple[int, str], weight: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
        found = self._casts.get(key)
        if found is not None:
            of, version, cast = found
            if of is weight and version == weight._version and cast.dtype == dtype:
                return cast
        cast = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        self._casts[key] = (weight, weight._version, cast)
        return cast


def _can_be_cast(weight: nn.Parameter) -> bool:
    # Shards of a parallel strategy and quantised weights are tensors of classes of their own: theirs is the say.
    return type(weight.data) is Tensor and weight.dtype == torch.float32 and weight.device.type == "cpu"
