"""Schedules: a weight as a pure function of the progress of training.

Progress is the share of the optimizer steps that are done, from 0 at the first step to nearly 1 at the last. A
schedule gives the factor by which the configured weight is multiplied. It depends only on the progress, so a resumed
run continues with the same weights. A stage may also be counted in epochs, as papers do: `in_run_of` turns them into
shares once the number of epochs is known.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..storage.plain_values import as_hint, as_mapping, did_you_mean, shown

# Shares of steps are quotients: a stage that begins with step 30 of 39 must not miss it by the last binary place.
ROUNDING = 1e-9
EPOCHS = ("start_epoch", "end_epoch")
STAGE_HELP = "write start < end, such as {name: stage, end: 0.5}, or epochs: {name: stage, end_epoch: 10}"


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def linear_growth(progress: float, first: float = 0.0) -> float:
    """From 0 to 1; `first` is the factor of the very first step, where it is not the schedule's own."""
    return progress if progress else first


def linear_decay(progress: float, first: float = 1.0) -> float:
    """From 1 to 0; `first` is the factor of the very first step, where it is not the schedule's own."""
    return 1.0 - progress if progress else first


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine."""
    return (1.0 + math.cos(math.pi * progress)) / 2.0


def warmup(progress: float, share: float = 0.1) -> float:
    """From 0 to 1 over the first `share` of the steps, then 1."""
    return min(1.0, progress / share) if share > 0 else 1.0


def stage(
    progress: float,
    start: float = 0.0,
    end: float = 1.0,
    start_epoch: float | None = None,
    end_epoch: float | None = None,
) -> float:
    """1 while one stage of several in a run lasts, 0 before and after.

    Args:
        progress: Share of the steps that are done.
        start: Share with which it begins.
        end: Share with which it ends.
        start_epoch: Instead of `start`, the epochs that are over when it begins; negative from the end of the
            training, so that -3 means the last three. Known only in a run (see `Schedule.in_run_of`): until then
            nothing of a stage that begins later is seen.
        end_epoch: Instead of `end`, the epochs that are over when it ends; likewise.
    """
    if start_epoch:
        return 0.0
    return 1.0 if start <= progress + ROUNDING and (progress + ROUNDING < end or end >= 1.0) else 0.0


SCHEDULES: dict[str, Callable[..., float]] = {
    function.__name__: function for function in (constant, linear_growth, linear_decay, cosine, warmup, stage)
}


@dataclass(frozen=True)
class Schedule:
    """A named schedule with its options; calling it with the progress gives the factor.

    Attributes:
        name: Key of `SCHEDULES`.
        options: Named arguments of the function besides the progress.
    """

    name: str
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is not there, and what is no schedule.

        Raises:
            ValueError: If the name or an option is unknown, an option is no finite number or out of its range, or a
                stage ends before it begins.
        """
        if self.name not in SCHEDULES:
            hint = did_you_mean(self.name, SCHEDULES)
            raise ValueError(f"`schedule` is {self.name!r}; allowed are {', '.join(SCHEDULES)}.{hint}")
        known = list(inspect.signature(SCHEDULES[self.name]).parameters)[1:]
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise ValueError(f"`schedule` {self.name!r} has no options {unknown}; it has {known}.")
        for option, value in self.options.items():
            lowest, highest = (-math.inf, math.inf) if option in EPOCHS else (0.0, math.inf)
            highest = 1.0 if option in ("share", "start", "end") else highest
            if not math.isfinite(value) or not lowest <= value <= highest:
                allowed = "a finite number" + ("" if lowest < 0 else f" from 0 to {highest:g}".replace(" to inf", ""))
                raise ValueError(f"`schedule` {self.name!r}: {option} is {value}; it must be {allowed}.")
        if self.name == "stage":
            self._check_stage()

    def _check_stage(self) -> None:
        shares = {"start": 0.0, "end": 1.0}
        first, last = (self.options.get(name) for name in EPOCHS)
        if {"start", "end"} & set(self.options):
            if first is not None or last is not None:
                raise ValueError(f"`schedule` 'stage' has shares and epochs ({dict(self.options)}); {STAGE_HELP}.")
            first, last = (self.options.get(name, default) for name, default in shares.items())
        if first is None or last is None or (first < 0) != (last < 0):
            # Whether it ends before it begins depends on the number of epochs, or it has one end only.
            return
        if not first < last:
            raise ValueError(
                f"`schedule` 'stage' begins with {first:g} and ends with {last:g}: it has no step; {STAGE_HELP}."
            )

    @property
    def in_epochs(self) -> bool:
        """Whether it needs to know how many epochs the training has."""
        return any(name in self.options for name in EPOCHS)

    def in_run_of(self, epochs: float | None) -> Schedule | None:
        """The same schedule with shares in place of epochs, or `None` where the training has no step of the stage.

        Args:
            epochs: Passes over the rows in the whole training; `None` if nobody knows (rows from a stream).

        Raises:
            ValueError: If it needs them and they are unknown, or the stage would end before it begins.
        """
        if not self.in_epochs:
            return self
        if epochs is None:
            raise ValueError(
                f"`schedule` {self.describe()} counts epochs, which rows without a length do not have; write shares "
                "of the steps: `start` and `end`."
            )
        places = (self.options.get("start_epoch", 0.0), self.options.get("end_epoch", epochs))
        first, last = (place + epochs if place < 0 else place for place in places)
        if len(self.options) == 2 and not first < last:
            raise ValueError(
                f"`schedule` {self.describe()} lasts from epoch {first:g} to epoch {last:g} of a training of "
                f"{epochs:g} epochs, so that it has no step. Change `--num_train_epochs` or the stage."
            )
        first, last = max(0.0, first), min(epochs, last)
        return Schedule(self.name, {"start": first / epochs, "end": last / epochs}) if first < last else None

    def __call__(self, progress: float) -> float:
        """The factor at `progress`, which is clipped to 0..1."""
        return SCHEDULES[self.name](min(1.0, max(0.0, progress)), **self.options)

    def describe(self) -> str:
        """One word for logs and cards: `warmup(share=0.2)`."""
        options = ", ".join(f"{name}={value:g}" for name, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


def build_schedule(spec: str | Mapping[str, Any] | Schedule | None) -> Schedule | None:
    """A schedule from its name, or from a mapping with `name` and options; `None` stays `None`.

    Raises:
        ValueError: If the name or an option is unknown, or an option is no number (see `Schedule`).
    """
    if spec is None or isinstance(spec, Schedule):
        return spec
    if isinstance(spec, str):
        return Schedule(spec)
    if not isinstance(spec, Mapping) or "name" not in spec:
        raise ValueError(f"`schedule` is {shown(spec)}; write a name, or a mapping: {{name: warmup, share: 0.2}}.")
    fields = as_mapping(spec, "`schedule`")
    name = as_hint(fields.pop("name"), str, "`schedule`: `name`")
    return Schedule(name, {key: as_hint(value, float, f"`schedule`: {key}") for key, value in fields.items()})
