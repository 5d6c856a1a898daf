"""Keeps the random state of a training untouched by code that only watches it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def without_chance(device: torch.device) -> Iterator[None]:
    """Leave every generator of the training as it is.

    A pass over a loader draws a seed, and a `Trainer` that is made for an evaluation sets them all.

    Args:
        device: Where the training takes place.
    """
    devices = [device] if device.type not in ("cpu", "mps") else []
    kind = {"device_type": device.type} if devices else {}
    # The generator of all numpy, which `set_seed` sets too.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=devices, **kind):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
