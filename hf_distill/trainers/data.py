"""From text to batches with little padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

LENGTH_COLUMN = "length"
PAIR_COLUMN = "text_pair"


def tokenize_text(
    dataset: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str = "text",
    max_length: int = 128,
    keep: Sequence[str] = (),
) -> Any:
    """Tokenize one text column, with `text_pair` as the second text of a row where it holds one; the rest is dropped.

    Args:
        dataset: A `Dataset` or `IterableDataset` with `text_column`.
        tokenizer: The tokenizer of teacher and student.
        text_column: Name of the column.
        max_length: Longest row in tokens; the rest is cut off.
        keep: Other columns that stay, where there are such.

    Returns:
        The data set with what the tokenizer gives (no padding) and `length`, the tokens of each row.

    Raises:
        ValueError: If the column is missing.
    """
    columns = list(dataset.column_names or [])
    if text_column not in columns:
        raise ValueError(
            f"The data set has no column {text_column!r} to tokenize (`--text_column`) and no `input_ids`; "
            f"it has {columns}."
        )

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        encoded = _encode(tokenizer, batch[text_column], batch.get(PAIR_COLUMN), max_length)
        return {**encoded, LENGTH_COLUMN: [len(ids) for ids in encoded["input_ids"]]}

    progress = {"desc": "Tokenizing"} if isinstance(dataset, datasets.Dataset) else {}
    dropped = [name for name in columns if name not in keep]
    return dataset.map(encode, batched=True, remove_columns=dropped, **progress)


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], seconds: list[str | None] | None, max_length: int
) -> dict[str, list[Any]]:
    """Token ids of single texts and of pairs, in the order of the rows; a tokenizer takes only one kind at a time."""
    options: dict[str, Any] = {"truncation": True, "max_length": max_length}
    rows = list(zip(texts, seconds or [None] * len(texts), strict=True))
    paired = [row for row, (_, second) in enumerate(rows) if second is not None]
    single = [row for row, (_, second) in enumerate(rows) if second is None]
    parts = []
    if paired:
        parts.append(tokenizer([texts[row] for row in paired], [rows[row][1] for row in paired], **options))
    if single:
        parts.append(tokenizer([texts[row] for row in single], **options))
    place = {row: position for position, row in enumerate(paired + single)}
    joined = {name: [value for part in parts for value in part[name]] for name in parts[0]}
    return {name: [values[place[row]] for row in range(len(texts))] for name, values in joined.items()}


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


def length_grouped_sampler(
    dataset: Any, args: TrainingArguments, epoch: Callable[[], int]
) -> torch.utils.data.Sampler | None:
    """A sampler that puts rows of like length into one batch, from the lengths that `tokenize_text` stored.

    The stock `Trainer` looks for the column after it has dropped it, and would tokenise the whole set's lengths anew.

    Args:
        dataset: The training rows with their lengths.
        args: Batch size, seed and strategy.
        epoch: Gives the current epoch, from 0.

    Returns:
        `None` where the data set stores no lengths or another strategy was chosen: the stock sampler applies.
    """
    if args.train_sampling_strategy != "group_by_length" or not isinstance(dataset, datasets.Dataset):
        return None
    if args.length_column_name not in dataset.column_names:
        return None
    lengths = dataset.with_format("numpy")[args.length_column_name][:].tolist()
    seed = args.seed if args.data_seed is None else args.data_seed
    return LengthSampler(args.train_batch_size * args.gradient_accumulation_steps, lengths, seed, epoch)
