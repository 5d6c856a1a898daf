"""Compares the scores of a query's candidates with the teacher's: their differences, or the whole list.

A row is a query with C candidates, each of which has one score. Only the relation between the scores of a query's
candidates is compared, so a constant may be added to all scores of a query.

Shape legend: B rows, C candidates of a row; where a row has fewer, the rest does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ..capture.signals import SignalRequest, Signals
from .base import Objective, register_objective, required

ComparedPairs = Literal["first", "all"]
ListLoss = Literal["kl", "listnet"]


class RankingObjective(Objective):
    """An objective on the scores of candidates."""

    unit = "rows"
    reads_candidates = True

    @property
    def student_request(self) -> SignalRequest:
        """The score of every candidate."""
        return SignalRequest(logits=True)

    @property
    def teacher_request(self) -> SignalRequest:
        """The score of every candidate."""
        return SignalRequest(logits=True)

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Both sides must give scores."""
        for side in (student, required(teacher)):
            self.scores(Signals(side.attention_mask, side.logits, candidates=student.candidates))

    def scores(self, signals: Signals) -> tuple[Tensor, Tensor]:
        """(B, C) fp32 scores, and where there are candidates.

        Raises:
            ValueError: If the rows have no candidates, or the head gives no scores.
        """
        if "logits" not in signals.logits:
            raise ValueError(
                f"The objective `{self.registered_name}` compares scores, which a model without a head does not give: "
                "take one of `AutoModelForSequenceClassification` with `num_labels=1`."
            )
        if signals.candidates is None:
            raise ValueError(
                f"The objective `{self.registered_name}` compares the candidates of a query, but the rows have none: "
                "give them a column `candidates`, a list of texts in every row."
            )
        return signals.logits["logits"].float(), signals.candidates


@register_objective("margin")
class MarginObjective(RankingObjective):
    """Differences between the scores of a query's candidates: MarginMSE."""

    citation = "margin_mse"
    formula = "mean over rows of the mean over pairs (i, j) of ((s_i - s_j) - (t_i - t_j))^2"

    def __init__(self, pairs: ComparedPairs = "first") -> None:
        """Create the objective.

        Args:
            pairs: `first`: the first candidate, which should be the relevant one, with each of the others (Hofstätter
                et al. 2020); `all`: all pairs, so that the order of the candidates does not matter.

        Raises:
            ValueError: If the setting is unknown.
        """
        super().__init__()
        if pairs not in ("first", "all"):
            raise ValueError(f"`pairs` of `margin` is {pairs!r}; allowed are 'first' and 'all'.")
        self.pairs = pairs

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One term, `mse`; a row of one candidate counts 0."""
        ours, real = self.scores(student)
        theirs = required(teacher).logits["logits"].float()
        apart = (ours - theirs).masked_fill(~real, 0.0)
        # With d = s - t, ((s_i - s_j) - (t_i - t_j)) is d_i - d_j.
        if self.pairs == "first":
            errors, counted = (apart[:, :1] - apart[:, 1:]).square(), real[:, :1] & real[:, 1:]
        else:
            errors = (apart[:, :, None] - apart[:, None, :]).square().flatten(1)
            counted = (real[:, :, None] & real[:, None, :]).triu(1).flatten(1)
        total = (errors * counted).sum(1) / counted.sum(1).clamp(min=1)
        return {"mse": total.mean()}

    def describe(self) -> dict[str, Any]:
        """Which candidates are compared."""
        return {"pairs": self.pairs}


@register_objective("listwise")
class ListwiseObjective(RankingObjective):
    """The candidates of a query as one distribution: KL divergence, or the cross-entropy of ListNet."""

    citation = "listnet"
    formula = (
        "tau^2 x mean over rows of KL(softmax_j t_j / tau || softmax_j s_j / tau) [kl], or "
        "-sum_j softmax_j(t_j / tau) log softmax_j(s_j / tau) [listnet]"
    )

    def __init__(
        self, loss: ListLoss = "kl", temperature: float = 1.0, scale_by_squared_temperature: bool = True
    ) -> None:
        """Create the objective.

        Args:
            loss: `kl`: KL divergence from the teacher's distribution; `listnet`: cross-entropy with it, the top-one
                probabilities of ListNet (Cao et al. 2007), which has the same gradient.
            temperature: Divides the scores on both sides.
            scale_by_squared_temperature: Multiply by its square, so that the gradient keeps its size.

        Raises:
            ValueError: If the loss is unknown, or the temperature not above 0.
        """
        super().__init__()
        if loss not in ("kl", "listnet"):
            raise ValueError(f"`loss` of `listwise` is {loss!r}; allowed are 'kl' and 'listnet'.")
        if not 0 < temperature < math.inf:
            raise ValueError(f"`temperature` of `listwise` is {temperature}; it must be above 0.")
        self.loss = loss
        self.temperature = temperature
        self.scale_by_squared_temperature = scale_by_squared_temperature

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One term, `kl` or `listnet`."""
        ours, real = self.scores(student)
        theirs = required(teacher).logits["logits"].float()
        lowest = torch.finfo(torch.float32).min
        log_ours, log_theirs = (
            (side / self.temperature).masked_fill(~real, lowest).log_softmax(-1) for side in (ours, theirs)
        )
        target = log_theirs.exp()
        each = -target * log_ours if self.loss == "listnet" else target * (log_theirs - log_ours)
        value = each.masked_fill(~real, 0.0).sum(-1).mean()
        return {self.loss: value * self.temperature**2 if self.scale_by_squared_temperature else value}

    def describe(self) -> dict[str, Any]:
        """Loss and temperature."""
        return {"loss": self.loss, "temperature": self.temperature}
