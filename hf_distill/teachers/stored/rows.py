"""Rows as they are stored: tokenized, without padding, with their lengths, identified by a hash of their contents."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ...tasks.rows.text import LENGTH_COLUMN, columns_of, tokenize_text

IDS, MASK = "input_ids", "attention_mask"
# Rows that are looked at together; part of the hash.
HASHED_ROWS = 1000


def rows_to_store(
    dataset: datasets.Dataset, processing_class: Any, text_column: str, max_length: int
) -> datasets.Dataset:
    """Return tokenized rows with everything numeric that they came with (labels, ids of tasks), unpadded.

    Args:
        dataset: Rows with `input_ids`, or with a column of text, which is tokenized (see `tokenize_text`).
        processing_class: The teacher's tokenizer.
        text_column: Column to tokenize.
        max_length: Longest row where text is tokenized; the rest is cut off.

    Raises:
        ValueError: If the data set is a stream, is empty, or has neither tokens nor the column of the text.
    """
    if not isinstance(dataset, datasets.Dataset):
        raise ValueError(
            f"Signals are stored for the rows of a `datasets.Dataset`, not of {type(dataset).__name__}: a stream has "
            "no length and cannot be resumed."
        )
    if not len(dataset):
        raise ValueError("The data set has no rows: there is nothing to store.")
    if IDS not in dataset.column_names:
        numeric = [name for name in columns_of(dataset) if _is_numeric(dataset.features.arrow_schema.field(name).type)]
        options: dict[str, Any] = {"text_column": text_column, "max_length": max_length, "keep": numeric}
        dataset = tokenize_text(dataset, processing_class, **options)
    rows = dataset.with_format(None)
    rows = rows.select_columns([field.name for field in rows.features.arrow_schema if _is_numeric(field.type)])
    if {MASK, LENGTH_COLUMN} <= set(rows.column_names) and not _has_padding(rows):
        return rows
    return rows.map(_without_padding, batched=True, desc="Taking out padding")


def hash_rows(rows: datasets.Dataset) -> str:
    """Return a hash of the numbers of all rows, whatever their types, files and order of columns."""
    digest = xxhash.xxh3_128()
    for table in rows.with_format("arrow").iter(batch_size=HASHED_ROWS):
        for name in sorted(table.column_names):
            digest.update(name.encode())
            _update(digest, pa.concat_arrays(table[name].chunks))
    return digest.hexdigest()


def _update(digest: Any, array: Any) -> None:
    """Add an array of numbers, or of lists of them, to a hash."""
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        digest.update(np.asarray(pc.list_value_length(array).fill_null(-1), dtype=np.int64).tobytes())
        _update(digest, array.flatten())
    else:
        whole = pa.types.is_integer(array.type) or pa.types.is_boolean(array.type)
        values = array.cast(pa.int64() if whole else pa.float64())
        digest.update(np.asarray(pc.is_null(values)).tobytes())
        digest.update(np.ascontiguousarray(values.fill_null(0)).tobytes())


def _is_numeric(kind: Any) -> bool:
    """Return whether a type is a number or lists of numbers."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _has_padding(rows: datasets.Dataset) -> bool:
    tables = rows.select_columns([MASK]).with_format("arrow").iter(batch_size=HASHED_ROWS)
    return any(pc.min(pc.list_flatten(table[MASK], recursive=True)).as_py() == 0 for table in tables)


def _without_padding(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Keep only real tokens in every column that has a value per token."""
    masks = batch.get(MASK) or [[1] * len(ids) for ids in batch[IDS]]

    def real(value: Any, mask: list[int]) -> Any:
        if not isinstance(value, list) or len(value) != len(mask):
            return value
        return [item for item, kept in zip(value, mask, strict=True) if kept]

    kept = {
        name: [real(value, mask) for value, mask in zip(values, masks, strict=True)]
        for name, values in {**batch, MASK: masks}.items()
    }
    return {**kept, LENGTH_COLUMN: [len(ids) for ids in kept[IDS]]}
