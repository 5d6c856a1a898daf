"""Rows of multiple choice: checked, and tokenized as one pair of texts for each choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasets import Dataset, List, Value

from hf_distill.tasks.labels import cast_column
from hf_distill.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def normalise_choices(rows: Dataset, spec: TaskSpec, *, split: str) -> Dataset:
    """Convert the choices to texts in the task's columns; rows of other kinds of tasks are returned unchanged.

    Raises:
        ValueError: If a row has a different number of choices than the task, or a choice without a text.
    """
    for column in spec.choice_columns:
        wanted = Value("string") if len(spec.choice_columns) > 1 else List(Value("string"))
        if not isinstance(rows.features[column], type(wanted)):
            raise ValueError(
                f"Split {split!r} of task {spec.name!r}: column {column!r} must hold {wanted}, it holds "
                f"{rows.features[column]} (one choice column holds lists, several hold a choice each)."
            )
        rows = cast_column(rows, column, wanted, spec=spec, split=split)
    for number, choices in enumerate(choices_of(rows[:], spec) if spec.choice_columns else ()):
        if len(choices) != spec.num_labels or None in choices:
            raise ValueError(
                f"Split {split!r} of task {spec.name!r}: row {number} has the choices {choices}, the task needs "
                f"{spec.num_labels} texts."
            )
    return rows


def choices_of(batch: dict[str, list[Any]], spec: TaskSpec) -> list[list[str]]:
    """The choices of every row, in order."""
    if len(spec.choice_columns) == 1:
        return batch[spec.choice_columns[0]]
    return [list(row) for row in zip(*(batch[column] for column in spec.choice_columns), strict=True)]


def encode_choices(
    batch: dict[str, list[Any]],
    indices: list[int],
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> dict[str, list[Any]]:
    """Tokenize the context with every choice, for every row.

    Returns:
        The tokenizer's outputs as lists of `num_labels` sequences for each row, `labels` and `length` (the longest
        choice). If the task has a second text, every choice continues it.
    """
    choices = choices_of(batch, spec)
    beginnings = batch[spec.text_columns[1]] if len(spec.text_columns) > 1 else [""] * len(choices)
    contexts = [text for text, row in zip(batch[spec.text_columns[0]], choices, strict=True) for _ in row]
    endings = [
        f"{beginning} {choice}".strip() for beginning, row in zip(beginnings, choices, strict=True) for choice in row
    ]
    encoded = tokenizer(contexts, endings, truncation=True, max_length=max_length)
    size = spec.num_labels
    rows = {
        name: [values[start : start + size] for start in range(0, len(values), size)]
        for name, values in encoded.items()
    }
    lengths = [max(map(len, row)) for row in rows["input_ids"]]
    return {**rows, "labels": batch[spec.label_column], "length": lengths}
