"""How soon a student reaches a share of its teacher's score on a task, for different first weights.

    python benchmarks/time_to_quality.py --teacher runs/sst2-teacher --task glue/sst2 --data_dir data --shape 4x312 \
        --inits teacher svd_embeddings random --seeds 1 --output benchmarks/results/time_to_quality.jsonl

Every student is trained on the task's training rows and scored at regular intervals; it stops when it reaches the
share. The learning rate is constant unless `--lr_scheduler_type linear` lets it decay to 0 at `--max_updates`. Seconds
are CPU time of making the first weights and of the updates, without the scoring: with `--threads 1`, those of an idle
core. `--split train` scores on 1,000 held-out training rows, for comparing settings.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from first_weights import RATES, first_student
from record import append_line, head_commit
from transformers import AutoModelForSequenceClassification, TrainerCallback

from hf_distill import DistillationArguments, DistillationTrainer
from hf_distill.commands.results import environment
from hf_distill.hub.loading import load_tokenizer
from hf_distill.settings.distill import RATE_OF_CUT_STUDENTS
from hf_distill.tasks import load_task

BATCH_SIZE = 32
MAX_LENGTH = 64


class UntilQuality(TrainerCallback):
    """Scores a student at regular intervals, ends its training at a score, and counts only the seconds of updates.

    Args:
        score: Function from a model to its score.
        target: The score to reach.
        every: Number of updates between two scores.
    """

    def __init__(self, score: Callable[[Any], float], target: float, every: int) -> None:
        self.score = score
        self.target = target
        self.every = every
        self.seconds = 0.0
        self.curve: list[tuple[int, float, float]] = []
        self._began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Score the first weights."""
        self._note(0, named["model"], control)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Note when an update begins."""
        self._began = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Count an update."""
        self.seconds += time.process_time() - self._began
        if state.global_step % self.every == 0:
            self._note(state.global_step, named["model"], control)

    def _note(self, updates: int, model: Any, control: Any) -> None:
        found = self.score(model)
        self.curve.append((updates, round(self.seconds, 1), round(found, 4)))
        control.should_training_stop |= found >= self.target


def accuracy(model: Any, tokenizer: Any, rows: Dataset) -> float:
    """Share of rows whose largest logit is that of their label."""
    was_training, right = model.training, 0
    model.eval()
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        batch = tokenizer(part["text"], padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch.to(model.device)).logits.cpu()
        right += int((logits.argmax(-1) == torch.tensor(part["label"])).sum())
    model.train(was_training)
    return right / len(rows)


def rows_of(words: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """The task's training rows, and those that are scored."""
    task = load_task(words.task, words.data_dir)
    [column] = task.spec.text_columns
    names = {column: "text", task.spec.label_column: "label"}
    chosen = (task.train, task.dataset[words.split])
    train_rows, scored = (rows.select_columns(list(names)).rename_columns(names) for rows in chosen)
    if words.split == task.spec.train_split:
        # Settings are compared on rows that are not reported.
        parts = train_rows.train_test_split(test_size=1_000, seed=0)
        return parts["train"], parts["test"]
    return train_rows, scored


def train(words: argparse.Namespace, init: str, seed: int, target: float) -> dict[str, Any]:
    """Train one student until it has the score or its updates are used up."""
    tokenizer = load_tokenizer(words.teacher, flag="--teacher")
    teacher = AutoModelForSequenceClassification.from_pretrained(words.teacher).eval()
    train_rows, scored = rows_of(words)
    train_rows = train_rows.shuffle(seed=seed)
    started = time.process_time()
    text = train_rows["text"][: words.calibration_rows] if init == "teacher" else None
    student, explained = first_student(teacher, tokenizer, words.shape, init, text, seed)
    start_seconds = time.process_time() - started
    watch = UntilQuality(lambda model: accuracy(model, tokenizer, scored), target, words.eval_every)
    rate = words.learning_rate or RATES.get(init, RATE_OF_CUT_STUDENTS)
    with tempfile.TemporaryDirectory() as folder:
        arguments = DistillationArguments(
            folder,
            objectives=words.objectives,
            per_device_train_batch_size=BATCH_SIZE,
            max_length=MAX_LENGTH,
            max_steps=words.max_updates,
            learning_rate=rate,
            lr_scheduler_type=words.lr_scheduler_type,
            student_dropout=words.student_dropout,
            warmup_steps=25,
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
            processing_class=tokenizer,
            callbacks=[watch],
        ).train()
    return {
        "objectives": words.objectives,
        "learning_rate": rate,
        "lr_scheduler_type": words.lr_scheduler_type,
        "student_dropout": words.student_dropout,
        "explained": explained,
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
    parser.add_argument("--objectives", nargs="+", default=["relation", "logits"])
    parser.add_argument("--learning_rate", type=float, help="Default: that of the first weights.")
    parser.add_argument("--lr_scheduler_type", default="constant_with_warmup")
    parser.add_argument("--student_dropout", type=float, help="Default: that of the teacher's configuration.")
    parser.add_argument("--share", type=float, default=0.95, help="Of the teacher's accuracy.")
    parser.add_argument("--calibration_rows", type=int, default=4_000)
    parser.add_argument("--eval_every", type=int, default=50)
    parser.add_argument("--max_updates", type=int, default=4_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--commit", help="The commit that runs, where there is no repository. Default: HEAD.")
    parser.add_argument("--output", default="benchmarks/results/time_to_quality.jsonl")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    teacher = AutoModelForSequenceClassification.from_pretrained(words.teacher).eval()
    tokenizer = load_tokenizer(words.teacher, flag="--teacher")
    target = words.share * accuracy(teacher, tokenizer, rows_of(words)[1])
    for seed in words.seeds:
        for init in words.inits:
            result = {"teacher": Path(words.teacher).name, "task": words.task, "shape": words.shape, "init": init}
            result |= {"seed": seed, "share": words.share, "target": round(target, 4), "threads": words.threads}
            result |= train(words, init, seed, target)
            append_line(words.output, result | {"commit": words.commit or head_commit(), "environment": environment()})


if __name__ == "__main__":
    main()
