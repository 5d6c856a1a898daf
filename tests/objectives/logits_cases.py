"""Heads' outputs of a small padded batch, as objectives on logits get them."""

import torch

from hf_distill.capture.signals import Signals

B, T, C = 4, 6, 3


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def mask():
    rows = torch.ones(B, T, dtype=torch.long)
    rows[0, 4:] = 0
    rows[1, :2] = 0
    return rows


def sides(student, teacher, attention_mask=None):
    """Both sides as signals; a tensor is the usual head, a dict names its heads."""
    attention_mask = mask() if attention_mask is None else attention_mask
    return tuple(
        Signals(attention_mask=attention_mask, logits=x if isinstance(x, dict) else {"logits": x})
        for x in (student, teacher)
    )
