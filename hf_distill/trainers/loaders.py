"""Loaders of batches: processes that make them, and streams that several processes share."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from typing import Any

import datasets
from accelerate.utils import find_batch_size, recursively_apply
from torch.utils.data import DataLoader
from transformers.utils import logging

from ..tasks.rows.text import has_transform

logger = logging.get_logger(__name__)

# Processes that make batches for one GPU: more of them make nothing faster (docs/gpu.md).
MOST_WORKERS = 8


def workers_for(dataset: Any) -> int:
    """Processes that make batches for a GPU where nobody chose their number; 0 for rows that may not bear several.

    Rows of Arrow files are read alike in any process. Code of a user's is not sent to one unasked.
    """
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if method != "fork" or not isinstance(dataset, datasets.Dataset) or has_transform(dataset):
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_WORKERS, max(0, cores - 1))


def loader_of_stream(
    trainer: Any, make: Callable[..., DataLoader], *, batch_size: int, is_training: bool = False, **kwargs: Any
) -> DataLoader:
    """The loader of rows without a length in several processes: the first one reads them for all.

    It cuts a batch of all processes into their parts. By default accelerate would join a batch for each of them, but
    rows of text are padded to the longest of their own batch; and it would fill up the last batch with rows of the
    first one, which has another width.

    Args:
        trainer: Has the collator and the accelerator.
        make: Makes the loader.
        batch_size: Rows of one process.
        is_training: Whether rows of a last batch may come twice; in an evaluation every row counts once.
        kwargs: For `make`.
    """
    collator, settings = trainer.data_collator, trainer.accelerator.dataloader_config
    parts, are_cut = trainer.accelerator.num_processes, settings.split_batches
    if settings.dispatch_batches is False:
        if not is_training:
            logger.warning_once(
                f"Rows of a stream are evaluated in {parts} processes that each read it (`dispatch_batches: false`): "
                "some count twice, to fill the last batches. Give rows with a length for exact scores."
            )
        return make(batch_size=batch_size, is_training=is_training, **kwargs)
    if is_training:
        trainer.data_collator = partial(in_equal_parts, collator, parts)
    settings.split_batches = True
    try:
        loader: Any = make(batch_size=batch_size if are_cut else batch_size * parts, is_training=is_training, **kwargs)
    finally:
        trainer.data_collator, settings.split_batches = collator, are_cut
    if not is_training:
        # accelerate knows how many rows the last batch has.
        loader.slice_fn, loader._drop_last = _part_of_batch, True
    return loader


def in_equal_parts(collator: Callable[[list[Any]], Any], parts: int, rows: list[Any]) -> Any:
    """A batch that can be cut into equal parts: some of its rows come twice, if need be."""
    return collator([*rows, *islice(cycle(rows), -len(rows) % parts)])


def _part_of_batch(batch: Any, _: slice, process_index: int, num_processes: int) -> Any:
    """The rows of one process; where there are too few, the first ones come again."""
    rows = find_batch_size(batch)
    size = -(-rows // num_processes)
    places = [(process_index * size + row) % rows for row in range(size)]
    return recursively_apply(lambda values: values[places], batch)
