"""Teacher annealing: the target moves from the teacher's predictions to the gold labels.

Shape legend: B rows, T padded length, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..capture.signals import Signals
from .base import register_objective
from .logits import (
    SPAN_LABELS,
    LogitsObjective,
    ProblemType,
    gold_labels,
    masked_mean,
    only_real_positions,
    soft_binary_loss,
    soft_loss,
    token_mask,
)


@register_objective("annealed")
class AnnealedObjective(LogitsObjective):
    """A mixture of gold labels and the teacher's predictions, from the teacher to the labels (BAM).

    The target is `s * gold + (1 - s) * teacher`, gold labels as one-hot vectors and the teacher's probabilities at
    temperature 1; of regression the scores themselves are mixed. `s` is the share of the optimizer steps that are
    done, or a fixed number. Where a label is hidden, the teacher alone is the target.
    """

    citation = "bam"
    formula = "mean over rows (or tokens) of -sum_c (s y_c + (1 - s) softmax(z_T)_c) log softmax(z_S)_c, s = progress"
    title = "annealed"
    needs_labels = True

    def __init__(self, gold_share: float | None = None, problem_type: ProblemType | None = None) -> None:
        """Create the objective.

        Args:
            gold_share: A fixed share of the gold labels (0 to 1); by default it grows from 0 to 1 during training.
            problem_type: `config.problem_type`; by default one label, or regression if there is one output only.

        Raises:
            ValueError: If the share is not within 0 and 1.
        """
        super().__init__(problem_type=problem_type)
        if gold_share is not None and not 0 <= gold_share <= 1:
            raise ValueError(f"`gold_share` of `annealed` is {gold_share}; it must be within 0 and 1.")
        self.gold_share = gold_share
        # A tensor, because a compiled loss would be compiled anew for every other number.
        self._share = torch.tensor(0.0 if gold_share is None else float(gold_share))

    @property
    def scheduled(self) -> dict[str, float]:
        """The share of the gold labels, where it grows."""
        return {} if self.gold_share is not None else {"gold_share": float(self._share)}

    def set_progress(self, progress: float) -> None:
        """Move from the teacher towards the labels."""
        if self.gold_share is None:
            self._share.fill_(progress)

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One term, `mixed`; for spans the mean over start and end."""
        return {"mixed": super().forward(student, teacher, labels)["soft"]}

    def _one_head(
        self,
        name: str,
        student: Tensor,
        teacher: Tensor,
        attention_mask: Tensor,
        labels: Mapping[str, Tensor] | None,
    ) -> Tensor:
        gold = gold_labels(name, student, labels, self.title, attention_mask)
        mask = token_mask(student, attention_mask)
        if name in SPAN_LABELS:
            student, teacher = (only_real_positions(x, attention_mask) for x in (student, teacher))
        elif self.problem_type == "regression" or student.shape[-1] == 1:
            target = self._mix(teacher.float(), gold.float().reshape(teacher.shape))
            return masked_mean(soft_loss(student, target, "mse", 1.0), mask)
        if self.problem_type == "multi_label_classification":
            hard = F.binary_cross_entropy_with_logits(student.float(), gold.float(), reduction="none").mean(-1)
            return masked_mean(self._mix(soft_binary_loss(student, teacher, "ce", 1.0), hard), mask)
        # Cross-entropy is linear in its target: the mixture of the losses is the loss of the mixture.
        shown = gold >= 0
        hard = -student.float().log_softmax(-1).gather(-1, gold.clamp(min=0)[..., None])[..., 0]
        return masked_mean(self._mix(soft_loss(student, teacher, "ce", 1.0), hard, shown), mask)

    def _mix(self, from_teacher: Tensor, from_gold: Tensor, shown: Tensor | float = 1.0) -> Tensor:
        share = self._share * shown
        return (1.0 - share) * from_teacher + share * from_gold

    def describe(self) -> dict[str, Any]:
        """Describe how the target moves, and the kind of labels."""
        return {
            "gold_share": "progress" if self.gold_share is None else self.gold_share,
            "problem_type": self.problem_type,
        }
