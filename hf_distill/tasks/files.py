"""Finds and reads the splits of a task: from files, or joined from other splits (`TaskSpec.split_sources`)."""

from __future__ import annotations

import csv
import glob
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    LargeList,
    List,
    Value,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)

from hf_distill.storage.files import DamagedFileError
from hf_distill.storage.tables import (
    check_rows_of_json,
    encoding_hint,
    form_of_table,
    says_no_rows,
    stem_of,
    suffix_of,
)
from hf_distill.tasks.catalogue.generation import GenerationSpec
from hf_distill.tasks.json_files import read_json_document
from hf_distill.tasks.spec import TaskSpec

logger = logging.getLogger(__name__)

# Both kinds of spec name their splits, files and columns in the same way.
RowsSpec = TaskSpec | GenerationSpec

# In order of preference, where a split exists in several formats.
READERS = {
    **{".parquet": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json"},
    **{".tsv": "csv", ".csv": "csv", ".txt": "csv"},
}
COMMON_ALIASES = {"validation": ("dev", "valid", "val")}
EXAMPLES = 1000
MOST_LISTED = 20
# Files that mark a folder of `save_to_disk`: with several splits, and with one.
SAVED_BY_DATASETS = ("dataset_dict.json", "state.json")


@dataclass(frozen=True)
class SplitSource:
    """One split of a data set.

    Attributes:
        split: Its name in that data set.
        config: Configuration on the Hub; for local files a folder below the task's own.
        hub_path: The data set, if it is not the task's own; for local files a folder of that name, below the task's
            folder or beside it.
    """

    split: str
    config: str | None = None
    hub_path: str | None = None


def sources_of(spec: RowsSpec, split: str) -> dict[str, SplitSource]:
    """Return the sources that are joined to a split, parsed from the spec: `train_r1`, `rajpurkar/squad:train`."""
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


def find_task_folder(spec: RowsSpec, data_dir: str | Path, flag: str = "--data_dir") -> Path:
    """The folder with the task's splits: `data_dir` itself, or a folder below it that has the task's name.

    Raises:
        FileNotFoundError: If `data_dir` is not a folder, or no split of the task is found in any of these places.
    """
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"`{flag}` {str(data_dir)!r} is not a folder.")
    candidates = _candidate_folders(spec, root)
    wanted = (spec.train_split, *spec.evaluation_splits)
    parts = [source for split in wanted for source in sources_of(spec, split).values() if source.hub_path is None]
    for folder in candidates:
        if is_saved(folder) or any(split_files(folder, spec, split) for split in wanted):
            return folder
        if any(source_files(folder, spec, source) for source in parts):
            return folder
    raise FileNotFoundError(
        f"No split of task {spec.name!r} is in {str(root)!r} (looked in {[str(item) for item in candidates]}). "
        f"Needed are files such as {wanted[0]}.parquet and {wanted[1]}.jsonl ({', '.join(READERS)}); "
        f"found: {listing(root)}. `--evaluation_splits` names other splits."
    )


def split_files(folder: Path, spec: RowsSpec, split: str) -> list[Path]:
    """The files of one split, with shards in order; empty if there are none.

    Raises:
        FileNotFoundError: If shards are missing.
    """
    stems = (split, *spec.split_aliases.get(split, ()), *COMMON_ALIASES.get(split, ()))
    for stem in stems:
        by_suffix: dict[str, list[Path]] = {}
        pattern = re.compile(re.escape(stem) + r"(-\d{5}-of-\d{5}(-[0-9a-f]+)?)?", flags=re.IGNORECASE)
        for path in sorted(folder.iterdir()):
            if suffix_of(path) in READERS and pattern.fullmatch(stem_of(path)) and path.is_file():
                by_suffix.setdefault(suffix_of(path), []).append(path)
        if by_suffix:
            suffix = min(by_suffix, key=list(READERS).index)
            if len(by_suffix) > 1:
                logger.warning(f"Split {split!r} is in {str(folder)!r} as {sorted(by_suffix)}; reading {suffix}.")
            return _complete(by_suffix[suffix])
    return []


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of `datasets`."""
    return any((folder / name).is_file() for name in SAVED_BY_DATASETS)


def lacks_validation_rows(folder: Path, spec: RowsSpec) -> bool:
    """Whether a folder has training rows, and no other rows except test splits; notes (.txt) do not count."""
    known = [spec.train_split, *spec.test_splits]
    if is_saved(folder):
        saved = load_from_disk(str(folder))
        return not isinstance(saved, DatasetDict) or (spec.train_split in saved and set(saved) <= set(known))
    files = {split: split_files(folder, spec, split) for split in known}
    mine = {path for paths in files.values() for path in paths}
    return bool(files[spec.train_split]) and not any(
        suffix_of(path) in READERS and suffix_of(path) != ".txt" and path not in mine for path in folder.iterdir()
    )


def read_folder(folder: Path, spec: RowsSpec, splits: Iterable[str]) -> dict[str, Dataset]:
    """Read those of the given splits that the folder has; a data set without splits is the training split."""
    if is_saved(folder):
        saved = load_from_disk(str(folder))
        saved = saved if isinstance(saved, DatasetDict) else DatasetDict({spec.train_split: saved})
        return {split: saved[split] for split in splits if split in saved}
    found = {split: split_files(folder, spec, split) for split in splits}
    return {split: read_files(files, spec) for split, files in found.items() if files}


def read_files(files: Sequence[Path], spec: RowsSpec) -> Dataset:
    """Read the files of one split, all of one format, into one data set.

    Raises:
        ValueError: If a file cannot be read in the format that its name says.
    """
    kind, names = READERS[suffix_of(files[0])], [str(path) for path in files]
    try:
        rows = _read(files, kind, spec)
    except DamagedFileError:
        raise
    except Exception as error:
        if not any(path.stat().st_size for path in files):
            raise ValueError(f"{names} are empty.") from error
        reason = error.__cause__ or error
        if says_no_rows(reason):
            raise ValueError(f"{names} hold no rows.") from error
        said = " ".join(str(reason).split())
        raise ValueError(
            f"{names} could not be read as {kind} ({type(reason).__name__}: {said})." + encoding_hint(files[0], reason)
        ) from error
    columns = [*spec.text_columns, *getattr(spec, "choice_columns", ()), spec.label_column]
    check_kinds(rows, columns, str(names))
    return _with_plain_types(rows)


def _read(files: Sequence[Path], kind: str, spec: RowsSpec) -> Dataset:
    """The rows of files of one format, as the library for that format reads them."""
    options: dict[str, Any] = {}
    if kind == "json":
        for path in files:
            check_rows_of_json(path)
        documents = [read_json_document(path) for path in files if path.suffix.lower() == ".json"]
        if documents and None not in documents:
            return concatenate_datasets(documents)
    elif kind == "csv":
        options = _csv_options(files, spec)
    # Brackets and stars in a file name must not act as a pattern.
    return load_dataset(kind, data_files=[glob.escape(str(path)) for path in files], split="train", **options)


def _with_plain_types(rows: Dataset) -> Dataset:
    """Convert `large_list` and `large_string` columns, which polars writes, to the usual list and string types."""
    plain = {name: _plain_type(feature) for name, feature in rows.features.items()}
    return rows if plain == dict(rows.features) else rows.cast(Features(plain))


def _plain_type(feature: Any) -> Any:
    if isinstance(feature, dict):
        return {name: _plain_type(one) for name, one in feature.items()}
    if isinstance(feature, (List, LargeList)):
        return List(_plain_type(feature.feature), length=getattr(feature, "length", -1))
    return Value("string") if feature == Value("large_string") else feature


def check_kinds(rows: Dataset, columns: Iterable[str], where: str) -> None:
    """Refuse columns in which the rows of JSON lines have values of several types, such as texts and numbers.

    Args:
        rows: The rows.
        columns: The task's columns.
        where: Description of the source, for the error message.

    Raises:
        ValueError: If one of the task's columns has values of several types.
    """
    for column in columns:
        # `datasets` stores values of several types as JSON, in which every text would get quotation marks.
        if column in rows.column_names and type(rows.features[column]).__name__ == "Json":
            values = rows[column][:EXAMPLES]
            kinds = {type(value).__name__: value for value in values if value is not None}
            raise ValueError(
                f"{where}: column {column!r} holds values of several kinds "
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
    """Check that every shard is there; an unsharded file takes precedence over shards of the same split."""
    whole = [path for path in files if "-of-" not in path.stem]
    if whole:
        return whole[:1]
    total = int(re.search(r"-of-(\d{5})", files[0].stem).group(1))  # type: ignore[union-attr]
    if len(files) != total:
        raise FileNotFoundError(
            f"{str(files[0].parent)!r} has {len(files)} of {total} shards: {[path.name for path in files]}."
        )
    return files


def _csv_options(files: Sequence[Path], spec: RowsSpec) -> dict[str, Any]:
    """Reader options under which every cell is read as text, exactly as it is written.

    Raises:
        DamagedFileError: If a file is not a table, or the files are written in different ways.
    """
    forms = [form_of_table(path) for path in files]
    first = forms[0]
    # This is the name that the reader gives a column without a name, such as pandas' index.
    header = [name or f"Unnamed: {place}" for place, name in enumerate(first.header)]
    known = {
        *spec.text_columns,
        spec.label_column,
        *(name for names in spec.column_aliases.values() for name in names),
    }
    options: dict[str, Any] = {"encoding": "utf-8-sig", "keep_default_na": False}
    if spec.headerless_columns and not known & set(header):
        header = options["column_names"] = list(spec.headerless_columns)
    for form in forms:
        form.check(options.get("column_names"))
        if form.separator != first.separator:
            raise DamagedFileError(f"{form.path!r} has other separators than {first.path!r}: write both alike.")
    quoting = csv.QUOTE_MINIMAL if all(form.quoted for form in forms) else csv.QUOTE_NONE
    features = Features({name: Value("string") for name in header})
    escape = next((form.escape for form in forms if form.escape), None)
    if escape is not None:
        options |= {"escapechar": escape, "doublequote": False}
    return options | {"sep": first.separator, "quoting": quoting, "features": features}


# Share of a user's rows that is held out for validation, and the seed for drawing all held-out rows.
HELD_OUT, HELD_OUT_SEED = 0.2, 42

# Data set, configuration, revision -> splits.
HubLoader = Callable[[str, str | None, str | None], dict[str, Dataset]]


def read_local(folder: Path, spec: RowsSpec, splits: Sequence[str]) -> dict[str, list[Dataset]]:
    """The rows of every split that the folder has: from the split's own file, or from all of its sources.

    Raises:
        FileNotFoundError: If only some of the sources of a split exist.
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
    """The rows of every split that the task's Hub data sets have, and the names of all splits there.

    Args:
        spec: The task.
        splits: The splits to read.
        load: Function that reads one configuration of one data set.
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
    """Concatenate the normalised parts of a split; if the spec says so, rows in several parts are kept once."""
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
    """Split rows into training rows and held-out rows, about `share` of them; deterministic.

    All rows with the same text stay on the same side, so that no model is scored on a text from its training.

    Args:
        rows: The rows.
        share: Share of the texts to hold out.
        text_columns: Columns of the texts; missing ones are ignored.
    """
    columns = [column for column in text_columns if column in rows.column_names]
    texts: Sequence[Any] = texts_of_rows(rows, columns) if columns else range(len(rows))
    places: dict[Any, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    groups = Dataset.from_dict({"places": list(places.values())})
    if len(groups) < 2:
        return rows, rows.select([])
    drawn = groups.train_test_split(test_size=share, seed=HELD_OUT_SEED)
    kept, held_out = ([place for group in drawn[name]["places"] for place in group] for name in ("train", "test"))
    return rows.select(kept), rows.select(held_out)


def texts_of_rows(rows: Dataset, text_columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The texts of every row, with case and spacing normalised, for finding rows that have the same text."""
    columns = (rows[column] for column in text_columns)
    return [tuple(" ".join(str(text).split()).casefold() for text in row) for row in zip(*columns, strict=True)]


def drop_rows_without_text(rows: Dataset, columns: Sequence[str], *, is_training: bool, where: str) -> Dataset:
    """Drop and count training rows without a text; other splits keep them, because dropping would change the score.

    A row has no text if one of its text columns is missing (null), or all of them are blank.

    Args:
        rows: Rows of a split.
        columns: Columns that must hold a text.
        is_training: Whether this is the training split.
        where: Split and task, for messages.

    Raises:
        ValueError: If a text is missing (null) in another split.
    """
    texts = [rows.with_format("arrow")[column][:] for column in columns]
    null = np.any([text.is_null().to_numpy() for text in texts], axis=0)
    lacking = null | np.all([_is_blank(text) for text in texts], axis=0)
    empty = [column for column, text in zip(columns, texts, strict=True) if text.null_count]
    if empty and not is_training:
        raise ValueError(
            f"{where}: {null.sum()} rows have no text in {empty}. Mend them in the source; leaving them out would "
            "change the score."
        )
    lost = int(lacking.sum())
    if not lost:
        return rows
    if not is_training:
        logger.warning(f"{where}: {lost} rows have a blank text in {list(columns)}; they are scored like all others.")
        return rows
    logger.warning(f"{where}: {lost} training rows without a text in {empty or list(columns)} were left out.")
    return rows.select((~lacking).nonzero()[0])


def _is_blank(text: pa.ChunkedArray) -> np.ndarray:
    """Boolean mask of texts that are null or blank."""
    if text.type not in (pa.string(), pa.large_string()):
        return text.is_null().to_numpy()
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(text), ""), True).to_numpy()
