"""Several teachers as one source: each runs for the signals of its objectives, and every objective gets its signals.

Shape legend: N teachers, B rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from hf_distill.tasks.labels import LABEL_COLUMNS

from ..capture.signals import SignalRequest, Signals, checked_signals
from ..objectives import Objective, WeightedObjective
from ..settings.distill import CombinationRule
from ..tasks.rows.text import has_transform
from .base import TeacherSource
from .combination import combine_logits
from .routing import (
    TEACHER_COLUMN,
    join_parts,
    only_requested,
    rows_of_teachers,
    shapes_of,
    take_inputs,
    take_rows,
)
from .stored.teacher import StoredCollator, join_rows

logger = logging.getLogger(__name__)
LOGITS = SignalRequest(logits=True)


class SeveralTeachers(TeacherSource):
    """Several teachers as one, each asked once a batch, and only for what its objectives need.

    An objective learns from one teacher (`WeightedObjective.teacher`) or, without one, from all: from the combination
    of their logits or, with the rule `route`, from the teacher that its row names. A single teacher needs no rule.

    Attributes:
        teachers: In the order in which they are counted.
        rule: How their logits become one.
        weights: (N,), of sum 1.
        num_layers: Layers of the first teacher.
        model_type: That of the teachers if it is the same, else "".
        own_tokens: What all of them read in place of the student's tokens; `None` if they differ.
    """

    def __init__(
        self,
        teachers: Sequence[TeacherSource],
        rule: CombinationRule = "mean_logits",
        weights: Sequence[float] | None = None,
        *,
        offload: bool = False,
    ) -> None:
        """Bring the teachers together.

        Args:
            teachers: At least one.
            rule: See `MultiTeacherArguments.combine`.
            weights: One above 0 for each teacher; equal if `None`.
            offload: Whether a teacher is on the device of training only while it runs; the next one comes meanwhile.

        Raises:
            ValueError: If there is no teacher, or not one weight for each.
        """
        if not teachers:
            raise ValueError("`--teacher_models` is empty; give at least one teacher.")
        if weights is not None and len(weights) != len(teachers):
            raise ValueError(
                f"`--teacher_weights` has {len(weights)} weights, but there are {len(teachers)} teachers; give one "
                "for each."
            )
        self.teachers = list(teachers)
        self.rule: CombinationRule = rule
        raw = torch.tensor([1.0] * len(self.teachers) if weights is None else list(weights), dtype=torch.float64)
        raw = raw / raw.max()
        self.weights = (raw / raw.sum()).float()
        self.offload = offload
        self.device = torch.device("cpu")
        self.num_layers = self.teachers[0].num_layers
        types = {teacher.model_type for teacher in self.teachers}
        self.model_type = types.pop() if len(types) == 1 else ""
        self._own_tokens = {one.own_tokens and one.own_tokens.prefix: one.own_tokens for one in self.teachers}
        self.own_tokens = next(iter(self._own_tokens.values())) if len(self._own_tokens) == 1 else None
        self._stored: list[Any] = [one for one in self.teachers if one.dataset is not None]
        self._problem_type: str | None = None
        self._teacher_of: dict[str, int] = {}
        self._together: dict[str, Objective] = {}

    @property
    def routes(self) -> bool:
        """Whether rows choose among several teachers."""
        return self.rule == "route" and len(self.teachers) > 1

    @property
    def members(self) -> list[TeacherSource]:
        """The teachers."""
        return self.teachers

    @property
    def dataset(self) -> datasets.Dataset | None:
        """The rows of the stored ones, with the signals of all of them; `None` if none is stored.

        Raises:
            ValueError: If they were stored for different rows.
        """
        return join_rows(self._stored) if self._stored else None

    @property
    def input_columns(self) -> list[str]:  # type: ignore[override]
        """Columns of a batch that one of the teachers, or the rule, reads."""
        columns = {name for teacher in self.teachers for name in teacher.input_columns}
        return sorted(columns | ({TEACHER_COLUMN} if self.routes else set()))

    @property
    def required_columns(self) -> list[str]:  # type: ignore[override]
        """Columns without which the teachers, or the rule, say nothing."""
        columns = {name for teacher in self.teachers for name in teacher.required_columns}
        return sorted(columns | ({TEACHER_COLUMN} if self.routes else set()))

    @property
    def kept_columns(self) -> list[str]:  # type: ignore[override]
        """Columns of the rows that the rule reads."""
        if self.routes:
            return [TEACHER_COLUMN]
        return ["labels"] if self.rule == "confidence" else []

    def of(self, item: WeightedObjective) -> TeacherSource:
        """The one teacher that an objective learns from, or this one if it learns from all.

        Raises:
            ValueError: If there is no such teacher.
        """
        index = self._index_of(item)
        return self if index is None else self.teachers[index]

    def _index_of(self, item: WeightedObjective) -> int | None:
        if item.teacher is None:
            return 0 if len(self.teachers) == 1 else None
        if not 0 <= item.teacher < len(self.teachers):
            raise ValueError(
                f"`--objectives`: {item.name!r} has `teacher` {item.teacher}; allowed are 0 to "
                f"{len(self.teachers) - 1}: {self.describe()}."
            )
        return item.teacher

    def describe(self) -> str:
        """Number, kind and depth of every teacher."""
        return ", ".join(
            f"{index} ({teacher.model_type or teacher.kind} of {teacher.num_layers} layers)"
            for index, teacher in enumerate(self.teachers)
        )

    def connect(self, objectives: Sequence[WeightedObjective], student_config: PreTrainedConfig) -> None:
        """Decide what every teacher is asked for, and compare vocabularies and labels with the student's.

        Args:
            objectives: Bound to the depths of both sides.
            student_config: The student's configuration.

        Raises:
            ValueError: If an objective needs layers of all teachers, or a teacher does not fit the student.
        """
        asking = [item for item in objectives if item.objective.teacher_request]
        indices = {item.name: self._index_of(item) for item in asking}
        self._teacher_of = {name: index for name, index in indices.items() if index is not None}
        self._together = {item.name: item.objective for item in asking if indices[item.name] is None}
        self._problem_type = getattr(student_config, "problem_type", None)
        for name, objective in self._together.items():
            self._check_together(name, objective.teacher_request)
        for index, teacher in enumerate(self.teachers):
            its = (item.objective for item in asking if indices[item.name] in (None, index))
            request = SignalRequest.union(objective.teacher_request for objective in its)
            if not request:
                logger.warning(f"No objective learns from teacher {index} of {self.describe()}.")
                continue
            try:
                teacher.ask_for(request, student_config)
            except ValueError as error:
                raise ValueError(f"Teacher {index}: {error}") from error

    def _check_together(self, name: str, request: SignalRequest) -> None:
        if request == LOGITS:
            return
        if not self.routes:
            raise ValueError(
                f"The objective {name!r} compares layers, but there are {len(self.teachers)} teachers, whose layers "
                f"cannot be combined: {self.describe()}. Choose one with `teacher`: "
                f'{{"objective": "{name}", "teacher": 0}}.'
            )
        if len(self._own_tokens) > 1:
            raise ValueError(
                f"`--combine route`: the objective {name!r} compares layers, but the teachers read the text with "
                "different tokenizers, so that their rows are cut into different pieces. Choose one with `teacher`, "
                "or route objectives on logits only."
            )
        if len({teacher.num_layers for teacher in self.teachers}) > 1:
            raise ValueError(
                f"`--combine route`: the objective {name!r} compares layers, but the teachers differ: "
                f"{self.describe()}. Choose one with `teacher`, or take teachers of one shape."
            )

    def to(self, device: torch.device) -> None:
        """Move to the device of training, or remember it where each teacher goes there only to run."""
        self.device = device
        self.weights = self.weights.to(device)
        for teacher in [] if self.offload else self.teachers:
            teacher.to(device)

    def share_out(self, settings: Mapping[str, Any]) -> None:
        """Share out each teacher that stays on the device."""
        for teacher in [] if self.offload else self.teachers:
            teacher.share_out(settings)

    def tokenizer(self) -> Any:
        """The tokenizer of the stored rows."""
        return self._stored[0].tokenizer() if self._stored else None

    def collator(self, inner: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        """A collator that adds what is stored to the batches of `inner`."""
        return StoredCollator(self._stored, inner) if self._stored else inner

    def check_rows(self, dataset: Any, what: str) -> None:
        """Refuse rows that name no teacher, or lack what one of the teachers reads.

        Raises:
            ValueError: If there are such.
        """
        if self.routes:
            self._check_routes(dataset, what)
        for teacher in self.teachers:
            teacher.check_rows(dataset, what)

    def _check_routes(self, dataset: Any, what: str) -> None:
        """Every row must name a teacher that exists."""
        if isinstance(dataset, Mapping) and not isinstance(dataset, datasets.Dataset):
            for name, part in dataset.items():
                self._check_routes(part, f"{what}[{name!r}]")
            return
        columns = getattr(dataset, "column_names", None)
        if not isinstance(columns, list) or has_transform(dataset):
            return  # A stream shows its columns batch by batch, and is checked there.
        allowed = f"a number from 0 to {len(self.teachers) - 1} for every row"
        if TEACHER_COLUMN not in columns:
            raise ValueError(
                f"`--combine route` needs the column {TEACHER_COLUMN!r} in `{what}`, with {allowed}; it has {columns}."
            )
        if isinstance(dataset, datasets.Dataset):
            found = set(dataset.with_format(None).unique(TEACHER_COLUMN))
            wrong = sorted(found - set(range(len(self.teachers))), key=str)
            if wrong:
                raise ValueError(
                    f"`--combine route`: the column {TEACHER_COLUMN!r} of `{what}` has {wrong[:5]}; allowed is "
                    f"{allowed}: {self.describe()}."
                )

    def signals(self, inputs: Mapping[str, Any]) -> dict[str, Signals]:
        """Return the signals of a batch for every objective, by its name."""
        alone = sorted(set(self._teacher_of.values()))
        routes = rows_of_teachers(inputs, len(self.teachers)) if self._together and self.routes else None
        others = [index for index in range(len(self.teachers)) if index not in alone] if self._together else []
        due = alone + [index for index in others if routes is None or len(routes[index])]

        def ask(index: int, part: Mapping[str, Any]) -> Signals:
            following = due[due.index(index) + 1 :]
            return self._ask(index, self.teachers[index].signals, part, following)

        answers = {index: ask(index, inputs) for index in alone}
        together: dict[str, Signals] = {}
        if routes is not None:
            routed = self._route(inputs, routes, answers, ask)
            together = dict.fromkeys(self._together, routed)
        elif self._together:
            everyone = [answers[i] if i in answers else ask(i, inputs) for i in range(len(self.teachers))]
            together = self._combine(everyone, inputs)
        return {**{name: answers[index] for name, index in self._teacher_of.items()}, **together}

    def probe(self, inputs: Mapping[str, Any]) -> dict[str, Signals]:
        """As `signals` for a tiny batch without labels or `teacher_id`, after comparing the teachers' shapes.

        Raises:
            ValueError: If objectives learn from all teachers, and these do not give the same.
        """
        asked = range(len(self.teachers)) if self._together else sorted(set(self._teacher_of.values()))
        answers = {index: self._probe(index, inputs) for index in asked}
        together: dict[str, Signals] = {}
        if self._together:
            request = self._request_together()
            shapes = {index: shapes_of(only_requested(signals, request)) for index, signals in answers.items()}
            if any(shape != shapes[0] for shape in shapes.values()):
                listed = "; ".join(f"teacher {index} gives {shape}" for index, shape in shapes.items())
                raise ValueError(
                    f"The objectives {sorted(self._together)} learn from all teachers, but these give different "
                    f"things: {listed}. Choose one with `teacher`, or take teachers of one shape."
                )
            everyone = list(answers.values())
            of_tokens = [n for n, values in everyone[0].logits.items() if values.dim() == 3 or n != "logits"]
            if request.logits and of_tokens and len(self._own_tokens) > 1:
                raise ValueError(
                    f"The objectives {sorted(self._together)} learn {of_tokens} from all teachers, whose tokenizers "
                    "differ, so that they speak about other pieces of text: choose one with `teacher`."
                )
            together = dict.fromkeys(self._together, everyone[0]) if self.routes else self._combine(everyone, inputs)
        return {**{name: answers[index] for name, index in self._teacher_of.items()}, **together}

    def fingerprint(self) -> dict[str, Any]:
        """Return the values that identify the teachers and their combination; a resumed run must find the same."""
        return {
            "teachers": [teacher.fingerprint() for teacher in self.teachers],
            "combine": self.rule,
            "teacher_weights": [round(weight, 6) for weight in self.weights.tolist()],
            "teacher_of": dict(sorted(self._teacher_of.items())),
        }

    def _mask(self, answers: Sequence[Signals], inputs: Mapping[str, Any]) -> Tensor:
        """The mask of answers that become one: where the teachers read different tokens, the student's."""
        return answers[0].attention_mask if len(self._own_tokens) == 1 else inputs["attention_mask"]

    def _probe(self, index: int, inputs: Mapping[str, Any]) -> Signals:
        teacher = self.teachers[index]
        try:
            return self._ask(index, teacher.probe, inputs)
        except ValueError as error:
            raise ValueError(f"Teacher {index}: {error}") from error

    def _request_together(self) -> SignalRequest:
        return SignalRequest.union(objective.teacher_request for objective in self._together.values())

    def _ask(
        self,
        index: int,
        method: Callable[[Mapping[str, Any]], Signals],
        inputs: Mapping[str, Any],
        following: Sequence[int] = (),
    ) -> Signals:
        if not self.offload:
            return self._checked(index, method(inputs), inputs)
        with self.teachers[index].on_device(self.device):
            if following:
                self.teachers[following[0]].fetch(self.device)
            return self._checked(index, method(inputs), inputs)

    def _checked(self, index: int, said: Any, inputs: Mapping[str, Any]) -> Signals:
        """What a teacher said, if it is signals of the batch's rows: those of one would be repeated for all of them.

        Raises:
            ValueError: If it is something else.
        """
        who, rows = f"{index}, {self.teachers[index].describe()}", len(inputs["attention_mask"])
        signals: Signals = checked_signals(said, who)
        for name, values in signals.logits.items():
            if len(values) != rows:
                raise ValueError(f"The teacher ({who}): its {name} have {len(values)} rows, but it was given {rows}.")
        return signals

    def _route(
        self,
        inputs: Mapping[str, Any],
        routes: Sequence[Tensor],
        answers: Mapping[int, Signals],
        ask: Callable[[int, Mapping[str, Any]], Signals],
    ) -> Signals:
        """Every row from its own teacher, which sees only its rows unless it was asked about all anyway."""
        parts, places, request = [], [], self._request_together()
        for index, rows in enumerate(routes):
            if len(rows):
                known = index in answers
                own = take_inputs(inputs, rows)
                part = only_requested(take_rows(answers[index], rows) if known else ask(index, own), request)
                part.attention_mask = self._mask([part], own)
                parts.append(part)
                places.append(rows)
        return join_parts(parts, places)

    def _combine(self, everyone: Sequence[Signals], inputs: Mapping[str, Any]) -> dict[str, Signals]:
        """One prediction for each temperature at which objectives compare."""
        labels: dict[str, Tensor] = {name: inputs[name] for name in LABEL_COLUMNS if inputs.get(name) is not None}
        mask, candidates = self._mask(everyone, inputs), everyone[0].candidates
        at: dict[float, Signals] = {}
        for temperature in (objective.current_temperature for objective in self._together.values()):
            if temperature not in at:
                combined = combine_logits(
                    [signals.logits for signals in everyone],
                    self.rule,
                    self.weights,
                    mask,
                    labels=labels,
                    temperature=temperature,
                    problem_type=self._problem_type,
                    has_candidates=candidates is not None,
                )
                at[temperature] = Signals(attention_mask=mask, logits=combined, candidates=candidates)
        return {name: at[objective.current_temperature] for name, objective in self._together.items()}
