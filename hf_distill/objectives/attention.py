"""Compares the attention of student and teacher, from scores before mask, softmax and dropout.

Padded keys are masked before the softmax and padded queries are left out. Every real score counts: there is no
threshold below which a score is taken for padding. Only padding is masked: with causal or local attention, scores
between tokens that never attend to each other count too.

Shape legend: B rows, A heads, T padded length, n real tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..capture.signals import Signals
from .base import register_objective, required
from .matching import Layers, MatchObjective

RowLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def score_error(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean over heads and pairs of real tokens of the squared difference of (B, A, T, T) scores."""
    pairs = mask[:, None, :, None] & mask[:, None, None, :]
    total = (student - teacher).masked_fill(~pairs, 0.0).square().sum((1, 2, 3))
    return total / (student.shape[1] * mask.sum(1).clamp(min=1).square())


def attention_divergence(student: Tensor, teacher: Tensor, mask: Tensor, *, minus_entropy: bool) -> Tensor:
    """(B,) mean over heads and real queries of the cross-entropy of the student's attention with the teacher's.

    Args:
        student: (B, A, T, T) scores.
        teacher: Likewise.
        mask: (B, T), true on real tokens.
        minus_entropy: KL divergence instead of cross-entropy.
    """
    padded_keys = ~mask[:, None, None, :]
    lowest = torch.finfo(student.dtype).min
    log_student = student.masked_fill(padded_keys, lowest).log_softmax(-1)
    log_teacher = teacher.masked_fill(padded_keys, lowest).log_softmax(-1)
    missed = log_teacher - log_student if minus_entropy else -log_student
    # A padded key has probability 0, but its logarithm may be infinite.
    values = (log_teacher.exp() * missed).masked_fill(padded_keys, 0.0).sum(-1)
    total = values.masked_fill(~mask[:, None, :], 0.0).sum((1, 2))
    return total / (student.shape[1] * mask.sum(1).clamp(min=1))


def over_heads(loss: RowLoss, reduce: Callable[..., Tensor]) -> RowLoss:
    """The loss of what `reduce` makes of all heads, so that their numbers may differ."""
    return lambda student, teacher, mask: loss(reduce(student, 1, True), reduce(teacher, 1, True), mask)


cross_entropy: RowLoss = partial(attention_divergence, minus_entropy=False)
LOSSES: dict[str, RowLoss] = {
    "mse": score_error,
    "mse_sum": over_heads(score_error, torch.sum),
    "ce": cross_entropy,
    "ce_mean": over_heads(cross_entropy, torch.mean),
    "kl": partial(attention_divergence, minus_entropy=True),
}
# These compare the heads of both sides one by one.
PER_HEAD = ("mse", "ce", "kl")


def check_heads(student: Signals, teacher: Signals, *, objective: str, ways_out: str) -> None:
    """The layers of both sides must have as many heads.

    Raises:
        ValueError: If they have not; the message names both numbers and the ways out.
    """
    heads = [sorted({x.shape[1] for x in side.attention_scores.values()}) for side in (student, teacher)]
    if heads[0] != heads[1] or len(heads[0]) > 1:
        shown = [" or ".join(map(str, numbers)) for numbers in heads]
        raise ValueError(
            f"The objective {objective} compares head by head, but the student has {shown[0]} attention heads and "
            f"the teacher {shown[1]}: {ways_out}, or create the student as 'SHAPE:{heads[1][-1]}h'."
        )


@register_objective("attention")
class AttentionObjective(MatchObjective):
    """Attention scores or distributions of matched layers (TinyBERT, equation 7; TextBrewer `attention_*`).

    Every row has the same weight; in TextBrewer its weight is its length, or for `mse` the square of its length.
    """

    citation = "tinybert"
    formula = (
        "sum over matches of mean over rows, heads and n x n of (A_S - A_T)^2 [mse], or mean over rows, heads and "
        "queries of -sum_j softmax(A_T)_j log softmax(A_S)_j [ce]"
    )
    signal = "attention_scores"
    has_embeddings = False

    def __init__(self, layers: Layers = "uniform", loss: str = "mse") -> None:
        """Create the objective.

        Args:
            layers: A named map such as `uniform` or `last`, or pairs such as `"1:3,2:6"`.
            loss: `mse`: squared difference of the scores; `ce`: cross-entropy of the distributions, `kl`: without the
                teacher's entropy (on the last layer the attention transfer of MiniLM). These need as many heads on
                both sides. `mse_sum`: squared difference of the heads' summed scores; `ce_mean`: cross-entropy of the
                heads' mean scores.

        Raises:
            ValueError: If the loss is unknown.
        """
        super().__init__(layers)
        if loss not in LOSSES:
            raise ValueError(f"`loss` of `attention` is {loss!r}; allowed are {', '.join(LOSSES)}.")
        self.loss = loss

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Both sides need as many heads where they are compared one by one."""
        if self.loss in PER_HEAD:
            check_heads(
                student,
                required(teacher),
                objective=f"'attention' with loss={self.loss}",
                ways_out="use loss=mse_sum or loss=ce_mean, which join the heads",
            )

    def row_losses(self, student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
        """See `LOSSES`."""
        return LOSSES[self.loss](student[0], teacher[0], mask)

    def describe(self) -> dict[str, Any]:
        """Layers and the loss."""
        return {**super().describe(), "loss": self.loss}
