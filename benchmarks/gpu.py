"""Measure the costs of a distillation on one GPU: the relation loss, whole steps, waits, memory, loss curves.

    python benchmarks/gpu.py --minutes 4 --output benchmarks/results/gpu.jsonl

The cases run in order of importance until the time is over; every case is a line of JSON, written as soon as it is
measured. A case that fails is a line with its error, and cases for which no time was left are listed at the end.
Weights and token ids are random, which does not affect the times. `--small` runs the same code at sizes that a CPU
finishes in seconds.

- `ceilings`: what the card reaches in a plain copy and in plain matrix products;
- `relation`: fused kernel against slices: error against float64, milliseconds forward and backward, peak memory;
- `step`: a `DistillationTrainer` step of W1 (MiniLMv2: teacher 12x768, or 24x1024 up to layer 19; student 6x384) and
  of TextBrewer's T4-tiny: tokens a second, share of peak, waits of the host, peak memory;
- `switch`: the same step with one thing changed;
- `profile`: where the time of a step goes, by kernel;
- `curve`: the loss of the same run in fp32, bf16 and fp16;
- `tiles`: the kernel with other tile sizes.

Share of peak is that of the models' own products (24 d² + 4 T d operations per token and layer, three times that with
a backward pass) relative to the dense bf16 rate of the data sheet, `--peak`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from gpu_relation import (
    DEVICE,
    ON_GPU,
    WORKLOADS,
    Settings,
    Workload,
    fused_here,
    measure_ceilings,
    measure_relation,
    measure_small_divergence,
    measure_tiles,
    path,
    wait,
)
from record import append_line, head_commit, script_command, script_parser
from textbrewer_step import RECIPES, make_tokenizer
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, set_seed

from hf_distill import DistillationArguments, DistillationTrainer, create_student
from hf_distill.objectives import relation
from hf_distill.settings.convert import convert_config

# ---- Whole steps ----


class StepWatch(TrainerCallback):
    """Time some steps as a whole, then count the waits of some more.

    Attributes:
        seconds: Seconds of a step.
        megabytes: Peak memory of the timed steps.
        waits: Where the host waited for the device in the watched steps, by file and line.
    """

    def __init__(self, settings: Settings) -> None:
        self.warm, self.timed, self.watched = settings.warm, settings.timed, settings.watched
        self.seconds = math.nan
        self.megabytes: float | None = None
        self.waits: Counter[str] | None = None
        self._caught = contextlib.ExitStack()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start and stop the clock, then the watch."""
        step = state.global_step
        if step == self.warm:
            wait()
            if ON_GPU:
                torch.cuda.reset_peak_memory_stats()
            self._started = time.perf_counter()
        elif step == self.warm + self.timed:
            wait()
            self.seconds = (time.perf_counter() - self._started) / self.timed
            if ON_GPU:
                self.megabytes = round(torch.cuda.max_memory_allocated() / 1e6, 1)
                self._start_watching()
        elif step == self.warm + self.timed + self.watched:
            self._stop_watching()

    def _start_watching(self) -> None:
        self._warnings = self._caught.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

    def _stop_watching(self) -> None:
        if not ON_GPU:
            return
        torch.cuda.set_sync_debug_mode("default")
        found = [w for w in self._warnings if "synchroniz" in str(w.message)]
        self.waits = Counter("/".join(Path(w.filename).parts[-3:]) + f":{w.lineno}" for w in found)
        self._caught.close()


def make_rows(count: int, length: int, vocabulary: int) -> datasets.Dataset:
    """Rows of random ids, all of one length."""
    ids = torch.randint(10, vocabulary, (count, length), generator=torch.Generator().manual_seed(0)).tolist()
    masks = [[1] * length] * count
    return datasets.Dataset.from_dict({"input_ids": ids, "attention_mask": masks, "length": [length] * count})


def make_models(workload: Workload, length: int, small: bool, sharp: float = 1.0) -> tuple[Any, Any]:
    """Teacher and student with random weights; `sharp` widens those of the teacher, whose relations are else flat."""
    layers, width, heads = workload.teacher
    config = BertConfig(
        vocab_size=200 if small else 30522,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=max(512, length),
    )
    torch.manual_seed(0)
    with torch.device(DEVICE):
        teacher = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.dim() == 2:
                parameter.mul_(sharp)
    depth, narrow = workload.student
    return teacher, create_student(teacher, f"{depth}x{narrow}", init="random")


def make_trainer(
    settings: Settings, name: str, rows: int, length: int, steps: int, folder: str, sharp: float = 1.0, **changed: Any
) -> DistillationTrainer:
    """A trainer of a workload as a user makes it, in bf16 on a GPU."""
    workload = settings.workload(name)
    set_seed(0)
    teacher, student = make_models(workload, length, settings.small, sharp)
    objectives = (
        {"objectives": [{"objective": "relation", "relation_heads": workload.heads, "teacher_layer": workload.layer}]}
        if workload.heads
        else convert_config(RECIPES[name]).arguments
    )
    arguments = {
        "output_dir": folder,
        "per_device_train_batch_size": rows,
        "max_steps": steps,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not ON_GPU,
        "bf16": ON_GPU,
        "dataloader_num_workers": min(8, os.cpu_count() or 1) if ON_GPU else 0,
        **objectives,
        **changed,
    }
    return DistillationTrainer(
        student,
        DistillationArguments(**arguments),
        teacher_model=teacher,
        train_dataset=make_rows(rows * steps, length, teacher.config.vocab_size),
        processing_class=make_tokenizer(teacher.config.vocab_size),
    )


def measure_step(
    settings: Settings, name: str, rows: int, length: int, way: str = "fused", **changed: Any
) -> dict[str, Any]:
    """Seconds, tokens a second, share of peak, waits and peak memory of a step."""
    rows, length = settings.shape(rows, length)
    watch = StepWatch(settings)
    steps = settings.warm + settings.timed + settings.watched
    with tempfile.TemporaryDirectory() as folder, path(way):
        trainer = make_trainer(settings, name, rows, length, steps, folder, **changed)
        trainer.add_callback(watch)
        trainer.train()
    tokens = rows * length
    operations = tokens * settings.workload(name).operations(length)
    return {
        "workload": name,
        "rows": rows,
        "length": length,
        "relation": way if fused_here() else "slices",
        **changed,
        "ms_per_step": round(1000 * watch.seconds, 3),
        "tokens_per_second": round(tokens / watch.seconds),
        "tflop_per_step": round(operations / 1e12, 3),
        "share_of_peak": round(operations / watch.seconds / settings.peak, 4),
        "peak_mb": watch.megabytes,
        "waits_per_step": None if watch.waits is None else round(sum(watch.waits.values()) / settings.watched, 2),
        "waits": None if watch.waits is None else dict(watch.waits.most_common(12)),
    }


def measure_switch(
    settings: Settings, name: str, rows: int, length: int, label: str, **changed: Any
) -> dict[str, Any]:
    """A step with one thing changed; process-wide settings are put back."""
    matmul = torch.backends.cuda.matmul.fp32_precision
    try:
        return {"changed": label, **measure_step(settings, name, rows, length, **changed)}
    finally:
        torch.backends.cuda.matmul.fp32_precision = matmul
        torch._dynamo.reset()


def measure_curve(settings: Settings, precision: str, way: str) -> dict[str, Any]:
    """The logged losses of one run; teacher, student, rows and dropout are the same in every precision."""
    rows, length = settings.shape(64, 128)
    every = max(1, settings.curve // 12)
    with tempfile.TemporaryDirectory() as folder, path(way):
        arithmetic = {"bf16": precision == "bf16", "fp16": precision == "fp16" and ON_GPU}
        logs = {"logging_strategy": "steps", "logging_steps": every, "learning_rate": 6e-4}
        trainer = make_trainer(settings, "w1_base", rows, length, settings.curve, folder, 3.0, **arithmetic, **logs)
        with contextlib.redirect_stdout(sys.stderr):
            trainer.train()
    losses = [round(line["loss"], 5) for line in trainer.state.log_history if "loss" in line]
    return {"precision": precision, "relation": way, "rows": rows, "length": length, "every": every, "losses": losses}


def measure_profile(settings: Settings, name: str, rows: int, length: int) -> dict[str, Any]:
    """Device time of a step by kernel, and how much of the step the device was busy."""
    if not ON_GPU:
        return {"skipped": "no GPU"}
    steps, watched = 8, 4

    class Profile(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == steps - watched:
                wait()
                profiler.start()
                self.started = time.perf_counter()
            elif state.global_step == steps:
                wait()
                self.seconds = time.perf_counter() - self.started
                profiler.stop()

    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    profiler = torch.profiler.profile(activities=activities)
    watch = Profile()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(settings, name, rows, length, steps, folder)
        trainer.add_callback(watch)
        trainer.train()
    kernels: Counter[str] = Counter()
    launches = 0
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation:
            kernels[event.name[:90]] += event.time_range.elapsed_us()
            launches += 1
    return {
        "workload": name,
        "rows": rows,
        "length": length,
        "ms_per_step": round(1000 * watch.seconds / watched, 3),
        "busy_ms_per_step": round(sum(kernels.values()) / 1000 / watched, 3),
        "launches_per_step": round(launches / watched),
        "kernels_ms_per_step": {key: round(us / 1000 / watched, 4) for key, us in kernels.most_common(25)},
    }


# ---- The command ----


def cases(settings: Settings) -> list[tuple[str, float, Callable[[], dict[str, Any]]]]:
    """Name, expected seconds and measurement of every case, the most wanted first."""
    found: list[tuple[str, float, Callable[[], dict[str, Any]]]] = []

    def add(kind: str, seconds: float, measure: Callable[..., dict[str, Any]], *given: Any, **named: Any) -> None:
        words = [str(x) for x in given] + [str(value) for value in named.values()]
        found.append((" ".join([kind, *words]), seconds, lambda: measure(settings, *given, **named)))

    add("relation", 6, measure_relation, "w1_large", 256, 128, "bf16", False)
    add("small_divergence", 3, measure_small_divergence)
    add("step", 8, measure_step, "w1_large", 256, 128)
    add("ceilings", 3, measure_ceilings)
    add("step", 8, measure_step, "w1_base", 256, 128)
    if not settings.small:
        add("step", 8, measure_step, "t4_tiny", 256, 128)
    add("profile", 10, measure_profile, "w1_large", 256, 128)
    add("switch", 8, measure_switch, "w1_large", 256, 128, "slices", way="slices")
    for precision, way in (("fp32", "slices"), ("fp32", "fused"), ("bf16", "fused"), ("fp16", "fused")):
        add("curve", 8, measure_curve, precision, way)
    for name, rows, length, dtype, mixed in (
        ("w1_base", 256, 128, "bf16", False),
        ("w1_large", 64, 512, "bf16", False),
        ("w1_base", 256, 128, "bf16", True),
        ("w1_base", 256, 128, "fp32", False),
        ("w1_base", 256, 128, "fp16", False),
        ("w1_base", 64, 512, "bf16", False),
        ("w1_base", 64, 128, "bf16", False),
        ("w1_large", 64, 128, "bf16", False),
    ):
        add("relation", 5, measure_relation, name, rows, length, dtype, mixed)
    add("tiles", 30, measure_tiles)
    if not settings.small:
        for name in WORKLOADS:
            add("step", 8, measure_step, name, 64, 512)
        add("step", 8, measure_step, "t4_tiny", 32, 128)
    add("switch", 8, measure_switch, "w1_base", 256, 128, "slices", way="slices")
    if ON_GPU:
        add("switch", 8, measure_switch, "w1_base", 256, 128, "fp16", bf16=False, fp16=True)
        add("switch", 8, measure_switch, "w1_base", 256, 128, "fp32 with TF32", bf16=False, tf32=True)
        add("switch", 10, measure_switch, "w1_base", 256, 128, "fp32", bf16=False, tf32=False)
        add("switch", 8, measure_switch, "w1_base", 256, 128, "no workers", dataloader_num_workers=0)
        add("profile", 8, measure_profile, "w1_base", 256, 128)
        add("switch", 8, measure_switch, "w1_large", 256, 128, "bf16 teacher", teacher_dtype="bfloat16")
        add("switch", 60, measure_switch, "w1_large", 256, 128, "compiled", torch_compile=True)
    return found


def run(options: argparse.Namespace) -> list[str]:
    """Measure one case after the other; returns the names of those that no time was left for."""
    settings = Settings(
        small=options.small,
        peak=options.peak * 1e12,
        repeats=2 if options.small else 10,
        warm=1 if options.small else 8,
        timed=2 if options.small else 24,
        watched=1 if options.small else 6,
        curve=4 if options.small else 60,
    )
    common = {
        "benchmark": "gpu",
        "command": script_command("gpu"),
        "seed": 0,
        "machine": torch.cuda.get_device_name() if ON_GPU else platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "triton": triton_version()},
        "commit": options.commit or head_commit(),
    }
    started = time.perf_counter()
    left_out = []
    for name, seconds, measure in cases(settings):
        if options.cases and name.split()[0] not in options.cases:
            continue
        begun = time.perf_counter()
        if begun - started + (0 if options.small else seconds) > 60 * options.minutes:
            left_out.append(name)
            continue
        result = attempt(measure)
        minutes = round((time.perf_counter() - begun) / 60, 3)
        print(f"{(time.perf_counter() - started):6.1f} s  {name}: {json.dumps(result)}", flush=True)
        if options.output:
            append_line(options.output, {**common, "case": name, "minutes": minutes, **result})
    print(f"left out: {', '.join(left_out) or 'nothing'}", flush=True)
    return left_out


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a measurement; return its error if it fails, so that the following cases still run."""
    try:
        return measure()
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {str(error)[:400]}"}
    finally:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.empty_cache()


def triton_version() -> str | None:
    """The installed Triton, if any."""
    if not relation.TRITON_INSTALLED:
        return None
    import triton

    return triton.__version__


def main() -> None:
    """Parse and run."""
    parser = script_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="no case begins that would end later")
    parser.add_argument("--cases", nargs="+", help="only these kinds, such as relation step")
    parser.add_argument("--peak", type=float, default=989.0, help="dense bf16 TFLOP/s of the card's data sheet")
    parser.add_argument("--commit", default="", help="for a machine without git")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a CPU")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
