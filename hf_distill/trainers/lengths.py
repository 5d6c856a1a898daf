"""Groups rows of similar length, so that batches have little padding."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import pyarrow as pa
import torch
from transformers import TrainingArguments
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler, get_length_grouped_indices
from transformers.trainer_utils import has_length

from ..tasks.rows.text import has_transform, stored_lengths

logger = logging.getLogger(__name__)


class LengthSampler(LengthGroupedSampler):
    """Rows of like length together, in an order that depends on the seed and the epoch alone.

    The stock sampler draws from torch's global generator, so a run resumed after its first epoch sees other batches.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int, epoch: Callable[[], int]) -> None:
        """Make the sampler.

        Args:
            batch_size: Rows that should be of like length: those of one update on one device.
            lengths: Tokens of each row.
            seed: Seed of the order.
            epoch: Gives the current epoch, from 0.
        """
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Row numbers."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


class TokenBatches(BatchRebalanceSampler):
    """Batches of like length under a budget of tokens, those of one process.

    All rows are sorted by length, those of one length in an order that depends on seed and epoch, and cut from the
    longest on: a batch has as many rows as fit, with padding to its longest. So each row comes once an epoch, and an
    epoch has as many batches as any other. Processes get neighbouring batches, which cost alike; for their number to
    come out even, batches are halved. The order of the batches depends on seed and epoch too, but the longest come
    first: what does not fit into memory is known at once.

    `Trainer` knows batches that are made for one process by the class of `transformers`.
    """

    def __init__(
        self,
        budget: int,
        lengths: Sequence[int],
        seed: int,
        epoch: Callable[[], int],
        *,
        num_processes: int = 1,
        process: int = 0,
    ) -> None:
        """Plan the batches.

        Args:
            budget: Tokens of a batch at most, with padding.
            lengths: Tokens of each row.
            seed: Seed of the order.
            epoch: Gives the current epoch, from 0.
            num_processes: Processes that train together.
            process: Number of this one.

        Raises:
            ValueError: If a row is longer than the budget, or there are fewer rows than processes.
        """
        self._lengths = torch.tensor(lengths)
        longest = int(self._lengths.max())
        if longest > budget:
            raise ValueError(
                f"`--max_tokens_per_batch` is {budget}, but row {int(self._lengths.argmax())} has {longest} tokens: "
                "give at least as many, or cut the rows (`--max_length`)."
            )
        if len(lengths) < num_processes:
            raise ValueError(f"There are {len(lengths)} training rows for {num_processes} processes: give each one.")
        # `accelerate` counts epochs in `epoch`, also those of loaders that nobody trains on.
        self.seed, self.epoch_of_training = seed, epoch
        self.num_processes, self.process = num_processes, process
        self.sizes = _even(_sizes(self._lengths.sort(descending=True).values.tolist(), budget), num_processes)

    def __len__(self) -> int:
        """Batches of an epoch in this process."""
        return len(self.sizes) // self.num_processes

    def __iter__(self) -> Iterator[list[int]]:
        """Row numbers of each batch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch_of_training())
        order = torch.randperm(len(self._lengths), generator=generator)
        order = order[self._lengths[order].argsort(descending=True, stable=True)]
        # Rows that some batches must have twice, so that every process has one.
        batches = torch.cat((order, order[: sum(self.sizes) - len(order)])).split(self.sizes)
        for turn in (0, *(1 + torch.randperm(len(self) - 1, generator=generator)).tolist()):
            yield batches[turn * self.num_processes + self.process].tolist()


def _sizes(lengths: Sequence[int], budget: int) -> list[int]:
    """Rows of each batch, where rows come from the longest to the shortest."""
    sizes, done = [], 0
    while done < len(lengths):
        sizes.append(min(budget // max(1, lengths[done]), len(lengths) - done))
        done += sizes[-1]
    return sizes


def _even(sizes: list[int], num_processes: int) -> list[int]:
    """A multiple of the processes: the largest batches are halved; where all have one row, rows come twice."""
    sizes = list(sizes)
    while len(sizes) % num_processes:
        place = max(range(len(sizes)), key=sizes.__getitem__)
        half = sizes[place] // 2
        sizes[place : place + 1] = [sizes[place] - half, half] if half else [sizes[place], 1]
    return sizes


def length_grouped_sampler(
    dataset: Any, args: TrainingArguments, epoch: Callable[[], int]
) -> torch.utils.data.Sampler | None:
    """A sampler that puts rows of similar length into the same batch.

    Lengths come from the column `args.length_column_name` or, if there is none, from the number of `input_ids`, which
    Arrow knows without reading them. (The stock `Trainer` drops this column before it looks for it, and would then
    make every row of the data set, which can take long.) Rows of a transform, or of a map-style data set of your own,
    come in random order instead, and a warning says so.

    Args:
        dataset: The training rows.
        args: Batch size, seed and strategy.
        epoch: Gives the current epoch, from 0.

    Returns:
        `None` where the data set has no length or another strategy was chosen: the stock sampler applies.

    Raises:
        ValueError: If the column of the lengths does not hold a number in every row.
    """
    if args.train_sampling_strategy != "group_by_length" or dataset is None or not has_length(dataset):
        return None
    lengths = _lengths(dataset, args.length_column_name)
    budget = getattr(args, "max_tokens_per_batch", None)
    if lengths is None and budget:
        raise ValueError(
            f"`--max_tokens_per_batch` needs the length of every row beforehand, which this {type(dataset).__name__} "
            "does not know: give tokenized rows as a `datasets.Dataset`."
        )
    if lengths is None:
        logger.warning(
            "`--train_sampling_strategy group_by_length` needs the length of every row beforehand, and this "
            f"{type(dataset).__name__} would have to make all its {len(dataset):,} rows for it: they come in random "
            "order. Give tokenized rows as a `datasets.Dataset` to have them grouped, or choose "
            "`--train_sampling_strategy random`."
        )
        return torch.utils.data.RandomSampler(dataset)
    seed = args.seed if args.data_seed is None else args.data_seed
    if budget:
        places = {"num_processes": args.world_size, "process": args.process_index}
        return TokenBatches(budget, lengths, seed, epoch, **places)
    return LengthSampler(args.train_batch_size * args.gradient_accumulation_steps, lengths, seed, epoch)


class _Counted(torch.utils.data.Dataset):
    """Rows that end with the last one, also where the data set itself never raises IndexError."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):
            raise IndexError(index)
        return self.dataset[index]


def counted(dataset: Any) -> Any:
    """A data set that can be iterated over, as the stock samplers by length do; `for` may never end over others."""
    known = dataset is None or isinstance(dataset, (datasets.Dataset, list, tuple)) or not has_length(dataset)
    return dataset if known else _Counted(dataset)


def _lengths(dataset: Any, column: str) -> list[int] | None:
    if has_transform(dataset) or not isinstance(dataset, datasets.Dataset):
        return stored_lengths(dataset)
    if column not in dataset.column_names:
        return stored_lengths(dataset) or stored_lengths(dataset, "inputs_embeds")
    kind = dataset.features[column]
    values = dataset.select_columns([column]).with_format("arrow")[:][column]
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if not is_number or values.null_count:
        raise ValueError(
            f"`--length_column_name`: the column {column!r} must hold the length of every row, but it is {kind}"
            f"{f' and empty in {values.null_count:,} rows' if is_number else ''}. Name another column, or one "
            "that does not exist: then the tokens are counted."
        )
    return values.to_pylist()
