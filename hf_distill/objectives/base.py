"""What an objective is, and the registry that gives objectives names.

An objective declares the signals it needs from each side, and turns them into a dict of named, unweighted terms, each
a mean over its items (rows, tokens or labels). Weights, accumulation, distributed reduction and logging belong to the
trainer.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ..signals import SignalRequest, Signals

Unit = Literal["rows", "tokens", "labels"]


class Objective(nn.Module):
    """One training signal.

    The life of an objective: `bind` (the depths of both models are known: resolve layers), then the trainer asks
    `student_request` and `teacher_request`, then `check` (one probe batch of both sides: refuse what cannot work),
    then `forward` on every batch.

    Attributes:
        unit: What a term is a mean over: `rows` of the batch, real `tokens`, or `labels` (not negative).
        needs_teacher: Whether the objective compares with a teacher.
        citation: BibTeX key of the paper (see `hf_distill.hub`), or "".
    """

    unit: Unit = "rows"
    needs_teacher: ClassVar[bool] = True
    citation: ClassVar[str] = ""

    def bind(self, num_student_layers: int, num_teacher_layers: int | None) -> None:
        """Resolve everything that depends on the depth of the models; `None` without a teacher."""

    @property
    def student_request(self) -> SignalRequest:
        """Signals needed from the student."""
        return SignalRequest()

    @property
    def teacher_request(self) -> SignalRequest:
        """Signals needed from the teacher."""
        return SignalRequest()

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Look at one probe batch and raise `ValueError` if the two sides do not fit."""

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The unweighted terms of one batch, each a scalar mean over `unit`.

        Args:
            student: Signals of the student, with gradient.
            teacher: Signals of the teacher, without.
            labels: The label columns of the batch (`labels`, or `start_positions` and `end_positions`).
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """The settings that decide the value of the loss, for the checkpoint and the card."""
        return {}


@dataclass(frozen=True)
class WeightedObjective:
    """An objective with its name in logs and its weight in the sum."""

    name: str
    objective: Objective
    weight: float = 1.0


_REGISTRY: dict[str, Callable[..., Objective]] = {}


def register_objective(name: str) -> Callable[[type[Objective]], type[Objective]]:
    """Class decorator: make an objective known by name to `objectives=["name:weight"]`."""

    def register(cls: type[Objective]) -> type[Objective]:
        if name in _REGISTRY:
            raise ValueError(f"An objective named {name!r} is registered already.")
        _REGISTRY[name] = cls
        return cls

    return register


def list_objectives() -> dict[str, str]:
    """Every registered objective with the first line of its documentation."""
    return {name: inspect.getdoc(cls).partition("\n")[0] for name, cls in sorted(_REGISTRY.items())}  # type: ignore[union-attr]


def build_objective(name: str, options: Mapping[str, Any]) -> Objective:
    """Create a registered objective; of `options` it takes those its constructor knows.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _REGISTRY:
        close = difflib.get_close_matches(name, _REGISTRY, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`--objectives` has {name!r}; allowed are {', '.join(sorted(_REGISTRY))}.{hint}")
    factory = _REGISTRY[name]
    accepted = inspect.signature(factory).parameters
    return factory(**{key: value for key, value in options.items() if key in accepted})


def build_objectives(
    items: Sequence[str | Objective | WeightedObjective], options: Mapping[str, Any] | None = None
) -> list[WeightedObjective]:
    """Turn `["relation:1.0", "logits:0.5"]`, objects, or a mix of both into weighted objectives.

    Args:
        items: `name`, `name:weight`, an `Objective` (weight 1), or a `WeightedObjective`.
        options: Settings shared by all, by the names of the constructors' parameters.

    Raises:
        ValueError: If an item cannot be read, a name occurs twice, or a weight is not positive.
    """
    built: list[WeightedObjective] = []
    for item in items:
        if isinstance(item, WeightedObjective):
            built.append(item)
        elif isinstance(item, Objective):
            built.append(WeightedObjective(_snake_case(type(item).__name__), item))
        else:
            name, _, weight = item.partition(":")
            built.append(WeightedObjective(name, build_objective(name, options or {}), _parse_weight(item, weight)))
    names = [item.name for item in built]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"`--objectives` names {twice} more than once; give each objective one weight.")
    return built


def _parse_weight(item: str, text: str) -> float:
    try:
        weight = float(text or 1.0)
    except ValueError:
        weight = float("nan")
    if not weight > 0:
        raise ValueError(f"`--objectives` has {item!r}; write `name` or `name:weight` with a weight above 0.")
    return weight


def _snake_case(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
