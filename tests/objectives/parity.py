"""Inputs of the numbers that TextBrewer 0.2.1.post1 gave for its losses, in float64."""

import math

import torch

B, T, H, D_STUDENT, D_TEACHER = 2, 5, 3, 4, 6
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
NO_MASK = torch.ones(B, T).bool()


def wave(shape, offset):
    """`sin(offset + 0.37 n)` with n = 0, 1, 2, ... in row-major order."""
    count = math.prod(shape)
    return torch.sin(offset + 0.37 * torch.arange(count, dtype=torch.float64)).reshape(shape)


def pooled_over_pairs(values, mask):
    """Rows weighed by the square of their length, as TextBrewer pools what is summed over pairs of tokens."""
    pairs = mask.sum(1).square()
    return (values * pairs).sum() / pairs.sum()


def pooled_over_tokens(values, mask):
    """Rows weighed by their length."""
    return (values * mask.sum(1)).sum() / mask.sum()
