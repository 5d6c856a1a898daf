"""Run every preset at small scale: one teacher, one task, the same rows; one line of results for each.

    python benchmarks/presets.py --teacher runs/sst2/teacher --encoder ENCODER --data_dir glue \
        --output benchmarks/results/presets.jsonl

The papers' presets are made for teachers of width 768 and weeks of training. Here the teacher has 12 layers of width
384, so shapes are scaled down with it (`SMALL`), most students begin with some of its layers, and all presets share
rows, epochs, batch size and a learning rate for random or for copied weights. Objectives and their weights are the
preset's own. If a preset teaches no head for the task, the student is adapted on the same rows for one epoch. The
baseline is the student of most presets, trained on the labels alone with as many updates. The numbers show that every
preset runs and learns; they do not compare papers. Presets that are already in the output are skipped, so that a
stopped run continues.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from record import append_line, head_commit

from hf_distill.commands.adapt import run as adapt
from hf_distill.commands.distill import run as distill
from hf_distill.commands.distill_student import make_student
from hf_distill.commands.results import environment
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.settings import (
    AdaptationArguments,
    DistillationArguments,
    FineTuningArguments,
    StudentArguments,
    TaskArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.settings.parsing import from_mapping
from hf_distill.settings.presets import list_presets, read_preset
from hf_distill.tasks import get_task
from hf_distill.trainers.fine_tuning.task_models import load_task_model

# Random weights would need thousands of updates; with copied layers, hundreds show what an objective does.
COPIED = {"student_shape": "4x384", "student_init": "teacher_layers", "student_layers": [3, 6, 9, 12]}
HALF = {"student_shape": "6x384", "student_layers": [1, 2, 3, 4, 5, 6]}
SMALL: dict[str, dict[str, Any]] = {
    "minilm": COPIED,
    "minilm_hidden_mse": COPIED,
    "minilmv2": COPIED,
    "tinybert_general": COPIED,
    "tinybert_task": COPIED,
    "bert_emd": COPIED,
    "textbrewer_t4_tiny": COPIED,
    "xtremedistil": {"student_shape": "4x312:12h"},
    "textbrewer_t6": HALF,
    "textbrewer_t3": {"student_shape": "3x384", "student_layers": [1, 2, 3]},
    "textbrewer_t12_nano": {"student_shape": "12x192"},
    "pkd": HALF,
    "distilbert": {"student_shape": "3x384", "student_layers": [1, 3, 5]},
    "bam": {},
    "mt_dnn_kd": {},
}
WITH_LABELS = ("pkd", "bam", "mt_dnn_kd")
# Presets whose distillation has no head for the task.
ADAPTED = ("minilm", "minilm_hidden_mse", "minilmv2", "tinybert_general", "distilbert")
RATES = {"random": 4e-4, "copied": 1e-4}


def student_of(preset: str, encoder_with_head: str) -> StudentArguments:
    """The preset's student, scaled down."""
    if preset in ("bam", "mt_dnn_kd"):
        return StudentArguments(student_model=encoder_with_head)
    return StudentArguments(**{**read_preset(preset).student, **SMALL[preset]})


def training_of(preset: str, student: StudentArguments, folder: Path, options: argparse.Namespace) -> Any:
    """The preset's training at small scale."""
    values = dict(read_preset(preset).training)
    for name in ("max_steps", "gradient_accumulation_steps"):
        values.pop(name, None)
    if preset == "tinybert_task":
        # The paper's 20 + 3 epochs as shares of these few.
        first, second = values["objectives"]
        shares = {"end": 20 / 23}, {"start": 20 / 23}
        values["objectives"] = [
            item | {"schedule": {"name": "stage", **share}}
            for item, share in zip((first, second), shares, strict=True)
        ]
    starts_random = student.student_model is None and student.student_init != "teacher_layers"
    values |= {
        "output_dir": str(folder),
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": 32,
        "learning_rate": RATES["random" if starts_random else "copied"],
        "warmup_steps": 0.1,
        "max_length": 64,
        "seed": options.seed,
        **quiet(options),
    }
    return from_mapping(DistillationArguments, values, preset)


def quiet(options: argparse.Namespace) -> dict[str, Any]:
    """What every training here has."""
    return {
        "use_cpu": True,
        "bf16": options.bf16,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "logging_steps": 50,
    }


def fine_tuning(folder: Path, options: argparse.Namespace, *, rate: float, epochs: float) -> FineTuningArguments:
    """Of adapted students and of the baseline."""
    return FineTuningArguments(
        str(folder), learning_rate=rate, num_train_epochs=epochs, per_device_train_batch_size=32, seed=options.seed,
        **quiet(options),
    )  # fmt: skip


def run_preset(preset: str, teacher: str, encoder_with_head: str, options: argparse.Namespace) -> dict[str, Any]:
    """Distil by one preset and score the student."""
    folder = Path(options.work_dir) / preset
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    student = student_of(preset, encoder_with_head)
    training = training_of(preset, student, folder / "distilled", options)
    textbook = TextbookArguments(
        [options.task], data_dir=options.data_dir, max_textbook_rows=options.rows, with_labels=preset in WITH_LABELS
    )
    done = distill(student, TeacherArguments(teacher), textbook, training)
    adapted = preset in ADAPTED
    task = TaskArguments(options.task, data_dir=options.data_dir, max_length=64, max_train_samples=options.rows)
    evaluated = adapt(
        task,
        AdaptationArguments(str(folder / "distilled")),
        fine_tuning(folder / "student", options, rate=RATES["copied"], epochs=1.0),
        way="adapt" if adapted else "keep",
    )
    losses = [entry["loss"] for entry in done["history"]]
    return {
        "preset": preset,
        "student": student.student_shape if student.student_model is None else "the encoder",
        "init": student.student_init if student.student_model is None else "pretrained",
        "parameters": evaluated["student"]["parameters"],
        "learning_rate": training.learning_rate,
        "objectives": {name: item["weight"] for name, item in done["objectives"].items()},
        "steps": done["steps"],
        "losses": [round(loss, 4) for loss in (losses[:1] + losses[-1:])],
        "adapted": adapted,
        "score": round(evaluated["student"]["score"], 4),
        "seconds": round(time.perf_counter() - started, 1),
    }


def run_baseline(teacher: str, options: argparse.Namespace) -> dict[str, Any]:
    """The student of most presets with its copied layers, on the labels alone with as many updates."""
    folder = Path(options.work_dir) / "baseline"
    student = make_student(StudentArguments(**COPIED), load_model(teacher, flag="--teacher"), options.seed)
    # A new head: the teacher's has seen every row.
    student.classifier.apply(student._init_weights)
    student.save_pretrained(folder / "start")
    load_tokenizer(teacher, flag="--teacher").save_pretrained(folder / "start")
    task = TaskArguments(options.task, data_dir=options.data_dir, max_length=64, max_train_samples=options.rows)
    started = time.perf_counter()
    arguments = fine_tuning(folder / "student", options, rate=RATES["copied"], epochs=options.epochs)
    evaluated = adapt(task, AdaptationArguments(str(folder / "start")), arguments)["student"]
    return {
        "preset": "none (labels only)",
        "student": COPIED["student_shape"],
        "init": COPIED["student_init"],
        "parameters": evaluated["parameters"],
        "learning_rate": RATES["copied"],
        "steps": evaluated["steps"],
        "adapted": True,
        "score": round(evaluated["score"], 4),
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Run what the output lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="folder of a model fine-tuned on the task")
    parser.add_argument("--masked_lm", help="folder of a masked language model, the teacher of distilbert")
    parser.add_argument("--encoder", required=True, help="folder of the encoder that the teacher was made of")
    parser.add_argument("--task", default="glue/sst2")
    parser.add_argument("--data_dir")
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--only", nargs="+", default=list_presets(), choices=list_presets())
    parser.add_argument("--work_dir", default="runs/presets")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    output = Path(options.output)
    lines = output.read_text(encoding="utf-8").splitlines() if output.is_file() else []
    found = {json.loads(line)["preset"] for line in lines}
    head = Path(options.work_dir) / "encoder_with_head"
    if not head.is_dir():
        load_task_model(options.encoder, get_task(options.task), flag="--encoder").save_pretrained(head)
        load_tokenizer(options.encoder, flag="--encoder").save_pretrained(head)
    facts = {
        "benchmark": "presets", "task": options.task, "rows": options.rows, "epochs": options.epochs, "batch": 32,
        "seed": options.seed, "bf16": options.bf16, "commit": head_commit(), "environment": environment(),
        "command": f"python benchmarks/presets.py --task {options.task} --rows {options.rows} "
        f"--epochs {options.epochs}" + (" --bf16" if options.bf16 else ""),
    }  # fmt: skip
    for name in [name for name in options.only if name not in found]:
        teacher = options.masked_lm if name == "distilbert" else options.teacher
        if teacher is None:
            print(f"{name}: left out, it needs --masked_lm")
            continue
        line = run_preset(name, teacher, str(head), options)
        print(json.dumps(line))
        append_line(output, line | facts)
    if "none (labels only)" not in found:
        append_line(output, run_baseline(options.teacher, options) | facts)


if __name__ == "__main__":
    main()
