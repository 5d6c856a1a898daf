"""Knowledge distillation on the head's outputs, and the task's own labels.

Shape legend: B rows, T padded length, C classes. A head gives (B, C) for sequences, (B, T, C) for tokens, and start
and end scores (B, T) for spans.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..signals import SignalRequest, Signals
from .base import Objective, Unit, register_objective

LogitsLoss = Literal["ce", "kl", "mse"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]
SPAN_LABELS = {"start_logits": "start_positions", "end_logits": "end_positions"}
IGNORED = -100


def soft_loss(student: Tensor, teacher: Tensor, loss: LogitsLoss, temperature: float) -> Tensor:
    """Loss of every distribution between two sets of logits (..., C), in fp32; returns (...).

    `ce`: `-sum_c p_t log p_s`; `kl`: `sum_c p_t (log p_t - log p_s)`, both with logits divided by the temperature
    (Hinton et al. 2015); `mse`: mean squared difference of the raw logits.
    """
    student, teacher = student.float(), teacher.float()
    if loss == "mse":
        return (student - teacher).square().mean(-1)
    log_student = (student / temperature).log_softmax(-1)
    log_teacher = (teacher / temperature).log_softmax(-1)
    target = log_teacher.exp()
    if loss == "ce":
        return -(target * log_student).masked_fill(target == 0, 0.0).sum(-1)
    return (target * (log_teacher - log_student)).masked_fill(target == 0, 0.0).sum(-1)


def soft_binary_loss(student: Tensor, teacher: Tensor, loss: LogitsLoss, temperature: float) -> Tensor:
    """As `soft_loss`, with every class its own yes-or-no question (multi-label); mean over the classes."""
    if loss == "mse":
        return soft_loss(student, teacher, "mse", temperature)
    pair = [torch.stack((x.float(), torch.zeros_like(x, dtype=torch.float32)), -1) for x in (student, teacher)]
    return soft_loss(pair[0], pair[1], loss, temperature).mean(-1)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `values` where `mask` is true; 0 where it never is."""
    if mask is None:
        return values.mean()
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1)


@register_objective("logits")
class LogitsObjective(Objective):
    """The teacher's predictions as soft targets: sequence, token and span heads, regression and multi-label."""

    citation = "hinton2015"

    def __init__(
        self,
        logits_loss: LogitsLoss = "ce",
        temperature: float = 1.0,
        scale_by_squared_temperature: bool = True,
        problem_type: ProblemType | None = None,
    ) -> None:
        """Create the objective.

        Args:
            logits_loss: Soft cross-entropy, KL divergence, or squared error of the logits.
            temperature: Divides the logits on both sides (not for `mse` and regression).
            scale_by_squared_temperature: Multiply by the square of the temperature, so that the gradient keeps its
                size when the temperature changes (Hinton et al. 2015, section 2.1).
            problem_type: `config.problem_type`; by default one label, or regression if there is one output only.

        Raises:
            ValueError: If the loss is unknown or the temperature is not positive.
        """
        super().__init__()
        if logits_loss not in ("ce", "kl", "mse"):
            raise ValueError(f"`--logits_loss` is {logits_loss!r}; allowed are 'ce', 'kl' and 'mse'.")
        if not temperature > 0:
            raise ValueError(f"`--temperature` is {temperature}; it must be above 0.")
        self.logits_loss = logits_loss
        self.temperature = temperature
        self.scale_by_squared_temperature = scale_by_squared_temperature
        self.problem_type = problem_type

    @property
    def student_request(self) -> SignalRequest:
        """The head's outputs."""
        return SignalRequest(logits=True)

    @property
    def teacher_request(self) -> SignalRequest:
        """The head's outputs."""
        return SignalRequest(logits=True)

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Both sides must have the same kind of head."""
        shapes = [{k: (v.dim(), v.shape[-1]) for k, v in side.logits.items()} for side in (student, teacher) if side]
        if not shapes[0]:
            raise ValueError(
                "The objective `logits` needs a student with a head; this one gives hidden states only. "
                "Create it from a teacher with a head, or with `model_class=AutoModelForSequenceClassification`."
            )
        if len(shapes) < 2 or shapes[0] != shapes[1]:
            sizes = [{k: tuple(v.shape[1:]) for k, v in side.logits.items()} for side in (student, teacher) if side]
            raise ValueError(
                "The objective `logits` needs the same head on both sides, but the student gives "
                f"{sizes[0]} and the teacher {sizes[1] if len(sizes) > 1 else 'nothing'}."
            )
        self.unit = _unit(student)

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One term, `soft`; for spans the mean over start and end."""
        if teacher is None:
            raise ValueError("The objective `logits` compares with a teacher: give `--teacher_model`.")
        losses = [
            self._one_head(name, logits, teacher.logits[name], student.attention_mask)
            for name, logits in student.logits.items()
        ]
        return {"soft": torch.stack(losses).mean()}

    def _one_head(self, name: str, student: Tensor, teacher: Tensor, attention_mask: Tensor) -> Tensor:
        if name in SPAN_LABELS and self.logits_loss == "mse":
            return _row_mean((student.float() - teacher.float()).square(), attention_mask)
        if name in SPAN_LABELS:
            student, teacher = (_only_real_positions(x, attention_mask) for x in (student, teacher))
        elif self.problem_type == "regression" or student.shape[-1] == 1:
            return masked_mean(
                (student.float() - teacher.float()).square().mean(-1), _token_mask(student, attention_mask)
            )
        per_item = soft_binary_loss if self.problem_type == "multi_label_classification" else soft_loss
        values = per_item(student, teacher, self.logits_loss, self.temperature)
        loss = masked_mean(values, _token_mask(student, attention_mask))
        squared = self.scale_by_squared_temperature and self.logits_loss != "mse"
        return loss * self.temperature**2 if squared else loss

    def describe(self) -> dict[str, Any]:
        """Loss, temperature and whether its square scales the loss."""
        return {
            "logits_loss": self.logits_loss,
            "temperature": self.temperature,
            "scale_by_squared_temperature": self.scale_by_squared_temperature,
            "problem_type": self.problem_type,
        }


@register_objective("labels")
class LabelsObjective(Objective):
    """The task's own loss on the gold labels, to be mixed with what the teacher says."""

    needs_teacher = False

    def __init__(self, problem_type: ProblemType | None = None) -> None:
        """Create the objective; `problem_type` as for `LogitsObjective`."""
        super().__init__()
        self.problem_type = problem_type

    @property
    def student_request(self) -> SignalRequest:
        """The head's outputs."""
        return SignalRequest(logits=True)

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """The student needs a head."""
        if not student.logits:
            raise ValueError("The objective `labels` needs a student with a head; this one gives hidden states only.")
        spans = SPAN_LABELS.keys() & student.logits.keys()
        self.unit = "rows" if spans or self.problem_type in ("regression", "multi_label_classification") else "labels"

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One term, `hard`: cross-entropy, squared error (regression) or binary cross-entropy (multi-label)."""
        losses = [self._one_head(name, logits, labels or {}) for name, logits in student.logits.items()]
        return {"hard": torch.stack(losses).mean()}

    def _one_head(self, name: str, logits: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        column = SPAN_LABELS.get(name, "labels")
        if column not in labels:
            raise ValueError(
                f"The objective `labels` needs the column {column!r}, which the batch lacks; "
                "add it to the data set or leave `labels` out of `--objectives`."
            )
        logits, gold = logits.float(), labels[column]
        if self.problem_type == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, gold.float())
        if self.problem_type == "regression" or (logits.shape[-1] == 1 and name not in SPAN_LABELS):
            return F.mse_loss(logits.squeeze(-1), gold.float())
        if name in SPAN_LABELS:
            # An answer that was truncated away is marked by a position outside the row; it counts as a row of loss 0.
            gold = gold.masked_fill((gold < 0) | (gold >= logits.shape[-1]), IGNORED)
            return F.cross_entropy(logits, gold, ignore_index=IGNORED, reduction="sum") / len(gold)
        # Besides -100, data sets mark a hidden label by -1.
        shown = gold >= 0
        gold = gold.masked_fill(~shown, IGNORED)
        total = F.cross_entropy(logits.flatten(0, -2), gold.flatten(), ignore_index=IGNORED, reduction="sum")
        return total / shown.sum().clamp(min=1)

    def describe(self) -> dict[str, Any]:
        """The kind of labels."""
        return {"problem_type": self.problem_type}


def _only_real_positions(logits: Tensor, attention_mask: Tensor) -> Tensor:
    """Padding is no position an answer could have: (B, T) scores with padding at the lowest finite value."""
    return logits.float().masked_fill(~attention_mask.bool(), torch.finfo(torch.float32).min)


def _row_mean(values: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the real positions of every row of (B, T) values, then over the rows."""
    mask = attention_mask.to(values.dtype)
    return ((values * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


def _token_mask(logits: Tensor, attention_mask: Tensor) -> Tensor | None:
    """(B, T) for heads that speak about tokens, `None` for those that speak about rows."""
    return attention_mask if logits.dim() == 3 else None


def _unit(student: Signals) -> Unit:
    return "tokens" if any(logits.dim() == 3 for logits in student.logits.values()) else "rows"
