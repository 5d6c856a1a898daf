"""Inputs of both sides: the tokenizer that they share, and the rows of stored teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from ...hub.loading import load_tokenizer
from ...hub.tokenizers import check_same_tokens, warn_of_other_rules
from ...tasks.rows.text import PAIR_COLUMN
from ...teachers.base import TeacherSource
from ...teachers.stored.teacher import StoredTeacher, join_rows


def check_tokenizer(
    teacher: TeacherSource | None,
    given: Any,
    processing_class: Any,
    teacher_processing_class: Any,
    pairs: bool = False,
) -> bool:
    """Compare a tokenizer with that of a teacher, which was `given` as an id or folder, or has its own.

    Args:
        teacher: The teacher.
        given: What it was given as.
        processing_class: The student's tokenizer.
        teacher_processing_class: The teacher's, if it was given.
        pairs: Whether the rows are pairs of texts.

    Returns:
        Whether both are known, and the same.

    Raises:
        ValueError: If they differ.
    """
    if isinstance(teacher, StoredTeacher):
        if processing_class is not None:
            teacher.check_tokenizer(processing_class, pairs=pairs)
        return processing_class is not None
    if teacher_processing_class is None and isinstance(given, str):
        try:
            teacher_processing_class = load_tokenizer(given, flag="--teacher_model")
        except OSError:
            return False  # A folder with weights only: the sizes of the vocabularies are compared all the same.
        warn_of_other_rules(given, teacher_processing_class)
    if teacher_processing_class is None or processing_class is None:
        return False
    check_same_tokens(teacher_processing_class, processing_class, pairs=pairs)
    return True


def num_ids(tokenizer: Any) -> int | None:
    """One more than the largest id of a tokenizer; `None` for what has no vocabulary."""
    ids = tokenizer.get_vocab().values() if hasattr(tokenizer, "get_vocab") else ()
    return max(ids) + 1 if ids else None


def has_pairs(dataset: Any, text_column: str) -> bool:
    """Whether the rows are pairs of texts: a column of second texts, or a second segment in one of the first rows."""
    if isinstance(dataset, Mapping) and not isinstance(dataset, datasets.Dataset):
        return any(has_pairs(part, text_column) for part in dataset.values())
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list) or "token_type_ids" not in columns:
        return isinstance(columns, list) and text_column in columns and PAIR_COLUMN in columns
    if not isinstance(dataset, datasets.Dataset):
        return False
    return any(1 in types for types in dataset.with_format(None)[:100]["token_type_ids"])


def stored_inputs(stored: Sequence[StoredTeacher], train_dataset: Any, processing_class: Any) -> tuple[Any, Any]:
    """Rows and tokenizer where the signals of teachers are stored; what is given stays as it is."""
    train_dataset = join_rows(stored) if train_dataset is None else train_dataset
    return train_dataset, stored[0].tokenizer() if processing_class is None else processing_class
