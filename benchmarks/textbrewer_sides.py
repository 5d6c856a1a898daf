"""One `DistillationConfig` on the same tensors, computed by TextBrewer and by us (for `textbrewer_parity.py`).

Shape legend: B rows, T padded length, D width, A attention heads, C classes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_distill.capture.signals import Signals
from hf_distill.objectives import WeightedObjective, build_objectives
from hf_distill.settings.convert import convert_config


@dataclass
class Side:
    """The outputs of one model: what an adaptor of TextBrewer returns, and our `Signals`.

    Attributes:
        hidden: (B, T, D), embeddings first.
        attention: Scores (B, A, T, T) before softmax.
        logits: By output name, (B, C), (B, T, C) or, of spans, (B, T).
    """

    hidden: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    logits: dict[str, Tensor] = field(default_factory=dict)

    def as_signals(self, mask: Tensor) -> Signals:
        """Attention of layer 1 has index 0 in TextBrewer."""
        return Signals(
            attention_mask=mask,
            logits=self.logits,
            hidden_states=dict(enumerate(self.hidden)),
            attention_scores=dict(enumerate(self.attention, 1)),
        )

    def as_results(self, mask: Tensor | None, labels: Tensor | None) -> dict[str, Any]:
        """What an adaptor returns; TextBrewer writes into the logits, so they are copies."""
        results: dict[str, Any] = {"hidden": self.hidden, "attention": self.attention}
        if self.logits:
            results["logits"] = [logits.clone() for logits in self.logits.values()]
        if mask is not None:
            results |= {"inputs_mask": mask, "logits_mask": [mask]}
        if labels is not None:
            results["labels"] = [labels]
        return results

    def row(self, index: int, real: Tensor) -> Side:
        """One row, cut to its real tokens."""

        def cut(logits: Tensor, name: str) -> Tensor:
            return logits[index : index + 1, real] if logits.dim() == 3 or name != "logits" else logits[[index]]

        return Side(
            hidden=[x[index : index + 1, real] for x in self.hidden],
            attention=[x[index : index + 1][:, :, real][:, :, :, real] for x in self.attention],
            logits={name: cut(logits, name) for name, logits in self.logits.items()},
        )


@dataclass
class Case:
    """One configuration on given tensors.

    Attributes:
        name: Loss and circumstances.
        config: TextBrewer's `DistillationConfig`.
        student: Outputs of the student.
        teacher: Outputs of the teacher.
        mask: (B, T), or `None`: TextBrewer then gets no mask, and all tokens are real here.
        labels: Gold labels, -100 where hidden.
        reason: Why the two values may differ.
        right: The value that ours must then have; by default that of TextBrewer row by row.
        shown_to_textbrewer: The outputs that TextBrewer gets, if they are different.
    """

    name: str
    config: dict[str, Any]
    student: Side
    teacher: Side
    mask: Tensor | None = None
    labels: Tensor | None = None
    reason: str = ""
    right: Callable[[Case], float] | None = None
    shown_to_textbrewer: tuple[Side, Side] | None = None

    @property
    def real(self) -> Tensor:
        """(B, T) bool."""
        if self.mask is not None:
            return self.mask.bool()
        # Predictions of rows, (B, C), have any length: their classes do as well as tokens.
        features = [*self.student.hidden, *self.student.logits.values()][0]
        return torch.ones(features.shape[:2]).bool()


def make_distiller(config: dict[str, Any], student: Any = None, teacher: Any = None, adaptor: Any = None) -> Any:
    """TextBrewer's distiller on the CPU, which writes no files."""
    # Its own source causes warnings in newer Pythons.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import textbrewer
    training = textbrewer.TrainingConfig(device="cpu", output_dir=".")
    distillation = textbrewer.DistillationConfig(**copy.deepcopy(config))
    return textbrewer.GeneralDistiller(training, distillation, teacher, student, adaptor, adaptor)


def textbrewer_total(
    config: dict[str, Any], student: Side, teacher: Side, mask: Tensor | None, labels: Tensor | None
) -> float:
    """The total loss of `GeneralDistiller`."""
    distiller = make_distiller(config)
    total, _ = distiller.compute_loss(student.as_results(mask, labels), teacher.as_results(mask, labels))
    return float(total)


def theirs(case: Case) -> float | str:
    """TextBrewer's value, or the name of its error."""
    student, teacher = case.shown_to_textbrewer or (case.student, case.teacher)
    try:
        return textbrewer_total(case.config, student, teacher, case.mask, case.labels)
    except (IndexError, RuntimeError) as error:
        return type(error).__name__


def row_by_row(case: Case) -> float:
    """TextBrewer's own functions, called so that none of its defects occurs; pooled as in the objective here."""
    unit = converted(case)[0].objective.unit
    total = count = 0.0
    for index, real in enumerate(case.real):
        weight = int(real.sum()) if unit == "tokens" else 1
        total += weight * one_row(case, index, real)
        count += weight
    return total / count / max(1, len(case.student.logits))


def one_row(case: Case, index: int, real: Tensor) -> float:
    """TextBrewer's value of one row, cut to its real tokens."""
    config, student, teacher = dict(case.config), case.student.row(index, real), case.teacher.row(index, real)
    losses = {match["loss"] for match in config.get("intermediate_matches", [])}
    labels = None if case.labels is None else case.labels[index : index + 1]
    if labels is not None and labels.dim() == 2:
        labels = labels[:, real]
    elif labels is not None and labels.item() < 0:
        config["probability_shift"] = False
    results = [side.as_results(None, labels) for side in (student, teacher)]
    if "nst" not in losses:
        # Use a mask of ones: without a mask, attention losses use their threshold; with one, nst has its wrong
        # divisor.
        for side in results:
            side["inputs_mask"] = torch.ones(1, int(real.sum()))
    return float(make_distiller(config).compute_loss(*results)[0])


def converted(case: Case) -> list[WeightedObjective]:
    """Our objectives for the configuration, bound to the sides."""
    items = build_objectives(convert_config(case.config).arguments["objectives"])
    depth = len(case.student.attention)
    bind(items, case.student.as_signals(case.real.long()), case.teacher.as_signals(case.real.long()), depth, depth)
    return items


def bind(items: list[WeightedObjective], student: Signals, teacher: Signals, depth: int, teacher_depth: int) -> None:
    """Bind objectives as a trainer does before the first step."""
    for item in items:
        item.objective.bind(depth, teacher_depth)
        item.objective.check(student, teacher)


def our_total(items: list[WeightedObjective], student: Signals, teacher: Signals, labels: Any = None) -> float:
    """The weighted sum of all terms."""
    return float(sum(item.weight * sum(item.objective(student, teacher, labels).values()) for item in items))


def ours(case: Case) -> float:
    """Our value."""
    mask = case.real.long()
    labels = None if case.labels is None else {"labels": case.labels}
    return our_total(converted(case), case.student.as_signals(mask), case.teacher.as_signals(mask), labels)
