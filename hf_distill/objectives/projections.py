"""Projections of the student's features to the teacher's width.

They are parameters of the objective: trained and clipped with the student, saved beside it, never in it. If a
projection begins at random, the first updates move the student towards a meaningless target. A `fitted` one begins as
the linear regression of the teacher's features on the student's.

Shape legend: B rows, T padded length.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
KINDS = ("auto", "fitted", "linear", "relu", "tanh", "identity")
# The kinds of which a linear map between different widths begins with a fit.
FITTED = ("auto", "fitted")
INITIAL_STD = 0.02


def check_kind(kind: str | None) -> str:
    """The kind of projection, `auto` for `None`.

    Raises:
        ValueError: If it is unknown.
    """
    if kind is None:
        return "auto"
    if kind not in KINDS:
        raise ValueError(f"`projection` is {kind!r}; allowed are {', '.join(KINDS)}.")
    return kind


def resolve_kind(kind: str, in_width: int, out_width: int) -> str:
    """`auto` is fitted where the widths differ and the identity where they are equal."""
    return ("identity" if in_width == out_width else "fitted") if kind == "auto" else kind


def make_projection(kind: str | None, in_width: int, out_width: int) -> nn.Module:
    """A projection of the last dimension.

    Args:
        kind: `linear`; `fitted`, the same, which the trainer fits to rows before the first update (see
            `Objective.projected`); `relu` or `tanh` (linear with an activation after it); `identity`; or `auto` or
            `None`: fitted where the widths differ, identity where they are equal.
        in_width: Width of the student's features.
        out_width: Width of the teacher's.

    Raises:
        ValueError: If the kind is unknown, or an identity is wanted between different widths.
    """
    kind = resolve_kind(check_kind(kind), in_width, out_width)
    if kind == "identity":
        if in_width != out_width:
            raise ValueError(
                f"`projection` is 'identity', but the student's features are {in_width} wide and the teacher's "
                f"{out_width}; choose 'linear', 'relu' or 'tanh'."
            )
        return nn.Identity()
    linear = nn.Linear(in_width, out_width)
    nn.init.normal_(linear.weight, std=INITIAL_STD)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, ACTIVATIONS[kind]()) if kind in ACTIVATIONS else linear


class MatchProjections(nn.Module):
    """The projections of several matches: one each, or one for all.

    Args:
        kind: See `make_projection`.
        widths: (student, teacher) widths of every match.
        shared: Whether all matches have one projection.

    Raises:
        ValueError: As `make_projection`, and if a shared one would have to have several shapes.
    """

    def __init__(self, kind: str, widths: Sequence[tuple[int, int]], shared: bool = False) -> None:
        super().__init__()
        if shared and len(set(widths)) > 1:
            raise ValueError(
                f"`shared_projection` is set, but the layers are {sorted(set(widths))} (student, teacher) wide; "
                "set it to false for one projection a match."
            )
        self.kind, self.widths, self.shared = kind, list(widths), shared
        needed = self.widths[:1] if shared else self.widths
        self.layers = nn.ModuleList(make_projection(kind, *pair) for pair in needed)

    def forward(self, features: Tensor, match: int) -> Tensor:
        """Project (B, T, student's width) features of a match to (B, T, teacher's width)."""
        layer = self.layers[0 if self.shared else match]
        if isinstance(layer, nn.Identity):
            return features
        # A student held in half precision beside projections in full precision.
        return layer(features.to(next(layer.parameters()).dtype))

    def to_fit(self, match: int) -> nn.Linear | None:
        """The projection of a match, where it begins with a fit."""
        layer = self.layers[0 if self.shared else match]
        return layer if self.kind in FITTED and isinstance(layer, nn.Linear) else None

    def describe(self) -> str:
        """Kind and widths: `linear 312 -> 768, one a match`, or `none, widths are equal`."""
        kinds = {f"{resolve_kind(self.kind, *pair)} {pair[0]} -> {pair[1]}" for pair in self.widths}
        if all(isinstance(layer, nn.Identity) for layer in self.layers):
            return "none, widths are equal"
        return f"{' and '.join(sorted(kinds))}, {'one for all' if self.shared else 'one a match'}"
