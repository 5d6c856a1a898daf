"""TinyBERT: attention, hidden states and embeddings in one stage, predictions in the next.

`tinybert_compat` gives what the authors' public code computes: padded positions are counted, and the soft
cross-entropy is divided by the number of classes. The teacher stays without dropout either way.

Shape legend: B rows, A heads, T padded length, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..capture.signals import SignalRequest, Signals
from .attention import check_heads, score_error
from .base import Objective, register_objective, required
from .features import squared_error
from .layer_map import LayerMap, resolve_layer_map
from .logits import SPAN_LABELS, LogitsObjective, ProblemType, gold_labels
from .matching import Layers, joint_mask
from .projections import MatchProjections, check_kind

# The public code takes scores below this for padding.
COMPAT_PADDING = -100.0


@register_objective("tinybert")
class TinyBERTObjective(Objective):
    """Scores, hidden states and embeddings of all layers (TinyBERT, equations 7 to 9).

    Every mean is one over the real tokens (or pairs of them) of a row, then over the rows.

    Attributes:
        pairs: (student, teacher) layers as resolved by `bind`, without the embeddings.
        projections: Made by `check`.
    """

    citation = "tinybert"
    formula = "MSE(E_S W + b, E_T) + sum over matches of MSE(A_S, A_T) + MSE(h_S W + b, h_T), scores A before softmax"
    projections: MatchProjections

    def __init__(
        self,
        layers: Layers = "uniform",
        projection: str | None = "linear",
        shared_projection: bool = True,
        tinybert_compat: bool = False,
    ) -> None:
        """Create the objective.

        Args:
            layers: Which layers are matched besides the embeddings; TinyBERT's map is `uniform`.
            projection: As for `hidden`; TinyBERT has a linear one even between equal widths.
            shared_projection: One projection for all layers and the embeddings, as in TinyBERT, or one each.
            tinybert_compat: Count padded positions as the public code does.

        Raises:
            ValueError: If the kind of projection is unknown.
        """
        super().__init__()
        self.layers = layers
        self.projection = check_kind(projection)
        self.shared_projection = shared_projection
        self.tinybert_compat = tinybert_compat
        self.pairs: LayerMap = ()

    def bind(self, num_student_layers: int, num_teacher_layers: int | None) -> None:
        """Resolve the layers."""
        if num_teacher_layers is None:
            raise ValueError("The objective 'tinybert' needs a teacher: give `--teacher_model`.")
        self.pairs = resolve_layer_map(
            self.layers, num_student_layers, num_teacher_layers, flag="layers of tinybert", allow_embeddings=False
        )

    @property
    def student_request(self) -> SignalRequest:
        """Embeddings, and hidden states and scores of the matched layers."""
        layers = frozenset(student for student, _ in self.pairs)
        return SignalRequest(hidden_states=layers | {0}, attention_scores=layers)

    @property
    def teacher_request(self) -> SignalRequest:
        """Embeddings, and hidden states and scores of the matched layers."""
        layers = frozenset(teacher for _, teacher in self.pairs)
        return SignalRequest(hidden_states=layers | {0}, attention_scores=layers)

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """As many heads on both sides; make the projections."""
        teacher = required(teacher)
        check_heads(student, teacher, objective="'tinybert'", ways_out="mix `hidden` with `attention` (loss=mse_sum)")
        states = student.hidden_states, teacher.hidden_states
        widths = [(states[0][s].shape[-1], states[1][t].shape[-1]) for s, t in ((0, 0), *self.pairs)]
        self.projections = MatchProjections(self.projection, widths, self.shared_projection)

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Three terms, `attention`, `hidden` and `embeddings`; the first two are sums over the layers."""
        teacher = required(teacher)
        mask = joint_mask(student, teacher)
        hidden = [
            (self.projections(student.hidden_states[s], i), teacher.hidden_states[t])
            for i, (s, t) in enumerate(((0, 0), *self.pairs))
        ]
        counted = torch.ones_like(mask) if self.tinybert_compat else mask
        with torch.autocast(mask.device.type, enabled=False):
            errors = [squared_error(s.float(), t.float(), counted).mean() for s, t in hidden]
            scores = [
                self._score_error(student.attention_scores[s].float(), teacher.attention_scores[t].float(), mask)
                for s, t in self.pairs
            ]
        return {
            "attention": torch.stack(scores).sum(),
            "hidden": torch.stack(errors[1:]).sum(),
            "embeddings": errors[0],
        }

    def _score_error(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        if not self.tinybert_compat:
            return score_error(student, teacher, mask).mean()
        padded_keys = ~mask[:, None, None, :]
        sides = [x.masked_fill(padded_keys | (x <= COMPAT_PADDING), 0.0) for x in (student, teacher)]
        return score_error(sides[0], sides[1], torch.ones_like(mask)).mean()

    def describe(self) -> dict[str, Any]:
        """Layers, projection and variant."""
        made = self.projections.describe() if "projections" in self._modules else self.projection
        layers = [[0, 0], *map(list, self.pairs)]
        return {"layers": layers, "projection": made, "tinybert_compat": self.tinybert_compat}


@register_objective("tinybert_prediction")
class TinyBERTPredictionObjective(LogitsObjective):
    """Soft cross-entropy on the predictions (TinyBERT, equation 10): `logits` without the temperature's square."""

    citation = "tinybert"
    formula = "-mean over rows of sum_c softmax(z_T / t)_c log softmax(z_S / t)_c [compat: divided by C]"
    title = "tinybert_prediction"

    def __init__(
        self, temperature: float = 1.0, problem_type: ProblemType | None = None, tinybert_compat: bool = False
    ) -> None:
        """Create the objective.

        Args:
            temperature: Divides the logits on both sides.
            problem_type: As for `LogitsObjective`.
            tinybert_compat: As the public code: divide by the number of classes; regression learns from the labels
                and not from the teacher.
        """
        super().__init__(
            logits_loss="ce", temperature=temperature, scale_by_squared_temperature=False, problem_type=problem_type
        )
        self.tinybert_compat = tinybert_compat
        self.needs_labels = tinybert_compat and problem_type == "regression"

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """As for `logits`; a head with one output has values, from whose labels `tinybert_compat` learns."""
        super().check(student, teacher)
        if self.tinybert_compat and SPAN_LABELS.keys() & student.logits.keys():
            raise ValueError(
                "`tinybert_compat` divides by the number of classes, and a head for answers has none but the places "
                "of a batch, padding among them: leave it out."
            )
        one_output = any(v.shape[-1] == 1 for name, v in student.logits.items() if name not in SPAN_LABELS)
        self.needs_labels = self.tinybert_compat and (self.problem_type == "regression" or one_output)

    def _of_candidates(self, student: Tensor, teacher: Tensor, candidates: Tensor) -> Tensor:
        if self.tinybert_compat:
            raise ValueError("`tinybert_compat` divides by the number of classes, and rows with candidates have none.")
        return super()._of_candidates(student, teacher, candidates)

    def _one_head(
        self,
        name: str,
        student: Tensor,
        teacher: Tensor,
        attention_mask: Tensor,
        labels: Mapping[str, Tensor] | None,
    ) -> Tensor:
        if not self.tinybert_compat:
            return super()._one_head(name, student, teacher, attention_mask, labels)
        if name not in SPAN_LABELS and (self.problem_type == "regression" or student.shape[-1] == 1):
            gold = gold_labels(name, student, labels, self.title)
            return F.mse_loss(student.float().view_as(gold), gold.float())
        return super()._one_head(name, student, teacher, attention_mask, labels) / student.shape[-1]

    def describe(self) -> dict[str, Any]:
        """Temperature, kind of labels and variant."""
        return {**super().describe(), "tinybert_compat": self.tinybert_compat}
