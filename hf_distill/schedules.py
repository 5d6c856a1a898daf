"""How a weight changes during training: pure functions of progress.

Progress is the share of the optimizer steps that are done, from 0 at the first step to nearly 1 at the last.
A schedule gives the factor that the configured weight is multiplied with; because it depends on progress alone, a
resumed run continues with the very same weights.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def linear_growth(progress: float) -> float:
    """From 0 to 1."""
    return progress


def linear_decay(progress: float) -> float:
    """From 1 to 0."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine."""
    return (1.0 + math.cos(math.pi * progress)) / 2.0


def warmup(progress: float, share: float = 0.1) -> float:
    """From 0 to 1 over the first `share` of the steps, then 1."""
    return min(1.0, progress / share) if share > 0 else 1.0


def stage(progress: float, start: float = 0.0, end: float = 1.0) -> float:
    """1 from the share `start` of the steps until `end`, 0 before and after: one stage of several in a run."""
    return 1.0 if start <= progress and (progress < end or end >= 1.0) else 0.0


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
        """Refuse what is not there."""
        if self.name not in SCHEDULES:
            close = difflib.get_close_matches(self.name, SCHEDULES, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"`schedule` is {self.name!r}; allowed are {', '.join(SCHEDULES)}.{hint}")
        known = list(inspect.signature(SCHEDULES[self.name]).parameters)[1:]
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise ValueError(f"`schedule` {self.name!r} has no options {unknown}; it has {known}.")

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
        ValueError: If the name or an option is unknown.
    """
    if spec is None or isinstance(spec, Schedule):
        return spec
    if isinstance(spec, str):
        return Schedule(spec)
    if not isinstance(spec, Mapping) or "name" not in spec:
        raise ValueError(f"`schedule` is {spec!r}; write a name, or a mapping such as {{name: warmup, share: 0.2}}.")
    return Schedule(str(spec["name"]), {key: float(value) for key, value in spec.items() if key != "name"})
