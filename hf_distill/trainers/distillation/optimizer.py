"""Optimizer settings of what trains beside the student: projections and other parameters of objectives."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from ...settings import DistillationArguments


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
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in chosen]
        rest = {key: value for key, value in group.items() if key != "params"}
        optimizer.add_param_group({**rest, "params": moved, **given})


def train_beside(optimizer: Optimizer, scheduler: Any, objectives: nn.Module, args: DistillationArguments) -> None:
    """Let an optimizer that somebody else made train the parameters of the objectives too.

    They are made by the trainer, so that whoever made the optimizer could not give them to it. They take the settings
    of its first group, but for `projection_learning_rate` and `projection_weight_decay`.

    Args:
        optimizer: Of the student.
        scheduler: The schedule that came with it, if any.
        objectives: Whose parameters train.
        args: Settings of these parameters.

    Raises:
        ValueError: If a schedule that counts the groups already is there.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [one for one in objectives.parameters() if one.requires_grad and id(one) not in held]
    if not missing:
        return
    if scheduler is not None:
        raise ValueError(
            "`optimizers` has a schedule, but the projections of the objectives, which are made here, must join the "
            "optimizer: give (optimizer, None) and `--lr_scheduler_type`, or `optimizer_cls_and_kwargs`."
        )
    first = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    settings = {"lr": args.projection_learning_rate, "weight_decay": args.projection_weight_decay}
    given = {name: value for name, value in settings.items() if value is not None}
    optimizer.add_param_group({**first, "params": missing, **given})
