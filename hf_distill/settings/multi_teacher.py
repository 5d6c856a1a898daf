"""Settings for distilling from several teachers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from .training import DistillationArguments

CombinationRule = Literal["mean_logits", "mean_probabilities", "confidence", "route"]
RULES: tuple[str, ...] = get_args(CombinationRule)


@dataclass
class MultiTeacherArguments(DistillationArguments):
    """`DistillationArguments` plus the teachers and how their predictions become one."""

    teacher_models: list[str] | None = field(
        default=None, metadata={"help": "Hub ids or folders of several teachers; they are counted from 0."}
    )
    combine: CombinationRule = field(
        default="mean_logits",
        metadata={
            "help": "What the teachers say together: mean_logits, mean_probabilities (at the temperature of the "
            "objective), confidence (of each row, by its labels or else by the entropy), or route (the column "
            "teacher_id names the one teacher of each row)."
        },
    )
    teacher_weights: list[float] | None = field(
        default=None,
        metadata={"help": "One weight above 0 for each teacher, in their order; their sum is made 1. Default: equal."},
    )
    offload_teachers: bool = field(
        default=False,
        metadata={"help": "Keep the teachers in the CPU's memory and move one at a time to the device."},
    )

    def __post_init__(self) -> None:
        """Check the rule and the weights."""
        if self.combine not in RULES:
            raise ValueError(f"`--combine` is {self.combine!r}; allowed are {', '.join(RULES)}.")
        if self.teacher_weights is not None:
            self.teacher_weights = [float(weight) for weight in self.teacher_weights]
            if not all(weight > 0 and math.isfinite(weight) for weight in self.teacher_weights):
                raise ValueError(f"`--teacher_weights` is {self.teacher_weights}; every weight must be above 0.")
            if self.combine == "route":
                raise ValueError(
                    "`--teacher_weights` has no meaning with `--combine route`: every row has one teacher."
                )
        if self.offload_teachers and self.teacher_device is not None:
            raise ValueError(
                f"`--teacher_device {self.teacher_device}` is where the teachers stay, but `--offload_teachers` moves "
                "each to the student's device while it runs: leave one of them out."
            )
        super().__post_init__()
