"""Fits projections and a new dense layer of the student before the first update: a regression on a few batches.

With random weights the first hundred updates would move the student towards a meaningless target.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...kernels.least_squares import LinearFit
from ...objectives import Objective
from ...objectives.base import as_in_first_process
from ...objectives.sentence import EmbeddingObjective, vectors_of
from .model import DistillationModel, signals_for


def begins_with_fit(model: DistillationModel) -> bool:
    """Whether the model has projections, or a new dense layer of the student, that begin with a fit."""
    objectives = [cast(Objective, objective) for objective in model.objectives.values()]
    return any(one.fits_projections or _fits_dense(model, one) for one in objectives)


@torch.no_grad()
def fit_projections(model: DistillationModel, batches: Iterable[tuple[Mapping[str, Any], Any]]) -> None:
    """Fit the projections and the new dense layer that begin with a fit.

    Args:
        model: The student and its objectives.
        batches: Inputs of the student, and the teacher's signals for them; the same in every process.
    """
    was_training = model.student.training
    model.student.eval()
    fits: dict[nn.Linear, LinearFit] = {}
    for inputs, taught in batches:
        for linear, x, goal in _pairs_to_fit(model, inputs, taught):
            if linear not in fits:
                linear.weight.zero_()
                fits[linear] = LinearFit([linear])
            fits[linear].add(x.to(linear.weight.dtype), goal.to(linear.weight))
    for linear, fit in fits.items():
        fit.solve()
        for parameter in linear.parameters():
            as_in_first_process(parameter)
    model.student.train(was_training)


def _fits_dense(model: DistillationModel, objective: Objective) -> bool:
    """Whether an objective says what a new dense layer of the student should give."""
    head = model.sentence_head
    return head is not None and head.dense_is_new and isinstance(objective, EmbeddingObjective) and objective.fits


def _pairs_to_fit(
    model: DistillationModel, inputs: Mapping[str, Any], taught: Any
) -> Iterator[tuple[nn.Linear, Tensor, Tensor]]:
    """Give every linear layer that is fitted, with its inputs and goals in one batch."""
    dense = None if model.sentence_head is None else model.sentence_head.last_dense
    entering: list[Tensor] = []
    hook = None if dense is None else dense.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    student = model.student_signals(inputs)
    if hook is not None:
        hook.remove()
    for name, objective in cast(Mapping[str, Objective], model.objectives).items():
        teacher = signals_for(name, taught)
        if teacher is None:
            continue
        yield from objective.projected(model.compared(name, student, inputs), teacher)
        # A dense layer of another width than the teacher's vector has a projection behind it, which is fitted.
        if dense is not None and _fits_dense(model, objective):
            goal = vectors_of(teacher)
            if goal.shape[1] == dense.out_features:
                yield dense, entering[0], goal
