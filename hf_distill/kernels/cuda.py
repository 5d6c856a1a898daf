"""Which arithmetic a CUDA device has that multiplies several times as fast as fp32, and whether fp32 takes it."""

from __future__ import annotations

import torch

# Compute capability from which on tensor cores multiply TF32 and bfloat16.
_TENSOR_CORES = (8, 0)


def faster_flags() -> list[str]:
    """The flags of a training for which this machine's CUDA device has faster products; none where there are none."""
    if not torch.cuda.is_available():
        return []
    flags = ["--bf16"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
    # Of AMD's devices some have TF32 for a few kinds of products only.
    if torch.version.hip is None and torch.cuda.get_device_capability() >= _TENSOR_CORES:
        flags.append("--tf32 true")
    return flags


def fp32_is_tf32() -> bool:
    """Whether fp32 products on a CUDA device are computed in TF32 now."""
    own = torch.backends.cuda.matmul.fp32_precision
    return (getattr(torch.backends, "fp32_precision", "") if own == "none" else own) == "tf32"
