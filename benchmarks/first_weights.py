"""The value of a student's first weights, before and after updates: variance of states explained, STS-B, tasks.

    python benchmarks/first_weights.py --teacher models/me5-small-en-zh --data_dir data --textbook corpus.parquet \
        --prefix "query: " --shape 4x312 --inits teacher cut svd_embeddings random --updates 0 250 1000 --seeds 1 2 3 \
        --work_dir runs/first_weights --output benchmarks/results/first_weights.jsonl

`teacher` is cut out of the teacher and refitted, `cut` only cut out. Students learn the teacher's relations of the
last layers and its hidden states, on rows that follow those of the refit. With `--stored FOLDER` and `--objectives
embedding` they learn the vectors that `hf-distill precompute` wrote, in the order of their seed. STS-B is the
Spearman correlation of the cosines of mean-pooled vectors with the gold scores, without training on the task; for
tasks, every student is adapted with the same settings. Results that are already in the output are not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from record import append_line, head_commit
from transformers import AutoModel, AutoModelForSequenceClassification, set_seed

from hf_distill import DistillationArguments, DistillationTrainer, FineTuningArguments, create_student, finetune
from hf_distill.commands.results import environment
from hf_distill.corpus.build.loading import load_general_corpus
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.settings.distill import RATE_OF_CUT_STUDENTS
from hf_distill.students.first_weights import CalibrationRow, first_weights_of
from hf_distill.students.sentence import SentenceHead, encode_texts
from hf_distill.students.sizes import count_parameters
from hf_distill.students.vocabulary import trim_vocabulary
from hf_distill.tasks import LoadedTask, load_task
from hf_distill.tasks.vectors import pairs_of

CALIBRATION_ROWS = 4_000
TRIMMING_ROWS = 100_000
ROWS_PER_UPDATE = 64
MAX_LENGTH = 64
# MiniLMv2's rate; any other start has that of `hf-distill distill` for students that it cuts out of a teacher.
RATES = {"random": 6e-4, "svd_embeddings": 6e-4}


def rate_of(words: argparse.Namespace, init: str) -> float:
    """The learning rate of students with these first weights."""
    return words.learning_rate or RATES.get(init, RATE_OF_CUT_STUDENTS)


def begin(words: argparse.Namespace, init: str, seed: int) -> tuple[Path, dict[str, Any]]:
    """A student with these first weights and its tokenizer in a folder, and what is known of the start.

    The folder is kept, since students with more updates begin with the same weights.
    """
    kind = "-".join(map(str, (words.shape, init, words.vocabulary or "full", words.calibration or "general")))
    folder = Path(words.work_dir, f"{kind.replace('/', '_')}-start-{seed}")
    facts_file = folder / "facts.json"
    if facts_file.is_file():
        return folder, json.loads(facts_file.read_text(encoding="utf-8"))
    teacher, tokenizer = open_teacher(words)
    texts = texts_of(words, seed)
    facts: dict[str, Any] = {}
    started = time.monotonic()
    if words.vocabulary:
        trimmed = trim_vocabulary(tokenizer, teacher, texts[:TRIMMING_ROWS], size=words.vocabulary)
        teacher, tokenizer = trimmed.model, trimmed.tokenizer
        facts["trimmed"] = str(trimmed)
    text = calibration_texts(words, seed) if init == "teacher" else None
    student, facts["explained"] = first_student(teacher, tokenizer, words.shape, init, text, seed)
    facts |= {"start_seconds": round(time.monotonic() - started, 1), "parameters": count_parameters(student).total}
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts_file.write_text(json.dumps(facts), encoding="utf-8")
    return folder, facts


def first_student(
    teacher: Any, tokenizer: Any, shape: str, init: str, text: Iterable[CalibrationRow] | None, seed: int
) -> tuple[Any, list[float]]:
    """A student with first weights, and the share of the states of each layer that they explain."""
    set_seed(seed)
    kind = "teacher" if init == "cut" else init
    student = create_student(teacher, shape, init=kind, calibration_text=text, tokenizer=tokenizer, seed=seed)
    taken = first_weights_of(student)
    return student, [round(share, 4) for share in taken.explained] if taken else []


def open_teacher(words: argparse.Namespace) -> tuple[Any, Any]:
    """The teacher and its tokenizer."""
    return load_model(words.teacher, flag="--teacher").eval(), load_tokenizer(words.teacher, flag="--teacher")


def texts_of(words: argparse.Namespace, seed: int) -> list[str]:
    """The texts of a seed: those of the refit, then those of the updates, as many as there are."""
    corpus = load_general_corpus(words.textbook, flag="--textbook").shuffle(seed=seed)
    count = CALIBRATION_ROWS + max(max(words.updates) * ROWS_PER_UPDATE, TRIMMING_ROWS)
    return [words.prefix + text for text in corpus.select(range(min(count, len(corpus))))["text"]]


def calibration_texts(words: argparse.Namespace, seed: int) -> Iterable[CalibrationRow]:
    """What is read for the refit: the first texts of the textbook, or the training rows of a task."""
    if not words.calibration:
        return texts_of(words, seed)[:CALIBRATION_ROWS]
    task = load_task(words.calibration, words.data_dir)
    rows = task.train.shuffle(seed=seed).select_columns(list(task.spec.text_columns))
    return (tuple(words.prefix + text for text in row.values()) for row in rows)


def teacher_and_rows(words: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """The teacher and the rows of a training: those that were stored with its vectors, or new texts."""
    if words.stored:
        return {"teacher_model": words.stored}
    texts = texts_of(words, options["seed"])[CALIBRATION_ROWS:][: options["max_steps"] * ROWS_PER_UPDATE]
    teacher, tokenizer = open_teacher(words)
    rows = Dataset.from_dict({"text": texts})
    return {"teacher_model": teacher, "teacher_processing_class": tokenizer, "train_dataset": rows}


def distilled(student: Any, tokenizer: Any, words: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """Train a student for some updates; returns the loss of the last ones, and the seconds."""
    args = DistillationArguments(
        per_device_train_batch_size=ROWS_PER_UPDATE,
        max_length=MAX_LENGTH,
        logging_steps=min(50, options["max_steps"]),
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        objectives=words.objectives,
        student_dropout=words.student_dropout,
        warmup_steps=words.warmup_steps,
        bf16=words.bf16,
        use_cpu=not torch.cuda.is_available(),
        **options,
    )
    trainer = DistillationTrainer(student, args, processing_class=tokenizer, **teacher_and_rows(words, options))
    output = trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"last_loss": round(losses[-1], 4), "distill_seconds": round(output.metrics["train_runtime"], 1)}


def stsb_spearman(model: Any, tokenizer: Any, words: argparse.Namespace) -> float:
    """Spearman correlation of cosines with judgements."""
    pairs = pairs_of(load_task("glue/stsb", words.data_dir), words.split)
    assert pairs is not None
    head = SentenceHead("mean")
    vectors = encode_texts(model, head, tokenizer, pairs.texts, max_length=MAX_LENGTH, prompt=words.prefix)
    return pairs.scores(vectors)["cosine_spearman"]


def adapted(folder: Path, tokenizer: Any, task: LoadedTask, rows: int, epochs: float, seed: int) -> float:
    """The score of a student after the same adaptation."""
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=task.spec.num_labels)
    train = task.train.shuffle(seed=seed).select(range(min(rows, len(task.train))))
    small = LoadedTask(task.spec, type(task.dataset)({**task.dataset, task.spec.train_split: train}), task.source)
    args = FineTuningArguments(
        str(folder.with_name(f"{folder.name}-adapted")),
        learning_rate=1e-4,
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        seed=seed,
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
    )
    return finetune(model, small, tokenizer, args, max_length=MAX_LENGTH, save=False).score


def known(output: str) -> set[tuple[Any, ...]]:
    """What was run already."""
    file = Path(output)
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {key_of(json.loads(line)) for line in lines}


def key_of(result: dict[str, Any]) -> tuple[Any, ...]:
    """What tells one result from another."""
    names = ("teacher", "shape", "init", "vocabulary", "calibration", "updates", "seed")
    learnt = (
        (*result["objectives"], result.get("learning_rate"), result.get("warmup_steps", 0.01))
        if result["updates"]
        else ()
    )
    return (*(result[name] for name in names), *learnt, result.get("split", "validation"))


def measure(words: argparse.Namespace, init: str, updates: int, seed: int) -> dict[str, Any]:
    """One student, from its first weights to its scores."""
    torch.set_num_threads(words.threads)
    start, facts = begin(words, init, seed)
    student, tokenizer = AutoModel.from_pretrained(start), load_tokenizer(str(start), flag="--work_dir")
    folder = start.with_name(start.name.replace("start", str(updates)))
    if updates:
        options = {
            "output_dir": str(folder / "distilled"),
            "max_steps": updates,
            "learning_rate": rate_of(words, init),
            "seed": seed,
        }
        facts |= distilled(student, tokenizer, words, options)
    student.eval().save_pretrained(folder)
    student.to("cuda" if torch.cuda.is_available() else "cpu")
    scores = {"stsb": stsb_spearman(student, tokenizer, words)}
    for name in words.tasks:
        rows_and_epochs = (12_000, 1.0) if name == "glue/sst2" else (12_000, 3.0)
        scores[name] = adapted(folder, tokenizer, load_task(name, words.data_dir), *rows_and_epochs, seed)
    return facts | {"scores": {name: round(score, 4) for name, score in scores.items()}}


def main() -> None:
    """Measure every start with every number of updates and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="Folder of an encoder.")
    parser.add_argument("--data_dir", required=True, help="Folder with the tasks' data.")
    parser.add_argument("--textbook", required=True, help="Sentences: those of the refit, then those of the updates.")
    parser.add_argument("--prefix", default="", help="What the teacher wants before every text.")
    parser.add_argument("--shape", default="4x312")
    parser.add_argument("--vocabulary", type=int, help="Trim the student's vocabulary to so many pieces.")
    parser.add_argument("--calibration", help="Refit on the training texts of this task instead of the textbook's.")
    parser.add_argument("--inits", nargs="+", default=["teacher", "cut", "svd_embeddings", "random"])
    parser.add_argument("--updates", nargs="+", type=int, default=[0, 250])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--objectives", nargs="+", default=["relation", "hidden"])
    parser.add_argument("--stored", help="Folder of `hf-distill precompute`: teacher and rows of all updates.")
    parser.add_argument("--learning_rate", type=float, help="The same rate for every start.")
    parser.add_argument("--student_dropout", type=float)
    parser.add_argument("--warmup_steps", type=float, default=0.01)
    parser.add_argument("--split", default="validation", help="STS-B's rows: `train` to compare settings.")
    parser.add_argument("--tasks", nargs="*", default=["glue/sst2", "glue/rte"])
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--commit", help="The commit that runs, where there is no repository. Default: HEAD.")
    parser.add_argument("--work_dir", default="runs/first_weights")
    parser.add_argument("--output", default="benchmarks/results/first_weights.jsonl")
    words = parser.parse_args()
    done = known(words.output)
    for seed in words.seeds:
        for updates in words.updates:
            for init in words.inits:
                head = {"teacher": Path(words.teacher).name, "shape": words.shape, "init": init}
                result = head | {"vocabulary": words.vocabulary, "calibration": words.calibration}
                result |= {"updates": updates, "seed": seed, "split": words.split, "objectives": words.objectives}
                if updates:
                    result |= {"learning_rate": rate_of(words, init), "warmup_steps": words.warmup_steps}
                if key_of(result) in done:
                    continue
                result |= measure(words, init, updates, seed)
                result |= {"commit": words.commit or head_commit(), "environment": environment()}
                append_line(words.output, result)


if __name__ == "__main__":
    main()
