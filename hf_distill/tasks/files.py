"""Find and read the splits of a task: files, and splits that are joined of others (`TaskSpec.split_sources`)."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets, load_dataset, load_from_disk

from hf_distill.storage.files import DamagedFileError, check_rows_of_json, check_rows_of_table, separator_of_table
from hf_distill.tasks.catalogue.generation import GenerationSpec
from hf_distill.tasks.spec import TaskSpec

logger = logging.getLogger(__name__)

# Both kinds name their splits, files and columns alike.
RowsSpec = TaskSpec | GenerationSpec

# In order of preference where a split is there in several formats.
READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".tsv": "csv", ".csv": "csv", ".txt": "csv"}
COMMON_ALIASES = {"validation": ("dev", "valid", "val")}
EXAMPLES = 1000
MOST_LISTED = 20
SAVED_BY_DATASETS = "dataset_dict.json"


@dataclass(frozen=True)
class SplitSource:
    """One split of a data set.

    Attributes:
        split: Its name there.
        config: Configuration on the Hub, folder below the task's own among local files.
        hub_path: The data set, if it is not the task's own; among local files a folder of its name, below the task's
            or beside it.
    """

    split: str
    config: str | None = None
    hub_path: str | None = None


def sources_of(spec: RowsSpec, split: str) -> dict[str, SplitSource]:
    """Return the sources that a split is joined of, from its text in the spec: `train_r1`, `rajpurkar/squad:train`."""
    sources = {}
    for text in spec.split_sources.get(split, ()):
        hub_path, _, rest = text.rpartition(":")
        config, _, name = rest.rpartition("/")
        sources[text] = SplitSource(name, config or None, hub_path or None)
    return sources


def source_files(folder: Path, spec: RowsSpec, source: SplitSource) -> list[Path]:
    """The files of one source of a split; empty if there are none."""
    places = [folder]
    if source.hub_path is not None:
        name = source.hub_path.rpartition("/")[2]
        places = [folder / name, folder.parent / name]
    if source.config is not None:
        places = [place / source.config for place in places]
    found = (split_files(place, spec, source.split) for place in places if place.is_dir())
    return next(filter(None, found), [])


def find_task_folder(spec: RowsSpec, data_dir: str | Path) -> Path:
    """The folder that holds the task's splits: `data_dir` itself, or a folder of the task's name below it.

    Raises:
        FileNotFoundError: If `data_dir` is no folder, or no split of the task lies in any of the places.
    """
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"`--data_dir` {str(data_dir)!r} is not a folder.")
    candidates = _candidate_folders(spec, root)
    wanted = (spec.train_split, *spec.evaluation_splits)
    parts = [source for split in wanted for source in sources_of(spec, split).values() if source.hub_path is None]
    for folder in candidates:
        if (folder / SAVED_BY_DATASETS).is_file() or any(split_files(folder, spec, split) for split in wanted):
            return folder
        if any(source_files(folder, spec, source) for source in parts):
            return folder
    raise FileNotFoundError(
        f"No split of task {spec.name!r} lies in {str(root)!r} (looked in {[str(item) for item in candidates]}). "
        f"Needed are files such as {wanted[0]}.parquet and {wanted[1]}.jsonl ({', '.join(READERS)}); "
        f"found: {listing(root)}."
    )


def split_files(folder: Path, spec: RowsSpec, split: str) -> list[Path]:
    """The files of one split, shards in order; empty if there are none.

    Raises:
        FileNotFoundError: If shards are missing.
    """
    stems = (split, *spec.split_aliases.get(split, ()), *COMMON_ALIASES.get(split, ()))
    for stem in stems:
        by_suffix: dict[str, list[Path]] = {}
        pattern = re.compile(re.escape(stem) + r"(-\d{5}-of-\d{5}(-[0-9a-f]+)?)?", flags=re.IGNORECASE)
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in READERS and pattern.fullmatch(path.stem) and path.is_file():
                by_suffix.setdefault(path.suffix.lower(), []).append(path)
        if by_suffix:
            suffix = min(by_suffix, key=list(READERS).index)
            if len(by_suffix) > 1:
                logger.warning(f"Split {split!r} is in {str(folder)!r} as {sorted(by_suffix)}; reading {suffix}.")
            return _complete(by_suffix[suffix])
    return []


def read_folder(folder: Path, spec: RowsSpec, splits: Iterable[str]) -> dict[str, Dataset]:
    """Read those of the splits that the folder has."""
    if (folder / SAVED_BY_DATASETS).is_file():
        saved = load_from_disk(str(folder))
        if isinstance(saved, DatasetDict):
            return {split: saved[split] for split in splits if split in saved}
    found = {split: split_files(folder, spec, split) for split in splits}
    return {split: read_files(files, spec) for split, files in found.items() if files}


def read_files(files: Sequence[Path], spec: RowsSpec) -> Dataset:
    """Read the files of one split, all of one format, into one data set.

    Raises:
        ValueError: If a file cannot be read in the format that its name says.
    """
    suffix = files[0].suffix.lower()
    if READERS[suffix] == "json":
        for path in files:
            check_rows_of_json(path)
    try:
        options = {} if READERS[suffix] != "csv" else _csv_options(files[0], spec)
        for path in files if options else ():
            names = options.get("column_names")
            columns = len(names) if isinstance(names, list) else None
            quoted = options["quoting"] != csv.QUOTE_NONE
            check_rows_of_table(path, str(options["sep"]), quoted=quoted, columns=columns)
        rows = load_dataset(READERS[suffix], data_files=[str(path) for path in files], split="train", **options)
    except DamagedFileError:
        raise
    except Exception as error:
        if not any(path.stat().st_size for path in files):
            raise ValueError(f"{[str(path) for path in files]} (`--task`, `--data_dir`) are empty.") from error
        reason = error.__cause__ or error
        if "corresponds to no data" in str(reason):
            raise ValueError(f"{[str(path) for path in files]} (`--task`, `--data_dir`) hold no rows.") from error
        hint = " Save them as UTF-8." if isinstance(reason, UnicodeDecodeError) else ""
        raise ValueError(
            f"{[str(path) for path in files]} (`--task`, `--data_dir`) could not be read as {READERS[suffix]} "
            f"({type(reason).__name__}: {reason}).{hint}"
        ) from error
    _check_kinds(rows, files, spec)
    return rows


def _check_kinds(rows: Dataset, files: Sequence[Path], spec: RowsSpec) -> None:
    """Refuse columns in which rows of JSON lines have values of several kinds, such as texts and numbers.

    Raises:
        ValueError: If one of the task's columns is such.
    """
    columns = [*spec.text_columns, *getattr(spec, "choice_columns", ()), spec.label_column]
    for column in columns:
        # `datasets` keeps values of several kinds as JSON, in which every text would have quotes.
        if column in rows.column_names and type(rows.features[column]).__name__ == "Json":
            values = rows[column][:EXAMPLES]
            kinds = {type(value).__name__: value for value in values if value is not None}
            raise ValueError(
                f"{[str(path) for path in files]}: column {column!r} holds values of several kinds "
                f"({', '.join(f'{kind} {value!r}' for kind, value in kinds.items())[:120]}); write all of them in one."
            )


def listing(folder: Path) -> list[str]:
    """The first names in a folder, for an error message."""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    more = len(names) - MOST_LISTED
    return [*names[:MOST_LISTED], f"... and {more} more"] if more > 0 else names


def _candidate_folders(spec: RowsSpec, root: Path) -> list[Path]:
    """Return the folders that the splits may lie in, the nearest first."""
    family, _, short = spec.name.rpartition("/")
    own_names = {short.lower(), *(name.lower() for name in spec.folder_names)}
    parents = [root] + [path for path in sorted(root.iterdir()) if path.is_dir() and path.name.lower() == family]
    below = [path for parent in parents for path in sorted(parent.iterdir()) if path.name.lower() in own_names]
    folders = [path for path in [root, *below] if path.is_dir()]
    return [place for folder in folders for place in (folder, folder / "data") if place.is_dir()]


def _complete(files: list[Path]) -> list[Path]:
    """Check that every shard is there; an unsharded file wins over shards of the same split."""
    whole = [path for path in files if "-of-" not in path.stem]
    if whole:
        return whole[:1]
    total = int(re.search(r"-of-(\d{5})", files[0].stem).group(1))  # type: ignore[union-attr]
    if len(files) != total:
        raise FileNotFoundError(
            f"{str(files[0].parent)!r} has {len(files)} of {total} shards: {[path.name for path in files]}."
        )
    return files


def _csv_options(path: Path, spec: RowsSpec) -> dict[str, object]:
    """Options that read every cell as it is written: text, with no quoting in tab-separated files (the GLUE rule)."""
    separator, quoted = separator_of_table(path), path.suffix.lower() == ".csv"
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if quoted:
            header = next(csv.reader(stream, delimiter=separator), [])
        else:
            header = stream.readline().rstrip("\r\n").split(separator)
    # A column without a name, such as pandas' index, has this one there.
    header = [name or f"Unnamed: {place}" for place, name in enumerate(header)]
    known = {
        *spec.text_columns,
        spec.label_column,
        *(name for names in spec.column_aliases.values() for name in names),
    }
    options: dict[str, object] = {
        "sep": separator,
        "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        "encoding": "utf-8-sig",
        "keep_default_na": False,
    }
    if spec.headerless_columns and not known & set(header):
        header = list(spec.headerless_columns)
        options["column_names"] = header
    return options | {"features": Features({name: Value("string") for name in header})}


HELD_OUT_SEED = 42

# Data set, configuration, revision -> splits.
HubLoader = Callable[[str, str | None, str | None], dict[str, Dataset]]


def read_local(folder: Path, spec: RowsSpec, splits: Sequence[str]) -> dict[str, list[Dataset]]:
    """The rows of every split that the folder has: its own file, or else all of its sources.

    Raises:
        FileNotFoundError: If some sources of a split are there and others are not.
    """
    found = {split: [rows] for split, rows in read_folder(folder, spec, splits).items()}
    for split in splits:
        if split in found:
            continue
        files = {text: source_files(folder, spec, source) for text, source in sources_of(spec, split).items()}
        missing = [text for text, paths in files.items() if not paths]
        if missing and len(missing) < len(files):
            raise FileNotFoundError(
                f"Split {split!r} of task {spec.name!r} is made of {list(files)}; {str(folder)!r} lacks {missing}, "
                f"found {listing(folder)}."
            )
        if files and not missing:
            found[split] = [read_files(paths, spec) for paths in files.values()]
    return found


def read_hub(spec: RowsSpec, splits: Sequence[str], load: HubLoader) -> tuple[dict[str, list[Dataset]], list[str]]:
    """The rows of every split that the task's data sets on the Hub have, and the names of all splits there.

    Args:
        spec: The task.
        splits: Splits that are wanted.
        load: Reads one configuration of one data set.
    """
    known: dict[tuple[str, str | None, str | None], dict[str, Dataset]] = {}
    found: dict[str, list[Dataset]] = {}
    for split in splits:
        sources = list(sources_of(spec, split).values()) or [SplitSource(split)]
        parts = []
        for source in sources:
            own = source.hub_path is None
            config = source.config or (spec.hub_config if own else None)
            key = (str(spec.hub_path if own else source.hub_path), config, spec.hub_revision if own else None)
            if key not in known:
                known[key] = load(*key)
            names = (source.split, *spec.split_aliases.get(source.split, ()), *COMMON_ALIASES.get(source.split, ()))
            there = [name for name in names if name in known[key]]
            if there:
                parts.append(known[key][there[0]])
        if len(parts) == len(sources):
            found[split] = parts
    return found, sorted({split for loaded in known.values() for split in loaded})


def join_parts(parts: Sequence[Dataset], spec: TaskSpec) -> Dataset:
    """Normalised parts as one split; a row that several have counts once where the task says so."""
    if len(parts) == 1:
        return parts[0]
    columns = [*spec.text_columns, *spec.choice_columns, spec.label_column]
    if any(part.features != parts[0].features for part in parts):
        parts = [part.select_columns(columns) for part in parts]
    rows = concatenate_datasets(list(parts))
    if not spec.merge_duplicates:
        return rows
    values = list(zip(*(rows[column] for column in columns), strict=True))
    first = {row: number for number, row in reversed(list(enumerate(values)))}
    return rows.select(sorted(first.values()))


def hold_out(rows: Dataset, share: float, text_columns: Sequence[str]) -> tuple[Dataset, Dataset]:
    """Training rows, and about the share of them that is held out: the same rows every time.

    Of a text all rows are held out or none, so that no model is scored on a text that it has learnt.

    Args:
        rows: The rows.
        share: Of the rows; a little more where texts come again.
        text_columns: Columns of the texts; those that are not there do not count.
    """
    places = Dataset.from_dict({"place": range(len(rows))})
    drawn = places.train_test_split(test_size=share, seed=HELD_OUT_SEED)
    kept, held_out = (drawn[name]["place"][:] for name in ("train", "test"))
    columns = [column for column in text_columns if column in rows.column_names]
    if columns:
        texts = texts_of_rows(rows, columns)
        seen = {texts[place] for place in held_out}
        held_out += [place for place in kept if texts[place] in seen]
        kept = [place for place in kept if texts[place] not in seen]
    return rows.select(kept), rows.select(held_out)


def texts_of_rows(rows: Dataset, text_columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The texts of every row, without case and spacing: rows that have the same are rows of one text."""
    columns = (rows[column] for column in text_columns)
    return [tuple(" ".join(str(text).split()).casefold() for text in row) for row in zip(*columns, strict=True)]
