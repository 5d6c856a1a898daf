"""Arithmetic of a CUDA device that is several times as fast as fp32, and whether fp32 products use it."""

from __future__ import annotations

import torch

# Minimum compute capability of tensor cores for TF32 and bfloat16.
_TENSOR_CORES = (8, 0)


def faster_flags() -> list[str]:
    """The training flags for which this machine's CUDA device has faster products; empty if there are none."""
    if not torch.cuda.is_available():
        return []
    flags = ["--bf16"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
    # Some AMD devices have TF32 only for a few kinds of products.
    if torch.version.hip is None and torch.cuda.get_device_capability() >= _TENSOR_CORES:
        flags.append("--tf32 true")
    return flags


def fp32_is_tf32() -> bool:
    """Whether fp32 products on a CUDA device are currently computed in TF32."""
    own = torch.backends.cuda.matmul.fp32_precision
    return (getattr(torch.backends, "fp32_precision", "") if own == "none" else own) == "tf32"
