"""Chooses the task of the next micro-batch, and its rows.

A micro-batch has rows of one task; an update of several micro-batches, or of several processes, mixes tasks (Muppet,
section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from hf_distill.settings.mtl import TaskSampling
from hf_distill.trainers.fine_tuning.heads import Collator

# Where the exponent of annealed sampling ends (PALs, section 4.1: 1 - 0.8 (e - 1) / (E - 1)).
LAST_EXPONENT = 0.2


def task_shares(sizes: Sequence[int], exponent: float) -> np.ndarray:
    """Share of each task, in proportion to its rows to the power of `exponent`."""
    powers = np.asarray(sizes, dtype=np.float64) ** exponent
    return powers / powers.sum()


def annealed_exponent(epoch: int, num_epochs: int) -> float:
    """Exponent in an epoch, from 0: 1 in the first, 0.2 in the last."""
    return 1.0 - (1.0 - LAST_EXPONENT) * min(1.0, epoch / max(1, num_epochs - 1))


class TaskBatches(torch.utils.data.Sampler[list[int]]):
    """Micro-batches of one task each, rows of like length together, in an order set by the seed and the epoch.

    Rows are counted through all tasks in their order. An epoch has as many micro-batches as all tasks have together.
    Every batch is full: the last one of a pass over a task begins the pass anew, so a few rows come twice.

    Attributes:
        batch_size: Rows of a micro-batch.
    """

    def __init__(
        self,
        lengths: Sequence[Sequence[int]],
        batch_size: int,
        *,
        sampling: TaskSampling,
        exponent: float,
        num_epochs: int,
        seed: int,
        epoch: Callable[[], int],
    ) -> None:
        """Make the sampler.

        Args:
            lengths: Tokens of each row of each task.
            batch_size: Rows of a micro-batch.
            sampling: How tasks are drawn.
            exponent: Of `size`.
            num_epochs: Epochs of the training, for `annealed`.
            seed: Seed of the order.
            epoch: Gives the current epoch, from 0.

        Raises:
            ValueError: If a task has no rows.
        """
        empty = [index for index, part in enumerate(lengths) if not len(part)]
        if empty:
            raise ValueError(f"Tasks {empty} (counted from 0) have no training rows.")
        self.lengths = [list(part) for part in lengths]
        self.batch_size = batch_size
        self.sampling = sampling
        self.exponent = exponent
        self.num_epochs = num_epochs
        self.seed = seed
        self.epoch = epoch
        self.drop_last = False
        self._counts = [math.ceil(len(part) / batch_size) for part in self.lengths]
        self._starts = np.cumsum([0, *(len(part) for part in self.lengths)]).tolist()

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return sum(self._counts)

    def __iter__(self) -> Iterator[list[int]]:
        """Row numbers of each micro-batch."""
        epoch = self.epoch()
        streams = [self._stream(task, epoch) for task in range(len(self.lengths))]
        for task in self.tasks_of(epoch):
            yield next(streams[task])

    def tasks_of(self, epoch: int) -> list[int]:
        """The task of each micro-batch of an epoch."""
        generator = np.random.default_rng([self.seed, epoch])
        if self.sampling == "all":
            return generator.permutation(np.repeat(np.arange(len(self._counts)), self._counts)).tolist()
        exponent = {"size": self.exponent, "uniform": 0.0}.get(self.sampling)
        if exponent is None:
            exponent = annealed_exponent(epoch, self.num_epochs)
        shares = task_shares([len(part) for part in self.lengths], exponent)
        return generator.choice(len(shares), size=len(self), p=shares).tolist()

    def _stream(self, task: int, epoch: int) -> Iterator[list[int]]:
        """Full batches of one task without end, each pass in an order of its own."""
        lengths, size, start = self.lengths[task], self.batch_size, self._starts[task]
        for turn in range(2**31):
            state = int(np.random.default_rng([self.seed, epoch, task, turn]).integers(2**31))
            generator = torch.Generator().manual_seed(state)
            order = get_length_grouped_indices(lengths, size, generator=generator)
            missing = -len(order) % size
            order += [order[place % len(order)] for place in range(missing)]
            batches = [order[place : place + size] for place in range(0, len(order), size)]
            # The order within a pass goes from long to short.
            for place in torch.randperm(len(batches), generator=generator).tolist():
                yield [start + row for row in batches[place]]


class TaskRows(torch.utils.data.Dataset):
    """The training rows of all tasks, one after the other; a row says its task."""

    def __init__(self, parts: Mapping[str, datasets.Dataset]) -> None:
        """Put the rows together.

        Args:
            parts: Task -> its tokenised rows.
        """
        self.names = list(parts)
        self.parts = list(parts.values())
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        """Rows of all tasks."""
        return int(self.ends[-1])

    def __getitems__(self, places: list[int]) -> list[dict[str, Any]]:
        """Rows of one task at once.

        Raises:
            ValueError: If they are of several.
        """
        tasks = np.searchsorted(self.ends, places, side="right")
        if len(set(tasks.tolist())) != 1:
            raise ValueError("The rows of a micro-batch must be of one task; these are of several.")
        task = int(tasks[0])
        start = int(self.ends[task]) - len(self.parts[task])
        columns = self.parts[task][[place - start for place in places]]
        name = self.names[task]
        return [{"task": name, **dict(zip(columns, row, strict=True))} for row in zip(*columns.values(), strict=True)]


class TaskCollator:
    """Pads rows of one task as its head wants it; `task` names it."""

    def __init__(self, collators: Mapping[str, Collator]) -> None:
        """Take the collator of every task."""
        self.collators = dict(collators)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """One micro-batch."""
        task = rows[0]["task"]
        batch = self.collators[task]([{k: v for k, v in row.items() if k != "task"} for row in rows])
        return {**batch, "task": task}
