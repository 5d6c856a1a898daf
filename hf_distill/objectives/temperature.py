"""The temperature of soft targets, and how it changes: with training, or from row to row.

Shape legend: ... rows (B,) or tokens (B, T), C classes (for spans: positions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..storage.plain_values import as_hint, as_mapping, did_you_mean, load_json, shown
from .schedules import SCHEDULES, Schedule

MINIMUM = 0.1
TemperatureSpec = str | Mapping[str, Any]


@torch.no_grad()
def flsw(student: Tensor, teacher: Tensor, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """Focal-loss style weight of every distribution: `beta (1 - cos(z_s, z_t))^gamma` (Wen et al. 2019).

    Args:
        student: Logits (..., C).
        teacher: Logits (..., C).
        beta: How far temperatures spread.
        gamma: The larger, the more do weights of rows differ on which student and teacher disagree.

    Returns:
        Weights (...), larger where the student is farther from the teacher.
    """
    student, teacher = (_direction(x.float()) for x in (student, teacher))
    return beta * (1.0 - (student * teacher).sum(-1)).clamp(min=0).pow(gamma)


@torch.no_grad()
def cwsm(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    """Confidence weight of every distribution: `beta / (max softmax(z_s) + 0.001)` (Wen et al. 2019).

    Args:
        student: Logits (..., C).
        teacher: Not used.
        beta: How far temperatures spread.

    Returns:
        Weights (...), larger where the student is less sure.
    """
    return beta / (student.float().softmax(-1).amax(-1) + 1e-3)


PER_ROW: dict[str, Callable[..., Tensor]] = {"flsw": flsw, "cwsm": cwsm}
_OPTIONS = {"flsw": ("beta", "gamma", "minimum"), "cwsm": ("beta", "minimum")}


class Temperature:
    """The divisor of the logits: one number, one that follows a schedule, or one of every row.

    The schedules are those of weights, and two that give every row (every token, for a head that speaks about tokens)
    a temperature of its own. Schedules of weights lead from `temperature` to `low`, where their factor is 0. The two
    of Wen et al. (2019, arXiv:1911.07471, "Preparing Lessons") give `temperature + mean(w) - w`, so that rows with a
    larger weight `w` get a lower temperature; the mean is taken over the real rows or tokens of the batch on this
    device, and no temperature falls below `minimum`, which must be positive (0.1 by default). No gradient flows
    through a temperature.
    """

    def __init__(self, temperature: float, schedule: TemperatureSpec | None = None) -> None:
        """Read the settings.

        Args:
            temperature: The base temperature.
            schedule: A name, or a mapping (or its JSON text) with `name` and options: `flsw` has `beta`, `gamma` and
                `minimum`, `cwsm` has `beta` and `minimum`, a schedule of weights has `low` beside its own.

        Raises:
            ValueError: If a temperature is not positive, or the schedule or one of its options is unknown.
        """
        temperature = as_hint(temperature, float, "`temperature`")
        if not 0 < temperature < math.inf:
            raise ValueError(f"`temperature` is {temperature}; it must be above 0 and finite.")
        self.base = float(temperature)
        self._progress = 0.0
        fields = _read(schedule)
        self.name = fields.pop("name") if fields else "constant"
        self.options = {
            key: as_hint(value, float, f"`temperature_schedule` {self.name}: `{key}`") for key, value in fields.items()
        }
        self._schedule: Schedule | None = None
        if self.name in PER_ROW:
            self._check_options()
        elif self.name != "constant":
            own = {key: value for key, value in self.options.items() if key != "low"}
            self._schedule = Schedule(self.name, own)
            if self._schedule.in_epochs:
                raise ValueError("`temperature_schedule` stage counts shares of the steps: `start` and `end`.")
            # A tensor, because a compiled loss would be compiled anew for every other number.
            self._current = torch.tensor(self.at(0.0))
        elif self.options:
            raise ValueError(f"`temperature_schedule` constant has no options {sorted(self.options)}.")

    def set_base(self, temperature: float) -> None:
        """Take another base temperature from now on.

        Raises:
            ValueError: If it is not positive.
        """
        if not temperature > 0:
            raise ValueError(f"The temperature is set to {temperature}; it must be above 0.")
        self.base = float(temperature)
        self.set_progress(self._progress)

    @property
    def is_per_row(self) -> bool:
        """Whether every row has a temperature of its own."""
        return self.name in PER_ROW

    @property
    def current(self) -> float:
        """The temperature now; where every row has its own, what they vary around."""
        return self.base if self._schedule is None else float(self._current)

    def at(self, progress: float) -> float:
        """The temperature at `progress`, of a schedule that depends on nothing else."""
        if self._schedule is None:
            return self.base
        low = self.options.get("low", 1.0)
        if not 0 < low < math.inf:
            raise ValueError(f"`temperature_schedule`: `low` is {low}; it must be above 0 and finite.")
        return low + (self.base - low) * self._schedule(progress)

    def set_progress(self, progress: float) -> None:
        """Move to another share of the optimizer steps."""
        self._progress = progress
        if self._schedule is not None:
            self._current.fill_(self.at(progress))

    def __call__(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> float | Tensor:
        """The temperature of one batch.

        Args:
            student: Logits (..., C).
            teacher: Logits (..., C).
            mask: (...), 1 on what is real; all if `None`.

        Returns:
            A number, a tensor with one number, or the temperatures (...), without gradient.
        """
        if self._schedule is not None:
            return self._current
        if not self.is_per_row:
            return self.base
        options = {key: value for key, value in self.options.items() if key != "minimum"}
        weight = PER_ROW[self.name](student.detach(), teacher.detach(), **options)
        real = torch.ones_like(weight) if mask is None else mask.to(weight.dtype)
        mean = (weight * real).sum() / real.sum().clamp(min=1)
        return (self.base + mean - weight).clamp(min=self.options.get("minimum", MINIMUM))

    def describe(self) -> str:
        """Name and options: `flsw(beta=1, gamma=2)`."""
        options = ", ".join(f"{name}={value:g}" for name, value in self.options.items())
        return f"{self.name}({options})" if options else self.name

    def _check_options(self) -> None:
        known = _OPTIONS[self.name]
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise ValueError(f"`temperature_schedule` {self.name} has no options {unknown}; it has {list(known)}.")
        if not self.options.get("minimum", MINIMUM) > 0:
            raise ValueError(
                f"`temperature_schedule` {self.name}: `minimum` is {self.options['minimum']}; it must be above 0."
            )


def _read(schedule: TemperatureSpec | None) -> dict[str, Any]:
    """The fields of a name, of a mapping, or of a mapping's JSON text."""
    if schedule is None:
        return {}
    fields: Any = schedule
    if isinstance(schedule, str):
        fields = {"name": schedule}
        if schedule.lstrip().startswith("{"):
            fields = load_json(schedule, f"`temperature_schedule` is {shown(schedule)}, which")
    if not isinstance(fields, Mapping) or not isinstance(fields.get("name"), str):
        raise ValueError(
            f"`temperature_schedule` is {shown(schedule)}; write a name, or a mapping such as "
            '{"name": "flsw", "beta": 1, "gamma": 2}.'
        )
    known = [*PER_ROW, *SCHEDULES]
    if fields["name"] not in known:
        hint = did_you_mean(fields["name"], known)
        raise ValueError(f"`temperature_schedule` is {fields['name']!r}; allowed are {', '.join(known)}.{hint}")
    return as_mapping(fields, "`temperature_schedule`")


def _direction(logits: Tensor) -> Tensor:
    """Logits (..., C) of length 1, where they are not all 0."""
    # A span head marks padding by the lowest finite value, which would outweigh everything.
    logits = logits.masked_fill(logits == torch.finfo(logits.dtype).min, 0.0)
    return logits / (logits.norm(dim=-1, keepdim=True) + 1e-4)
