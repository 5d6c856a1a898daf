"""Signals of layers of a small padded batch, and objectives that have seen both sides."""

import torch

from hf_distill.capture.signals import Signals
from hf_distill.objectives import build_objectives

B, T, H, D_STUDENT, D_TEACHER = 3, 6, 4, 8, 12
# Layers with embeddings, two of them related where an objective relates them.
PAIRS = {"hidden": "0:0,2:4", "cosine": "0:0,2:4", "pkd": "0:0,2:4", "fsp": "0+1:0+3,2:4", "nst": "0+1:0+3,2:4"}


def masks():
    """Rows of six, four (padded right) and three tokens (padded left)."""
    mask = torch.ones(B, T, dtype=torch.long)
    mask[1, 4:] = 0
    mask[2, :3] = 0
    return mask


def side(width, seed, depth, mask=None, heads=H):
    mask = masks() if mask is None else mask
    rows, length = mask.shape
    generator = torch.Generator().manual_seed(seed)
    states = {i: torch.randn(rows, length, width, generator=generator) for i in range(depth + 1)}
    scores = {i: 2 * torch.randn(rows, heads, length, length, generator=generator) for i in range(1, depth + 1)}
    return Signals(attention_mask=mask, hidden_states=states, attention_scores=scores)


def student_signals(mask=None, width=D_STUDENT, heads=H):
    return side(width, 1, 2, mask, heads)


def teacher_signals(mask=None):
    return side(D_TEACHER, 2, 4, mask)


def make(name, student=None, teacher=None, depths=(2, 4), **options):
    """An objective that has seen both sides."""
    torch.manual_seed(3)
    layers = {"layers": PAIRS[name]} if name in PAIRS else {}
    (item,) = build_objectives([{"objective": name, **layers, **options}])
    item.objective.bind(*depths)
    item.objective.check(student or student_signals(), teacher or teacher_signals())
    return item.objective


def total(objective, student, teacher):
    return sum(objective(student, teacher).values())
