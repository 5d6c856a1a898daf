"""What lets a trainer of ours stand in the place of `Trainer`: where its arguments stand, and which it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainingArguments


def sorted_by_kind(args: Any, data_collator: Any, teacher: Any, name: str) -> tuple[Any, Any, Any]:
    """Training arguments, collator and teacher, where the teacher may have been given in the arguments' place.

    Args:
        args: What stands in second place: training arguments, nothing, or a teacher.
        data_collator: What stands in third place; the training arguments, if a teacher stands before them.
        teacher: What was given as `name`.
        name: The keyword of the teacher, or of the teachers.

    Raises:
        TypeError: If `args` is something else, or there are two teachers.
    """
    if isinstance(data_collator, TrainingArguments):
        args, data_collator, second = data_collator, None, args
    elif args is None or isinstance(args, TrainingArguments):
        return args, data_collator, teacher
    else:
        args, second = None, args
    if second is None:
        return args, data_collator, teacher
    if isinstance(second, TrainingArguments) or not _may_teach(second):
        raise TypeError(
            f"`args` is of type {type(second).__name__}: give the training's arguments in second place, and the "
            f"teacher as `{name}=`."
        )
    if teacher is not None:
        raise TypeError(f"There are two teachers, one in the place of `args` and one as `{name}=`: give one.")
    return args, data_collator, second


def check_kind(args: Any) -> None:
    """Refuse what stands in the place of training arguments and is none.

    Raises:
        TypeError: If it is something else.
    """
    if args is not None and not isinstance(args, TrainingArguments):
        raise TypeError(
            f"`args` is of type {type(args).__name__}: give the training's arguments in second place, and what is "
            "none of `Trainer`'s arguments by its name."
        )


def _may_teach(given: Any) -> bool:
    """Whether something is a teacher: a model, an id, a folder, a source of signals, or a list of such."""
    if isinstance(given, (str, Path, nn.Module)) or callable(getattr(given, "signals", None)):
        return True
    return isinstance(given, Sequence) and len(given) > 0 and all(_may_teach(one) for one in given)


def refuse_given(trainer: str, given: Mapping[str, Any]) -> None:
    """Refuse arguments of `Trainer` that a trainer has no use for.

    Args:
        trainer: Name of the trainer, with the reason: "MTLTrainer reads the rows of its tasks".
        given: What was given, by name; nothing and pairs of nothing are not.

    Raises:
        ValueError: If one is given.
    """
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        raise ValueError(f"{trainer}: {', '.join(f'`{name}`' for name in wrong)} would have no effect; leave it out.")
