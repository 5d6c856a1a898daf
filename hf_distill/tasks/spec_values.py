"""Fields that specs of tasks share, and their values, from YAML or JSON to what a spec holds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from hf_distill.storage.folders import safe_path
from hf_distill.storage.plain_values import as_fields, as_hint, as_mapping, check_range, shown

# The types of a class's fields; evaluating them anew for every task takes most of the time of the catalogue.
types_of: Callable[[type], dict[str, Any]] = functools.cache(get_type_hints)

# Fields that map a name to names.
MAPPINGS = ("averages", "column_aliases", "label_aliases", "split_aliases", "split_sources")


@dataclass(frozen=True)
class FineTuningDefaults:
    """Fine-tuning settings of a paper, used wherever the user gives none.

    Attributes:
        epochs: Passes over the training split.
        learning_rate: Peak learning rate (linear decay).
        batch_size: Rows per update.
        warmup: Share of the steps spent warming up.
        weight_decay: AdamW weight decay.
        max_length: Tokens per row; longer rows are truncated, contexts of questions are cut into windows.
        doc_stride: Tokens that two windows of one context share.
        source: Where in which paper the values stand.
    """

    epochs: float = 10.0
    learning_rate: float = 2e-5
    batch_size: int = 16
    warmup: float = 0.06
    weight_decay: float = 0.01
    max_length: int = 128
    doc_stride: int = 128
    source: str = "Contextualized Corpus, section 3, training details (fine-tuning; small tasks)"


FINE_TUNING = FineTuningDefaults()


@dataclass(frozen=True, kw_only=True)
class SplitsSpec:
    """The fields of every task that say where its rows are.

    Attributes:
        train_split: Split to train on.
        evaluation_splits: Splits to report, the headline split first.
        test_splits: Splits loaded where they are there; their labels may be hidden.
        hub_path: Data set on the Hub.
        hub_config: Its configuration.
        hub_revision: Branch, tag or commit; `refs/convert/parquet` where the data set is a script, which `datasets`
            no longer runs.
        folder_names: Other names that the task's folder has in known distributions (`SST-2`).
        split_aliases: Split -> other names of its files (`validation` -> `dev`).
        column_aliases: Column -> names it has in other distributions of the same data.
        language: ISO code, for model cards; empty where it is unknown.
        licence: Licence of the data as known.
    """

    train_split: str = "train"
    evaluation_splits: tuple[str, ...] = ("validation",)
    test_splits: tuple[str, ...] = ("test",)
    hub_path: str | None = None
    hub_config: str | None = None
    hub_revision: str | None = None
    folder_names: tuple[str, ...] = ()
    split_aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    column_aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    language: str = "en"
    licence: str | None = None

    @property
    def headline_split(self) -> str:
        """The split that the headline metric is reported on."""
        return self.evaluation_splits[0]

    @property
    def choice_split(self) -> str:
        """The split by which a checkpoint or a model is chosen: not that of the reported scores where there are two.

        The first evaluation split that is no test split; of tasks that only have test splits the headline split.
        """
        return next((name for name in self.evaluation_splits if name not in self.test_splits), self.headline_split)

    def check_names(self, name: str) -> None:
        """Check that names of folders and files do not lead out of the folder that they are read or written in.

        Args:
            name: Name of the task.

        Raises:
            ValueError: If one does.
        """
        names = {"name": (name,), "train_split": (self.train_split,), "evaluation_splits": self.evaluation_splits}
        for key, values in (names | {"test_splits": self.test_splits, "folder_names": self.folder_names}).items():
            for value in values:
                safe_path(value, f"The task field `{key}`")


def plain_field(key: str, value: Any, hint: Any) -> Any:
    """One field of a spec from its YAML value.

    Args:
        key: Name of the field.
        value: Plain data.
        hint: The field's type.

    Raises:
        ValueError: If the value does not fit.
    """
    where = f"The task field `{key}`"
    if key in MAPPINGS:
        given = as_mapping({} if value is None else value, where)
        return {name: _names(names, f"{where}, {name!r}") for name, names in given.items()}
    if key == "split_languages":
        return as_hint({} if value is None else value, hint, where)
    if tuple in (get_origin(hint), *map(get_origin, get_args(hint))) and key != "label_range":
        return None if value is None and type(None) in get_args(hint) else _names(value, where)
    if key == "fine_tuning" and not isinstance(value, FineTuningDefaults):
        return _fine_tuning(value, where)
    return as_hint(value, hint, where)


def _names(value: Any, where: str) -> tuple[str, ...]:
    """A tuple of names from a YAML list or a single name; numbers are names too."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where} must be a list of names, got {shown(value)}.")
    # YAML reads unquoted `yes`, `no`, `true` as booleans.
    wrong = [item for item in value if isinstance(item, bool)]
    if wrong:
        raise ValueError(f"{where}: YAML read a label or column name as {wrong[0]}; put it between quotes.")
    return tuple(as_hint(item, str, where) for item in value)


# Field -> its smallest value; of those that are not listed any will do.
_LEAST = {"epochs": 0, "learning_rate": 0, "batch_size": 1, "warmup": 0, "weight_decay": 0, "max_length": 3}


def _fine_tuning(value: Any, where: str) -> FineTuningDefaults:
    """Fine-tuning settings from a mapping."""
    settings = as_fields(value, types_of(FineTuningDefaults), where)
    for name, least in (_LEAST | {"doc_stride": 0}).items():
        check_range(settings.get(name), f"{where}: `{name}`", least=least)
    return FineTuningDefaults(**{"source": "the user's task file"} | settings)
