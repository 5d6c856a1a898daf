"""The base of all losses on pairs of layers (matches); each match gives a term.

The loss of a match has a value for every row (B,). The objective's unit says how rows are averaged: `rows` gives them
equal weights; `tokens` weights them by their length, which makes a mean over the real tokens of the batch. In both
cases two halves of a batch, weighted by their shares, give the value of the whole batch. TextBrewer's losses over
pairs of tokens weight rows by the square of their length, so that long rows dominate; this is not done here.

Shape legend: B rows, T padded length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..capture.signals import SignalRequest, Signals
from .base import Objective, required
from .layer_map import LayerMatches, Side, format_side, resolve_layer_map, resolve_layer_matches

Layers = str | Sequence[Any]


def joint_mask(student: Signals, teacher: Signals) -> Tensor:
    """(B, T) bool: the tokens that are real on both sides.

    Raises:
        ValueError: If the sides have other rows or lengths.
    """
    masks = student.attention_mask, teacher.attention_mask
    if masks[0].shape != masks[1].shape:
        raise ValueError(
            f"Features are compared token by token, but the student has {tuple(masks[0].shape)} (rows, tokens) and "
            f"the teacher {tuple(masks[1].shape)}: both must read the same `input_ids`."
        )
    return masks[0].bool() & masks[1].bool()


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real tokens of every row: (B, T) -> (B,); 0 where there are none."""
    return values.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)


def pool_rows(values: Tensor, mask: Tensor, unit: str) -> Tensor:
    """Mean of values (B,) over the rows, or over the `tokens`: rows weighed by their number of real tokens."""
    if unit == "rows":
        return values.mean()
    lengths = mask.sum(1)
    return (values * lengths).sum() / lengths.sum().clamp(min=1)


class MatchObjective(Objective):
    """Compares layers of the student with layers of the teacher.

    Subclasses say which signal they read and give `row_losses`.

    Attributes:
        signal: The field of `Signals` that holds the features.
        relates_layers: Whether a side of a match may be two layers.
        has_embeddings: Whether layer 0 has this signal.
        matches: (student, teacher) sides as resolved by `bind`.
    """

    signal: ClassVar[Literal["hidden_states", "attention_scores"]] = "hidden_states"
    relates_layers: ClassVar[bool] = False
    has_embeddings: ClassVar[bool] = True

    def __init__(self, layers: Layers) -> None:
        """Create the objective; `layers` is a named map or pairs (see `hf_distill.objectives.layer_map`)."""
        super().__init__()
        self.layers = layers
        self.matches: LayerMatches = ()

    def bind(self, num_student_layers: int, num_teacher_layers: int | None) -> None:
        """Resolve the layers of every match."""
        if num_teacher_layers is None:
            raise ValueError(f"The objective {self.registered_name!r} needs a teacher: give `--teacher_model`.")
        depths, flag = (num_student_layers, num_teacher_layers), f"layers of {self.registered_name}"
        if self.relates_layers:
            self.matches = resolve_layer_matches(self.layers, *depths, flag=flag)
        else:
            self.matches = resolve_layer_map(self.layers, *depths, flag=flag, allow_embeddings=self.has_embeddings)
        names = [term_name(*match) for match in self.matches]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"`{flag}`: {self.layers!r} has the match {twice[0]} more than once.")

    @property
    def student_request(self) -> SignalRequest:
        """The student's layers of all matches."""
        return self._request(student for student, _ in self.matches)

    @property
    def teacher_request(self) -> SignalRequest:
        """The teacher's layers of all matches."""
        return self._request(teacher for _, teacher in self.matches)

    def _request(self, sides: Iterable[Side]) -> SignalRequest:
        layers = frozenset(layer for side in sides for layer in ([side] if isinstance(side, int) else side))
        if self.signal == "attention_scores":
            return SignalRequest(attention_scores=layers)
        return SignalRequest(hidden_states=layers)

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One term a match, such as `s2_t8`."""
        teacher = required(teacher)
        mask = joint_mask(student, teacher)
        terms = {}
        for index, (student_side, teacher_side) in enumerate(self.matches):
            features = self.student_features(self.features(student, student_side), index)
            target = self.features(teacher, teacher_side)
            # Under autocast the products below would be rounded to half precision.
            with torch.autocast(mask.device.type, enabled=False):
                values = self.row_losses([x.float() for x in features], [x.float() for x in target], mask)
            terms[term_name(student_side, teacher_side)] = pool_rows(values, mask, self.unit)
        return terms

    def features(self, signals: Signals, side: Side) -> list[Tensor]:
        """The one or two tensors of a side of a match."""
        return [getattr(signals, self.signal)[layer] for layer in ([side] if isinstance(side, int) else side)]

    def student_features(self, features: list[Tensor], match: int) -> list[Tensor]:
        """Return the student's features that the loss compares in the match of this index."""
        return features

    def row_losses(self, student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
        """The loss of one match for every row, (B,).

        Args:
            student: The features of the student's layer or layers, in fp32.
            teacher: Those of the teacher.
            mask: (B, T), true on tokens that are real on both sides.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Layers as resolved."""
        return {"layers": [[s if isinstance(s, int) else list(s) for s in match] for match in self.matches]}


def term_name(student: Side, teacher: Side) -> str:
    """`s2_t8`; `s0-1_t0-3` where layers are related to each other."""
    return f"s{format_side(student, '-')}_t{format_side(teacher, '-')}"
