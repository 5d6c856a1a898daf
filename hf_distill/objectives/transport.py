"""BERT-EMD: every student layer is compared with every teacher layer, weighted by the earth mover's distance.

The layers of both models have masses; the optimal transport of the student's masses to the teacher's is the weight of
each pair of layers. It is computed exactly (scipy) on detached costs, so gradients go through the costs only. Each
step waits once until the CPU has the costs of its batch. The transport is computed for each batch, so accumulated
small batches do not exactly equal one large batch.

Shape legend: B rows, A heads, T padded length, D width, M student layers, L teacher layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor

from ..capture.signals import SignalRequest, Signals
from .attention import RowLoss, check_heads, score_error
from .base import Objective, over_processes, register_objective, required
from .features import squared_error
from .matching import joint_mask
from .projections import MatchProjections, check_kind

# A layer that costs nothing is taken to cost this share of the mean when costs decide about masses.
SMALLEST_COST, NOTHING = 1e-6, 1e-12


def solve_transport(costs: np.ndarray, student_masses: np.ndarray, teacher_masses: np.ndarray) -> np.ndarray:
    """The cheapest flow (M, L) with the given row and column sums.

    Args:
        costs: (M, L), in float64 as the masses.
        student_masses: (M,), above 0; normalised to sum 1.
        teacher_masses: (L,), likewise.
    """
    # An overflow in half precision is for the gradient scaler to see, not for the solver.
    costs = np.nan_to_num(costs, nan=0.0, posinf=1e30, neginf=0.0)
    rows, columns = (
        np.asarray(m, dtype=np.float64) / np.sum(m, dtype=np.float64) for m in (student_masses, teacher_masses)
    )
    if np.ptp(rows) < 1e-9 and np.ptp(columns) < 1e-9:
        return _assignment(costs)
    return _linear_program(costs, rows, columns)


def _assignment(costs: np.ndarray) -> np.ndarray:
    """Equal masses: with every layer cut into equal pieces, each piece goes to one piece of the other side."""
    num_students, num_teachers = costs.shape
    pieces = math.lcm(num_students, num_teachers)
    per_student, per_teacher = pieces // num_students, pieces // num_teachers
    cut = costs.repeat(per_student, axis=0).repeat(per_teacher, axis=1)
    flow = np.zeros_like(costs)
    left, right = linear_sum_assignment(cut)
    np.add.at(flow, (left // per_student, right // per_teacher), 1.0 / pieces)
    return flow


def _linear_program(costs: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    num_students, num_teachers = costs.shape
    row_sums = np.kron(np.eye(num_students), np.ones(num_teachers))
    # The sum of the last column follows from the others.
    column_sums = np.kron(np.ones(num_students), np.eye(num_teachers))[:-1]
    scale = max(float(costs.max()), np.finfo(np.float64).tiny)
    found = linprog(
        costs.ravel() / scale, A_eq=np.vstack((row_sums, column_sums)), b_eq=np.concatenate((rows, columns[:-1]))
    )
    return np.clip(found.x, 0.0, None).reshape(costs.shape)


class _Layers:
    """The features of all layers of both sides, and how far they are from each other."""

    def __init__(self, student: list[Tensor], teacher: list[Tensor], mask: Tensor, distance: RowLoss) -> None:
        self.student, self.teacher = [x.float() for x in student], [x.float() for x in teacher]
        self.mask, self.distance = mask, distance

    @torch.no_grad()
    def costs(self) -> Tensor:
        """(M, L) distance of every pair of layers."""
        return torch.stack([torch.stack([self._between(s, t) for t in self.teacher]) for s in self.student])

    def moved(self, flow: np.ndarray) -> Tensor:
        """The cost of a flow (M, L), with gradient."""
        # Most pairs carry nothing: only those that do are computed with their graph.
        parts = [float(flow[i, j]) * self._between(self.student[i], self.teacher[j]) for i, j in np.argwhere(flow > 0)]
        return torch.stack(parts).sum()

    def _between(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.distance(student, teacher, self.mask).mean()


@register_objective("bert_emd")
class BertEMDObjective(Objective):
    """Earth mover's distance between the layers of both sides (BERT-EMD).

    Attributes:
        student_masses: (M,) masses of the student's layers; they change with `cost_attention`.
        teacher_masses: (L,) likewise.
        projections: Made by `check`.
    """

    citation = "bert_emd"
    formula = "MSE(E_S W + b, E_T) + w * min over flows f of sum_ij f_ij (MSE(A_Si, A_Tj) + MSE(h_Si W_i + b_i, h_Tj))"
    projections: MatchProjections
    student_masses: Tensor
    teacher_masses: Tensor

    def __init__(
        self,
        attention: bool = True,
        layer_weight: float = 1.0,
        cost_attention: bool = False,
        projection: str | None = "linear",
        shared_projection: bool = False,
    ) -> None:
        """Create the objective.

        Args:
            attention: Whether the scores are transported too, with a flow of their own; needs as many heads on both
                sides.
            layer_weight: Weight of both transports beside the embeddings (theta of the paper).
            cost_attention: After every batch, give more mass to layers whose mass was cheap to move.
            projection: As for `hidden`.
            shared_projection: One projection for all layers and the embeddings, or one each.

        Raises:
            ValueError: If the kind of projection is unknown or the weight is not positive.
        """
        super().__init__()
        if not 0 < layer_weight < math.inf:
            raise ValueError(f"`layer_weight` of `bert_emd` is {layer_weight}; it must be above 0 and finite.")
        self.attention, self.layer_weight, self.cost_attention = attention, layer_weight, cost_attention
        self.projection, self.shared_projection = check_kind(projection), shared_projection

    def bind(self, num_student_layers: int, num_teacher_layers: int | None) -> None:
        """All layers take part, at first with equal masses."""
        if num_teacher_layers is None:
            raise ValueError("The objective 'bert_emd' needs a teacher: give `--teacher_model`.")
        self.register_buffer("student_masses", torch.full((num_student_layers,), 1 / num_student_layers))
        self.register_buffer("teacher_masses", torch.full((num_teacher_layers,), 1 / num_teacher_layers))

    @property
    def student_request(self) -> SignalRequest:
        """Embeddings, all hidden states and all scores."""
        return self._request(len(self.student_masses))

    @property
    def teacher_request(self) -> SignalRequest:
        """Embeddings, all hidden states and all scores."""
        return self._request(len(self.teacher_masses))

    def _request(self, depth: int) -> SignalRequest:
        scores = range(1, depth + 1) if self.attention else ()
        return SignalRequest(hidden_states=frozenset(range(depth + 1)), attention_scores=frozenset(scores))

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """As many heads on both sides; make the projections."""
        teacher = required(teacher)
        if self.attention:
            check_heads(student, teacher, objective="'bert_emd'", ways_out="set attention=false")
        widths = {teacher.hidden_states[i].shape[-1] for i in range(len(self.teacher_masses) + 1)}
        if len(widths) > 1:
            raise ValueError(f"`bert_emd` compares all layers, but the teacher's are {sorted(widths)} wide.")
        target = widths.pop()
        pairs = [(student.hidden_states[i].shape[-1], target) for i in range(len(self.student_masses) + 1)]
        self.projections = MatchProjections(self.projection, pairs, self.shared_projection)

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The terms `embeddings`, `hidden` and, where it is wanted, `attention`."""
        teacher = required(teacher)
        mask = joint_mask(student, teacher)
        projected = [self.projections(student.hidden_states[i], i) for i in range(len(self.student_masses) + 1)]
        target = [teacher.hidden_states[i] for i in range(len(self.teacher_masses) + 1)]
        with torch.autocast(mask.device.type, enabled=False):
            embeddings = squared_error(projected[0].float(), target[0].float(), mask).mean()
            kinds = {"hidden": _Layers(projected[1:], target[1:], mask, squared_error)}
            if self.attention:
                student_scores = [student.attention_scores[i + 1] for i in range(len(self.student_masses))]
                teacher_scores = [teacher.attention_scores[i + 1] for i in range(len(self.teacher_masses))]
                kinds["attention"] = _Layers(student_scores, teacher_scores, mask, score_error)
            costs = torch.stack([kind.costs() for kind in kinds.values()])
            flows = self._solve(costs)
            moved = {name: kind.moved(flow) for (name, kind), flow in zip(kinds.items(), flows, strict=True)}
        if self.cost_attention and self.training:
            spent = costs * torch.as_tensor(flows, dtype=costs.dtype).to(costs.device, non_blocking=True)
            # Batches of all processes count alike; those of one alone would give each its own masses.
            spent = over_processes(spent) / over_processes(torch.ones((), device=spent.device))
            self._update_masses(list(spent))
        return {"embeddings": embeddings, **{name: self.layer_weight * loss for name, loss in moved.items()}}

    @torch.compiler.disable
    def _solve(self, costs: Tensor) -> np.ndarray:
        """The cheapest flows (K, M, L) for the costs (K, M, L) of K kinds of features; the one wait of a step."""
        numbers = torch.cat((costs.detach().flatten(), self.student_masses, self.teacher_masses)).cpu().double()
        students = len(self.student_masses)
        found, masses = numbers[: costs.numel()].view(costs.shape).numpy(), numbers[costs.numel() :].numpy()
        return np.stack([solve_transport(one, masses[:students], masses[students:]) for one in found])

    def _update_masses(self, spent: list[Tensor]) -> None:
        """Masses in inverse proportion to what a unit of a layer's mass cost, mean over the kinds of features."""
        for masses, axis in ((self.student_masses, 1), (self.teacher_masses, 0)):
            unit_costs = torch.stack([parts.sum(axis) for parts in spent]) / masses
            inverse = 1.0 / (unit_costs + SMALLEST_COST * unit_costs.mean(-1, keepdim=True) + NOTHING)
            updated = (inverse / inverse.sum(-1, keepdim=True)).mean(0)
            # A batch that overflowed in half precision says nothing.
            masses.copy_(torch.where(updated.isfinite().all(), updated, masses))

    def describe(self) -> dict[str, Any]:
        """Describe what is transported, and how the masses are found."""
        made = self.projections.describe() if "projections" in self._modules else self.projection
        return {
            "attention": self.attention,
            "layer_weight": self.layer_weight,
            "cost_attention": self.cost_attention,
            "projection": made,
        }
