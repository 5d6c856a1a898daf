"""Makes a trainer of this package a drop-in `Trainer`: the order of its arguments, and which of them it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments
from transformers.utils import logging

from ..settings import DistillationArguments, FineTuningArguments
from ..teachers.opening import may_teach

logger = logging.get_logger(__name__)

# Settings of ours that a training without objectives has a use for.
USED_WITHOUT_OBJECTIVES = {
    *("early_stopping_patience", "early_stopping_threshold", "fp32_matmul", "gradual_unfreezing", "mlm_probability"),
    *("max_length", "text_column", "objectives"),
}


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
    if isinstance(second, TrainingArguments) or not may_teach(second):
        raise TypeError(
            f"`args` is of type {type(second).__name__}: give the training's arguments in second place, and the "
            f"teacher as `{name}=`."
        )
    if teacher is not None:
        raise TypeError(f"There are two teachers, one in the place of `args` and one as `{name}=`: give one.")
    return args, data_collator, second


def settled(args: TrainingArguments | None, kind: type[DistillationArguments], *, distilling: bool) -> Any:
    """The arguments that count in one training; what was given stays as it is.

    Args:
        args: What was given.
        kind: The arguments that a distillation needs; plain ones are filled up with its defaults.
        distilling: Whether something is distilled. If not, what nobody chose is as in `TrainingArguments`, and plain
            arguments are taken as they are.

    Raises:
        TypeError: If they are those of a fine-tuning.
    """
    if isinstance(args, FineTuningArguments):
        raise TypeError(
            f"`args` are {type(args).__name__}, in which what nobody chose is a task's: give `DistillationArguments` "
            "or `TrainingArguments`."
        )
    if args is None:
        args = kind("tmp_trainer") if distilling else TrainingArguments("tmp_trainer")
    if distilling and not isinstance(args, kind):
        args = kind.from_stock(args)
    if not isinstance(args, DistillationArguments):
        return args
    if not distilling:
        _tell_unused(args)
    return args.for_training(distilling=distilling)


def _tell_unused(args: DistillationArguments) -> None:
    """A line where settings of a distillation are given and nothing is distilled."""
    stock = {item.name for item in dataclasses.fields(TrainingArguments)}
    unused = sorted(set(_changed(args)) - stock - USED_WITHOUT_OBJECTIVES)
    if unused:
        names = ", ".join(f"`--{name}`" for name in unused)
        logger.warning(f"Nothing is distilled, because there are no `--objectives`: {names} will have no effect.")


def _changed(args: DistillationArguments) -> list[str]:
    """Names of the fields that are not as they begin."""
    fresh = {
        item.name: item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        for item in dataclasses.fields(args)
    }
    return [name for name, value in fresh.items() if getattr(args, name) != value]


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


# What `Trainer` and its arguments have, and what has no meaning where the loss is that of objectives: name -> the way
# out.
REFUSED = {
    "compute_loss_func": "the loss is the sum of the objectives: write an objective (docs/extending.md)",
    "use_liger_kernel": "its kernels put the loss into the model, and the objectives need what the model computes",
    "liger_kernel_config": "its kernels put the loss into the model, and the objectives need what the model computes",
}


def refuse_without_effect(what: str, args: TrainingArguments, given: Mapping[str, Any]) -> None:
    """Refuse arguments that a distillation would ignore.

    Args:
        what: What is trained, for the message.
        args: Arguments of the training.
        given: Arguments of the trainer by name.

    Raises:
        ValueError: If one is set.
    """
    for name, way in REFUSED.items():
        value = given.get(name) or getattr(args, name, None)
        if value:
            raise ValueError(f"`{name}` would have no effect on {what}; {way}.")
    if not args.average_tokens_across_devices and args.world_size > 1:
        raise ValueError(
            f"`--average_tokens_across_devices False` would have no effect on {what}: its loss is a mean over the "
            f"rows, tokens and labels of all {args.world_size} processes."
        )


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


def refuse_settings(what: str, args: TrainingArguments, ways: Mapping[str, str]) -> None:
    """Refuse settings that a training would ignore.

    Args:
        what: What is trained, for the message: "a training on many tasks".
        args: Settings of the training.
        ways: Name of a setting -> why it has no effect, or what to do instead.

    Raises:
        ValueError: If one is set.
    """
    for name, way in ways.items():
        if getattr(args, name, None):
            raise ValueError(f"`--{name}` would have no effect on {what}: {way}.")
