"""Optimizer settings of the parameters that a trainer adds to the given model: projections, heads, adapters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from torch.optim import Optimizer

from ...settings import DistillationArguments

if TYPE_CHECKING:
    from .model import DistillationModel


def give_own_settings(optimizer: Optimizer, objectives: nn.Module, args: DistillationArguments) -> None:
    """Move parameters of the objectives into groups with `projection_learning_rate` and their own weight decay."""
    settings = {"lr": args.projection_learning_rate, "weight_decay": args.projection_weight_decay}
    given = {name: value for name, value in settings.items() if value is not None}
    chosen = {id(parameter) for parameter in objectives.parameters()}
    if not given:
        return
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if id(parameter) in chosen]
        if not moved:
            continue
        others = [parameter for parameter in group["params"] if id(parameter) not in chosen]
        if others:
            group["params"] = others
            optimizer.add_param_group({**group, "params": moved, **given})
        else:
            group.update(given)


def train_beside(
    optimizer: Optimizer | None,
    scheduler: Any,
    model: DistillationModel,
    args: DistillationArguments,
    *,
    has_new_adapters: bool = False,
) -> None:
    """Let an optimizer that somebody else made train what the trainer adds to the student.

    Projections, a new dense layer and new adapters were not there when it was made. They take the settings of its
    first group, but for those of `give_own_settings`.

    Args:
        optimizer: Of the student; `None` if the trainer makes it.
        scheduler: The schedule that came with it, if any.
        model: The student with what was added.
        args: Settings of the projections.
        has_new_adapters: Whether the trainer put adapters into the student.

    Raises:
        ValueError: If the optimizer is that of another model, or a schedule cannot go with it.
    """
    head = model.sentence_head
    parts = [model.objectives, *([head] if head is not None and head.dense_is_new else [])]
    added = [one for part in [*parts, *([model.student] if has_new_adapters else [])] for one in part.parameters()]
    if train_too(optimizer, scheduler, model.student.parameters(), added):
        give_own_settings(cast(Optimizer, optimizer), model.objectives, args)


def train_too(
    optimizer: Optimizer | None, scheduler: Any, known: Iterable[nn.Parameter], added: Iterable[nn.Parameter]
) -> bool:
    """Put parameters that a trainer made into the first group of an optimizer that somebody else made.

    Args:
        optimizer: `None` if the trainer makes it.
        scheduler: The schedule that came with it, if any.
        known: Parameters of the model that was given.
        added: Those that train too; some may be in the optimizer already.

    Returns:
        Whether there were some to put in.

    Raises:
        ValueError: If the optimizer is that of another model, or a schedule cannot go with it.
    """
    if optimizer is None:
        if scheduler is not None:
            raise ValueError(
                "`optimizers` has a schedule of the learning rate without its optimizer: give both, or "
                "`--lr_scheduler_type`."
            )
        return False
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for parameter in known):
        raise ValueError(
            "`optimizers` has an optimizer of another model: it holds no parameter of the one that is trained, which "
            "would stay as it is. Make it of `model.parameters()`, or give `optimizer_cls_and_kwargs`."
        )
    missing = [parameter for parameter in added if parameter.requires_grad and id(parameter) not in held]
    if missing and scheduler is not None:
        raise ValueError(
            "`optimizers` has a schedule of the learning rate, which does not know what the trainer adds to the "
            "optimizer (projections, adapters, heads): give (optimizer, None) and `--lr_scheduler_type`, or "
            "`optimizer_cls_and_kwargs`."
        )
    if missing:
        optimizer.add_param_group({**optimizer.param_groups[0], "params": missing})
    return bool(missing)
