"""Fields that all specs share, and the conversion of their values from YAML or JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from hf_distill.storage.folders import safe_path
from hf_distill.storage.plain_values import as_fields, as_hint, as_mapping, check_range, shown

# The type hints of a class, cached: evaluating them for every task would take most of the catalogue's loading time.
types_of: Callable[[type], dict[str, Any]] = functools.cache(get_type_hints)

# Fields that map a name to other names.
MAPPINGS = ("averages", "column_aliases", "label_aliases", "split_aliases", "split_sources")


@dataclass(frozen=True)
class FineTuningDefaults:
    """Fine-tuning settings of a paper, used for everything that the user does not set.

    Attributes:
        epochs: Passes over the training split.
        learning_rate: Peak learning rate (linear decay).
        batch_size: Rows per update.
        warmup: Share of the steps that are warm-up.
        weight_decay: AdamW weight decay.
        max_length: Maximum tokens of a row; longer rows are truncated, contexts of questions are cut into windows.
        doc_stride: Tokens that two windows of one context share.
        source: The place in the paper that gives the values.
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
    """The fields of every task that describe the location of its rows.

    Attributes:
        train_split: Split for training.
        evaluation_splits: Splits whose scores are reported, the headline split first.
        test_splits: Splits that are loaded if they exist; their labels may be hidden.
        hub_path: Data set on the Hub.
        hub_config: Its configuration.
        hub_revision: Branch, tag or commit; `refs/convert/parquet` if the data set is a script, which `datasets` no
            longer runs.
        folder_names: Other names of the task's folder in known distributions (`SST-2`).
        split_aliases: Split -> other names of its files (`validation` -> `dev`).
        column_aliases: Column -> its names in other distributions of the same data.
        language: ISO code, for model cards; empty if unknown.
        licence: Licence of the data, if known.
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
        """The split on which the headline metric is reported."""
        return self.evaluation_splits[0]

    @property
    def choice_split(self) -> str:
        """The split for choosing a checkpoint or a model: if there are two, not the split of the reported scores.

        It is the first evaluation split that is not a test split; if all are test splits, the headline split.
        """
        return next((name for name in self.evaluation_splits if name not in self.test_splits), self.headline_split)

    def check_names(self, name: str) -> None:
        """Check that names of folders and files do not lead out of their parent folder.

        Args:
            name: Name of the task.

        Raises:
            ValueError: If one of them does.
        """
        names = {"name": (name,), "train_split": (self.train_split,), "evaluation_splits": self.evaluation_splits}
        for key, values in (names | {"test_splits": self.test_splits, "folder_names": self.folder_names}).items():
            for value in values:
                safe_path(value, f"The task field `{key}`")


def plain_field(key: str, value: Any, hint: Any) -> Any:
    """Convert one field of a spec from its YAML value.

    Args:
        key: Name of the field.
        value: Plain data.
        hint: The field's type hint.

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
    """A tuple of names from a YAML list or a single name; numbers are accepted as names."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where} must be a list of names, got {shown(value)}.")
    # YAML reads unquoted `yes`, `no`, `true` as booleans.
    wrong = [item for item in value if isinstance(item, bool)]
    if wrong:
        raise ValueError(f"{where}: YAML read a label or column name as {wrong[0]}; put it between quotes.")
    return tuple(as_hint(item, str, where) for item in value)


# Field -> its smallest value; unlisted fields have no limit.
_LEAST = {"epochs": 0, "learning_rate": 0, "batch_size": 1, "warmup": 0, "weight_decay": 0, "max_length": 3}


def _fine_tuning(value: Any, where: str) -> FineTuningDefaults:
    """Make fine-tuning settings from a mapping."""
    settings = as_fields(value, types_of(FineTuningDefaults), where)
    for name, least in (_LEAST | {"doc_stride": 0}).items():
        check_range(settings.get(name), f"{where}: `{name}`", least=least)
    return FineTuningDefaults(**{"source": "the user's task file"} | settings)
