"""R3F: predictions that stay the same when the embeddings are disturbed (Aghajanyan et al. 2020, equation 5).

Shape legend: B rows, T padded length, H width, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hf_distill.settings.mtl import Noise


def disturbed(embeddings: Tensor, epsilon: float, noise: Noise) -> Tensor:
    """Embeddings (B, T, H) with noise: uniform in [-epsilon, epsilon], or normal with deviation epsilon."""
    drawn = torch.empty_like(embeddings)
    drawn = drawn.uniform_(-epsilon, epsilon) if noise == "uniform" else drawn.normal_(0.0, epsilon)
    return embeddings.detach() + drawn


def symmetric_divergence(clean: Tensor, noisy: Tensor) -> Tensor:
    """`KL(p | q) + KL(q | p)` of two sets of logits (..., C), summed over the classes; returns (...)."""
    log_p, log_q = clean.float().log_softmax(-1), noisy.float().log_softmax(-1)
    forward = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return forward + functional.kl_div(log_p, log_q, reduction="none", log_target=True).sum(-1)


def r3f_loss(clean: Any, noisy: Any, shown: Tensor | None) -> Tensor:
    """Mean divergence of a head's outputs with and without noise.

    Args:
        clean: Outputs by name, `logits` or `start_logits` and `end_logits`.
        noisy: The same with noise.
        shown: Which distributions count, of the shape of the outputs without their classes; `None`: all.
    """
    names = [name for name in ("logits", "start_logits", "end_logits") if clean.get(name) is not None]
    parts = []
    for name in names:
        values = symmetric_divergence(clean[name], noisy[name])
        parts.append(values.mean() if shown is None else (values * shown).sum() / shown.sum().clamp(min=1))
    return torch.stack(parts).mean()
