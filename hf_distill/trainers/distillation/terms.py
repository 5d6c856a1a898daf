"""Exact means of loss terms over a whole data set, kept on the device until they are read; which rows count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers.trainer_pt_utils import find_batch_size

Reduce = Callable[[Tensor, Literal["sum"]], Tensor]


class ExactMeans:
    """Means by name over all items of all batches and processes, whatever the sizes of the batches."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._sums: dict[str, Tensor] = {}

    def __bool__(self) -> bool:
        """Whether anything was added since the last `take`."""
        return bool(self._sums)

    @property
    def names(self) -> list[str]:
        """The names of everything that was added since the last `take`."""
        return sorted(self._sums)

    def add(self, name: str, mean: Tensor, items: Tensor) -> None:
        """Add the mean of one batch and the number of items that it is a mean over."""
        pair = torch.stack((mean * items, items))
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def take(self, reduce: Reduce) -> dict[str, float]:
        """The means of everything that has items, and a new beginning.

        Args:
            reduce: Sums a tensor over the processes.
        """
        names = sorted(self._sums)
        sums = reduce(torch.stack([self._sums[name] for name in names]), "sum")
        self._sums = {}
        pairs = zip(names, sums.tolist(), strict=True)
        return {name: total / items for name, (total, items) in pairs if items > 0}


def rows_that_count(inputs: Mapping[str, Any], accelerator: Accelerator) -> tuple[int, int]:
    """Rows of a batch, and how many of them count: the last batches of several processes repeat first rows.

    Args:
        inputs: The batch of this process.
        accelerator: Knows the processes, and how far the loader is.
    """
    count, state = find_batch_size(inputs) or 0, accelerator.gradient_state
    if accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
        return count, count
    return count, min(max(state.remainder - accelerator.process_index * count, 0), count)
