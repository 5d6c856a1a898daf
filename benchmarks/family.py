"""CPU-seconds of a step of a family, compared with the steps of separate trainings of its students.

    python benchmarks/family.py --students 6x384 4x312 --output benchmarks/results/family.jsonl

The family and each separate student train in turns in one process, on the rows of `distillation_step.py`: random token
ids with the lengths of real sentences, random weights, the relation objective, batches by length. `family_to_alone` is
the median over the rounds of the family's CPU-seconds divided by the sum for the separate students; `saved_per_pass`
is the number of CPU-seconds saved by each pass of the teacher that is not needed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from distillation_step import TEACHERS, collate, make_rows
from record import append_line, head_commit
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, set_seed

from hf_distill import DistillationArguments, DistillationTrainer, create_student, train_family


class StepClock(TrainerCallback):
    """CPU-seconds of the process at the end of every step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends.append(time.process_time())


def measure(trainers: Sequence[DistillationTrainer], train: Callable[[], Any]) -> float:
    """CPU-seconds per step without the first one; in a family a step is one of every student."""
    clock = StepClock()
    trainers[-1].add_callback(clock)
    train()
    trainers[-1].remove_callback(clock)
    return (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every variant in turns."""
    torch.set_num_threads(options.threads)
    set_seed(0)
    depth, width, num_heads, _ = TEACHERS[options.teacher]
    config = BertConfig(
        num_hidden_layers=depth, hidden_size=width, num_attention_heads=num_heads, intermediate_size=4 * width
    )
    teacher = BertForSequenceClassification(config)
    rows = make_rows(options.workload, options.batch * options.steps, config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        common = {"per_device_train_batch_size": options.batch, "num_train_epochs": 1, "save_strategy": "no"}
        common |= {"use_cpu": True, "bf16": options.bf16, "disable_tqdm": True, "logging_strategy": "no"}
        trainers = {
            shape: DistillationTrainer(
                create_student(teacher, shape, init="random"),
                DistillationArguments(str(Path(folder, shape)), objectives=["relation"], report_to="none", **common),
                teacher_model=teacher,
                train_dataset=rows,
                data_collator=collate,
            )
            for shape in options.students
        }
        variants: dict[str, Callable[[], float]] = {
            shape: partial(measure, [trainer], trainer.train) for shape, trainer in trainers.items()
        }
        everyone = list(trainers.values())
        variants["family"] = partial(measure, everyone, partial(train_family, everyone))
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for turn in range(options.rounds + 1):
            for name, variant in variants.items():
                taken = variant()
                if turn:  # The first round warms up.
                    seconds[name].append(taken)
    return summarize(options, seconds)


def summarize(options: argparse.Namespace, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and the ratio of every round."""
    sums = [sum(alone) for alone in zip(*(seconds[shape] for shape in options.students), strict=True)]
    ratios = [family / alone for family, alone in zip(seconds["family"], sums, strict=True)]
    saved = [alone - family for family, alone in zip(seconds["family"], sums, strict=True)]
    passes = len(options.students) - 1
    return {
        "benchmark": "family",
        "command": f"python benchmarks/family.py {' '.join(sys.argv[1:])}",
        "teacher": options.teacher,
        "students": options.students,
        "workload": options.workload,
        "batch": options.batch,
        "steps": options.steps,
        "rounds": options.rounds,
        "bf16": options.bf16,
        "cpu_seconds_per_step": {name: round(statistics.median(taken), 4) for name, taken in seconds.items()},
        "family_to_alone": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "saved_per_pass": round(statistics.median(saved) / max(1, passes), 4),
        "machine": f"{platform.machine()}, {options.threads} threads",
        "torch": torch.__version__,
        "commit": head_commit(),
    }


def main() -> None:
    """Parse, measure, print, append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", choices=sorted(TEACHERS), default="base")
    parser.add_argument("--students", nargs="+", default=["6x384", "4x312"], help="shapes of the family")
    parser.add_argument("--workload", choices=["sent", "full"], default="sent")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=24, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds, after one that warms up")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="file of JSON lines to append to")
    options = parser.parse_args()
    result = run(options)
    print(json.dumps(result, indent=2))
    if options.output:
        append_line(options.output, result)


if __name__ == "__main__":
    main()
