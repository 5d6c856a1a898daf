"""Linear layers fitted in closed form, by ridge regression whose ridge the data choose.

Shape legend: N rows of a batch, I input width, O output width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

# Ridges to choose from, in units of the mean square of the inputs: little text asks for more than much text.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
# Of every so many batches, one chooses the ridge.
CHOOSING_EVERY = 5


class LinearFit:
    """Changes linear layers of one input to give what they should, by as little as does: ridge regression of the rest.

    The ridge is the one with which a fit to four fifths of the batches has the least error on the last fifth; the
    layers are then fitted to all of them. A single batch takes the middle one.

    Args:
        linears: The layers, all with a bias or none; their outputs stand side by side in the goals.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self.linears = linears
        self._widths = [linear.out_features for linear in linears]
        # A column of ones stands for the bias.
        width = linears[0].in_features + (linears[0].bias is not None)
        shapes = [(width, columns) for columns in (width, sum(self._widths))]
        # Inputs times inputs and inputs times goals, of the batches that are fitted and of those that choose.
        self._sums = [[torch.zeros(shape, dtype=torch.float64) for shape in shapes] for _ in range(2)]
        self._batches = 0

    def add(self, x: Tensor, goal: Tensor) -> None:
        """Count a batch: inputs (N, I), and what the layers should make of them, (N, sum of O)."""
        rest = goal - torch.cat([linear(x) for linear in self.linears], dim=1)
        if self.linears[0].bias is not None:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        gram, products = self._sums[self._batches % CHOOSING_EVERY == 1]
        gram += (x.T @ x).cpu().double()
        products += (x.T @ rest).cpu().double()
        self._batches += 1

    def solve(self, ridges: Sequence[float] = RIDGES) -> None:
        """Change the layers; without a batch they stay as they are.

        Args:
            ridges: How much a change may count, in units of the mean square of the inputs.
        """
        fitting, choosing = self._sums
        gram, products = (one + other for one, other in zip(fitting, choosing, strict=True))
        if not gram.any():
            return
        ridge = _best_ridge(fitting, choosing, ridges) if choosing[0].any() else ridges[len(ridges) // 2]
        damped = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        change = torch.linalg.solve(damped, products)
        for linear, part in zip(self.linears, change.split(self._widths, dim=1), strict=True):
            linear.weight.add_(part[: linear.in_features].T.to(linear.weight))
            if linear.bias is not None:
                linear.bias.add_(part[-1].to(linear.bias))


def fit_linear(
    linears: Sequence[nn.Linear], pairs: Iterable[tuple[Tensor, Tensor]], ridges: Sequence[float] = RIDGES
) -> None:
    """Fit linear layers of one input to batches of inputs and goals (see `LinearFit`)."""
    fit = LinearFit(linears)
    for x, goal in pairs:
        fit.add(x, goal)
    fit.solve(ridges)


def _best_ridge(fitting: Sequence[Tensor], choosing: Sequence[Tensor], ridges: Sequence[float]) -> float:
    """The ridge with which the fit to some batches has the least error on others.

    Args:
        fitting: Of the batches that are fitted, inputs times inputs (I, I), and inputs times goals (I, O).
        choosing: The same of the others.
        ridges: To choose from.
    """
    gram, products = fitting
    sizes, directions = torch.linalg.eigh(gram)
    turned, other_turned = directions.T @ products, directions.T @ choosing[1]
    other_sizes = directions.T @ choosing[0] @ directions

    def error(ridge: float) -> float:
        change = turned / (sizes.clamp(min=0) + ridge * gram.diagonal().mean())[:, None]
        return float((change * (other_sizes @ change - 2 * other_turned)).sum())

    return min(ridges, key=error)
