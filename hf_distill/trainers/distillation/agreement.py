"""Measures how far student and teacher agree on held-out rows, in the signals of the training's objectives.

No extra pass is needed: the signals are those that the objectives use anyway. Every batch gives sums, and the sums of
all batches and processes give the result, so it does not depend on the batch size.

Shape legend: B rows, T padded length, N = B x T tokens, C classes, D width of the student, E of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor

from ...capture.signals import Signals
from ...objectives import Objective
from ...objectives.logits import SPAN_LABELS, only_real_positions, soft_binary_loss, soft_loss, token_mask
from ...objectives.relation import SIDES

Sums = dict[str, Tensor]
# Sums a tensor over the processes.
Reduce = Callable[[Tensor, Literal["sum"]], Tensor]
AGREEMENT = "agreement"


def can_agree(objective: Objective) -> bool:
    """Whether an objective sees outputs, vectors of texts, hidden states, or queries, keys and values of both."""
    return bool(_kind(objective))


def agreement_sums(
    name: str, objective: Objective, student: Signals, teacher: Signals, labels: Mapping[str, Tensor]
) -> Sums:
    """Return the sums that one batch adds to the agreement of one objective.

    Outputs are compared by the share of equal predictions and by the KL divergence from the teacher's probabilities at
    temperature 1; regression by the squared correlation. Layers, which may have different widths, are compared by
    linear CKA of their tokens (Kornblith et al. 2019): the cosine between the centred similarities of all pairs of
    tokens. It is 1 if the features are equal up to rotation and scale. The deepest layers of the objective are
    compared; for queries, keys and values the three values are averaged.

    Args:
        name: The objective's name.
        objective: The objective.
        student: Its signals of the student.
        teacher: Its signals of the teacher.
        labels: Label columns of the batch.

    Returns:
        Sums by `<name>|<what>|<sum>`, to be added over batches; nothing for an objective that cannot agree.
    """
    kind = _kind(objective)
    if kind == "outputs":
        sums = _output_sums(objective, student, teacher, labels)
    elif kind == "hidden_states":
        one, other = (side.hidden_states[max(side.hidden_states)] for side in (student, teacher))
        sums = _feature_sums("features", one, other, student.attention_mask)
    elif kind == "projections":
        ours, theirs = (side.projections[max(side.projections)] for side in (student, teacher))
        sums = {}
        for part in SIDES.values():
            sums |= _feature_sums(part, getattr(ours, part), getattr(theirs, part), student.attention_mask)
    elif kind == "pooled":
        sums = _feature_sums("features", cast(Tensor, student.pooled), cast(Tensor, teacher.pooled), None)
    else:
        sums = {}
    return {f"{name}|{key}": value for key, value in sums.items()}


@dataclass
class AgreementMeter:
    """Adds the sums of batches on the device, until the result is read."""

    _sums: Sums = field(default_factory=dict)

    def add(self, sums: Mapping[str, Tensor]) -> None:
        """Add those of one batch."""
        for key, value in sums.items():
            self._sums[key] = self._sums[key] + value if key in self._sums else value

    def take(self, reduce: Reduce) -> dict[str, float]:
        """The numbers, and a new beginning.

        Args:
            reduce: Sums a tensor over the processes.

        Returns:
            `agreement/<objective>` (0 to 1, larger is closer), `kl/<objective>` where outputs are compared, and
            `agreement`: that of the first objective on outputs, else of the first.
        """
        sums = {key: reduce(value, "sum") for key, value in sorted(self._sums.items())}
        self._sums = {}
        found: dict[str, dict[str, Sums]] = {}
        for key, value in sums.items():
            name, what, part = key.split("|")
            found.setdefault(name, {}).setdefault(what, {})[part] = value
        numbers: dict[str, float] = {}
        for name, parts in found.items():
            if "decisions" in parts:
                same, divergence, items = (parts["decisions"][part] for part in ("same", "kl", "items"))
                numbers[f"{AGREEMENT}/{name}"] = float(same / items.clamp(min=1))
                numbers[f"kl/{name}"] = float(divergence / items.clamp(min=1))
            else:
                values = [_linear_cka(sums) for sums in parts.values()]
                numbers[f"{AGREEMENT}/{name}"] = float(sum(values) / len(values))
        return numbers


def headline(numbers: Mapping[str, float], order: list[str]) -> float | None:
    """The one number: that of the first objective on outputs, else of the first.

    Args:
        numbers: What `AgreementMeter.take` gives.
        order: Names of the objectives.
    """
    names = [name for name in order if f"{AGREEMENT}/{name}" in numbers]
    names.sort(key=lambda name: f"kl/{name}" not in numbers)
    return numbers[f"{AGREEMENT}/{names[0]}"] if names else None


def _kind(objective: Objective) -> str:
    """Return the kind of signal that an objective compares, the outputs first."""
    ours, theirs = objective.student_request, objective.teacher_request
    if ours.logits and theirs.logits:
        return "outputs"
    kinds = ("pooled", "hidden_states", "projections")
    return next((kind for kind in kinds if getattr(ours, kind) and getattr(theirs, kind)), "")


def _output_sums(objective: Objective, student: Signals, teacher: Signals, labels: Mapping[str, Tensor]) -> Sums:
    """Equal decisions and KL divergence over rows, real tokens or labels."""
    ours, theirs = student.logits, teacher.logits
    problem = getattr(objective, "problem_type", None)
    if SPAN_LABELS.keys() & ours.keys():
        mask = student.attention_mask
        pairs = [[only_real_positions(side[name].float(), mask) for side in (ours, theirs)] for name in SPAN_LABELS]
        same = torch.stack([one.argmax(-1) == other.argmax(-1) for one, other in pairs]).all(0)
        divergence = torch.stack([soft_loss(one, other, "kl", 1.0) for one, other in pairs]).mean(0)
        return _decision_sums(same, divergence, None)
    one, other = ours["logits"].float(), theirs["logits"].float()
    if student.candidates is not None:
        return _decision_sums(one.argmax(-1) == other.argmax(-1), soft_loss(one, other, "kl", 1.0), None)
    counted = token_mask(one, student.attention_mask)
    if problem == "regression" or one.shape[-1] == 1:
        return _feature_sums("features", one, other, counted)
    if problem == "multi_label_classification":
        same = ((one > 0) == (other > 0)).float().mean(-1)
        return _decision_sums(same, soft_binary_loss(one, other, "kl", 1.0), counted)
    if objective.unit == "labels" and "labels" in labels:
        # Such as the masked tokens of masked language modelling; chosen before the softmax over the vocabulary.
        shown = labels["labels"] >= 0
        one, other, counted = one[shown], other[shown], None
    return _decision_sums(one.argmax(-1) == other.argmax(-1), soft_loss(one, other, "kl", 1.0), counted)


def _decision_sums(same: Tensor, divergence: Tensor, counted: Tensor | None) -> Sums:
    """Sums over what counts."""
    weights = torch.ones_like(divergence) if counted is None else counted.to(divergence.dtype)
    parts: dict[str, Any] = {"same": same.float() * weights, "kl": divergence * weights, "items": weights}
    return {f"decisions|{part}": _wide(values.sum()) for part, values in parts.items()}


def _feature_sums(what: str, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Sums:
    """First and second moments of two sets of features (B, T, D) and (B, T, E), or (B, D) and (B, E)."""
    real = torch.ones(student.shape[:-1], device=student.device) if mask is None else mask.float()
    shown = real.bool()[..., None]
    # (N, D) and (N, E); what is masked adds 0 everywhere, so that no shape depends on the data.
    ours, theirs = (torch.where(shown, side.float(), 0.0).flatten(0, -2) for side in (student, teacher))
    parts = {
        "items": real.sum(),
        "x": ours.sum(0),
        "y": theirs.sum(0),
        "xx": ours.T @ ours,
        "yy": theirs.T @ theirs,
        "xy": ours.T @ theirs,
    }
    return {f"{what}|{part}": _wide(values) for part, values in parts.items()}


def _linear_cka(sums: Sums) -> float:
    """Linear CKA of all tokens from their moments; 0 where a side never changes."""
    items = sums["items"].clamp(min=1)

    def scatter(left: str, right: str) -> Tensor:
        return (sums[left + right] - torch.outer(sums[left], sums[right]) / items).norm()

    scale = scatter("x", "x") * scatter("y", "y")
    return float(scatter("x", "y").square() / scale) if scale > 0 else 0.0


def _wide(values: Tensor) -> Tensor:
    """In float64, where the device has it: means are subtracted from large sums."""
    return values if values.device.type == "mps" else values.double()
