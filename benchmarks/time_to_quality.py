"""How soon a student keeps a share of its teacher's score on a task, by its first weights.

    python benchmarks/time_to_quality.py --teacher runs/sst2-teacher --task glue/sst2 --data_dir data --shape 4x312 \
        --inits teacher svd_embeddings random --seeds 1 --output benchmarks/results/time_to_quality.jsonl

Every student learns `relation` and `logits` on the task's training rows, with the same settings but for the learning
rate, and is scored every so many updates; it ends when it keeps the share. Seconds are of its first weights and of its
updates, without those of the scoring.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from first_weights import RATES
from record import append_line, head_commit
from transformers import AutoModelForSequenceClassification, TrainerCallback, set_seed

from hf_distill import DistillationArguments, DistillationTrainer, create_student
from hf_distill.commands.results import environment
from hf_distill.hub.loading import load_tokenizer
from hf_distill.students.first_weights import first_weights_of
from hf_distill.tasks import load_task

BATCH_SIZE = 32
MAX_LENGTH = 64


class UntilQuality(TrainerCallback):
    """Ends a training at a score, and keeps the seconds of its updates apart from those of the scoring.

    Args:
        target: The score.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.seconds = 0.0
        self.curve: list[tuple[int, float, float]] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Note when an update begins."""
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Count an update."""
        self.seconds += time.perf_counter() - self._began

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **__: Any) -> None:
        """Note the score, and end where it is high enough."""
        self.curve.append((state.global_step, round(self.seconds, 1), round(metrics["eval_accuracy"], 4)))
        control.should_training_stop |= metrics["eval_accuracy"] >= self.target


def accuracy(prediction: Any) -> dict[str, float]:
    """Share of rows whose largest logit is that of their label."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((logits.argmax(-1) == prediction.label_ids).mean())}


def train(words: argparse.Namespace, init: str, seed: int, target: float) -> dict[str, Any]:
    """One student, until it has the score or its updates are used up."""
    task, tokenizer = load_task(words.task, words.data_dir), load_tokenizer(words.teacher, flag="--teacher")
    teacher = AutoModelForSequenceClassification.from_pretrained(words.teacher).eval()
    columns = [*task.spec.text_columns, task.spec.label_column]
    rows = {split: task.dataset[split].select_columns(columns) for split in (task.spec.train_split, words.split)}
    if len(task.spec.text_columns) == 1:
        names = dict(zip(columns, ("text", "label"), strict=True))
        rows = {split: part.rename_columns(names) for split, part in rows.items()}
    train_rows = rows[task.spec.train_split].shuffle(seed=seed)
    set_seed(seed)
    started = time.perf_counter()
    student = create_student(
        teacher,
        words.shape,
        init=init,
        calibration_text=train_rows["text"][: words.calibration_rows] if init == "teacher" else None,
        tokenizer=tokenizer,
        seed=seed,
    )
    start_seconds = time.perf_counter() - started
    watch, taken = UntilQuality(target), first_weights_of(student)
    with tempfile.TemporaryDirectory() as folder:
        arguments = DistillationArguments(
            folder,
            objectives=["relation", "logits"],
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=64,
            max_length=MAX_LENGTH,
            max_steps=words.max_updates,
            learning_rate=RATES.get(init, 3e-4),
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=25,
            eval_strategy="steps",
            eval_steps=words.eval_every,
            eval_on_start=True,
            logging_steps=words.eval_every,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        DistillationTrainer(
            student,
            arguments,
            teacher_model=teacher,
            train_dataset=train_rows,
            eval_dataset=rows[words.split],
            processing_class=tokenizer,
            compute_metrics=accuracy,
            callbacks=[watch],
        ).train()
    return {
        "explained": [round(share, 4) for share in taken.explained] if taken else [],
        "start_seconds": round(start_seconds, 1),
        "update_seconds": round(watch.seconds, 1),
        "updates": watch.curve[-1][0],
        "reached": watch.curve[-1][2] >= target,
        "curve": watch.curve,
    }


def main() -> None:
    """Measure every start with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="Folder of a classifier that knows the task.")
    parser.add_argument("--task", default="glue/sst2", help="A task of one text a row and accuracy.")
    parser.add_argument("--data_dir", required=True, help="Folder with the task's data.")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--shape", default="4x312")
    parser.add_argument("--inits", nargs="+", default=["teacher", "svd_embeddings", "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--share", type=float, default=0.95, help="Of the teacher's accuracy.")
    parser.add_argument("--calibration_rows", type=int, default=4_000)
    parser.add_argument("--eval_every", type=int, default=50)
    parser.add_argument("--max_updates", type=int, default=4_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--commit", help="The commit that runs, where there is no repository. Default: HEAD.")
    parser.add_argument("--output", default="benchmarks/results/time_to_quality.jsonl")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    target = words.share * teacher_accuracy(words)
    for seed in words.seeds:
        for init in words.inits:
            result = {"teacher": Path(words.teacher).name, "task": words.task, "shape": words.shape, "init": init}
            result |= {"seed": seed, "share": words.share, "target": round(target, 4), "threads": words.threads}
            result |= train(words, init, seed, target)
            append_line(words.output, result | {"commit": words.commit or head_commit(), "environment": environment()})


def teacher_accuracy(words: argparse.Namespace) -> float:
    """The teacher's accuracy on the rows that students are scored on."""
    task, tokenizer = load_task(words.task, words.data_dir), load_tokenizer(words.teacher, flag="--teacher")
    teacher = AutoModelForSequenceClassification.from_pretrained(words.teacher).eval()
    rows, right = task.dataset[words.split], 0
    [column] = task.spec.text_columns
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        batch = tokenizer(part[column], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.no_grad():
            logits = teacher(**batch).logits
        right += int((logits.argmax(-1) == torch.tensor(part[task.spec.label_column])).sum())
    return right / len(rows)


if __name__ == "__main__":
    main()
