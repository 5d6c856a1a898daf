"""Linear layers fitted in closed form by ridge regression; the ridge parameter is chosen from the data.

Shape legend: N rows of a batch, I input width, O output width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

# Ridge parameters to choose from, in units of the mean square of the inputs: less text needs a larger one.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
# One of this many batches is used to choose the ridge parameter.
CHOOSING_EVERY = 5


class LinearFit:
    """Fits linear layers with a common input to target outputs: ridge regression of the change of their weights.

    The ridge parameter is the one for which a fit to four fifths of the batches has the smallest error on the last
    fifth; the layers are then fitted to all batches. With a single batch the middle one is used.

    Args:
        linears: The layers, all with or all without a bias; the targets are their outputs side by side.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self.linears = linears
        self._widths = [linear.out_features for linear in linears]
        # A column of ones represents the bias.
        width = linears[0].in_features + (linears[0].bias is not None)
        shapes = [(width, columns) for columns in (width, sum(self._widths))]
        # Products of inputs with inputs and of inputs with targets, for the fitting batches and the choosing batches.
        self._sums = [[torch.zeros(shape, dtype=torch.float64) for shape in shapes] for _ in range(2)]
        self._batches = 0

    def add(self, x: Tensor, goal: Tensor) -> None:
        """Add a batch: inputs (N, I), and the target outputs of the layers, (N, sum of O)."""
        rest = goal - torch.cat([linear(x) for linear in self.linears], dim=1)
        if self.linears[0].bias is not None:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        gram, products = self._sums[self._batches % CHOOSING_EVERY == 1]
        gram += (x.T @ x).cpu().double()
        products += (x.T @ rest).cpu().double()
        self._batches += 1

    def solve(self, ridges: Sequence[float] = RIDGES) -> None:
        """Update the layers; without a batch they stay unchanged.

        Args:
            ridges: Ridge parameters to choose from, in units of the mean square of the inputs.
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
    """Fit linear layers with a common input to batches of inputs and targets (see `LinearFit`)."""
    fit = LinearFit(linears)
    for x, goal in pairs:
        fit.add(x, goal)
    fit.solve(ridges)


def _best_ridge(fitting: Sequence[Tensor], choosing: Sequence[Tensor], ridges: Sequence[float]) -> float:
    """The ridge parameter for which the fit to some batches has the smallest error on others.

    Args:
        fitting: Products over the fitting batches: inputs with inputs (I, I), and inputs with targets (I, O).
        choosing: The same over the other batches.
        ridges: The values to choose from.
    """
    gram, products = fitting
    sizes, directions = torch.linalg.eigh(gram)
    turned, other_turned = directions.T @ products, directions.T @ choosing[1]
    other_sizes = directions.T @ choosing[0] @ directions

    def error(ridge: float) -> float:
        change = turned / (sizes.clamp(min=0) + ridge * gram.diagonal().mean())[:, None]
        return float((change * (other_sizes @ change - 2 * other_turned)).sum())

    return min(ridges, key=error)
