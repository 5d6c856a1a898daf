"""Weights of the tasks in a fine-tuning on many.

Shape legend: N tasks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hf_distill.objectives.base import over_processes
from hf_distill.tasks.spec import TaskSpec

# Share of the new value in the running means of gradient norms and losses.
MOMENTUM = 0.1


def log_classes(spec: TaskSpec, max_length: int) -> float:
    """Return the divisor of a task's loss that makes it about 1 at the beginning (Muppet, section 3.3).

    The cross-entropy of an even guess is the logarithm of the number of choices: classes, tags, or for answers the
    `max_length` places of a row; of several labels a row each is a choice between yes and no. A regression has no such
    number: its loss is divided by 1.
    """
    if spec.is_span:
        return math.log(max_length)
    if spec.several_labels:
        return math.log(2)
    choices = len(spec.label_names or ())
    return math.log(choices) if choices > 1 else 1.0


class UncertaintyWeights(nn.Module):
    """A learnt variance for each task: `loss / s^2 + log s` (Kendall et al. 2018, equation 10)."""

    def __init__(self, tasks: list[str]) -> None:
        """Begin with a variance of 1 for every task."""
        super().__init__()
        self.places = {task: place for place, task in enumerate(tasks)}
        self.log_variances = nn.Parameter(torch.zeros(len(tasks)))

    def forward(self, task: str, loss: Tensor) -> Tensor:
        """The weighted loss of a micro-batch."""
        log_variance = self.log_variances[self.places[task]]
        return loss * torch.exp(-log_variance) + 0.5 * log_variance

    def weights(self) -> dict[str, float]:
        """Factor on each task's loss."""
        values = torch.exp(-self.log_variances.detach()).tolist()
        return {task: values[place] for task, place in self.places.items()}


class GradientNormWeights(nn.Module):
    """Weights that make the gradients of all tasks alike in norm, and larger where a task learns slowly (GradNorm).

    GradNorm (Chen et al. 2018) moves the weights by gradient descent towards
    `weight_i x norm_i = mean norm x rate_i ^ alpha`. `norm_i` is the norm of the gradient of task i in the last shared
    layer. `rate_i` is the task's loss divided by its first loss, and by the mean of these ratios over all tasks. Here
    a micro-batch has one task, so norms and losses are running means, and the weights are the solution of the
    equation, scaled to a sum of N.
    """

    norms: Tensor
    losses: Tensor
    first_losses: Tensor

    def __init__(self, tasks: list[str], alpha: float) -> None:
        """Begin with a weight of 1 for every task."""
        super().__init__()
        self.places = {task: place for place, task in enumerate(tasks)}
        self.alpha = alpha
        for name in ("norms", "losses", "first_losses"):
            self.register_buffer(name, torch.zeros(len(tasks)))

    def observe(self, task: str, loss: Tensor, shared: list[nn.Parameter]) -> None:
        """Take the gradient of a task's loss in the last shared layer into account.

        Args:
            task: The task of the micro-batch.
            loss: Its loss, with its graph.
            shared: Weights of the last layer of the encoder.
        """
        gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        parts = [gradient.float().norm() for gradient in gradients if gradient is not None]
        here = torch.zeros(3, len(self.places), device=loss.device)
        if parts:
            new = (loss.new_ones((), dtype=torch.float32), torch.stack(parts).norm(), loss.detach().float())
            here[:, self.places[task]] = torch.stack(new)
        # Processes may have different tasks, but the same weights. (N,) each: means over those that have the task.
        counts, norms, losses = over_processes(here)
        now, before = counts > 0, self.first_losses > 0
        norms, losses = (values / counts.clamp(min=1) for values in (norms, losses))
        self.first_losses.copy_(torch.where(now & ~before, losses, self.first_losses))
        for running, new in ((self.norms, norms), (self.losses, losses)):
            moved = torch.where(before, (1 - MOMENTUM) * running + MOMENTUM * new, new)
            running.copy_(torch.where(now, moved, running))

    def forward(self, task: str, loss: Tensor) -> Tensor:
        """The weighted loss of a micro-batch."""
        return self._weights()[self.places[task]] * loss

    def _weights(self) -> Tensor:
        least = torch.finfo(torch.float32).tiny
        progress = self.losses / self.first_losses.clamp(min=least)
        wanted = self.norms.mean() * (progress / progress.mean().clamp(min=least)) ** self.alpha
        weights = wanted / self.norms.clamp(min=least)
        weights = weights * len(weights) / weights.sum().clamp(min=least)
        # Until every task was seen, nothing can be compared.
        return torch.where((self.first_losses > 0).all(), weights, torch.ones_like(weights))

    def weights(self) -> dict[str, float]:
        """Factor on each task's loss."""
        values = self._weights().tolist()
        return {task: values[place] for task, place in self.places.items()}
