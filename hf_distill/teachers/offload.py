"""Offloads weights: they stay in the host's memory and are on a device only while their model runs.

The weights of a teacher are frozen, so they are never copied back: the device gets copies, which are freed after the
pass. On CUDA the host's memory is pinned and a separate stream copies, so that the next teacher's weights arrive while
the current teacher computes, and the host waits for neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn


class HostWeights:
    """All parameters and buffers of a model, in the host's memory; tied ones are copied once."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """Take a frozen model, whose tensors move to the host's memory where they are not there yet.

        Args:
            model: It runs on `device`, and only within `in_place`.
            device: A device with a memory of its own.
        """
        self.device = device
        self._places: list[tuple[dict[str, Any], str, Tensor]] = []
        for module in model.cpu().modules():
            for held in (module._parameters, module._buffers):
                self._places += [(held, name, tensor) for name, tensor in held.items() if tensor is not None]
        is_cuda = device.type == "cuda"
        for _, _, tensor in self._places if is_cuda else ():
            if not tensor.is_pinned():
                tensor.data = tensor.data.pin_memory()
        self._stream = torch.cuda.Stream(device) if is_cuda and torch.backends.cuda.is_built() else None
        self._copies: dict[int, Tensor] = {}
        self._is_due = False

    def fetch(self) -> None:
        """Begin to copy the weights to the device, or keep the copies that are there, for the next `in_place`."""
        self._is_due = True
        if self._copies:
            return
        hosts = {id(tensor): tensor for _, _, tensor in self._places}
        # The memory is that of the stream that computes: what it held before is used up when the copies begin.
        self._copies = {key: torch.empty_like(host, device=self.device) for key, host in hosts.items()}
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            for key, host in hosts.items():
                self._copies[key].copy_(host, non_blocking=True)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this context the model has its weights on the device."""
        self.fetch()
        self._is_due = False
        if self._stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self._stream)
        for held, name, host in self._places:
            copy = self._copies[id(host)]
            held[name] = nn.Parameter(copy, requires_grad=False) if isinstance(host, nn.Parameter) else copy
        try:
            yield
        finally:
            for held, name, host in self._places:
                held[name] = host
            if not self._is_due:
                self._copies = {}


_KNOWN: WeakKeyDictionary[nn.Module, HostWeights] = WeakKeyDictionary()


def host_weights(model: nn.Module, device: torch.device) -> HostWeights:
    """The weights of a model in the host's memory; teachers that share the model share them."""
    known = _KNOWN.get(model)
    if known is None or known.device != device:
        known = _KNOWN[model] = HostWeights(model, device)
    return known


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
