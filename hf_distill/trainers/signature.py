"""Constructors with the signature of `Trainer`, and the settings that a trainer does not support."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from transformers import Trainer, TrainingArguments


def takes_what_trainer_takes(reason: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a constructor be called as that of `Trainer`: arguments in its places, and those that are ours by name.

    The constructor gets all of them by name. With a reason it is one of a trainer that needs but a part of what
    `Trainer` takes: what it has no parameter for is refused (ValueError), and so is what stands in the place of the
    training arguments and is none (TypeError).

    Args:
        reason: Name of the trainer, and why the others have no effect: "MTLTrainer reads the rows of its tasks".
            `None`: the constructor hands them on.
    """
    stock = inspect.signature(Trainer.__init__)

    def decorate(constructor: Callable[..., None]) -> Callable[..., None]:
        taken = inspect.signature(constructor).parameters
        own = [parameter for name, parameter in taken.items() if name not in stock.parameters]
        allowed = stock.replace(parameters=[*stock.parameters.values(), *own])
        useless = set() if reason is None else set(stock.parameters) - set(taken)

        @wraps(constructor)
        def called_as_trainer(*args: Any, **kwargs: Any) -> None:
            given = allowed.bind(*args, **kwargs).arguments
            given |= given.pop("kwargs", {})
            if reason is not None:
                _check_kind(given.get("args"))
            wrong = [f"`{name}`" for name, value in given.items() if name in useless and value is not None]
            if wrong:
                raise ValueError(f"{reason}: {', '.join(wrong)} would have no effect; leave it out.")
            constructor(**{name: value for name, value in given.items() if name not in useless})

        called_as_trainer.__signature__ = allowed  # type: ignore[attr-defined]
        return called_as_trainer

    return decorate


def _check_kind(args: Any) -> None:
    if args is not None and not isinstance(args, TrainingArguments):
        raise TypeError(
            f"`args` is of type {type(args).__name__}: give the training arguments as the second argument, and "
            "arguments that `Trainer` does not have by their names."
        )


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
