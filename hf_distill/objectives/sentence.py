"""Compares the vectors of texts with the teacher's: directly, or by the similarities between the texts of a batch.

`embedding` compares every vector with the teacher's, through a projection if the widths differ. `similarity` compares
the cosines between the texts of a batch, which needs no projection.

Matryoshka: with `dims`, the loss is also computed on the first dimensions of the student's vector (Kusupati et al.
2022).

Shape legend: B rows, D width of the student's vector, E of the teacher's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..capture.signals import SignalRequest, Signals
from .base import Objective, register_objective, required
from .features import unit_vectors
from .projections import FITTED, check_kind, make_projection, resolve_kind

EmbeddingLoss = Literal["cosine", "mse", "both"]
SimilarityLoss = Literal["kl", "mse", "both"]


class SentenceObjective(Objective):
    """An objective on the vectors of texts.

    Attributes:
        dims: Numbers of first dimensions of the student's vector that are compared too, the largest first; the whole
            vector is always compared.
    """

    unit = "rows"
    losses: tuple[str, ...] = ()

    def __init__(self, loss: str, dims: Sequence[int] | None) -> None:
        super().__init__()
        if loss not in (*self.losses, "both"):
            raise ValueError(
                f"`--objectives`: {self.registered_name!r} has `loss` {loss!r}; allowed are "
                f"{', '.join((*self.losses, 'both'))}."
            )
        self.loss = loss
        self.dims = sorted(set(dims or ()), reverse=True)
        self.widths: list[int] = []

    @property
    def student_request(self) -> SignalRequest:
        """The vector of every text."""
        return SignalRequest(pooled=True)

    @property
    def teacher_request(self) -> SignalRequest:
        """The vector of every text."""
        return SignalRequest(pooled=True)

    @property
    def used_losses(self) -> tuple[str, ...]:
        """The terms that are computed."""
        return self.losses if self.loss == "both" else (self.loss,)

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Compare the lengths with the width of the student's vector.

        Raises:
            ValueError: If one is not between 1 and that width.
        """
        width = vectors_of(student).shape[-1]
        wrong = [size for size in self.dims if not 0 < size < width]
        if wrong:
            raise ValueError(
                f"`--objectives`: {self.registered_name!r} has `dims` {wrong}, but the student's vector has {width} "
                "numbers; give lengths from 1 to below that."
            )
        self.widths = [width, *self.dims]

    def mean_over_widths(self, values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The terms as means over all lengths of the vector."""
        return {name: torch.stack([value[name] for value in values]).mean() for name in values[0]}

    def describe(self) -> dict[str, Any]:
        """Loss and lengths."""
        return {"loss": self.loss, **({"dims": self.dims} if self.dims else {})}


@register_objective("embedding")
class EmbeddingObjective(SentenceObjective):
    """The vector of every text against the teacher's: by cosine, squared error, or both."""

    citation = "embeddistill"
    formula = "mean over rows of 1 - cos(W s, t) [cosine]; mean of (W s - t)^2 [mse]; W where the widths differ"
    losses = ("cosine", "mse")

    def __init__(
        self, loss: EmbeddingLoss = "cosine", projection: str | None = "auto", dims: Sequence[int] | None = None
    ) -> None:
        """Create the objective.

        Args:
            loss: `cosine` compares directions; `mse` is the squared difference, a mean over rows and dimensions;
                `both` gives two terms.
            projection: `fitted`, `linear`, `relu`, `tanh` or `identity`, from the student's width to the teacher's
                (see `make_projection`); `auto`: fitted if the widths differ, none if they are equal. It is trained
                beside the student; with `--student_dense_width` the student itself has the teacher's width.
            dims: Matryoshka: numbers of first dimensions of the student's vector that are compared too, each with its
                own projection. The terms are means over these and the whole vector.

        Raises:
            ValueError: If the loss or the kind of projection is unknown.
        """
        super().__init__(loss, dims)
        self.projection = check_kind(projection)
        self.projections = nn.ModuleList()

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Make the projections for the widths of both sides."""
        super().check(student, teacher)
        wanted = vectors_of(required(teacher)).shape[-1]
        self.projections = nn.ModuleList(make_projection(self.projection, width, wanted) for width in self.widths)

    @property
    def fits(self) -> bool:
        """Whether what leads to the teacher's width, a projection or the student's dense layer, begins with a fit."""
        return self.projection in FITTED

    @property
    def fits_projections(self) -> bool:
        """Whether the widths differ, and the projections begin with a fit."""
        return self.fits and any(isinstance(one, nn.Linear) for one in self.projections)

    def projected(self, student: Signals, teacher: Signals) -> Iterator[tuple[nn.Linear, Tensor, Tensor]]:
        """Give every fitted projection with the vectors of both sides."""
        ours, theirs = vectors_of(student), vectors_of(teacher)
        for width, projection in zip(self.widths, self.projections, strict=True):
            if self.fits and isinstance(projection, nn.Linear):
                yield projection, ours[:, :width], theirs

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The terms `cosine` and `mse`, as far as asked for."""
        ours, theirs = vectors_of(student), vectors_of(required(teacher))
        found = []
        for width, projection in zip(self.widths, self.projections, strict=True):
            part = ours[:, :width]
            if not isinstance(projection, nn.Identity):
                part = projection(part.to(next(projection.parameters()).dtype)).float()
            found.append({name: _DISTANCES[name](part, theirs) for name in self.used_losses})
        return self.mean_over_widths(found)

    def describe(self) -> dict[str, Any]:
        """Loss, lengths and the projections."""
        linear = [next((m for m in one.modules() if isinstance(m, nn.Linear)), None) for one in self.projections]
        made = [f"{m.in_features} -> {m.out_features}" for m in linear if m is not None]
        kinds = {resolve_kind(self.projection, m.in_features, m.out_features) for m in linear if m is not None}
        words = f"{' and '.join(sorted(kinds))} {', '.join(made)}" if made else "none, widths are equal"
        return {**super().describe(), "projection": words if self.widths else self.projection}


@register_objective("similarity")
class SimilarityObjective(SentenceObjective):
    """The similarities between the texts of a batch, which need no projection: KL divergence, squared error, or both.

    A batch is the texts that are compared with each other: gradient accumulation does not make it larger.
    """

    citation = "similarity_preserving"
    formula = (
        "mean over rows of KL(softmax_j cos(t_i, t_j) / tau || softmax_j cos(s_i, s_j) / tau) [kl]; mean over pairs "
        "of (cos(s_i, s_j) - cos(t_i, t_j))^2 [mse]; j is not i"
    )
    losses = ("kl", "mse")

    def __init__(
        self,
        loss: SimilarityLoss = "kl",
        similarity_temperature: float = 0.05,
        dims: Sequence[int] | None = None,
    ) -> None:
        """Create the objective.

        Args:
            loss: `kl` compares softmax distributions over the cosines with the other texts, `mse` the cosines
                themselves; `both` gives two terms.
            similarity_temperature: Divides the cosines for `kl`; the smaller, the more the nearest texts count.
            dims: Matryoshka: numbers of first dimensions of the student's vector with which cosines are computed too.
                The terms are means over these and the whole vector.

        Raises:
            ValueError: If the loss is unknown, or the temperature not above 0.
        """
        super().__init__(loss, dims)
        if not 0 < similarity_temperature < math.inf:
            raise ValueError(
                f"`--objectives`: 'similarity' has `similarity_temperature` {similarity_temperature}; it must be "
                "above 0."
            )
        self.similarity_temperature = similarity_temperature
        # Of two texts each has one neighbour, whatever the similarity.
        self.least_rows = 3 if self.used_losses == ("kl",) else 2

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The terms `kl` and `mse`, as far as asked for; 0 for a batch of one text."""
        ours, theirs = vectors_of(student), vectors_of(required(teacher))
        target = cosines(theirs)
        found = []
        for width in self.widths:
            mine = cosines(ours[:, :width])
            terms = {"kl": lambda s=mine: neighbour_divergence(s, target, self.similarity_temperature)}
            terms["mse"] = lambda s=mine: pair_error(s, target)
            found.append({name: terms[name]() for name in self.used_losses})
        return self.mean_over_widths(found)

    def describe(self) -> dict[str, Any]:
        """Loss, lengths and temperature."""
        tau = {} if self.loss == "mse" else {"similarity_temperature": self.similarity_temperature}
        return {**super().describe(), **tau}


def vectors_of(signals: Signals) -> Tensor:
    """(B, D) fp32 vectors of the texts.

    Raises:
        ValueError: If the model was not asked for them.
    """
    if signals.pooled is None:
        raise ValueError("An objective compares vectors of texts, but one of the two models gives none.")
    return signals.pooled.float()


def cosine_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows of `1 - cos` between (B, E) vectors."""
    return (1.0 - (unit_vectors(student) * unit_vectors(teacher)).sum(-1)).mean()


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all numbers of the squared difference of (B, E) vectors."""
    return (student - teacher).square().mean()


_DISTANCES = {"cosine": cosine_error, "mse": squared_error}


def cosines(vectors: Tensor) -> Tensor:
    """(B, D) vectors -> (B, B) cosines between them."""
    units = unit_vectors(vectors)
    return units @ units.T


def neighbour_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over rows of the KL divergence between softmax distributions over the other rows' cosines, (B, B) each."""
    rows = len(student)
    if rows < 2:
        return student.sum() * 0.0
    ours, theirs = (without_diagonal(side) / temperature for side in (student, teacher))
    return nn.functional.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="batchmean")


def without_diagonal(similarities: Tensor) -> Tensor:
    """(B, B) -> (B, B - 1): a text is as near as can be to itself on both sides. Nothing is chosen by a mask."""
    rows = len(similarities)
    return similarities.flatten()[1:].view(rows - 1, rows + 1)[:, :-1].reshape(rows, rows - 1)


def pair_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pairs of different rows of the squared difference of (B, B) cosines; 0 where there is no pair."""
    rows = len(student)
    # The diagonals are equal but for rounding.
    return (student - teacher).square().sum() / max(1, rows * (rows - 1))
