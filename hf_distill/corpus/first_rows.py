"""The first rows of a data set of any size: streamed, so that nothing beyond them is read or downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import datasets
import pyarrow as pa
import xxhash
from datasets import Dataset, DatasetBuilder, IterableDataset
from datasets.arrow_writer import ArrowWriter
from datasets.utils import tqdm

_BATCH = 10_000


def first_rows(builder: DatasetBuilder, split: str, max_rows: int, name: str, flag: str) -> Dataset:
    """Streams rows into an Arrow file of the cache and maps it; where the file is there, it is only mapped.

    Args:
        builder: What `load_dataset_builder` gives.
        split: Which split.
        max_rows: How many rows.
        name: What to call the data in errors.
        flag: The argument that named it.

    Raises:
        ValueError: If there is no such split, or no row.
    """
    # The builder's folder tells configurations, files and the times of files apart.
    key = xxhash.xxh3_64_hexdigest(f"{builder.cache_dir} {builder.hash} {split} {max_rows}".encode())
    file = Path(datasets.config.HF_DATASETS_CACHE) / "hf_distill_first_rows" / f"{key}.arrow"
    if not file.is_file():
        streams = builder.as_streaming_dataset()
        if split not in streams:
            raise ValueError(f"{name!r} ({flag}) has no split {split!r} (--corpus_split); it has {sorted(streams)}.")
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
        batches = _tables(streams[split], max_rows)
        first = next(batches, None)
        if first is None:
            raise ValueError(f"{name!r} ({flag}) has no row.")
        with (
            tqdm(total=max_rows, desc="Streaming rows", unit=" rows", unit_scale=True) as bar,
            ArrowWriter(path=str(partial), schema=first.schema) as writer,
        ):
            for table in chain([first], batches):
                writer.write_table(table.cast(first.schema))
                bar.update(len(table))
            writer.finalize()
        os.replace(partial, file)
    return Dataset.from_file(str(file))


def _tables(stream: IterableDataset, max_rows: int) -> Iterator[pa.Table]:
    """The rows in batches. `IterableDataset.take` would read on to the next batch of the file."""
    left = max_rows
    for table in stream.with_format("arrow").iter(batch_size=min(_BATCH, max_rows)):
        yield table.slice(0, left)
        left -= len(table)
        if left <= 0:
            return
