"""Choose the fp32 matrix path of the CPU, after checking what it really computes."""

from __future__ import annotations

from typing import Literal

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)

# A product in true fp32 is off by some 4e-7, one whose inputs were rounded to bf16 by some 3e-3.
MAX_FP32_ERROR = 1e-5

MatmulMode = Literal["auto", "strict", "fast"]


def matmul_error() -> float:
    """Relative error of one fp32 product as it is computed now, against float64."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(64, 256, generator=generator)
    right = torch.randn(256, 64, generator=generator)
    exact = left.double() @ right.double()
    return (((left @ right).double() - exact).norm() / exact.norm()).item()


def fast_products_in_force() -> bool:
    """Whether fp32 products on the CPU take oneDNN's path now."""
    backend = getattr(getattr(torch.backends, "mkldnn", None), "matmul", None)
    return backend is not None and backend.fp32_precision == "bf16"


def configure_fp32_matmul(mode: MatmulMode = "auto") -> str:
    """Send fp32 products on the CPU to oneDNN's bf16-allowed path where that is still true fp32 arithmetic.

    On processors without bf16 matrix units the switch only changes the library that multiplies (about twice as fast
    on AMD); on those with such units it would really round to bf16. `auto` therefore switches, measures the error of
    a small product, and switches back if it is more than fp32 rounding. `fast` keeps the switch in any case,
    `strict` never sets it.

    Returns:
        The setting in force: `"strict"` or `"fast"`.

    Raises:
        ValueError: If `mode` is unknown.
    """
    if mode not in ("auto", "strict", "fast"):
        raise ValueError(f"`--fp32_matmul` is {mode!r}; allowed are 'auto', 'strict' and 'fast'.")
    backend = getattr(getattr(torch.backends, "mkldnn", None), "matmul", None)
    if backend is None or not torch.backends.mkldnn.is_available():
        return "strict"
    backend.fp32_precision = "ieee" if mode == "strict" else "bf16"
    if mode == "auto" and matmul_error() > MAX_FP32_ERROR:
        backend.fp32_precision = "ieee"
        logger.info("fp32 matrix products stay on the strict path: the fast one rounds to bf16 on this processor.")
    return "fast" if backend.fp32_precision == "bf16" else "strict"
