"""Decides which teachers read the text with a tokenizer of their own, and which read the student's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..hub.loading import load_tokenizer
from ..settings import DistillationArguments
from .alignment import AlignedTeacher, Reading, reads_like
from .base import LiveTeacher, TeacherSource
from .stored.teacher import StoredTeacher


def let_teachers_read(
    teachers: Sequence[TeacherSource | None],
    given: Sequence[Any],
    processing_class: Any,
    tokenizers: Sequence[Any],
) -> list[TeacherSource]:
    """The teachers, those with another tokenizer than the student's wrapped so that they read their own tokens.

    Args:
        teachers: Live teachers.
        given: What each was given as; the tokenizer of an id or folder lies beside it.
        processing_class: The student's tokenizer.
        tokenizers: That of each teacher, or `None`.

    Raises:
        ValueError: If a teacher is no live one, or a tokenizer is missing.
    """
    if processing_class is None:
        raise ValueError("`--align_tokenizers` needs the student's tokenizer: give it as `processing_class`.")
    readings: list[Reading] = []
    found: list[TeacherSource] = []
    for index, (teacher, one, tokenizer) in enumerate(zip(teachers, given, tokenizers, strict=True)):
        if tokenizer is None and isinstance(one, str) and isinstance(teacher, LiveTeacher):
            tokenizer = load_tokenizer(one, flag="--teacher_model")
        if not isinstance(teacher, LiveTeacher) or tokenizer is None:
            raise ValueError(_what_is_missing(teacher, index if len(teachers) > 1 else None))
        if reads_like(tokenizer, processing_class):
            found.append(teacher)
            continue
        reading = next((known for known in readings if reads_like(tokenizer, known.tokenizer)), None)
        if reading is None:
            reading = Reading(f"teacher{index}_", tokenizer)
            readings.append(reading)
        found.append(AlignedTeacher(teacher, reading))
    return found


def _what_is_missing(teacher: Any, index: int | None) -> str:
    who = "the teacher" if index is None else f"teacher {index}"
    if isinstance(teacher, LiveTeacher):
        return (
            f"`--align_tokenizers` needs the tokenizer of {who}: give it as `teacher_processing_class`, or give {who} "
            "as an id or folder that has it."
        )
    kind = f"stored in {teacher.folder!r}" if isinstance(teacher, StoredTeacher) else f"a {type(teacher).__name__}"
    return f"`--align_tokenizers` needs live teachers, which read the text anew, but {who} is {kind}."


def readings_of(teachers: Sequence[Any]) -> list[Reading]:
    """The readings of teachers, each once."""
    found = [teacher.reading for teacher in teachers if isinstance(teacher, AlignedTeacher)]
    return list({reading.prefix: reading for reading in found}.values())


def check_collator(teachers: Sequence[Any], collator: Any, args: DistillationArguments) -> None:
    """Refuse a collator where rows are padded for several tokenizers.

    Raises:
        ValueError: If there is one.
    """
    if readings_of(teachers) and collator is not None:
        what = "`data_collator`" if args.mlm_probability is None else "`--mlm_probability`"
        raise ValueError(
            f"`--align_tokenizers` pads the rows of every tokenizer by itself: {what} cannot be used with it."
        )
