"""Seconds of a teacher's forward pass on the CPU: with and without packed weights, with SDPA and with products.

    python benchmarks/teacher_speed.py --output benchmarks/results/teacher_speed.jsonl

A BERT of 12x768 with random weights runs as a `LiveTeacher` that is asked for its last hidden state, on rows without
padding. `plain` is fp32 on the path of `--fp32_matmul auto`, or autocast in bfloat16, with SDPA; `packed` adds
`PackedLinears`, `products` adds `attention_by_products` (both of `hf_distill.kernels.cpu`), `both` is what a teacher
does. The variants run in turns in one process; medians over the rounds. `relative_difference` is that of `both` from
`plain`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from record import append_line, head_commit
from torch import nn
from transformers import BertConfig, BertModel

from hf_distill.capture.signals import SignalRequest
from hf_distill.kernels.cpu import PackedLinears, configure_fp32_matmul, packed_bytes
from hf_distill.teachers.base import LiveTeacher

# Rows and their length. The longest first, as batches by length begin in a training.
SHAPES = ((8, 512), (32, 128), (32, 60), (32, 30), (32, 10))
VARIANTS = {"plain": (False, False), "packed": (True, False), "products": (False, True), "both": (True, True)}


def make_teacher(dtype: str, packed: bool, products: bool) -> LiveTeacher:
    """The same weights every time."""
    torch.manual_seed(0)
    teacher = LiveTeacher(BertModel(BertConfig(), add_pooling_layer=False), dtype)
    if not packed:
        teacher._packed_linears = PackedLinears(nn.Identity())
    if not products:
        teacher.model.set_attn_implementation("sdpa")
    teacher.request(SignalRequest(hidden_states=frozenset({teacher.num_layers})))
    return teacher


def measure(dtype: str, rounds: int) -> dict[str, Any]:
    """Every shape in one arithmetic."""
    teachers = {name: make_teacher(dtype, *parts) for name, parts in VARIANTS.items()}
    shapes = []
    for rows, length in SHAPES:
        ids = torch.randint(5, 30_000, (rows, length), generator=torch.Generator().manual_seed(length))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
        states: dict[str, torch.Tensor] = {}
        for index in range(rounds + 1):
            for name, teacher in teachers.items():
                started = time.perf_counter()
                found = teacher.signals(batch)
                if index:  # the first round warms up, and packs
                    seconds[name].append(time.perf_counter() - started)
                states[name] = found.hidden_states[teacher.num_layers].float()
        difference = (states["both"] - states["plain"]).norm() / states["plain"].norm()
        shapes.append(
            {
                "rows": rows,
                "length": length,
                "seconds": {name: round(statistics.median(values), 4) for name, values in seconds.items()},
                "plain_to": {
                    name: round(
                        statistics.median(a / b for a, b in zip(seconds["plain"], seconds[name], strict=True)), 2
                    )
                    for name in VARIANTS
                    if name != "plain"
                },
                "relative_difference": float(f"{difference:.1e}"),
            }
        )
    return {"packed_megabytes": round(packed_bytes([teachers["both"].model]) / 1e6), "shapes": shapes}


def main() -> None:
    """Measure both arithmetics, print, append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="file of JSON lines to append to")
    options = parser.parse_args()
    result = {
        "benchmark": "teacher_speed",
        "command": f"python benchmarks/teacher_speed.py {' '.join(sys.argv[1:])}",
        "fp32_matmul": configure_fp32_matmul("auto"),
        "rounds": options.rounds,
        **{dtype: measure(dtype, options.rounds) for dtype in ("float32", "bfloat16")},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "commit": head_commit(),
    }
    print(json.dumps(result, indent=2))
    if options.output:
        append_line(options.output, result)


if __name__ == "__main__":
    main()
