"""Optimizer settings of what trains beside the student: projections and other parameters of objectives."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from ..arguments import DistillationArguments


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
