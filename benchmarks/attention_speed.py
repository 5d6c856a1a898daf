"""Milliseconds of one layer's attention without gradient on the CPU: SDPA's kernel against products in slices.

    python benchmarks/attention_speed.py --output benchmarks/results/attention_speed.jsonl

12 heads of 64, float32, one row with padding; both kernels in turns, medians. `relative_difference` is that of the
results.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import append_line, head_commit

from hf_distill.precision import configure_fp32_matmul
from hf_distill.product_attention import attention_by_products

HEADS, SIZE = 12, 64
# The longest first, as batches by length begin in a training: the allocator keeps memory of the largest size so far.
SHAPES = ((16, 512), (32, 256), (32, 128), (32, 60), (64, 30))


def measure(rows: int, length: int, rounds: int) -> dict[str, Any]:
    """Both kernels on the same queries, keys, values and mask, after a round that warms up."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(rows, length, HEADS, SIZE, generator=generator).transpose(1, 2) for _ in range(3))
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool)
    mask[0, :, :, -3:] = False
    kernels: dict[str, Callable[[], torch.Tensor]] = {
        "sdpa": lambda: (
            torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            .transpose(1, 2)
            .contiguous()
        ),
        "products": lambda: attention_by_products(query, key, value, mask, None),
    }
    results = {name: kernel() for name, kernel in kernels.items()}
    taken: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(rounds):
        for name, kernel in kernels.items():
            started = time.perf_counter()
            kernel()
            taken[name].append(time.perf_counter() - started)
    difference = (results["products"] - results["sdpa"]).norm() / results["sdpa"].norm()
    return {
        "rows": rows,
        "length": length,
        "milliseconds": {name: round(1000 * statistics.median(values), 2) for name, values in taken.items()},
        "sdpa_to_products": round(
            statistics.median(a / b for a, b in zip(taken["sdpa"], taken["products"], strict=True)), 2
        ),
        "relative_difference": float(f"{difference:.1e}"),
    }


def main() -> None:
    """Measure every shape, print, append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="file of JSON lines to append to")
    options = parser.parse_args()
    path = configure_fp32_matmul("auto")
    with torch.inference_mode():
        shapes = [measure(rows, length, options.rounds) for rows, length in SHAPES]
    result = {
        "benchmark": "attention_speed",
        "command": f"python benchmarks/attention_speed.py {' '.join(sys.argv[1:])}",
        "fp32_matmul": path,
        "heads": HEADS,
        "head_size": SIZE,
        "rounds": options.rounds,
        "shapes": shapes,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "commit": head_commit(),
    }
    print(json.dumps(result, indent=2))
    if options.output:
        append_line(options.output, result)


if __name__ == "__main__":
    main()
