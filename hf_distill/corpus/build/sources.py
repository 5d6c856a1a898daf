"""Loads a general corpus from whatever a user has.

Files are read in batches into an Arrow file in the cache of `datasets`, which is then memory-mapped: a corpus is never
in memory as a whole.
"""

from __future__ import annotations

from pathlib import Path

from datasets import (
    Dataset,
    DatasetDict,
    IterableDataset,
    IterableDatasetDict,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from huggingface_hub.errors import HTTPError

from ...hub.data_sets import read_data_set
from ...storage.files import check_rows_of_json, check_rows_of_table
from .stream_cache import first_rows

# Suffix -> loader of `datasets`; a compression suffix may follow.
_LOADERS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
}
_COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz", ".lz4")


def load_general_corpus(
    path_or_id: str | Path,
    config: str | None = None,
    *,
    split: str = "train",
    flag: str = "--corpus",
    max_rows: int | None = None,
) -> Dataset:
    """A general corpus as a data set.

    Args:
        path_or_id: A file (parquet, JSON lines, csv, tsv, text with one row per line; also gzip, zstd, bzip2, xz,
            lz4), a folder of such files of one kind, a folder written by `save_to_disk`, or a data set on the Hub.
        config: Configuration of a data set on the Hub.
        split: Which split, where there are several.
        flag: The argument that named it, for errors.
        max_rows: Only the first rows; nothing beyond them is read or downloaded.

    Raises:
        FileNotFoundError: If it is neither there nor on the Hub.
        ValueError: If the files are of no known kind, of several, or the split is missing.
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
            f"{' '.join(str(error).split())}"
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
    files = sorted(file for file in path.rglob("*") if file.is_file() and _kind(file) and not _is_metadata(file))
    if not files:
        raise ValueError(f"The folder {str(path)!r} ({flag}) holds no file of a known kind: {_known()}.")
    # A folder may hold several splits by the usual names; files without any split's name are the one split there is.
    of_split = [file for file in files if file.name.startswith(split) or file.parent.name == split]
    return _load_files(of_split or files, flag, max_rows)


def _load_files(files: list[Path], flag: str, max_rows: int | None) -> Dataset:
    kinds = sorted({_kind(file) for file in files})
    if kinds == [""]:
        raise ValueError(f"{files[0].name!r} ({flag}) is of no known kind; known are {_known()}.")
    if len(kinds) > 1:
        raise ValueError(f"The folder ({flag}) mixes files of the kinds {kinds}; name one file or split the folder.")
    options = {"delimiter": "\t"} if ".tsv" in files[0].suffixes else {}
    names = [str(file) for file in files]
    for file in files:
        if kinds == ["json"]:
            check_rows_of_json(file)
        elif kinds == ["csv"] and not file.name.lower().endswith(_COMPRESSIONS):
            check_rows_of_table(file, options.get("delimiter", ","))
    try:
        if max_rows is not None:
            builder = load_dataset_builder(kinds[0], data_files={"train": names}, **options)
            return first_rows(builder, "train", max_rows, files[0].name, flag)
        return load_dataset(kinds[0], data_files={"train": names}, split="train", **options)
    except Exception as error:
        # What a reader raises depends on the format.
        if not any(file.stat().st_size for file in files):
            raise ValueError(f"`{flag}`: {names} are empty.") from error
        reason = error.__cause__ or error
        raise ValueError(f"`{flag}`: {names} cannot be read as {kinds[0]}: {reason}") from error


def _kind(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return _LOADERS.get(suffixes[-1], "") if suffixes else ""


def _is_metadata(file: Path) -> bool:
    """Descriptions that stand beside data and hold none."""
    return file.name.startswith((".", "statistics.", "dataset_info", "README")) or file.name in {"arguments.json"}


def _known() -> str:
    return f"{', '.join(_LOADERS)}, each also with {', '.join(_COMPRESSIONS)}"


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
