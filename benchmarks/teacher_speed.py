"""Seconds of a teacher's forward pass on the CPU: with and without packed weights, with SDPA and sliced attention.

    python benchmarks/teacher_speed.py --output benchmarks/results/teacher_speed.jsonl

A BERT of 12x768 with random weights runs as a `LiveTeacher` that returns its last hidden state, on rows without
padding. `plain` is fp32 on the path of `--fp32_matmul auto`, or autocast in bfloat16, with SDPA; `packed` adds
`PackedLinears`, `products` adds `attention_by_products` (both from `hf_distill.kernels.cpu`), `both` is the teacher's
default. The variants run in turns in one process; medians over the rounds. `relative_difference` is that between
`both` and `plain`.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from record import origin, report, script_parser
from torch import nn
from transformers import BertConfig, BertModel
from turns import in_turns, medians, ratio

from hf_distill.capture.signals import SignalRequest
from hf_distill.kernels.cpu import PackedLinears, configure_fp32_matmul, packed_bytes
from hf_distill.teachers.base import LiveTeacher

# Numbers of rows and their length, longest first, as trainings with batches by length begin.
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
        states: dict[str, torch.Tensor] = {}

        def measure_one(name: str, batch: Any = batch, states: Any = states) -> float:
            started = time.perf_counter()
            found = teachers[name].signals(batch)
            taken = time.perf_counter() - started
            states[name] = found.hidden_states[teachers[name].num_layers].float()
            return taken

        # The warm-up round also packs the weights.
        seconds = in_turns({name: partial(measure_one, name) for name in VARIANTS}, rounds)
        difference = (states["both"] - states["plain"]).norm() / states["plain"].norm()
        shapes.append(
            {
                "rows": rows,
                "length": length,
                "seconds": medians(seconds),
                "plain_to": {name: ratio(seconds, "plain", name) for name in VARIANTS if name != "plain"},
                "relative_difference": float(f"{difference:.1e}"),
            }
        )
    return {"packed_megabytes": round(packed_bytes([teachers["both"].model]) / 1e6), "shapes": shapes}


def main() -> None:
    """Measure both arithmetics, print, append."""
    parser = script_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    result = {
        **origin("teacher_speed"),
        "fp32_matmul": configure_fp32_matmul("auto"),
        "rounds": options.rounds,
        **{dtype: measure(dtype, options.rounds) for dtype in ("float32", "bfloat16")},
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
