"""Time, memory and error of a teacher's forward pass in every arithmetic of `--teacher_dtype`.

    python benchmarks/teacher_arithmetic.py --output benchmarks/results/teacher_arithmetic.jsonl

A BERT with random weights runs as a `LiveTeacher` that returns its last hidden state, on the CPU. The variants run in
turns in one process for several rounds; medians over the rounds are printed, and the median ratio of each to int8.
Seconds are CPU time of all threads together, which other programs affect less. `float32` uses the strict path of the
processor, `float32_fast` the one that `--fp32_matmul auto` would choose. Errors are relative to `float32`.
`packed_megabytes` are in addition to the weights. int8 needs torchao: pip install 'hf_distill[int8]'.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import torch
from record import origin, report, script_parser
from transformers import BertConfig, BertModel, set_seed
from turns import in_turns, medians, ratio

from hf_distill.capture.signals import SignalRequest
from hf_distill.kernels.cpu import configure_fp32_matmul, packed_bytes
from hf_distill.teachers.base import LiveTeacher

VARIANTS = {
    "float32": ("float32", "strict"),
    "float32_fast": ("float32", "auto"),
    "bfloat16": ("bfloat16", "auto"),
    "int8": ("int8", "auto"),
}


def parse_options() -> argparse.Namespace:
    """Command-line options."""
    parser = script_parser(__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden_size", type=int, default=768)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


def make_teachers(options: argparse.Namespace) -> dict[str, LiveTeacher]:
    """The same weights in every arithmetic."""
    set_seed(0)
    config = BertConfig(
        hidden_size=options.hidden_size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden_size // 64,
        intermediate_size=4 * options.hidden_size,
    )
    model = BertModel(config, add_pooling_layer=False)
    teachers = {name: LiveTeacher(model, dtype) for name, (dtype, _) in VARIANTS.items()}
    for teacher in teachers.values():
        teacher.request(SignalRequest(hidden_states=frozenset({options.layers})))
    return teachers


def weight_megabytes(teacher: LiveTeacher) -> float:
    """Memory of the weights; quantised ones are counted by their integers and scales."""
    total = 0
    for weight in teacher.model.parameters():
        names = weight.__tensor_flatten__()[0] if hasattr(weight, "__tensor_flatten__") else []
        total += sum(part.nbytes for part in ([getattr(weight, name) for name in names] or [weight]))
    return round(total / 1e6, 1)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """CPU-seconds of a pass, its error and the memory of the weights, for every variant."""
    teachers = make_teachers(options)
    ids = torch.randint(5, 30_000, (options.batch, options.length))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    states: dict[str, torch.Tensor] = {}
    models = [teacher.model for teacher in teachers.values()]
    packed: dict[str, int] = {}

    def measure_one(name: str) -> float:
        configure_fp32_matmul(VARIANTS[name][1])  # type: ignore[arg-type]
        before = packed_bytes(models)
        started = time.process_time()
        found = teachers[name].signals(batch)
        taken = time.process_time() - started
        packed.setdefault(name, packed_bytes(models) - before)
        states[name] = found.hidden_states[options.layers].float()
        return taken

    seconds = in_turns({name: partial(measure_one, name) for name in VARIANTS}, options.rounds)
    exact = states["float32"]
    return {
        "cpu_seconds": medians(seconds),
        "to_int8": {name: ratio(seconds, name, "int8", 3) for name in seconds},
        "relative_error": {
            name: round(((state - exact).norm() / exact.norm()).item(), 5) for name, state in states.items()
        },
        "weight_megabytes": {name: weight_megabytes(teachers[name]) for name in ("float32", "int8")},
        "packed_megabytes": {name: round(number / 1e6, 1) for name, number in packed.items()},
    }


def main() -> None:
    """Measure and report."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    result = {
        **origin("teacher_arithmetic"),
        **{name: getattr(options, name) for name in ("layers", "hidden_size", "batch", "length", "threads", "rounds")},
        **measure(options),
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
