"""Splits joined of others: rounds, folds, languages, or those of another data set (`TaskSpec.split_sources`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from hf_distill.tasks.files import (
    COMMON_ALIASES,
    RowsSpec,
    SplitSource,
    listing,
    read_files,
    read_folder,
    source_files,
    sources_of,
)
from hf_distill.tasks.spec import TaskSpec

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


def hold_out(rows: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """Training rows, and the share of them that is held out: the same rows every time."""
    split = rows.train_test_split(test_size=share, seed=HELD_OUT_SEED)
    return split["train"], split["test"]
