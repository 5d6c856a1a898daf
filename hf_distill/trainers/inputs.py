"""What the two sides read: whose tokenizer, which columns, which collator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import pyarrow.compute as pc
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

from ..alignment import PIECES, Reading, tokenize_aligned
from ..arguments import DistillationArguments
from ..loading import load_tokenizer
from ..stored.teacher import StoredCollator, StoredTeacher, join_rows
from ..teachers import TeacherSource, check_same_vocabulary
from .data import tokenize_text
from .task_models import num_positions
from .wrapper import LABEL_COLUMNS


def check_tokenizer(
    teacher: TeacherSource | None, given: Any, processing_class: Any, teacher_processing_class: Any
) -> None:
    """Compare a tokenizer with that of a teacher, which was `given` as an id or folder, or has its own.

    Raises:
        ValueError: If their vocabularies differ.
    """
    if isinstance(teacher, StoredTeacher):
        if processing_class is not None:
            teacher.check_tokenizer(processing_class)
        return
    if teacher_processing_class is None and isinstance(given, str):
        try:
            teacher_processing_class = load_tokenizer(given, flag="--teacher_model")
        except OSError:
            return  # A folder with weights only: the sizes of the vocabularies are compared all the same.
    if teacher_processing_class is not None and processing_class is not None:
        check_same_vocabulary(teacher_processing_class, processing_class)


def stored_inputs(
    stored: Sequence[StoredTeacher], train_dataset: Any, processing_class: Any, collator: Any
) -> tuple[Any, Any, StoredCollator]:
    """Rows, tokenizer and collator where the signals of teachers are stored; what is given stays as it is."""
    train_dataset = join_rows(stored) if train_dataset is None else train_dataset
    processing_class = stored[0].tokenizer() if processing_class is None else processing_class
    return (
        train_dataset,
        processing_class,
        StoredCollator(stored, collator or DataCollatorWithPadding(processing_class)),
    )


def tokenized(
    dataset: Any,
    processing_class: Any,
    args: DistillationArguments,
    readings: Sequence[Reading],
    keep: Sequence[str],
) -> Any:
    """Tokenize where a data set has a text column and no `input_ids`; anything else stays as it is.

    Args:
        dataset: A data set, or a dict of several.
        processing_class: The student's tokenizer.
        args: Column and length of the text.
        readings: Other ways to read the text, for teachers with other tokenizers.
        keep: Columns that stay beside the tokens.

    Raises:
        ValueError: If there is text but no tokenizer.
    """
    if isinstance(dataset, Mapping) and not isinstance(dataset, datasets.Dataset):
        return {name: tokenized(part, processing_class, args, readings, keep) for name, part in dataset.items()}
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list):
        return dataset
    if "input_ids" in columns and all(reading.prefix + PIECES in columns for reading in readings):
        return dataset
    if processing_class is None:
        raise ValueError(f"The data set has no `input_ids` but {columns}: give `processing_class` to tokenize it.")
    options: dict[str, Any] = {"text_column": args.text_column, "max_length": args.max_length}
    with args.main_process_first(desc="tokenizing"):
        if readings:
            kept = [*keep, *LABEL_COLUMNS, "label"]
            return tokenize_aligned(dataset, processing_class, readings, keep=kept, **options)
        return tokenize_text(dataset, processing_class, keep=[*keep, *LABEL_COLUMNS], **options)


def check_row_lengths(dataset: Any, student: Any, teachers: Sequence[Any], max_length: int) -> None:
    """Check that both sides have a position for every token of every row; otherwise a batch would fail in hours.

    Args:
        dataset: The tokenized rows; what is no data set with `input_ids` is not looked at.
        student: The wrapped student; `None` where it is not made yet.
        teachers: The teachers that read the same tokens.
        max_length: Where the rows were cut.

    Raises:
        ValueError: If a row is longer than one of them can read.
    """
    readers = [("student", getattr(student, "student", None))]
    readers += [("teacher", getattr(teacher, "model", None)) for teacher in teachers]
    bounds = [(who, num_positions(model.config)) for who, model in readers if model is not None]
    too_short = [(who, bound) for who, bound in bounds if bound is not None and bound < max_length]
    if not too_short or not isinstance(dataset, datasets.Dataset) or "input_ids" not in dataset.column_names:
        return
    rows = dataset.select_columns(["input_ids"]).with_format("arrow")
    longest = max((pc.max(pc.list_value_length(part["input_ids"])).as_py() for part in rows.iter(10_000)), default=0)
    for who, bound in too_short:
        if longest > bound:
            raise ValueError(
                f"`--max_length` is {max_length} and the longest row has {longest} tokens, but the {who} has {bound} "
                f"positions: give at most `--max_length {bound}`."
            )


def token_label_collator(dataset: Any, processing_class: Any) -> Any:
    """The collator for rows with a label for every token, which are padded too; `None` for other rows."""
    features = getattr(dataset, "features", None) or {}
    if processing_class is None or not isinstance(features.get("labels"), datasets.List):
        return None
    return DataCollatorForTokenClassification(processing_class)
