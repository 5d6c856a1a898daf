"""Models that have a place already: spread over devices, offloaded to memory or disk, or quantised.

accelerate gives the modules of such a model hooks, which bring inputs and weights together while it runs; a quantiser
gives it weights that may not leave their device. Neither is ever moved as a whole: a teacher of this kind stays where
it is, inputs go to its first device, and signals come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn


def place_of(model: nn.Module) -> str:
    """Say in words how a model was placed; "" for one that may be moved.

    Args:
        model: A model, perhaps with adapters around it.
    """
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    words = []
    if getattr(inner, "is_quantized", False) or getattr(inner, "hf_quantizer", None) is not None:
        method = getattr(inner, "quantization_method", None)
        words.append("quantised" if method is None else f"quantised by {getattr(method, 'value', method)}")
    places = getattr(inner, "hf_device_map", None)
    if places:
        words.append(f"on {', '.join(sorted({str(place) for place in places.values()}))}")
    elif any(_hook_of(module) is not None for module in inner.modules()):
        words.append("offloaded")
    return ", ".join(words)


def first_device(model: Any) -> torch.device:
    """The device of the embeddings while the model runs: their weights may be elsewhere meanwhile."""
    embeddings = model.get_input_embeddings()
    device = getattr(_hook_of(embeddings), "execution_device", None)
    return next(embeddings.parameters()).device if device is None else torch.device(device)


def weights_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every weight in the order of the names; what is offloaded is fetched, one at a time."""
    for name, value in sorted(model.state_dict().items()):
        if value.device.type != "meta":
            yield name, value
            continue
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        with align_module_device(module, torch.device("cpu")):
            yield name, getattr(module, own)


def _hook_of(module: nn.Module) -> Any:
    """The hook that accelerate put around the forward of a module."""
    return getattr(module, "_hf_hook", None)
