"""Numbers that are not finite (NaN, infinite) are found before they are trained on, saved or shown.

What a training computes is watched on its own device: nothing waits for it until somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

MAX_NAMED = 3


class NotFiniteError(ValueError):
    """A loss, weight, label or signal is NaN or infinite."""


def are_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Return whether all values of each tensor are finite, (N,), on the device of the first, without waiting."""
    bounds = [bound for values in tensors for bound in values.detach().aminmax()]
    device = bounds[0].device
    return torch.stack([bound.to(device, torch.float32) for bound in bounds]).isfinite().view(-1, 2).all(1)


def not_finite(named: Iterable[tuple[str, Any]]) -> list[str]:
    """Return names of the tensors of which a value is not finite; every device is waited for once.

    Args:
        named: Names and tensors. Integers, rounded weights and tensors that other processes hold a part of are not
            looked at.
    """
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, values in named:
        if is_plain(values):
            by_device.setdefault(values.device, {})[name] = values
    found = []
    for tensors in by_device.values():
        finite = are_finite(list(tensors.values())).tolist()
        found += [name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite]
    return found


def is_plain(values: Any) -> bool:
    """Return whether a tensor holds its own floating-point numbers, of two bytes at least."""
    return (
        isinstance(values, Tensor)
        and type(values.data) is Tensor
        and values.is_floating_point()
        and values.itemsize > 1
        and values.numel() > 0
        and values.device.type != "meta"
    )


def check_weights(model: Any, who: str) -> None:
    """Check that every weight of a model is finite.

    Args:
        model: A module.
        who: Whose weights they are, for the message: "The teacher's".

    Raises:
        NotFiniteError: If one is not; the message names the tensors.
    """
    found = not_finite([*model.named_parameters(), *model.named_buffers()])
    if found:
        raise NotFiniteError(f"{who} weights are not finite (NaN or infinite): {listed(found)}.")


def check_weight_file(path: str | Path) -> None:
    """Check that every weight in a safetensors file is finite; they are read one tensor after another.

    Raises:
        NotFiniteError: If one is not; the message names file and tensors.
        SafetensorError: If the file is damaged.
    """
    with safe_open(path, framework="pt") as file:
        found = [name for name in file.keys() if not_finite([(name, file.get_tensor(name))])]  # noqa: SIM118
    if found:
        raise NotFiniteError(f"The weights in {str(path)!r} are not finite (NaN or infinite): {listed(found)}.")


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many there are besides."""
    more = len(names) - MAX_NAMED
    shown = ", ".join(f"`{name}`" for name in names[:MAX_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


class FiniteWatch:
    """The first step at which each of many numbers was not finite, kept on the device."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._first: dict[tuple[str, ...], Tensor] = {}

    @torch.no_grad()
    def see(self, step: int, values: Mapping[str, Any]) -> None:
        """Look at some numbers of a step; nothing waits for the device.

        Args:
            step: Number of the update that they belong to, from 1.
            values: Tensors by name, of any shape; what has no floating-point numbers is passed over.
        """
        plain = {name: tensor for name, tensor in values.items() if is_plain(tensor)}
        if not plain:
            return
        now = are_finite(list(plain.values()))
        first = torch.full(now.shape, float("inf"), device=now.device).masked_fill(~now, step)
        key = tuple(plain)
        self._first[key] = first if key not in self._first else torch.minimum(self._first[key], first)

    def first_steps(self) -> dict[str, int]:
        """Return the first step of each number that was not finite, by its name; waits for the device."""
        found: dict[str, int] = {}
        for names, values in self._first.items():
            steps = zip(names, values.tolist(), strict=True)
            found |= {name: int(step) for name, step in steps if step < float("inf")}
        return found
