"""Keeps the rows of a stream on disk: as many as are asked for, and nothing beyond them is downloaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import datasets
import pyarrow as pa
import xxhash
from datasets import Dataset, DatasetBuilder, IterableDataset
from datasets.arrow_writer import ArrowWriter
from datasets.utils import tqdm

from hf_distill.storage.files import new_file

_BATCH = 10_000
# So many rows tell one stream from another.
_COMPARED = 100


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
        _write(streams[split], file, max_rows, f"{name!r} ({flag})")
    return Dataset.from_file(str(file))


def mapped_rows(corpus: Dataset | IterableDataset, max_rows: int | None, work_dir: str | Path | None) -> Dataset:
    """The first rows of a corpus; those of a stream are written to the work folder, where the next run finds them.

    Args:
        corpus: The rows; a stream must give the same ones each time it is read.
        max_rows: How many; `None`: all.
        work_dir: Keeps a stream's rows, which have no fingerprint by which to find them in the cache.

    Raises:
        ValueError: If a stream has no folder or no row, or the folder holds the rows of another one.
    """
    if isinstance(corpus, IterableDataset):
        return _stored_stream(corpus, max_rows, work_dir)
    return corpus if max_rows is None or max_rows >= len(corpus) else corpus.select(range(max_rows))


def _stored_stream(stream: IterableDataset, max_rows: int | None, work_dir: str | Path | None) -> Dataset:
    if work_dir is None:
        raise ValueError("A streaming corpus needs `work_dir` (`--work_dir`), the folder that keeps its rows.")
    file = Path(work_dir).expanduser() / "streamed" / f"{'all' if max_rows is None else max_rows}.arrow"
    if not file.is_file():
        _write(stream, file, max_rows, "The streaming corpus")
    rows = Dataset.from_file(str(file))
    if _texts(stream, min(_COMPARED, len(rows))) != _texts(rows, _COMPARED):
        raise ValueError(f"{str(file)!r} holds the rows of another stream: give another `work_dir` (`--work_dir`).")
    return rows


def _texts(rows: Dataset | IterableDataset, count: int) -> list[dict[str, str]]:
    """The text of the first rows; a number that is none does not equal itself."""
    return [{name: value for name, value in row.items() if isinstance(value, str)} for row in islice(rows, count)]


def _write(stream: IterableDataset, file: Path, max_rows: int | None, name: str) -> None:
    batches = _tables(stream, max_rows)
    first = next(batches, None)
    if first is None or not len(first):
        raise ValueError(f"{name} has no row.")
    with (
        new_file(file) as partial,
        tqdm(total=max_rows, desc="Streaming rows", unit=" rows", unit_scale=True) as bar,
        ArrowWriter(path=str(partial), schema=first.schema) as writer,
    ):
        for table in chain([first], batches):
            writer.write_table(table.cast(first.schema))
            bar.update(len(table))
        writer.finalize()


def _tables(stream: IterableDataset, max_rows: int | None) -> Iterator[pa.Table]:
    """The rows in batches. `IterableDataset.take` would read on to the next batch of the file."""
    left = sys.maxsize if max_rows is None else max_rows
    for table in stream.with_format("arrow").iter(batch_size=min(_BATCH, left)):
        yield table.slice(0, left)
        left -= len(table)
        if left <= 0:
            return
