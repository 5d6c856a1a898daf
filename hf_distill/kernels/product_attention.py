"""Attention of frozen models on the CPU, by matrix products in slices.

PyTorch's fused attention for CPUs multiplies small tiles by a path of its own, not by the one that
`hf_distill.kernels.precision` chose for fp32 products. Where that is oneDNN's, two such products and a softmax over a
few rows at a time are faster, in float32 the more so the shorter the rows (`benchmarks/teacher_speed.py`). The slice
bounds the memory: its scores stay in the cache.

Shape legend: B batch, T queries, U keys, A attention heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.kernels.precision import fast_products_in_force

DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
"""Queries that are taken. Scores are float32 for all of them, as in SDPA; so are the weights, which SDPA rounds."""

SLICE_SCORES = 2**20
"""Most scores of a slice that is more than one row: 4 MB."""


def products_apply(
    module: nn.Module, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
) -> bool:
    """Whether `attention_by_products` computes what SDPA would, on oneDNN's path.

    Args:
        module: The attention module.
        query: (B, A, T, D).
        key: (B, A, U, D); fewer heads than the queries have are left to SDPA.
        attention_mask: What `attention_by_products` takes.
        options: What the model gives its attention function beside tensors and mask.
    """
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return (
        query.device.type == "cpu"
        and query.dtype in DTYPES
        and query.shape[:2] == key.shape[:2]
        and (attention_mask is not None or not causal)
        and not options.get("dropout")
        and all(options.get(name) is None for name in ("position_bias", "softcap", "cache"))
        and not torch.is_grad_enabled()
        # Reentrant checkpointing runs a model in training without gradients first, and must then see the same kernel.
        and not any(parameter.requires_grad for parameter in module.parameters())
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and fast_products_in_force()
    )


def attention_by_products(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None
) -> Tensor:
    """Softmax attention. A query whose keys are all masked sees them all alike.

    Args:
        query: (B, A, T, D), of `DTYPES`.
        key: (B, A, U, D).
        value: (B, A, U, D).
        attention_mask: Broadcast to (B, A, T, U): True where a key is seen, or numbers to add to the scores.
        scaling: Factor of the scores; 1 / sqrt(D) if `None`.

    Returns:
        (B, T, A, D), contiguous.
    """
    (rows, heads, queries, size), keys = query.shape, key.shape[2]
    bias = None if attention_mask is None else _as_bias(attention_mask).expand(rows, -1, -1, -1)
    step = max(1, SLICE_SCORES // (heads * queries * keys))
    result = query.new_empty(rows, queries, heads, size)
    buffer = query.new_empty(min(step, rows), heads, queries, keys, dtype=torch.float32)
    with torch.autocast("cpu", enabled=False):
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            scores = buffer[: part.stop - start]
            torch.matmul(query[part].float(), key[part].float().transpose(2, 3), out=scores)
            scores.mul_(size**-0.5 if scaling is None else scaling)
            if bias is not None:
                scores.add_(bias[part])
            torch.softmax(scores, dim=-1, out=scores)
            result[part] = torch.matmul(scores, value[part].float()).transpose(1, 2)
    return result


def _as_bias(mask: Tensor) -> Tensor:
    """Return the bias to add to the scores; a mask of numbers is one already."""
    if mask.dtype != torch.bool:
        return mask
    bias = torch.zeros_like(mask, dtype=torch.float32)
    return bias.masked_fill_(~mask, torch.finfo(torch.float32).min)
