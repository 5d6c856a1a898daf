"""Turns whatever a user gives as a teacher (a model, an id, a folder) into a source of signals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..hub.loading import load_model
from ..settings import DistillationArguments
from .base import LiveTeacher, TeacherSource
from .stored.manifest import is_stored_teacher
from .stored.teacher import StoredTeacher


def teacher_sources(
    given: Sequence[Any], args: DistillationArguments, *, flag: str, names: Sequence[str]
) -> list[TeacherSource]:
    """A source for each teacher.

    Args:
        given: Models, Hub ids, folders of models or of stored teachers; sources stay as they are.
        args: Arithmetic and device of the teachers that are made live here.
        flag: The argument that carried them, for errors.
        names: Begin the columns of stored teachers.

    Raises:
        ValueError: If an arithmetic or a device is chosen, and no teacher takes it.
    """
    chosen = {"teacher_dtype": args.teacher_dtype == "int8", "teacher_device": args.teacher_device is not None}
    if given and any(chosen.values()) and not any(_runs_here(one) for one in given):
        name = "teacher_dtype" if chosen["teacher_dtype"] else "teacher_device"
        raise ValueError(
            f"`--{name} {getattr(args, name)}` has no effect: a stored teacher does not run, and a source of signals "
            "decides for itself (`LiveTeacher(model, dtype=, device=)`). Leave it out, or give the teacher as a "
            "model, an id or a folder."
        )
    return [
        teacher_source(one, flag=flag, name=name, dtype=args.teacher_dtype, device=args.teacher_device)
        for one, name in zip(given, names, strict=True)
    ]


def _runs_here(given: Any) -> bool:
    return isinstance(given, nn.Module) or (isinstance(given, str) and not is_stored_teacher(given))


def teacher_source(
    given: Any, *, flag: str, name: str, dtype: str = "auto", device: str | None = None
) -> TeacherSource:
    """A source for one teacher.

    Args:
        given: A model, a Hub id, a folder of a model or of a stored teacher; a source stays as it is.
        flag: The argument that carried it, for errors.
        name: Begins the columns of a stored teacher.
        dtype: Arithmetic of a teacher that is made live here.
        device: Where that stays.
    """
    if is_stored_teacher(given):
        return StoredTeacher(given, name=name)
    model = load_model(given, flag=flag) if isinstance(given, str) else given
    return LiveTeacher(model, dtype, device) if isinstance(model, nn.Module) else model
