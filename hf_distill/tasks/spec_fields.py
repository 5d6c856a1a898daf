"""Values of a task's fields, from YAML or JSON to what `TaskSpec` holds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Fields that map a name to names.
MAPPINGS = ("averages", "column_aliases", "label_aliases", "split_aliases", "split_sources")
# Fields that are taken as they are.
PLAIN = (
    "answer_scorer",
    "headline_metric",
    "held_out_share",
    "hub_config",
    "hub_path",
    "hub_revision",
    "kind",
    "label_column",
    "language",
    "licence",
    "max_answer_length",
    "merge_duplicates",
    "name",
    "names_unverified",
    "row_form",
    "train_split",
)


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


def plain_field(key: str, value: Any) -> Any:
    """One field of a spec from its YAML value."""
    if key == "fine_tuning":
        return _fine_tuning(value)
    if key in MAPPINGS:
        return {str(name): _names(key, aliases) for name, aliases in (value or {}).items()}
    if key == "label_range":
        return None if value is None else (float(value[0]), float(value[1]))
    if key == "label_names" and value is None:
        return None
    if key == "split_languages":
        return {str(split): str(language) for split, language in (value or {}).items()}
    if key in PLAIN:
        return value
    return _names(key, value)


def _names(key: str, value: Any) -> tuple[str, ...]:
    """A tuple of names from a YAML list or a single name."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        raise ValueError(f"The task field `{key}` must be a list of names, got {value!r}.")
    return tuple(_label_text(item) for item in value)


def _label_text(value: Any) -> str:
    """Text of a label name; YAML reads unquoted `yes`, `no`, `true` and `1` as other types."""
    if isinstance(value, bool):
        raise ValueError(f"YAML read a label or column name as {value}; put it between quotes.")
    return str(value)


def _fine_tuning(value: Any) -> FineTuningDefaults:
    """Fine-tuning settings from a mapping; `1e-5` may be text, as YAML reads it."""
    if isinstance(value, FineTuningDefaults):
        return value
    known = {item.name: item for item in dataclasses.fields(FineTuningDefaults)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"`fine_tuning` has no fields {unknown}; known are {sorted(known)}.")
    kinds = {"int": int, "float": float, "str": str}
    settings = {key: kinds[str(known[key].type)](item) for key, item in value.items()}
    if any(isinstance(item, float) and not math.isfinite(item) for item in settings.values()):
        raise ValueError(f"`fine_tuning` has a value that is not finite: {settings}.")
    return FineTuningDefaults(**{"source": "the user's task file"} | settings)
