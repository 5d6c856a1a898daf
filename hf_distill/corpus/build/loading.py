"""Loads a general corpus from any source: files, folders, data sets on the Hub, streams.

Files are read in batches into an Arrow file in the cache of `datasets`, which is then memory-mapped, so a corpus is
never in memory as a whole. From a stream only the requested rows are read, and they are stored on disk.
"""

from __future__ import annotations

import codecs
import csv
import glob
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import xxhash
from datasets import (
    Dataset,
    DatasetBuilder,
    DatasetDict,
    IterableDataset,
    IterableDatasetDict,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.arrow_writer import ArrowWriter
from datasets.utils import logging, tqdm
from fsspec.implementations.local import LocalFileSystem
from huggingface_hub.errors import HTTPError

from ...hub.data_sets import read_data_set
from ...storage.files import DamagedFileError, close_path, new_file
from ...storage.steps import WorkFolder
from ...storage.tables import (
    COMPRESSIONS,
    check_rows_of_json,
    encoding_hint,
    form_of_table,
    says_no_rows,
    stem_of,
    suffix_of,
)
from ..search.retrieval import settings_key

logger = logging.get_logger(__name__)

# Suffix -> builder of `datasets`; a compression suffix may follow.
_LOADERS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
}


def load_general_corpus(
    path_or_id: str | Path,
    config: str | None = None,
    *,
    split: str = "train",
    flag: str = "--corpus",
    max_rows: int | None = None,
) -> Dataset:
    """Load a general corpus as a data set.

    Args:
        path_or_id: A file (parquet, JSON lines, csv, tsv, text with one row per line; also gzip, zstd, bzip2, xz,
            lz4), a folder of such files of one kind, a folder written by `save_to_disk`, or a data set on the Hub.
        config: Configuration of a data set on the Hub.
        split: The split to load, if there are several.
        flag: The argument that named the corpus, for error messages.
        max_rows: Load only this many rows, from the beginning; nothing beyond them is read or downloaded.

    Raises:
        FileNotFoundError: If it exists neither locally nor on the Hub.
        ValueError: If the files are of an unknown kind or of several kinds, or the split is missing.
    """
    path = Path(path_or_id).expanduser()
    if path.is_file():
        return _load_files([path], flag, max_rows)
    if path.is_dir():
        return _load_folder(path, split, flag, max_rows)
    try:
        if max_rows is not None:
            builder = read_data_set(load_dataset_builder, str(path_or_id), config, flag=flag)
            return first_rows(builder, split, max_rows, str(path_or_id), flag)
        loaded = read_data_set(load_dataset, str(path_or_id), config, flag=flag)
    except (HTTPError, OSError, ValueError) as error:
        raise FileNotFoundError(
            f"`{flag}` {str(path_or_id)!r} is neither a file nor a folder, and the Hub does not give it: "
            f"{' '.join(str(error).split()).rstrip('.')}.{close_path(path)}"
        ) from error
    return _one_split(loaded, str(path_or_id), split, flag)


def corpus_label(path_or_id: str | Path) -> str:
    """Return the name of a corpus in results and cards: the last part of a local path, or the whole id of the Hub."""
    path = Path(path_or_id).expanduser()
    return path.resolve().name if path.is_absolute() or path.exists() else str(path_or_id)


def _load_folder(path: Path, split: str, flag: str, max_rows: int | None) -> Dataset:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        saved = _one_split(load_from_disk(str(path)), str(path), split, flag)
        return saved if max_rows is None else saved.select(range(min(max_rows, len(saved))))
    # A corpus that was built here has its dropped rows and the steps of its build beside its rows.
    root = path / "data" if (path / "statistics.json").is_file() and (path / "data").is_dir() else path
    files = sorted(file for file in root.rglob("*") if file.is_file() and _kind(file) and not _is_hidden(file, root))
    if not files:
        raise ValueError(f"The folder {str(path)!r} ({flag}) holds no file of a known kind: {_known()}.")
    return _load_files(_files_of_split(files, root, split, flag), flag, max_rows)


# Split names in the names of files and folders -> the names that `datasets` uses.
_SPLITS = {
    **{"train": "train", "training": "train", "test": "test"},
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}


def _files_of_split(files: list[Path], root: Path, split: str, flag: str) -> list[Path]:
    """Return the files of a split in a folder; if no file name contains a split, all files are the only split.

    Raises:
        ValueError: If all files are named after other splits.
    """
    wanted = _SPLITS.get(split, split)
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file, root, wanted), []).append(file)
    no_split = by_split.get("") if wanted == "train" or len(by_split) == 1 else None
    chosen = by_split.get(wanted) or no_split
    if chosen is None:
        raise ValueError(
            f"The folder {str(root)!r} ({flag}) has no files of the split {split!r} (--corpus_split); it has "
            f"{sorted(filter(None, by_split))}."
        )
    left_out = [file for name, group in by_split.items() if group is not chosen for file in group]
    if left_out and "" in by_split:
        kept, gone = ([str(file.relative_to(root)) for file in group] for group in (chosen, left_out))
        logger.warning(
            f"`{flag}`: the split {split!r} of {str(root)!r} is, by the names of the files, {_few(kept)}; left out: "
            f"{_few(gone)}."
        )
    return chosen


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _split_of(file: Path, root: Path, wanted: str) -> str:
    """Return the split that a file or its folder is named after (`dev-00001.jsonl`, `test/a.txt`), else ""."""
    stem = stem_of(file)
    begin = (re.match(r"[^\W\d_]*", stem) or [""])[0].lower()
    # `training.txt` is a split, `training_manuals.txt` is a book.
    own = "" if begin == "training" != stem.lower() else begin
    for name in (*(part.lower() for part in file.relative_to(root).parts[:-1]), own):
        if name == wanted or name in _SPLITS:
            return _SPLITS.get(name, name)
    return wanted if re.match(rf"{re.escape(wanted)}(?![^\W\d_])", stem) else ""


def _load_files(files: list[Path], flag: str, max_rows: int | None) -> Dataset:
    kinds = sorted({_kind(file) for file in files})
    if kinds == [""]:
        raise ValueError(f"{files[0].name!r} ({flag}) is of an unknown kind; known are {_known()}.")
    if len(kinds) > 1:
        raise ValueError(f"The folder ({flag}) mixes files of the kinds {kinds}; name one file or split the folder.")
    names = [str(file) for file in files]
    try:
        return _read(files, kinds[0], flag, max_rows)
    except DamagedFileError:
        raise
    except Exception as error:
        # The type of the exception depends on the format.
        if not any(file.stat().st_size for file in files):
            raise ValueError(f"`{flag}`: {names} are empty.") from error
        cause = error.__cause__ or error
        if says_no_rows(cause):
            raise ValueError(f"`{flag}`: {names} hold no rows.") from error
        hint = encoding_hint(files[0], cause)
        raise ValueError(
            f"`{flag}`: {names} cannot be read as {kinds[0]}: {' '.join(str(cause).split())}{hint and '.' + hint}"
        ) from error


def _read(files: list[Path], kind: str, flag: str, max_rows: int | None) -> Dataset:
    """The rows of files of one kind, as the library for it reads them."""
    options: dict[str, Any] = {}
    if kind == "json":
        for file in files:
            check_rows_of_json(file)
    elif kind == "csv":
        options = _table_options(files, flag)
    elif kind == "text":
        # A byte order mark is not part of the first text.
        options = {"encoding": "utf-8-sig"}
    # Brackets and stars in a file name must not act as a pattern.
    places = {"train": [glob.escape(str(file)) for file in files]}
    if max_rows is None:
        rows = load_dataset(kind, data_files=places, split="train", **options)
    else:
        builder = load_dataset_builder(kind, data_files=places, **options)
        rows = first_rows(builder, "train", max_rows, files[0].name, flag)
    # `datasets` cannot be given an encoding for compressed files.
    if kind == "text" and any(map(_is_marked, files)):
        return rows.map(lambda row: {"text": row["text"].removeprefix("\ufeff")})
    return rows


def _table_options(files: list[Path], flag: str) -> dict[str, Any]:
    """Reader options under which every cell is read as text, exactly as it is written, as for the rows of tasks.

    A text such as `NA` is then not a missing value, and `001` is not a number.

    Raises:
        ValueError: If files have different separators, or a file's rows do not match its header.
    """
    forms = [form_of_table(file) for file in files]
    separators = sorted({form.separator for form in forms})
    if len(separators) > 1:
        raise DamagedFileError(
            f"The folder ({flag}) mixes tables whose separators are {' and '.join(map(repr, separators))} "
            f"({files[0].name!r}, ...): name one file or split the folder."
        )
    for form in forms:
        form.check()
    quoting = csv.QUOTE_MINIMAL if all(form.quoted for form in forms) else csv.QUOTE_NONE
    escape = next((form.escape for form in forms if form.escape), None)
    options: dict[str, Any] = {} if escape is None else {"escapechar": escape, "doublequote": False}
    # This is the name that the reader gives a column without a name, such as pandas' index.
    header = [name or f"Unnamed: {place}" for place, name in enumerate(forms[0].header)]
    features = datasets.Features({name: datasets.Value("string") for name in header})
    options |= {"delimiter": separators[0], "quoting": quoting, "features": features}
    # An empty cell is a missing text, which is dropped.
    return options | {"keep_default_na": False, "na_values": [""]}


def _is_marked(file: Path) -> bool:
    """Whether a compressed file begins with a byte order mark."""
    if not file.name.lower().endswith(COMPRESSIONS):
        return False
    with LocalFileSystem().open(str(file), "rb", compression="infer") as stream:
        return stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _kind(file: Path) -> str:
    return _LOADERS.get(suffix_of(file), "")


def _is_hidden(file: Path, root: Path) -> bool:
    """Whether a file only describes the data beside it, or lies in a program's own folder (`.cache`)."""
    is_metadata = file.name.startswith(("statistics.", "dataset_info", "README")) or file.name in {"arguments.json"}
    return is_metadata or any(part.startswith(".") for part in file.relative_to(root).parts)


def _known() -> str:
    return f"{', '.join(_LOADERS)}, each also with {', '.join(COMPRESSIONS)}"


def _one_split(
    loaded: Dataset | DatasetDict | IterableDataset | IterableDatasetDict, name: str, split: str, flag: str
) -> Dataset:
    if isinstance(loaded, DatasetDict):
        if split not in loaded:
            raise ValueError(f"{name!r} ({flag}) has no split {split!r} (--corpus_split); it has {sorted(loaded)}.")
        return loaded[split]
    if not isinstance(loaded, Dataset):
        raise ValueError(f"{name!r} ({flag}) is a streaming data set; load it without streaming.")
    return loaded


# --- streams ---------------------------------------------------------------------------------------------------------

_BATCH = 10_000
# Number of rows that are compared to recognise a stream.
_COMPARED = 100


def first_rows(builder: DatasetBuilder, split: str, max_rows: int, name: str, flag: str) -> Dataset:
    """Stream rows into an Arrow file in the cache and memory-map it; an existing file is only mapped.

    Args:
        builder: The result of `load_dataset_builder`.
        split: The split to read.
        max_rows: Number of rows.
        name: Name of the data in error messages.
        flag: The argument that named it.

    Raises:
        ValueError: If the split does not exist or has no row.
    """
    # The builder's folder distinguishes configurations, files and modification times of files.
    key = xxhash.xxh3_64_hexdigest(f"{builder.cache_dir} {builder.hash} {split} {max_rows}".encode())
    file = Path(datasets.config.HF_DATASETS_CACHE) / "hf_distill_first_rows" / f"{key}.arrow"
    if not file.is_file():
        streams = builder.as_streaming_dataset()
        if split not in streams:
            raise ValueError(f"{name!r} ({flag}) has no split {split!r} (--corpus_split); it has {sorted(streams)}.")
        _write(streams[split], file, max_rows, f"{name!r} ({flag})")
    return Dataset.from_file(str(file))


def work_folder(chosen: str | Path | None, name: str, settings: dict[str, Any]) -> WorkFolder:
    """Open the work folder of a build: the chosen one, else one in the `datasets` cache for exactly these settings."""
    own = Path(datasets.config.HF_DATASETS_CACHE) / name / settings_key(settings)
    return WorkFolder(own if chosen is None else Path(chosen).expanduser(), settings)


def mapped_rows(corpus: Dataset | IterableDataset, max_rows: int | None, work_dir: str | Path | None) -> Dataset:
    """Return the first rows of a corpus; those of a stream are stored in the work folder for the next run.

    Args:
        corpus: The rows; a stream must yield the same rows each time it is read.
        max_rows: Number of rows; `None` for all.
        work_dir: Folder for a stream's rows, which have no fingerprint to find them in the cache.

    Raises:
        TypeError: If it is not a data set, or has several splits.
        ValueError: If a stream has no folder or no row, or the folder holds the rows of another stream.
    """
    if not isinstance(corpus, (Dataset, IterableDataset)):
        raise TypeError(
            f"The general corpus must be a `Dataset` or an `IterableDataset`, but it is a {type(corpus).__name__}: of "
            "a data set with splits give one."
        )
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
    """Return the texts of the first rows, for comparing streams; numbers are omitted, since NaN differs from NaN."""
    return [{name: value for name, value in row.items() if isinstance(value, str)} for row in islice(rows, count)]


def _write(stream: IterableDataset, file: Path, max_rows: int | None, name: str) -> None:
    batches = _tables(stream, max_rows, name)
    first = next(batches, None)
    if first is None or not len(first):
        raise ValueError(f"{name} has no row.")
    # A column with only missing values so far is treated as text: sources and texts may begin with missing values.
    schema = pa.schema(
        [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in first.schema]
    )
    with (
        new_file(file) as partial,
        tqdm(total=max_rows, desc="Streaming rows", unit=" rows", unit_scale=True) as bar,
        ArrowWriter(path=str(partial), schema=schema) as writer,
    ):
        for table in chain([first], batches):
            writer.write_table(_as(schema, table, name))
            bar.update(len(table))
        writer.finalize()


def _as(schema: pa.Schema, table: pa.Table, name: str) -> pa.Table:
    """Cast rows of a stream to the types of its first rows; missing columns are filled with nulls.

    Raises:
        ValueError: If a column is new, or its values cannot be cast.
    """
    new = [column for column in table.column_names if column not in schema.names]
    if new:
        raise ValueError(f"{name}: some rows have the columns {new}, which the first ones lack: {schema.names}.")
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(len(table), field.type) for field in schema
    ]
    try:
        return pa.Table.from_arrays(
            [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
        )
    except pa.ArrowException as error:
        raise ValueError(f"{name}: some rows do not have the types of the first ones: {error}") from error


def _of_one_type(batch: dict[str, list[Any]], name: str) -> pa.Table:
    try:
        return pa.Table.from_pydict(batch)
    except pa.ArrowException as error:
        raise ValueError(f"{name}: a column has values of several types: {error}") from error


def _tables(stream: IterableDataset, max_rows: int | None, name: str) -> Iterator[pa.Table]:
    """Yield the rows in batches. `IterableDataset.take` would read ahead to the next batch of the file."""
    left = sys.maxsize if max_rows is None else max_rows
    # Infer types from all rows of a batch if the stream has no features: `datasets` would infer them from the first
    # row.
    is_typed = stream.features is not None
    for batch in stream.with_format("arrow" if is_typed else None).iter(batch_size=min(_BATCH, left)):
        table = batch if is_typed else _of_one_type(batch, name)
        yield table.slice(0, left)
        left -= len(table)
        if left <= 0:
            return


# --- names on a command line -----------------------------------------------------------------------------------------


def named_corpora(given: Sequence[str], flag: str, taken: Collection[str] = ()) -> dict[str, str]:
    """Map the names of corpora to their paths; the default name is the last part of a path, or the Hub id.

    Args:
        given: Values of the flag.
        flag: The flag, for error messages.
        taken: Reserved names.

    Raises:
        ValueError: If a name occurs twice, or is reserved.
    """
    named: dict[str, str] = {}
    for corpus in given:
        name, equals, where = corpus.partition("=")
        if not equals or Path(corpus).expanduser().exists():
            name, where = corpus_label(corpus), corpus
        if name in named or name in taken:
            raise ValueError(f"`{flag}` has two corpora with the name {name!r}: give them as NAME=WHERE, with others.")
        named[name] = where
    return named


def split_config(where: str) -> tuple[str, str | None]:
    """Split a Hub id from the configuration after a colon (`wikimedia/wikipedia:20231101.en`); a path is unchanged."""
    path, colon, config = where.partition(":")
    return (where, None) if not colon or Path(where).expanduser().exists() else (path, config)
