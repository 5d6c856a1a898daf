"""The base class of objectives, and the registry that gives objectives names.

An objective declares the signals that it needs of student and teacher, and computes a dict of named, unweighted terms
from them, each a mean over rows, tokens or labels. Weights, accumulation, distributed reduction and logging belong to
the trainer.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_type_hints

from torch import Tensor, distributed as dist, nn

from ..capture.signals import SignalRequest, Signals
from ..storage.plain_values import as_hint, as_mapping, can_check, check_range, did_you_mean, load_json, shown
from .schedules import Schedule, build_schedule

Unit = Literal["rows", "tokens", "labels"]


class Objective(nn.Module):
    """A loss that compares the student with a teacher or with labels.

    The trainer calls its methods in this order: `bind` with the number of layers of both models, so that layers can be
    resolved; `student_request` and `teacher_request`; `check` with the signals of one batch, where the objective can
    refuse models that do not fit and create parameters; and `forward` on every batch. Parameters of an objective, such
    as projections, are trained and clipped with the student and saved beside it, never in it.

    Attributes:
        unit: What a term is a mean over: `rows` of the batch, real `tokens`, or `labels` (not negative).
        needs_teacher: Whether the objective compares with a teacher.
        needs_labels: Whether it needs gold labels, with any settings.
        reads_candidates: Whether a row must be a query with candidates, each with one score.
        least_rows: Smallest number of rows in a batch for which the loss is not trivially 0.
        citation: BibTeX key of the paper (see `hf_distill.hub`), or "".
        formula: What is computed, in one line of plain text; S is the student, T the teacher.
        registered_name: Its name in the registry, which `register_objective` sets.
    """

    unit: Unit = "rows"
    needs_teacher: ClassVar[bool] = True
    needs_labels: bool = False
    reads_candidates: ClassVar[bool] = False
    least_rows: int = 1
    citation: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    registered_name: ClassVar[str] = ""

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

    @property
    def current_temperature(self) -> float:
        """The temperature at which logits are compared now; several teachers' probabilities are averaged at it."""
        return float(getattr(self, "temperature", 1.0))

    @property
    def fits_projections(self) -> bool:
        """Whether it has projections that begin with a fit (see `projected`); known after `check`."""
        return False

    @property
    def scheduled(self) -> dict[str, float]:
        """Settings that move with the progress, as they are now; they are logged as `<setting>/<objective>`."""
        return {}

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Check the signals of one batch: raise `ValueError` if the models do not fit, and create parameters.

        It may be called again (for a new student from `model_init`); parameters are then created again.
        """

    def projected(self, student: Signals, teacher: Signals) -> Iterator[tuple[nn.Linear, Tensor, Tensor]]:
        """Give the projections that begin with a fit, each with its inputs (N, I) and goals (N, O) in one batch.

        Before the first update the trainer fits them to rows of the training, by ridge regression.
        """
        return iter(())

    def set_progress(self, progress: float) -> None:
        """Called before every optimizer step with the share of the steps that are done."""

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
    """An objective with its weight in the loss.

    Attributes:
        name: Its name in logs, which no other objective has.
        objective: The objective.
        weight: Its weight in the loss.
        schedule: How the weight changes during training; `None`: it is constant.
        teacher: Number of the teacher that it learns from, counted from 0; `None`: the combined logits of all
            teachers.
    """

    name: str
    objective: Objective
    weight: float = 1.0
    schedule: Schedule | None = None
    teacher: int | None = None

    def __post_init__(self) -> None:
        """Check weight and name."""
        if not 0 < self.weight < math.inf:
            raise ValueError(
                f"The weight of the objective {self.name!r} is {self.weight}; it must be above 0 and finite."
            )
        if not re.fullmatch(r"[A-Za-z][\w-]*", self.name):
            raise ValueError(f"An objective is named {self.name!r}; allowed are letters, digits, _ and -.")


NO_TEACHER = "This objective compares with a teacher: give `--teacher_model`."


def required(teacher: Signals | None) -> Signals:
    """The teacher's signals.

    Raises:
        ValueError: If there are none.
    """
    if teacher is None:
        raise ValueError(NO_TEACHER)
    return teacher


def resolve_layer(layer: int, num_layers: int, *, flag: str, allow_embeddings: bool = False) -> int:
    """Turn a layer number given by a user into a 1-based one.

    Args:
        layer: 1-based, 0 = embeddings, negative from the end (-1 = last).
        num_layers: Depth of the model.
        flag: The argument that carried the number, for the error.
        allow_embeddings: Whether 0 is legal here.

    Raises:
        ValueError: If the model has no such layer.
    """
    resolved = layer + num_layers + 1 if layer < 0 else layer
    lowest = 0 if allow_embeddings else 1
    if not lowest <= resolved <= num_layers:
        raise ValueError(
            f"`{flag}`: there is no layer {layer} in a model of {num_layers} layers; "
            f"legal are {lowest}..{num_layers}, or -1..-{num_layers} from the end."
        )
    return resolved


def over_processes(values: Tensor) -> Tensor:
    """The sum of what all processes of a training have; called in all of them at once.

    For statistics that change a loss: if every process used its own, their losses would differ.
    """
    if not dist.is_available() or not dist.is_initialized():
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def as_in_first_process(values: Tensor) -> None:
    """Make values those of the first process of a training, in place; called in all of them at once."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(values.detach(), src=0)


_REGISTRY: dict[str, type[Objective]] = {}


def register_objective(name: str) -> Callable[[type[Objective]], type[Objective]]:
    """Class decorator: make an objective known by name to `objectives=["name:weight"]`."""

    def register(cls: type[Objective]) -> type[Objective]:
        if name in _REGISTRY:
            raise ValueError(f"An objective named {name!r} is registered already.")
        _REGISTRY[name] = cls
        cls.registered_name = name
        return cls

    return register


def list_objectives() -> dict[str, str]:
    """Every registered objective with the first line of its documentation."""
    return {name: inspect.getdoc(cls).partition("\n")[0] for name, cls in sorted(_REGISTRY.items())}  # type: ignore[union-attr]


def objective_class(name: str) -> type[Objective]:
    """The class registered under a name.

    Raises:
        ValueError: If there is none.
    """
    if name not in _REGISTRY:
        hint = did_you_mean(name, _REGISTRY)
        raise ValueError(f"`--objectives` has {name!r}; allowed are {', '.join(sorted(_REGISTRY))}.{hint}")
    return _REGISTRY[name]


def build_objective(name: str, shared: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> Objective:
    """Create a registered objective.

    Args:
        name: Its name in the registry.
        shared: Settings of all objectives; the constructor gets those that it knows.
        own: Settings of this one; the constructor must know all of them.

    Raises:
        ValueError: If the name or one of its own settings is unknown.
    """
    factory, own = objective_class(name), own or {}
    accepted = inspect.signature(factory).parameters
    unknown = sorted(set(own) - set(accepted))
    if unknown:
        raise ValueError(
            f"`--objectives`: {name!r} has no settings {unknown}; it has {sorted(accepted)}, and every objective has "
            f"{sorted(ITEM_FIELDS)}."
        )
    settings = {key: value for key, value in shared.items() if key in accepted}
    settings |= _checked_settings(factory, name, own)
    try:
        return factory(**settings)
    except ValueError as error:
        raise ValueError(f"`--objectives`: {name!r}: {error}") from error


ObjectiveItem = str | Mapping[str, Any] | Objective | WeightedObjective
ObjectiveItems = Sequence[ObjectiveItem] | ObjectiveItem


def build_objectives(items: ObjectiveItems, options: Mapping[str, Any] | None = None) -> list[WeightedObjective]:
    """Turn names, mappings, objects, or a mix of them into weighted objectives.

    Args:
        items: `"name"`, `"name:weight"`, a mapping (or its JSON text) with `objective` and optionally `name`,
            `weight`, `schedule`, `teacher` and settings of the objective, an `Objective` (weight 1), or a
            `WeightedObjective`. One item may stand for a list of it; a mapping `name: weight` is a list of its pairs.
        options: Settings shared by all, by the names of the constructors' parameters.

    Raises:
        ValueError: If an item cannot be read, a name occurs twice, or a weight is not positive.
    """
    built = [_build_item(item, options or {}) for item in objective_items(items)]
    names = [item.name for item in built]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"`--objectives` names {twice} more than once; give each one weight, or a `name` of its own: "
            f'{{"objective": "{twice[0]}", "name": "{twice[0]}_2", ...}}.'
        )
    return built


# What an item says of the objective's place in the sum; the rest are settings of the objective.
ITEM_FIELDS = ("objective", "name", "weight", "schedule", "teacher")


def _build_item(item: Any, options: Mapping[str, Any]) -> WeightedObjective:
    if isinstance(item, WeightedObjective):
        return item
    if isinstance(item, Objective):
        return WeightedObjective(_snake_case(type(item).__name__), item)
    if isinstance(item, str) and not item.lstrip().startswith("{"):
        name, colon, weight = item.partition(":")
        return WeightedObjective(name, build_objective(name, options), _parse_weight(item, weight if colon else 1.0))
    fields = _read_item(item)
    if "objective" not in fields:
        raise ValueError(f"`--objectives` has {item!r}, which does not say which `objective`.")
    objective = as_hint(fields["objective"], str, "`--objectives`: `objective`")
    own = {key: value for key, value in fields.items() if key not in ITEM_FIELDS}
    wrong = [key for key, value in own.items() if isinstance(value, float) and not math.isfinite(value)]
    if wrong:
        raise ValueError(f"`--objectives` has {shown(item)}, in which {wrong} must be finite numbers.")
    teacher = as_hint(fields.get("teacher"), int | None, f"`--objectives`: the `teacher` of {objective!r}")
    check_range(teacher, f"`--objectives`: the `teacher` of {objective!r}", least=0)
    return WeightedObjective(
        name=as_hint(fields.get("name", objective), str, "`--objectives`: `name`"),
        objective=build_objective(objective, options, own),
        weight=_parse_weight(item, fields.get("weight", 1.0)),
        schedule=build_schedule(fields.get("schedule")),
        teacher=teacher,
    )


def chosen_objectives(items: Any, *, has_teacher: bool) -> list[Any]:
    """The objectives of a training: by default `relation`, if there is a teacher; none if nothing is distilled.

    Args:
        items: As for `build_objectives`, or `None`.
        has_teacher: Whether there is a teacher.

    Raises:
        ValueError: If there is a teacher and nothing to learn from it.
    """
    if items is None:
        return ["relation"] if has_teacher else []
    if has_teacher and not items:
        raise ValueError("There is a teacher, but `--objectives` is empty: nothing would be learnt from it.")
    return objective_items(items)


def objective_items(items: Any) -> list[Any]:
    """The items of `objectives`, one objective each.

    Raises:
        ValueError: If there is no item, or `items` is none of what `build_objectives` takes.
    """
    if isinstance(items, (str, Objective, WeightedObjective)) or (isinstance(items, Mapping) and "objective" in items):
        items = [items]
    elif isinstance(items, Mapping):
        items = [_item_of(name, value) for name, value in as_mapping(items, "`--objectives`").items()]
    if not isinstance(items, (list, tuple)):
        raise ValueError(f"`--objectives` is {shown(items)}; it must be a list of names, such as relation logits:0.5.")
    return list(items)


def _item_of(name: str, value: Any) -> dict[str, Any]:
    """One pair of a mapping: the weight of an objective, or its fields."""
    if isinstance(value, Mapping):
        return {"objective": name, **as_mapping(value, f"`--objectives`: {name!r}")}
    return {"objective": name, "weight": value}


def _checked_settings(factory: type[Objective], name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """An objective's own settings, as the types of its constructor want them."""
    hints = get_type_hints(factory.__init__)
    return {
        key: as_hint(value, hints[key], f"`--objectives`: {name!r}, `{key}`") if can_check(hints.get(key)) else value
        for key, value in settings.items()
    }


def _read_item(item: Any) -> Mapping[str, Any]:
    """The fields of a mapping, or of a mapping's JSON text."""
    if isinstance(item, str):
        item = load_json(item, f"`--objectives` has {shown(item)}, which")
    if isinstance(item, Mapping):
        return as_mapping(item, "An item of `--objectives`")
    raise ValueError(f"`--objectives` has {shown(item)}; an item is `name`, `name:weight` or a mapping.")


def _parse_weight(item: Any, value: Any) -> float:
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(
            f"`--objectives` has {shown(item)}; write `name` or `name:weight` with a finite weight above 0."
        )
    return weight


def _snake_case(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
