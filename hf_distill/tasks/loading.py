"""Loads the splits of a task from local files or the Hub, with labels in the task's own order."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from datasets import ClassLabel, Dataset, DatasetDict, Value, load_dataset

from hf_distill.hub.data_sets import UnreadableDataSetError, read_data_set
from hf_distill.storage.plain_values import did_you_mean
from hf_distill.tasks.catalogue.registry import get_task, is_registered
from hf_distill.tasks.custom import TASK_FILE, custom_spec, is_described
from hf_distill.tasks.files import (
    RowsSpec,
    drop_rows_without_text,
    find_task_folder,
    hold_out,
    join_parts,
    listing,
    read_hub,
    read_local,
)
from hf_distill.tasks.label_names import is_generic, order_by_name
from hf_distill.tasks.labels import (
    HIDDEN_TEXTS,
    cast_column,
    drop_labels,
    hide_labels,
    normalise_labels,
    visible_labels,
)
from hf_distill.tasks.one_file import WITH_COLUMNS, is_one_file, read_one_file, refuse_other_files
from hf_distill.tasks.rows.choices import normalise_choices
from hf_distill.tasks.rows.preprocessing import preprocess_rows
from hf_distill.tasks.rows.questions import has_answers, normalise_questions
from hf_distill.tasks.rows.text import checksum_of_rows
from hf_distill.tasks.rows.words import normalise_words
from hf_distill.tasks.several_labels import normalise_several, splits_hold_places
from hf_distill.tasks.spec import TaskSpec

logger = logging.getLogger(__name__)

# Metrics of the second class alone: the names decide which class that is.
NAME_METRICS = ("f1",)


@dataclass(frozen=True)
class LoadedRows:
    """The splits of a task of any kind.

    Attributes:
        spec: The task.
        dataset: Its splits.
        source: The folder or Hub data set that the rows come from.
    """

    spec: RowsSpec
    dataset: DatasetDict
    source: str

    @property
    def train(self) -> Dataset:
        """The training rows.

        Raises:
            ValueError: If the training split was not loaded.
        """
        return self.split(self.spec.train_split)

    @property
    def evaluation(self) -> dict[str, Dataset]:
        """The evaluation splits that were loaded, the headline split first."""
        return {split: self.dataset[split] for split in self.spec.evaluation_splits if split in self.dataset}

    def split(self, name: str) -> Dataset:
        """Return one split by name.

        Raises:
            ValueError: If it was not loaded.
        """
        if name not in self.dataset:
            raise ValueError(
                f"Task {self.spec.name!r} was loaded from {self.source!r} without the split {name!r}; "
                f"there are {sorted(self.dataset)}."
            )
        return self.dataset[name]

    def subset(
        self, max_train_samples: int | None = None, max_eval_samples: int | None = None, seed: int = 42
    ) -> Self:
        """Limit the number of training rows and of rows per evaluation split; the rows are drawn with `seed`.

        Raises:
            ValueError: If a number is not positive.
        """
        limits = {self.spec.train_split: ("--max_train_samples", max_train_samples)}
        limits |= {split: ("--max_eval_samples", max_eval_samples) for split in self.spec.evaluation_splits}
        splits = {name: _sample(rows, *limits.get(name, ("", None)), seed) for name, rows in self.dataset.items()}
        return dataclasses.replace(self, dataset=DatasetDict(splits))

    def checksum(self) -> str:
        """Return a checksum of the rows of all splits; the order of rows matters."""
        return " ".join(f"{split} {checksum_of_rows(rows)}" for split, rows in self.dataset.items())


@dataclass(frozen=True)
class LoadedTask(LoadedRows):
    """A task with its rows.

    Attributes:
        spec: The task.
        dataset: Splits with the text columns, the label column, and `idx` or `id` where the source has them. The label
            column is a `ClassLabel` in the order of `spec.label_names` with -1 for hidden labels, lists of these for
            words, `float32` for regression, or the answers of questions.
        source: The folder or Hub data set that the rows come from.
    """

    spec: TaskSpec


def load_task(
    task: str | TaskSpec,
    data_dir: str | Path | None = None,
    spec: TaskSpec | None = None,
    *,
    splits: Sequence[str] | Literal["evaluation"] | None = None,
    flag: str = "--task",
    to_score: bool = False,
    **fields: Any,
) -> LoadedTask:
    """Load a task with its rows.

    Args:
        task: A registered name (`glue/sst2`, `sst2`), a spec, a file with your own rows (see
            `hf_distill.tasks.one_file`), or a folder with such files. The columns of a folder are guessed, unless
            `fields` or a `task.yaml` in the folder (with fields of `TaskSpec`) name them.
        data_dir: Local files of a registered task: the task's own folder, or a parent that holds `sst2/`, `SST-2/` or
            `glue/sst2/`. `None` loads from the Hub.
        spec: A spec to use in place of the one registered under the name, or for the folder.
        splits: Splits that must exist: names, or `"evaluation"` for all evaluation splits; by default the evaluation
            splits and the training split. Other splits of the task are loaded if they exist.
        flag: The flag that named the task, for error messages.
        to_score: Whether all rows of a file without a `split` column are evaluation rows; by default a fifth is held
            out.
        fields: Fields of `TaskSpec` to override (`text_columns`, `label_column`, `label_names`, `evaluation_splits`,
            ...). `None` means "not given".

    Raises:
        FileNotFoundError: If files or splits are missing.
        ValueError: If the name is unknown, or columns or labels do not fit the task.
    """
    given = {key: value for key, value in fields.items() if value is not None}
    if "label_names" in given:
        given.setdefault("names_unverified", False)
    if isinstance(task, TaskSpec):
        spec, name = spec or task, task.name
    else:
        name = str(task)
    raw: dict[str, list[Dataset]] = {}
    folder = Path(data_dir).expanduser() if data_dir is not None else None
    if folder is None and not is_registered(name) and Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
    if spec is None and is_one_file(name):
        spec, raw = _read_file(name, given, flag, folder, to_score=to_score)
    elif spec is None:
        spec = _resolve_spec(name, folder, given, flag)
    elif given:
        spec = TaskSpec.from_dict(spec.to_dict() | given)
    if splits == "evaluation":
        needed = spec.evaluation_splits
    else:
        needed = (spec.train_split, *spec.evaluation_splits) if splits is None else tuple(splits)
    wanted = tuple(dict.fromkeys((*needed, spec.train_split, *spec.evaluation_splits, *spec.test_splits)))
    source, found = name, list(raw)
    if not raw:
        raw, source, found = read_splits(spec, folder, wanted, _flag_of_files(flag))
    spec = _known_names(spec, raw.get(spec.train_split) or next(iter(raw.values()), []), source, given.get("metrics"))
    _hold_out(raw, spec, source)
    missing = [split for split in needed if split not in raw]
    if missing:
        raise FileNotFoundError(
            f"Task {spec.name!r} needs the splits {list(needed)}, but {source!r} lacks {missing}; found {found}. "
            "`--evaluation_splits` names others."
        )
    raw = {split: [rename_columns(part, spec) for part in raw[split]] for split in wanted if split in raw}
    _doubt_numbers(raw, spec, is_said=is_registered(name) or "label_names" in given)
    places = spec.several_labels and splits_hold_places(raw, spec)
    dataset = DatasetDict(
        {
            split: join_parts([_normalise(part, spec, split, source, places=places) for part in parts], spec)
            for split, parts in raw.items()
        }
    )
    return LoadedTask(spec=spec, dataset=dataset, source=source)


def _read_file(
    name: str, fields: dict[str, Any], flag: str, data_dir: Path | None, *, to_score: bool
) -> tuple[TaskSpec, dict[str, list[Dataset]]]:
    """Read the task of one file; if the verb has no flags for columns, an error message says so."""
    if data_dir is not None:
        given = f"`{_flag_of_files(flag)}` {str(data_dir)!r}"
        raise ValueError(f"{given} is for registered tasks, but `{flag}` {name!r} is a file.")
    try:
        return read_one_file(name, fields, flag, to_score=to_score)
    except ValueError as error:
        if flag in WITH_COLUMNS:
            raise
        raise ValueError(
            f"{error} Beside `{flag}` there are no such flags: rename the columns of the file, or give a folder with "
            f"files and a {TASK_FILE} that names them."
        ) from error


def load_tasks(
    names: Sequence[str], data_dir: str | Path | None = None, *, flag: str = "--tasks", **fields: Any
) -> list[LoadedTask]:
    """Load several tasks with `load_task`.

    Args:
        names: Registered names, files, or folders of your own.
        data_dir: Local files of the registered tasks.
        flag: The flag that named the tasks, for error messages.
        fields: Fields of `TaskSpec` for tasks without another description: files, and folders without a `task.yaml`.

    Raises:
        FileNotFoundError: If files or splits are missing.
        ValueError: If fields are given but no task can take them, or two tasks have the same name; or as `load_task`.
    """
    described = [name for name in names if not takes_columns(name)]
    if fields and len(described) == len(names):
        raise ValueError(
            "`--text_columns`, `--label_column` and the other flags of columns are about files and folders of your "
            f"own without a {TASK_FILE}, but none of `{flag}` {list(names)} is one."
        )
    loaded: dict[str, LoadedTask] = {}
    for name in names:
        own = not is_registered(name) and Path(name).expanduser().exists()
        task = load_task(name, None if own else data_dir, flag=flag, **({} if name in described else fields))
        if task.spec.name in loaded:
            raise ValueError(
                f"`{flag}` {list(names)}: two of them have the name {task.spec.name!r}; rename the file or folder of "
                "one."
            )
        loaded[task.spec.name] = task
    return list(loaded.values())


def takes_columns(name: str) -> bool:
    """Whether flags can name the columns of a task: it is a file, or a folder without a `task.yaml`."""
    path = Path(name).expanduser()
    return is_one_file(name) or (not is_registered(name) and path.is_dir() and not (path / TASK_FILE).is_file())


def _resolve_spec(name: str, folder: Path | None, fields: dict[str, Any], flag: str) -> TaskSpec:
    """The registered task of that name, or the task of the folder, with `fields` applied."""
    if folder is not None and not is_registered(name) and is_described(name, folder, fields):
        return custom_spec(name, folder, fields)
    if not is_registered(name):
        refuse_other_files(name, flag)
    spec = get_task(name, flag)
    return TaskSpec.from_dict(spec.to_dict() | fields) if fields else spec


def _flag_of_files(flag: str) -> str:
    """The flag for the files of a task that `flag` names."""
    return "--eval_task_dir" if flag == "--eval_task" else "--data_dir"


def read_splits(
    spec: RowsSpec, folder: Path | None, wanted: Sequence[str], flag: str = "--data_dir"
) -> tuple[dict[str, list[Dataset]], str, list[str]]:
    """The parts of every split as the source has them, the source's name, and the names of the splits found there.

    `flag` is the flag of the folder, for error messages.

    Raises:
        FileNotFoundError: If the source has no such task.
    """
    if folder is not None:
        task_folder = find_task_folder(spec, folder, flag)
        return read_local(task_folder, spec, wanted), str(task_folder), listing(task_folder)
    if spec.hub_path is None:
        raise FileNotFoundError(f"Task {spec.name!r} has no Hub data set: give its folder with `{flag}`.")
    source = spec.hub_path if spec.hub_config is None else f"{spec.hub_path} ({spec.hub_config})"
    try:
        found, names = read_hub(spec, wanted, partial(read_data_set, load_dataset, flag=flag))
    except UnreadableDataSetError as error:
        raise FileNotFoundError(f"Task {spec.name!r} cannot be loaded from the Hub: {error}.") from error
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"Task {spec.name!r} could not be loaded from the Hub data set {source}: {' '.join(str(error).split())}. "
            f"Without network, give a folder with its files: `{flag}`."
        ) from error
    return found, source, names


def _known_names(
    spec: TaskSpec, parts: Sequence[Dataset], source: str, asked_metrics: Sequence[str] | None = None
) -> TaskSpec:
    """Replace class names that were never verified by those of the rows.

    If the rows only number their classes, the numbers become the names; metrics that depend on which class is which
    are then left out, with a warning.

    Args:
        spec: The task.
        parts: Rows of one of its splits, as the source has them.
        source: Where they come from, for messages.
        asked_metrics: The metrics that the user named.

    Raises:
        ValueError: If a metric that depends on names was asked for, or is the task's main one.
    """
    if not spec.names_unverified or spec.label_names is None or not parts:
        return spec
    found = _names_in_rows(rename_columns(parts[0], spec), spec)
    if found is not None and order_by_name(found, spec.label_names) is not None:
        return dataclasses.replace(spec, names_unverified=False)
    if found is not None:
        logger.warning(f"The classes of task {spec.name!r} are named as in the rows of {source}: {found}.")
        return dataclasses.replace(spec, label_names=tuple(found), label_aliases={}, names_unverified=False)
    numbers = tuple(map(str, range(spec.num_labels)))
    depending = [metric for metric in spec.metrics if metric in NAME_METRICS]
    known = f"The rows of {source} number the classes of task {spec.name!r} and do not name them"
    if set(depending) & {spec.headline, *(asked_metrics or ())}:
        raise ValueError(
            f"{known}, so the metrics {depending} cannot tell which class counts: name them in the order of their "
            "numbers with `--class_names`."
        )
    left_out = f"; {', '.join(depending)} is left out" if depending else ""
    logger.warning(f"{known}: {', '.join(numbers)} are their names{left_out}. `--class_names` gives them others.")
    metrics = tuple(metric for metric in spec.metrics if metric not in depending)
    return dataclasses.replace(spec, label_names=numbers, label_aliases={}, metrics=metrics)


def _names_in_rows(rows: Dataset, spec: TaskSpec) -> list[str] | None:
    """The label names in the rows, from the column's type or its texts; in the task's order if they are the same."""
    feature = rows.features.get(spec.label_column)
    if isinstance(feature, ClassLabel):
        return None if is_generic(feature.names) else list(feature.names)
    if feature is not None and feature.dtype == "bool":
        return ["false", "true"]
    if feature is None or feature.dtype not in ("string", "large_string"):
        return None
    shown = {str(value).strip() for value in rows.unique(spec.label_column) if value is not None}
    shown = {text for text in shown if text.casefold() not in HIDDEN_TEXTS}
    if not shown or is_generic(sorted(shown)):
        return None
    names = list(spec.label_names or ())
    if {text.casefold() for text in shown} <= {name.casefold() for name in names}:
        return names
    return sorted(shown)


def _doubt_numbers(raw: dict[str, list[Dataset]], spec: TaskSpec, *, is_said: bool) -> None:
    """Warn where some splits number the classes that others name, and nobody has said in which order."""
    names = [name.casefold() for name in spec.label_names or ()]
    if is_said or spec.kind != "text_classification" or names == ["false", "true"]:
        return
    features = {split: parts[0].features.get(spec.label_column) for split, parts in raw.items()}
    said = {
        split: {str(value).strip().removesuffix(".0") for value in raw[split][0].unique(spec.label_column)}
        for split, feature in features.items()
        if isinstance(feature, Value)
    }
    numbered = [split for split, texts in said.items() if any(map(str.isdecimal, texts)) and not texts & {*names}]
    if numbered and any(text.casefold() in names for texts in said.values() for text in texts):
        logger.warning(
            f"Task {spec.name!r}: the labels of {numbered} are numbers where other splits have names; they are taken "
            f"to count {list(spec.label_names or ())}. `--class_names` says another order."
        )


def _hold_out(raw: dict[str, list[Dataset]], spec: TaskSpec, source: str) -> None:
    """Hold out rows for choosing a checkpoint if the source has no such split but two texts, and the spec says so."""
    split = spec.choice_split
    if spec.held_out_share is None or split in raw or len(raw.get(spec.train_split, ())) != 1:
        return
    rows = rename_columns(raw[spec.train_split][0], spec)
    if spec.kind == "text_classification" and set(spec.text_columns) <= set(rows.column_names):
        where = f"Split {spec.train_split!r} of task {spec.name!r} ({source})"
        rows = drop_rows_without_text(rows, spec.text_columns, is_training=True, where=where)
    # Questions go by their contexts, where there are enough of them.
    texts = spec.text_columns[1:] if spec.is_span else (*spec.text_columns, *spec.choice_columns)
    if spec.is_span and len(set(rows[spec.text_columns[1]])) < 1 / spec.held_out_share:
        texts = spec.text_columns
    train, held_out = hold_out(rows, spec.held_out_share, texts)
    if not held_out:
        return
    raw[spec.train_split], raw[split] = [train], [held_out]
    logger.warning(
        f"Task {spec.name!r} ({source}) has no split {split!r}: {len(held_out)} of {len(train) + len(held_out)} "
        f"training rows are held out for it, always the same ones."
    )


def _normalise(rows: Dataset, spec: TaskSpec, split: str, source: str, *, places: bool) -> Dataset:
    """Reduce rows to the task's columns, with texts as strings and labels in the task's order."""
    rows = preprocess_rows(rows, spec, split=split)
    is_test = split in spec.test_splits
    texts = [*spec.text_columns, *spec.choice_columns]
    needed = texts if is_test else [*texts, spec.label_column]
    missing = [column for column in needed if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r} ({source}) lacks columns {missing}; found {rows.column_names}. "
            "Name them with `--text_columns` and `--label_column`, or in a task.yaml."
            + did_you_mean(missing, rows.column_names)
        )
    kept = [*texts, spec.label_column, "idx", "id"]
    rows = rows.select_columns([column for column in kept if column in rows.column_names])
    if spec.kind == "token_classification":
        rows = normalise_words(rows, spec, split=split)
    elif spec.is_span:
        rows = normalise_questions(rows, spec, split=split)
    else:
        rows = normalise_choices(_normalise_texts(rows, spec, split, source, places=places), spec, split=split)
    if split == spec.train_split and not has_labels(rows, spec):
        raise ValueError(
            f"Split {split!r} of task {spec.name!r} ({source}) has no visible label among {len(rows)} rows."
        )
    return rows


def _normalise_texts(rows: Dataset, spec: TaskSpec, split: str, source: str, *, places: bool) -> Dataset:
    """Texts as strings, labels in the task's order; rows without a text are dropped from the training split."""
    for column in spec.text_columns:
        rows = cast_column(rows, column, Value("string"), spec=spec, split=split)
    rows = drop_rows_without_text(
        rows,
        spec.text_columns,
        is_training=split == spec.train_split,
        where=f"Split {split!r} of task {spec.name!r} ({source})",
    )
    if spec.label_column not in rows.column_names:
        return hide_labels(rows, spec)
    if spec.several_labels:
        rows = normalise_several(rows, spec, split=split, places=places)
    else:
        rows = normalise_labels(rows, spec, split=split)
    return drop_labels(rows, spec, split=split)


def has_labels(rows: Dataset, spec: TaskSpec) -> bool:
    """Whether normalised rows have any known label, to learn from or to score."""
    if spec.is_span:
        return has_answers(rows, spec)
    if spec.kind == "token_classification":
        return any(tag >= 0 for tags in rows[spec.label_column] for tag in tags)
    return bool(visible_labels(rows, spec).any())


def rename_columns(rows: Dataset, spec: RowsSpec) -> Dataset:
    """Rename columns of other distributions to the task's names."""
    for column, aliases in spec.column_aliases.items():
        present = [alias for alias in aliases if alias in rows.column_names]
        if column not in rows.column_names and present:
            rows = rows.rename_column(present[0], column)
    return rows


def _sample(rows: Dataset, flag: str, limit: int | None, seed: int) -> Dataset:
    """Draw at most `limit` rows at random; they keep their order."""
    if limit is None:
        return rows
    if limit < 1:
        raise ValueError(f"`{flag}` must be at least 1, got {limit}.")
    if limit >= len(rows):
        return rows
    import numpy as np

    chosen = np.random.default_rng(seed).choice(len(rows), size=limit, replace=False)
    return rows.select(sorted(chosen.tolist()))
