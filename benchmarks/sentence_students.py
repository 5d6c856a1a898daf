"""Students of a sentence encoder by this package and by sentence-transformers, with equal time on the same rows.

    python benchmarks/sentence_students.py --teacher models/all-mpnet-base-v2 --textbook corpus.parquet \
        --shapes 6x384 4x312 --minutes 60 --tasks glue/stsb=data/glue sick=data/sick --squad data/squad \
        --others models/all-MiniLM-L6-v2 --work_dir runs/sentence --output benchmarks/results/sentence_students.jsonl

Variants: `ours` trains the objectives of `--objectives` with the teacher running beside it; `theirs` trains
`EmbedDistillLoss` of sentence-transformers with the same first weights, `theirs_random` with random ones. The minutes
of `theirs` include computing the teacher's vectors of the rows, which that package does beforehand. The number of
updates for the given minutes is first measured on `--trial` updates, so that both trainings end with a learning rate
of 0; if other jobs disturb the clock, `--updates` sets it. Teacher and `--others` are scored without training. Results
that are already in `--work_dir` are not computed again; `--small` is a test of a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from first_weights import first_student
from record import append_line, head_commit
from transformers import set_seed

from hf_distill import DistillationArguments, DistillationTrainer
from hf_distill.commands.results import environment
from hf_distill.corpus.build.loading import load_general_corpus
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.students.sentence import Normalize, SentenceHead, encode_texts, head_of
from hf_distill.students.sizes import count_parameters
from hf_distill.tasks import load_task
from hf_distill.tasks.vectors import Retrieval, VectorTask, is_retrieval, pairs_of, read_retrieval
from hf_distill.teachers.base import LiveTeacher

CALIBRATION_ROWS = 4_000
VARIANTS = ("ours", "theirs", "theirs_random")
Fit = Callable[[int], None]


def head_for(model: Any) -> SentenceHead:
    """The head of a folder, or the mean and a normalisation where it has none."""
    return head_of(model) or SentenceHead("mean", [Normalize()])


def retrieval_of(data_dir: str, queries: int) -> Retrieval:
    """Questions of SQuAD as queries, all its paragraphs as documents; the paragraph of a question answers it."""
    task = load_task("squad", data_dir, splits="evaluation")
    rows = task.split(task.spec.headline_split)
    documents = list(dict.fromkeys(rows["context"]))
    place = {text: row for row, text in enumerate(documents)}
    chosen = rows.shuffle(seed=0).select(range(min(queries, len(rows))))
    return Retrieval(
        "squad_retrieval",
        task.spec.headline_split,
        [*documents, *chosen["question"]],
        [f"d{row}" for row in range(len(documents))],
        [f"q{row}" for row in range(len(chosen))],
        [{place[text]: 1.0} for text in chosen["context"]],
    )


def tasks_of(words: argparse.Namespace) -> list[VectorTask]:
    """The tasks that every encoder is scored on."""
    found: list[VectorTask | None] = []
    for item in words.tasks:
        name, _, place = item.partition("=")
        if is_retrieval(name):
            found.append(read_retrieval(name, limit=words.queries))
        else:
            found.append(pairs_of(load_task(name, place or None, splits="evaluation")))
    if words.squad:
        found.append(retrieval_of(words.squad, words.queries))
    return [task for task in found if task is not None]


def scored(folder: str, tasks: list[VectorTask], words: argparse.Namespace) -> dict[str, Any]:
    """Scores of a sentence encoder, parameters, and texts it encodes in a second."""
    model = load_model(folder, flag="--others").eval()
    head, tokenizer = head_for(model), load_tokenizer(folder, flag="--others")
    scores, texts, started = {}, 0, time.monotonic()
    for task in tasks:
        vectors = encode_texts(model, head, tokenizer, task.texts, max_length=words.max_length, prompt=words.prompt)
        scores[task.name] = {name: round(value, 4) for name, value in task.scores(vectors).items()}
        texts += len(task.texts)
    rate = texts / (time.monotonic() - started)
    return {"scores": scores, "parameters": count_parameters(model).total, "texts_per_second": round(rate, 1)}


def rows_of(words: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Texts of the refit, and those to learn from."""
    corpus = load_general_corpus(words.textbook, flag="--textbook").shuffle(seed=words.seed)
    texts = [
        words.prompt + text for text in corpus.select(range(min(words.rows + CALIBRATION_ROWS, len(corpus))))["text"]
    ]
    calibration = min(CALIBRATION_ROWS, len(texts) // 4)
    return texts[:calibration], texts[calibration:]


def begin(words: argparse.Namespace, shape: str, init: str) -> str:
    """The folder of a student with first weights: those of `ours` and `theirs` are the same files."""
    folder = Path(words.work_dir, f"{shape}-{init}-start")
    if not (folder / "modules.json").is_file():
        teacher = load_model(words.teacher, flag="--teacher")
        tokenizer = load_tokenizer(words.teacher, flag="--teacher")
        text = rows_of(words)[0] if init == "teacher" else None
        student, _ = first_student(teacher, tokenizer, shape, init, text, words.seed)
        student.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        head_for(teacher).for_student(student.config.hidden_size).save(folder, student.config.hidden_size)
    return str(folder)


def fit_ours(words: argparse.Namespace, start: str, folder: str, texts: list[str]) -> Fit:
    """Train with this package; returns what trains for so many updates."""

    def fit(updates: int) -> None:
        teacher = load_model(words.teacher, flag="--teacher")
        trainer = DistillationTrainer(
            load_model(start, flag="--model"),
            DistillationArguments(folder, **settings(words, updates), max_length=words.max_length),
            teacher_model=LiveTeacher(teacher, head=head_for(teacher)),
            objectives=words.objectives,
            train_dataset=Dataset.from_dict({"text": texts[: updates * words.batch_size]}),
            processing_class=load_tokenizer(start, flag="--model"),
        )
        trainer.train()
        trainer.save_model()

    return fit


def fit_theirs(words: argparse.Namespace, start: str, folder: str, texts: list[str]) -> Fit:
    """Train with sentence-transformers; the teacher's vectors belong to it."""
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss

    def fit(updates: int) -> None:
        rows = texts[: updates * words.batch_size]
        teacher = SentenceTransformer(words.teacher, device=words.device)
        teacher.max_seq_length = words.max_length
        vectors = teacher.encode(rows, batch_size=words.batch_size, show_progress_bar=False)
        student = SentenceTransformer(start, device=words.device)
        student.max_seq_length = words.max_length
        width = vectors.shape[1]
        different = width != student.get_embedding_dimension()
        trainer = SentenceTransformerTrainer(
            student,
            SentenceTransformerTrainingArguments(folder, **settings(words, updates)),
            train_dataset=Dataset.from_dict({"sentence": rows, "label": vectors.tolist()}),
            loss=EmbedDistillLoss(student, projection_dim=width if different else None),
        )
        trainer.train()
        student.save(folder)

    return fit


def settings(words: argparse.Namespace, updates: int) -> dict[str, Any]:
    """What both trainers share."""
    return {
        "max_steps": updates,
        "per_device_train_batch_size": words.batch_size,
        "learning_rate": words.learning_rate,
        "weight_decay": 0.01,
        "adam_epsilon": 1e-6,
        "warmup_steps": 0.05,
        "logging_steps": max(1, updates // 20),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": words.seed,
        "use_cpu": words.device == "cpu",
    }


def updates_in(words: argparse.Namespace, fit: Fit, most: int) -> int:
    """How many updates the minutes have."""
    # Two lengths: what is loaded once is no part of an update.
    took = []
    for count in (words.trial, 3 * words.trial):
        began = time.monotonic()
        fit(count)
        took.append(time.monotonic() - began)
    per_update = max((took[1] - took[0]) / (2 * words.trial), 1e-4)
    once = max(0.0, took[0] - words.trial * per_update)
    return max(words.trial, min(math.floor((60 * words.minutes - once) / per_update), most))


def trained(words: argparse.Namespace, shape: str, variant: str, texts: list[str]) -> dict[str, Any]:
    """Train a student for the minutes; returns updates, rows and seconds."""
    start = begin(words, shape, "random" if variant == "theirs_random" else "teacher")
    folder = str(Path(words.work_dir, f"{shape}-{variant}"))
    make = fit_ours if variant == "ours" else fit_theirs
    set_seed(words.seed)
    fit = make(words, start, folder + "-trial", texts)
    updates = words.updates or updates_in(words, fit, len(texts) // words.batch_size)
    began = time.monotonic()
    make(words, start, folder, texts)(updates)
    seconds = time.monotonic() - began
    return {
        "folder": folder,
        "updates": updates,
        "rows": updates * words.batch_size,
        "seconds": round(seconds, 1),
        "milliseconds_a_row": round(1000 * seconds / (updates * words.batch_size), 3),
    }


def main(argv: list[str] | None = None) -> None:
    """Run what is not there yet, and print a line for each."""
    words = parsed(argv)
    torch.set_num_threads(words.threads)
    Path(words.work_dir).mkdir(parents=True, exist_ok=True)
    tasks = tasks_of(words)
    facts = {
        "teacher": Path(words.teacher).name,
        "minutes": words.minutes,
        "seed": words.seed,
        "commit": head_commit(),
    }
    texts = rows_of(words)[1]
    for shape in words.shapes:
        for variant in words.variants:

            def run(shape: str = shape, variant: str = variant) -> dict[str, Any]:
                done = trained(words, shape, variant, texts)
                return {**facts, "shape": shape, "variant": variant, **done, **scored(done["folder"], tasks, words)}

            keep(words, f"{shape}-{variant}", run)
    for place in [words.teacher, *words.others]:
        keep(words, f"as-it-is-{Path(place).name}", lambda place=place: {**facts, **scored(place, tasks, words)})


def keep(words: argparse.Namespace, name: str, run: Callable[[], dict[str, Any]]) -> None:
    """Run something once, and keep its result."""
    file = Path(words.work_dir, f"{name}.json")
    if not file.is_file():
        result = {"name": name, **run(), "environment": environment()}
        file.write_text(json.dumps(result), encoding="utf-8")
        if words.output:
            append_line(words.output, result)
    result = json.loads(file.read_text(encoding="utf-8"))
    print(
        json.dumps({key: value for key, value in result.items() if key not in ("environment", "folder")}), flush=True
    )


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The words of the command; `--small` overrides sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="a sentence encoder")
    parser.add_argument("--textbook", required=True, help="text to learn from")
    parser.add_argument("--shapes", nargs="+", default=["6x384", "4x312"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--objectives", nargs="+", default=["embedding", "similarity:0.5"])
    parser.add_argument("--tasks", nargs="*", default=[], help="NAME=FOLDER of pairs, or folders in BEIR's layout")
    parser.add_argument("--squad", help="folder of SQuAD, of which retrieval is made")
    parser.add_argument("--others", nargs="*", default=[], help="encoders that are scored as they are")
    parser.add_argument("--prompt", default="", help="put before every text, such as 'query: '")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--updates", type=int, help="so many updates instead of those that the minutes have")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--trial", type=int, default=30)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--max_length", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--work_dir", default="runs/sentence_students")
    parser.add_argument("--output")
    parser.add_argument("--small", action="store_true", help="a few updates, to see that everything runs")
    words = parser.parse_args(argv)
    if words.small:
        words.minutes, words.rows, words.queries, words.trial, words.batch_size = 0.05, 400, 20, 2, 8
    return words


if __name__ == "__main__":
    main()
