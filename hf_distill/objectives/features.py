"""Compares hidden states of student and teacher.

Token by token: `hidden` (mean squared error), `cosine` (DistilBERT). First token: `pkd` (Patient-KD). Relations inside
one model, so that the widths or the lengths need not agree: `nst` (between tokens), `fsp` (between features).

Shape legend: B rows, T padded length, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..capture.signals import Signals
from .base import Unit, register_objective, required
from .layer_map import Side
from .matching import Layers, MatchObjective, joint_mask, row_mean
from .projections import MatchProjections, check_kind

Tokens = Literal["all", "first"]
# Below this length a vector has no direction.
SHORTEST = 1e-12


def squared_error(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean over real tokens and width of the squared difference of (B, T, D) features."""
    return row_mean((student - teacher).square().mean(-1), mask)


def cosine_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean over real tokens of `1 - cos` between (B, T, D) features."""
    return row_mean(1.0 - (unit_vectors(student) * unit_vectors(teacher)).sum(-1), mask)


def first_token_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """(B,) squared distance between the directions of the first real token's (B, T, D) features.

    The padding may be on either side.
    """
    rows, first = torch.arange(len(mask), device=mask.device), mask.int().argmax(1)
    difference = unit_vectors(student[rows, first]) - unit_vectors(teacher[rows, first])
    return difference.square().sum(-1).masked_fill(~mask.any(1), 0.0)


def first_only(mask: Tensor) -> Tensor:
    """(B, T) bool: the first real token of every row, on whichever side the padding is."""
    return mask & (mask.cumsum(1) == 1)


def unit_vectors(x: Tensor) -> Tensor:
    """`x` (..., D) divided by its length; a zero vector stays zero and gets no gradient."""
    length = x.norm(dim=-1, keepdim=True)
    return torch.where(length > SHORTEST, x / length.clamp(min=SHORTEST), torch.zeros_like(x))


def token_gram(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """`X0 X1^T / D`: (B, T, T) inner products between the tokens of two layers; 0 at padding."""
    return _without_padding(first, mask) @ _without_padding(second, mask).transpose(1, 2) / first.shape[-1]


def feature_gram(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """`X0^T X1 / n`: (B, D0, D1) inner products between the features of two layers, mean over the n real tokens."""
    lengths = mask.sum(1).clamp(min=1)[:, None, None]
    return _without_padding(first, mask).transpose(1, 2) @ _without_padding(second, mask) / lengths


def _without_padding(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask[..., None], 0.0)


class HiddenMatchObjective(MatchObjective):
    """The base of losses on pairs of hidden states, with projections of the student's.

    Attributes:
        needs_one_width: Whether the loss compares features of the student with those of the teacher directly.
        projections: Made by `check`, when the widths are known; `None` where there are none.
    """

    needs_one_width: ClassVar[bool] = True
    projections: MatchProjections | None

    def __init__(
        self,
        layers: Layers = "uniform_with_embeddings",
        projection: str | None = "auto",
        shared_projection: bool = False,
    ) -> None:
        """Create the objective.

        Args:
            layers: A named map such as `uniform` or `uniform_with_embeddings`, or pairs such as `"0:0,1:3"`; 0 is the
                embeddings, negative layers count from the end (see `hf_distill.objectives.layer_map`).
            projection: `fitted`, `linear`, `relu`, `tanh` or `identity`, from the student's width to the teacher's
                (see `make_projection`); `auto`: fitted where the widths differ, none where they are equal.
            shared_projection: One projection for all matches instead of one each.

        Raises:
            ValueError: If the kind of projection is unknown.
        """
        super().__init__(layers)
        self.projection = check_kind(projection)
        self.shared_projection = shared_projection
        self.projections = None

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Make the projections for the widths of both sides."""
        if self.projection == "identity" and not self.needs_one_width:
            return
        widths = [(self._width(student, s), self._width(required(teacher), t)) for s, t in self.matches]
        self.projections = MatchProjections(self.projection, widths, self.shared_projection)

    def _width(self, signals: Signals, side: Side) -> int:
        widths = {x.shape[-1] for x in self.features(signals, side)}
        if len(widths) > 1:
            raise ValueError(
                f"`layers of {self.registered_name}`: {side} are {sorted(widths)} wide; layers that are related to "
                "each other must have one width."
            )
        return widths.pop()

    def counted(self, mask: Tensor) -> Tensor:
        """The tokens (B, T) that a projection is fitted to: those that the loss compares."""
        return mask

    @property
    def fits_projections(self) -> bool:
        """Whether widths differ, and the kind is `auto` or `fitted`."""
        made = self.projections
        return made is not None and any(made.to_fit(match) is not None for match in range(len(self.matches)))

    def projected(self, student: Signals, teacher: Signals) -> Iterator[tuple[nn.Linear, Tensor, Tensor]]:
        """Give every fitted projection with the features of its matches at the tokens that are compared."""
        counted = self.counted(joint_mask(student, teacher))
        for match, sides in enumerate(self.matches):
            projection = None if self.projections is None else self.projections.to_fit(match)
            if projection is None:
                continue
            ours, theirs = (self.features(x, side) for x, side in zip((student, teacher), sides, strict=True))
            for mine, goal in zip(ours, theirs, strict=True):
                yield projection, mine[counted], goal[counted]

    def student_features(self, features: list[Tensor], match: int) -> list[Tensor]:
        """Project to the teacher's width."""
        return features if self.projections is None else [self.projections(x, match) for x in features]

    def describe(self) -> dict[str, Any]:
        """Layers as resolved, and the projections."""
        made = self.projection if self.projections is None else self.projections.describe()
        return {**super().describe(), "projection": made}


@register_objective("hidden")
class HiddenObjective(HiddenMatchObjective):
    """Mean squared error of hidden states over the real tokens (TinyBERT; TextBrewer `hidden_mse`)."""

    citation = "tinybert"
    formula = "sum over matches of mean over tokens and width of (W h_S + b - h_T)^2"
    unit: Unit = "tokens"

    def __init__(
        self,
        layers: Layers = "uniform_with_embeddings",
        projection: str | None = "auto",
        shared_projection: bool = False,
        tokens: Tokens = "all",
    ) -> None:
        """As `HiddenMatchObjective`.

        Args:
            layers: As elsewhere.
            projection: As elsewhere.
            shared_projection: As elsewhere.
            tokens: `all` real ones, or the `first` of every row, which stands for the row (XtremeDistil on classes).

        Raises:
            ValueError: If `tokens` is something else.
        """
        super().__init__(layers, projection, shared_projection)
        if tokens not in ("all", "first"):
            raise ValueError(f"`tokens` of `hidden` is {tokens!r}; allowed are 'all' and 'first'.")
        self.tokens = tokens
        self.unit = "tokens" if tokens == "all" else "rows"

    def counted(self, mask: Tensor) -> Tensor:
        """All real tokens, or the first of every row."""
        return mask if self.tokens == "all" else first_only(mask)

    def row_losses(self, student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
        """See `squared_error`."""
        return squared_error(student[0], teacher[0], self.counted(mask))

    def describe(self) -> dict[str, Any]:
        """Layers, projections, and which tokens count where not all do."""
        return super().describe() | ({} if self.tokens == "all" else {"tokens": self.tokens})


@register_objective("cosine")
class CosineObjective(HiddenMatchObjective):
    """Directions of hidden states over the real tokens (DistilBERT; TextBrewer `cos`)."""

    citation = "distilbert"
    formula = "sum over matches of mean over tokens of 1 - cos(W h_S + b, h_T)"
    unit = "tokens"

    def __init__(
        self, layers: Layers = "last", projection: str | None = "auto", shared_projection: bool = False
    ) -> None:
        """As `HiddenMatchObjective`; DistilBERT matches the last layers."""
        super().__init__(layers, projection, shared_projection)

    def row_losses(self, student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
        """See `cosine_distance`."""
        return cosine_distance(student[0], teacher[0], mask)


@register_objective("pkd")
class PKDObjective(HiddenMatchObjective):
    """Directions of the first token's hidden states (Patient-KD; TextBrewer `pkd`)."""

    citation = "pkd"
    formula = "sum over matches of mean over rows of ||h_S/||h_S|| - h_T/||h_T|| ||^2, first token"

    def __init__(
        self,
        layers: Layers = "pkd_skip",
        projection: str | None = "auto",
        shared_projection: bool = False,
        pkd_compat: bool = False,
    ) -> None:
        """As `HiddenMatchObjective`.

        Args:
            layers: `pkd_skip`: all student layers but the last, each from its share of the teacher; `pkd_last`: from
                the teacher's layers right before its last; or as elsewhere.
            projection: The paper has none: its student is as wide as its teacher.
            shared_projection: As elsewhere.
            pkd_compat: Divide by the width and the number of matches, as the authors' code does; the paper's weights
                of this term (10 to 1000) belong to that scale.
        """
        super().__init__(layers, projection, shared_projection)
        self.pkd_compat = pkd_compat

    def counted(self, mask: Tensor) -> Tensor:
        """The first real token of every row."""
        return first_only(mask)

    def row_losses(self, student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
        """See `first_token_distance`."""
        values = first_token_distance(student[0], teacher[0], mask)
        return values / (teacher[0].shape[-1] * len(self.matches)) if self.pkd_compat else values

    def describe(self) -> dict[str, Any]:
        """Layers, projections and the scale."""
        return {**super().describe(), "pkd_compat": self.pkd_compat}


@register_objective("fsp")
class FSPObjective(HiddenMatchObjective):
    """Inner products between the features of two layers (FSP, Yim et al. 2017; TextBrewer `fsp`, `gram`)."""

    citation = "fsp"
    formula = "sum over matches of mean over rows and D x D of (X0_S^T X1_S / n - X0_T^T X1_T / n)^2"
    relates_layers = True

    def row_losses(self, student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
        """Mean squared difference of `feature_gram`; a row counts once, whatever its length."""
        difference = feature_gram(student[0], student[-1], mask) - feature_gram(teacher[0], teacher[-1], mask)
        return difference.square().mean((1, 2))


@register_objective("nst")
class NSTObjective(HiddenMatchObjective):
    """Inner products between the tokens of two layers, of any width (TextBrewer `nst`, `mmd`).

    Each Gram matrix is divided by the width of its model, so that both have the same scale. Every row has the same
    weight; in TextBrewer its weight is the square of its length.
    """

    citation = "nst"
    formula = "sum over matches of mean over rows and n x n of (X0_S X1_S^T / D_S - X0_T X1_T^T / D_T)^2"
    relates_layers = True
    needs_one_width = False

    def __init__(
        self,
        layers: Layers = "uniform_with_embeddings",
        projection: str | None = "identity",
        shared_projection: bool = False,
    ) -> None:
        """As `HiddenMatchObjective`; a match may be of two layers, as in `"0+1:0+3"`, and needs no projection."""
        super().__init__(layers, projection, shared_projection)

    def row_losses(self, student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
        """Mean squared difference of `token_gram` over pairs of real tokens."""
        difference = token_gram(student[0], student[-1], mask) - token_gram(teacher[0], teacher[-1], mask)
        return difference.square().sum((1, 2)) / mask.sum(1).clamp(min=1).square()
