"""What the two sides read: whose tokenizer, and the rows of stored teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..loading import load_tokenizer
from ..stored.teacher import StoredTeacher, join_rows
from ..teachers import TeacherSource, check_same_vocabulary


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


def stored_inputs(stored: Sequence[StoredTeacher], train_dataset: Any, processing_class: Any) -> tuple[Any, Any]:
    """Rows and tokenizer where the signals of teachers are stored; what is given stays as it is."""
    train_dataset = join_rows(stored) if train_dataset is None else train_dataset
    return train_dataset, stored[0].tokenizer() if processing_class is None else processing_class
