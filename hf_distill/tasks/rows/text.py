"""Tokenizes text: rows of one text or of a pair, from any data set, checked row by row.

A row may also be a query with candidates, a list of texts in the column `candidates`: each candidate becomes a pair
with the query, and the row's tokens become a list of sequences.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from hf_distill.storage.plain_values import did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Rows whose lengths are read at once.
COUNTED_ROWS = 10_000
LENGTH_COLUMN = "length"
PAIR_COLUMN = "text_pair"
CANDIDATES_COLUMN = "candidates"


def checksum_of_rows(rows: datasets.Dataset) -> str:
    """Return a checksum of the rows of a data set in order, with the names of their columns."""
    digest = xxhash.xxh3_128(" ".join(rows.column_names).encode())
    for table in rows.with_format("arrow").iter(batch_size=COUNTED_ROWS):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
            stream.write_table(table.combine_chunks().replace_schema_metadata())
        digest.update(sink.getvalue())
    return digest.hexdigest()


def tokenize_text(
    dataset: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str = "text",
    max_length: int = 128,
    keep: Sequence[str] = (),
) -> Any:
    """Tokenize one text column, with `text_pair` as the second text if the row has one; other columns are dropped.

    If there is a column `candidates`, the text is a query, and each row gets a sequence for each of its candidates.

    Args:
        dataset: A `Dataset` or `IterableDataset` with `text_column`.
        tokenizer: The tokenizer of teacher and student.
        text_column: Name of the column.
        max_length: Maximum tokens of a row; longer rows are truncated.
        keep: Other columns that stay, if they exist.

    Returns:
        The data set with the tokenizer's outputs (not padded) and `length`, the number of tokens of each row; for a
        row with candidates, their number of tokens after padding to the longest.

    Raises:
        ValueError: If the column is missing, or a row has no text in it; the message names the column and the row. For
            a stream, the error is raised when the row is read.
    """
    columns = columns_of(dataset)
    if text_column not in columns:
        raise ValueError(
            f"The data set has no column {text_column!r} to tokenize (`--text_column`) and no `input_ids`; "
            f"it has {columns}." + did_you_mean(text_column, columns)
        )

    def encode(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        check_texts(batch, text_column, numbers)
        encoded = encode_batch(tokenizer, batch, text_column, max_length)
        return {**encoded, LENGTH_COLUMN: [padded_length(ids) for ids in encoded["input_ids"]]}

    progress = {"desc": "Tokenizing"} if isinstance(dataset, datasets.Dataset) else {}
    dropped = [name for name in columns if name not in keep]
    tokens = dataset.map(encode, batched=True, with_indices=True, remove_columns=dropped, **progress)
    if isinstance(tokens, datasets.Dataset):
        say_rows_cut(tokens, max_length, ids="input_ids" if CANDIDATES_COLUMN in columns else None)
        if CANDIDATES_COLUMN in columns and max(stored_lengths(tokens) or [0]) == 1:
            logger.warning(
                f"Every row has one text in the column {CANDIDATES_COLUMN!r}: there is nothing to compare it with, "
                "and nothing to learn from it but a score (`logits`)."
            )
    remember_length(tokenizer, max_length)
    return tokens


def say_rows_cut(
    tokens: datasets.Dataset,
    max_length: int,
    what: str = "rows",
    *,
    ids: str | None = None,
    special: int = 0,
    because: str = "`--max_length`",
) -> None:
    """Warn as `say_cut` does, from the column `length`: the tokens of a row, or of its longest sequence.

    Args:
        tokens: The rows.
        max_length: Number of tokens to which a row, or each of its sequences, was truncated.
        what: Name of the rows, for the message.
        ids: A column of tokens, or of lists of tokens, that is counted instead of `length`.
        special: Number of special tokens of each row that are not in the column.
        because: The setting that determines the length, for the message.
    """
    at_limit, limit = 0, max_length - special
    for table in tokens.select_columns([ids or LENGTH_COLUMN]).with_format("arrow").iter(batch_size=COUNTED_ROWS):
        values = table[ids or LENGTH_COLUMN].combine_chunks()
        if ids is not None and _is_list(values.type.value_type):
            # The sequences of all rows in one array, and the row of each sequence.
            places = pc.list_parent_indices(values)
            full = pc.greater_equal(pc.list_value_length(values.flatten()), limit)
            at_limit += len(pc.unique(places.filter(full)))
            continue
        lengths = values if ids is None else pc.list_value_length(values)
        at_limit += pc.sum(pc.greater_equal(lengths, limit)).as_py() or 0
    say_cut(at_limit, len(tokens), max_length, what, because)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def say_cut(at_limit: int, rows: int, max_length: int, what: str = "rows", because: str = "`--max_length`") -> None:
    """Warn if rows have the maximum length: any text beyond it was probably cut off.

    Args:
        at_limit: Number of rows with `max_length` tokens.
        rows: Number of all rows.
        max_length: Number of tokens to which rows were truncated.
        what: Name of the rows, for the message.
        because: The setting that determines the length, for the message.
    """
    if at_limit:
        logger.warning(
            f"{at_limit:,} of {rows:,} {what} have {max_length} tokens or more; longer ones are cut off ({because})."
        )


def remember_length(tokenizer: Any, max_length: int) -> None:
    """Set a tokenizer's truncation as if it had just truncated rows, even if `datasets` took them from its cache.

    A tokenizer that is saved with a model then records the length to which its rows were truncated.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.enable_truncation(max_length, direction=tokenizer.truncation_side)


def remembered_length(tokenizer: Any) -> int | None:
    """The length to which a loaded tokenizer last truncated rows, which is usually that of its training.

    Returns:
        `None` if it is unknown: its folder does not record it, or has no `tokenizer.json`.
    """
    cut = getattr(getattr(tokenizer, "backend_tokenizer", None), "truncation", None)
    return None if cut is None else int(cut["max_length"])


def columns_of(dataset: Any) -> list[str]:
    """Names of the columns of a `Dataset` or `IterableDataset`.

    A stream of files, of a generator or of mapped rows does not know them in advance: they are read from its first
    row.

    Raises:
        ValueError: If such a stream has no rows.
    """
    if dataset.column_names is not None:
        return list(dataset.column_names)
    row = next(iter(dataset), None)
    if row is None:
        raise ValueError("The data set has no rows.")
    return list(row)


def has_transform(dataset: Any) -> bool:
    """Whether a `Dataset` has a transform (`with_transform`), so that its columns do not describe its rows."""
    return isinstance(dataset, datasets.Dataset) and dataset.format["type"] == "custom"


def stored_lengths(dataset: Any, column: str = "input_ids") -> list[int] | None:
    """Return the number of values of every row in a column, without reading the rows; `None` if that is impossible.

    Args:
        dataset: Anything with rows.
        column: A column of lists.
    """
    if isinstance(dataset, (list, tuple)):
        lists: list[Any] = [row.get(column) if isinstance(row, Mapping) else None for row in dataset]
        return None if any(not hasattr(values, "__len__") for values in lists) else [len(values) for values in lists]
    if has_transform(dataset) or not isinstance(dataset, datasets.Dataset):
        return None
    if column not in dataset.column_names:
        return None
    parts = dataset.select_columns([column]).with_format("arrow").iter(COUNTED_ROWS)
    return [length for part in parts for length in _list_lengths(part[column])]


def stored_maximum(dataset: Any, column: str) -> int | None:
    """Return the largest number in the lists of a column, without reading the rows; `None` if that is impossible.

    Args:
        dataset: Anything with rows.
        column: A column of lists of integers, or of lists of such lists.
    """
    if has_transform(dataset) or not isinstance(dataset, datasets.Dataset) or column not in dataset.column_names:
        return None
    largest = None
    for part in dataset.select_columns([column]).with_format("arrow").iter(COUNTED_ROWS):
        values = part[column].combine_chunks()
        while _is_list(values.type):
            values = values.flatten()
        found = pc.max(values).as_py() if pa.types.is_integer(values.type) else None
        largest = found if largest is None or (found is not None and found > largest) else largest
    return largest


def _list_lengths(values: pa.ChunkedArray) -> list[int]:
    """Number of values of each list; tensors of a fixed shape (`Array2D`) are lists along their first axis."""
    if isinstance(values.type, pa.ExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    return pc.fill_null(pc.list_value_length(values), 0).to_pylist()


def check_texts(batch: dict[str, list[Any]], text_column: str, numbers: Sequence[int]) -> None:
    """Check that every row has a text, and a second text or None.

    Args:
        batch: Columns of a batch of rows.
        text_column: Column of the text; the second text is in `text_pair`.
        numbers: Indices of the rows in the data set, for the message.

    Raises:
        ValueError: If a row has another value, or an empty list where there is a column of candidates.
    """
    for number, texts in zip(numbers, batch.get(CANDIDATES_COLUMN, ()), strict=False):
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
            raise ValueError(
                f"The column {CANDIDATES_COLUMN!r} must hold a list of at least one text in every row, but row "
                f"{number} has {_shown(texts)}."
            )
    for column in (text_column, PAIR_COLUMN):
        for number, text in zip(numbers, batch.get(column, ()), strict=False):
            if not (isinstance(text, str) or (text is None and column == PAIR_COLUMN)):
                raise ValueError(
                    f"The column {column!r} must hold a text in every row, but row {number} has {_shown(text)}. Leave "
                    "such rows out, join lists of words, or name another column (`--text_column`)."
                )


def _shown(value: Any) -> str:
    """A value and its type, on one short line."""
    shown = repr(value).replace("\n", " ")
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return shown if value is None else f"{shown} ({type(value).__name__})"


def encode_batch(
    tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, list[Any]], text_column: str, max_length: int
) -> dict[str, list[Any]]:
    """Tokenize checked rows: one sequence for each row, or one for each candidate if a row has candidates."""
    if CANDIDATES_COLUMN not in batch:
        return _encode(tokenizer, batch[text_column], batch.get(PAIR_COLUMN), max_length)
    lists = batch[CANDIDATES_COLUMN]
    queries = [query for query, row in zip(batch[text_column], lists, strict=True) for _ in row]
    flat = _encode(tokenizer, queries, [text for row in lists for text in row], max_length)
    ends = list(itertools.accumulate(len(row) for row in lists))
    places = list(zip([0, *ends], ends, strict=False))
    return {name: [values[start:end] for start, end in places] for name, values in flat.items()}


def padded_length(ids: Sequence[Any]) -> int:
    """Number of tokens of a row; for a row with candidates, after padding to the longest."""
    return max(map(len, ids)) * len(ids) if ids and isinstance(ids[0], list) else len(ids)


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], seconds: list[str | None] | None, max_length: int
) -> dict[str, list[Any]]:
    """Tokenize single texts and pairs, in the order of the rows; one call of a tokenizer takes only one kind."""
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


def tokenize_rows(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, text_column: str, max_length: int
) -> list[dict[str, Any]]:
    """Replace the text of rows from a data set with a transform by their tokens.

    Raises:
        ValueError: If a row has no text.
    """
    read = (text_column, PAIR_COLUMN, *((CANDIDATES_COLUMN,) if CANDIDATES_COLUMN in rows[0] else ()))
    batch: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in read}
    check_texts(batch, text_column, range(len(rows)))
    encoded = encode_batch(tokenizer, batch, text_column, max_length)
    others = [{k: v for k, v in row.items() if k not in read} for row in rows]
    return [{**row, **{name: encoded[name][place] for name in encoded}} for place, row in enumerate(others)]
