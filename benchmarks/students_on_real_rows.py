"""A reranker and a multi-label classifier as students, on real rows, with and without their teachers.

    python benchmarks/students_on_real_rows.py --encoder models/me5-small-en-zh --data_dir data \
        --cases reranker labels --teacher_updates 300 --updates 300 --seeds 1 2 3 --work_dir runs/real_rows \
        --output benchmarks/results/students_on_real_rows.jsonl

`reranker`: which question is a duplicate? Questions of QQP that have a duplicate are queries, the others are
documents, and BM25 finds the candidates as `hf-distill corpus` does. The teacher is trained on these lists with the
duplicates as labels; students learn `margin` or `listwise` from its stored scores. `labels`: which kinds of entities
does a sentence of CoNLL-2003 (or CLUENER) name? The teacher is fine-tuned; the student learns its predictions by
binary cross-entropy.

Variants without a teacher make the same number of updates on the labels alone: `labels` with the same first weights,
cut out of the teacher, `labels_random` with random ones. Scores are on validation rows, for every student also before
its first update. The teacher of a case is made once, and results that are already in `--work_dir` are not computed
again; `--small` is a test of a minute.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from record import head_commit
from scipy.special import logit
from sentence_students import keep
from transformers import AutoModelForSequenceClassification, set_seed

from hf_distill import DistillationArguments, DistillationTrainer, StoredTeacher, create_student, precompute
from hf_distill.commands import corpus
from hf_distill.commands.textbook import calibration_rows
from hf_distill.corpus.build.loading import load_general_corpus
from hf_distill.hub.loading import load_tokenizer
from hf_distill.settings import CorpusArguments, TaskArguments
from hf_distill.students.first_weights import CalibrationRow
from hf_distill.students.sizes import count_parameters
from hf_distill.tasks import LoadedTask, load_task, tokenize_task
from hf_distill.tasks.metrics.compute import compute_scores, predictions_of
from hf_distill.tasks.spec import SEVERAL_METRICS, TaskSpec
from hf_distill.tasks.vectors import read_retrieval
from hf_distill.trainers.distillation.task_scores import as_reranking
from hf_distill.trainers.fine_tuning.predictions import predict_texts
from hf_distill.trainers.fine_tuning.trainer import evaluate_model

VARIANTS = {"reranker": ("margin", "listwise"), "labels": ("logits",)}
ON_LABELS = ("labels", "labels_random")


class Case:
    """One kind of student: its rows, its teacher, and how it is scored.

    Attributes:
        words: The words of the command.
        folder: Where everything of the case is kept.
        tokenizer: Of teacher and students.
    """

    name: str
    lengths: int

    def __init__(self, words: argparse.Namespace) -> None:
        self.words = words
        self.folder = Path(words.work_dir, self.name)
        self.tokenizer = load_tokenizer(words.encoder, flag="--encoder")

    def rows(self, config: Any) -> Dataset:
        """Rows to learn from, with labels."""
        raise NotImplementedError

    def texts(self) -> Iterable[CalibrationRow]:
        """What first weights are refitted on."""
        raise NotImplementedError

    def head(self) -> dict[str, Any]:
        """Fields of the head's configuration."""
        raise NotImplementedError

    def scores(self, model: Any) -> dict[str, float]:
        """Scores of a model on validation rows."""
        raise NotImplementedError

    def known(self) -> dict[str, float]:
        """Scores of a baseline that learns nothing."""
        raise NotImplementedError

    def fit(
        self, model: Any, objectives: list[str], updates: int, rate: float, seed: int, teacher: Any = None
    ) -> float:
        """Train a model; returns the seconds."""
        args = DistillationArguments(
            str(self.folder / "run"),
            objectives=objectives,
            max_steps=updates,
            learning_rate=rate,
            per_device_train_batch_size=self.words.batch_size,
            warmup_steps=0.1,
            max_length=self.lengths,
            logging_steps=max(1, updates // 10),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
            use_cpu=self.words.device == "cpu",
        )
        rows = None if isinstance(teacher, StoredTeacher) else self.rows(model.config)
        started = time.monotonic()
        trainer = DistillationTrainer(
            model, args, teacher_model=teacher, train_dataset=rows, processing_class=self.tokenizer
        )
        trainer.train()
        return round(time.monotonic() - started, 1)

    def teacher(self) -> dict[str, Any]:
        """Make the teacher, and return its scores."""
        set_seed(self.words.seeds[0])
        model = AutoModelForSequenceClassification.from_pretrained(self.words.encoder, **self.head())
        before = self.scores(model)
        seconds = self.fit(model, ["labels"], self.words.teacher_updates, self.words.teacher_rate, self.words.seeds[0])
        model.eval().save_pretrained(self.folder / "teacher")
        self.tokenizer.save_pretrained(self.folder / "teacher")
        return {"seconds": seconds, "parameters": count_parameters(model).total, **self._scored(model, before)}

    def student(self, variant: str, seed: int) -> dict[str, Any]:
        """Train one student, and return its scores."""
        start, before = self.start("random" if variant == "labels_random" else "teacher", seed)
        student = AutoModelForSequenceClassification.from_pretrained(start)
        teacher = None
        if variant not in ON_LABELS:
            teacher = AutoModelForSequenceClassification.from_pretrained(self.folder / "teacher").eval()
            teacher = self.stored(teacher) if self.name == "reranker" else teacher
        objectives = ["labels"] if variant in ON_LABELS else [variant]
        rate = self.words.random_rate if variant == "labels_random" else self.words.rate
        seconds = self.fit(student, objectives, self.words.updates, rate, seed, teacher)
        return {"seconds": seconds, "parameters": count_parameters(student).total, **self._scored(student, before)}

    def start(self, init: str, seed: int) -> tuple[Path, dict[str, float]]:
        """The folder of a student with its first weights, and its scores: the variants of a seed share them."""
        folder = self.folder / f"start-{init}-{seed}"
        scores = folder / "scores.json"
        if not scores.is_file():
            teacher = AutoModelForSequenceClassification.from_pretrained(self.folder / "teacher").eval()
            text = None if init == "random" else self.texts()
            options: dict[str, Any] = {"calibration_text": text, "tokenizer": self.tokenizer, "seed": seed}
            student = create_student(teacher, self.words.shape, init=init, **options)
            student.save_pretrained(folder)
            scores.write_text(json.dumps(self.scores(student)), encoding="utf-8")
        return folder, json.loads(scores.read_text(encoding="utf-8"))

    def _scored(self, model: Any, before: dict[str, float]) -> dict[str, Any]:
        return {"before": before, "after": self.scores(model.eval())}

    def stored(self, teacher: Any) -> StoredTeacher:
        """The teacher's scores of all rows, computed once for all students."""
        place = self.folder / "stored"
        if not (place / "manifest.json").is_file():
            options = {"batch_size": self.words.batch_size, "max_length": self.lengths}
            precompute(self.rows(None), teacher, ["margin"], place, processing_class=self.tokenizer, **options)
        return StoredTeacher(place)


class Reranker(Case):
    """Questions of QQP and their duplicates."""

    name, lengths = "reranker", 64

    def __init__(self, words: argparse.Namespace) -> None:
        super().__init__(words)
        self.beir = self.folder / "qqp"
        if not (self.beir / "qrels" / "test.tsv").is_file():
            self._write()
        self.ranking = as_reranking(read_retrieval(str(self.beir), "test", words.queries), words.depth)

    def _write(self) -> None:
        """The first questions of duplicates are queries, all other questions documents, in BEIR's layout."""
        task = load_task("glue/qqp", str(Path(self.words.data_dir, "glue_partial", "qqp")))
        parts = {"train": task.train, "test": task.split(task.spec.headline_split)}
        asked: dict[str, str] = {}
        for split, rows in parts.items():
            for row in rows.shuffle(seed=0):
                if row["label"] == 1:
                    asked.setdefault(row["question1"], f"{split}{len(asked)}")
        texts = (row[side] for rows in parts.values() for row in rows for side in ("question1", "question2"))
        place = {text: f"d{number}" for number, text in enumerate(dict.fromkeys(texts)) if text not in asked}
        (self.beir / "qrels").mkdir(parents=True, exist_ok=True)
        answered = set()
        for split, rows in parts.items():
            pairs = [
                (asked[row["question1"]], place[row["question2"]])
                for row in rows
                if row["label"] == 1 and row["question2"] in place
            ]
            answered.update(query for query, _ in pairs)
            lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t1" for query, document in pairs)]
            (self.beir / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        documents = [{"_id": name, "title": "", "text": text} for text, name in place.items()]
        queries = [{"_id": name, "text": text} for text, name in asked.items() if name in answered]
        for kind, rows in (("corpus", documents), ("queries", queries)):
            (self.beir / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def rows(self, config: Any) -> Dataset:
        """Questions with their duplicates and the best others by BM25."""
        place = self.folder / "candidates"
        if not (place / "statistics.json").is_file():
            task = TaskArguments(str(self.beir), max_train_samples=self.words.rows)
            corpus.run(task, CorpusArguments(corpus_dir=str(place), num_candidates=self.words.candidates))
        return load_general_corpus(str(place))

    def texts(self) -> Iterable[CalibrationRow]:
        """Questions with a candidate each."""
        return calibration_rows(self.rows(None), "text")

    def head(self) -> dict[str, Any]:
        """One score."""
        return {"num_labels": 1}

    def scores(self, model: Any) -> dict[str, float]:
        """Scores of the candidates of validation questions."""
        queries, candidates = zip(*self.ranking.pairs, strict=True)
        values = predict_texts(model.eval(), self.tokenizer, queries, candidates, max_length=self.lengths)[:, 0]
        return rounded(self.ranking.scores(values))

    def known(self) -> dict[str, float]:
        """The order of BM25."""
        return rounded(self.ranking.first_scores())


class Labels(Case):
    """Which kinds of entities a sentence names."""

    name, lengths = "labels", 96

    def __init__(self, words: argparse.Namespace) -> None:
        super().__init__(words)
        source = load_task(words.entities, str(Path(words.data_dir, words.entities)))
        tags = source.spec.label_names or ()
        kinds = tuple(dict.fromkeys(tag[2:] for tag in tags if tag != "O"))
        joint = "" if source.spec.language == "zh" else " "

        def told(row: dict[str, Any]) -> dict[str, Any]:
            named = {tags[tag][2:] for tag in row[source.spec.label_column] if tags[tag] != "O"}
            return {"text": joint.join(row["tokens"]), "label": [int(kind in named) for kind in kinds]}

        splits = {}
        for split in (source.spec.train_split, source.spec.headline_split):
            rows = source.split(split).shuffle(seed=0)
            rows = rows.select(range(min(words.rows, len(rows))))
            splits[split] = rows.map(told, remove_columns=rows.column_names)
        spec = TaskSpec(f"kinds_in_{words.entities}", ("text",), kinds, several_labels=True, metrics=SEVERAL_METRICS)
        self.task = LoadedTask(spec, DatasetDict(splits), "here")

    def rows(self, config: Any) -> Dataset:
        """Tokens and labels."""
        return tokenize_task(self.task.train, self.task.spec, self.tokenizer, self.lengths)

    def texts(self) -> Iterable[CalibrationRow]:
        """Sentences."""
        return self.task.train["text"]

    def head(self) -> dict[str, Any]:
        """A yes or no for each kind."""
        spec = self.task.spec
        return {"id2label": spec.id2label, "label2id": spec.label2id, "problem_type": spec.problem_type}

    def scores(self, model: Any) -> dict[str, float]:
        """F1, precision of the ranking, and exact matches."""
        found = evaluate_model(model, self.task, self.tokenizer, max_length=self.lengths)
        return rounded({name: found[self.task.spec.headline_split][name] for name in self.task.spec.metrics})

    def known(self) -> dict[str, float]:
        """Predict each kind with its frequency in the training rows, for every sentence."""
        train, rows = (np.array(self.task.dataset[split]["label"][:]) for split in self.task.dataset)
        shares = np.broadcast_to(logit(train.mean(0).clip(1e-6, 1 - 1e-6)), rows.shape)
        return rounded(compute_scores(self.task.spec, predictions_of(self.task.spec, shares), rows))


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """Scores with four decimals."""
    return {name: round(float(value), 4) for name, value in scores.items()}


def main(argv: list[str] | None = None) -> None:
    """Run what is not there yet, and print a line for each."""
    words = parsed(argv)
    torch.set_num_threads(words.threads)
    Path(words.work_dir).mkdir(parents=True, exist_ok=True)
    for kind in (Reranker, Labels):
        if kind.name not in words.cases:
            continue
        case = kind(words)
        facts = {"case": kind.name, "encoder": Path(words.encoder).name, "commit": head_commit()}
        sizes = ("rows", "batch_size", "teacher_updates", "updates", "candidates", "queries", "depth", "entities")
        facts |= {name: getattr(words, name) for name in sizes}
        keep(words, f"{kind.name}-known", lambda case=case, facts=facts: {**facts, "after": case.known()})
        keep(words, f"{kind.name}-teacher", lambda case=case, facts=facts: {**facts, **case.teacher()})
        for seed in words.seeds:
            for variant in (*VARIANTS[kind.name], *ON_LABELS):

                def run(
                    case: Case = case, facts: dict[str, Any] = facts, variant: str = variant, seed: int = seed
                ) -> dict[str, Any]:
                    about = {"variant": variant, "shape": words.shape, "seed": seed}
                    return {**facts, **about, **case.student(variant, seed)}

                keep(words, f"{kind.name}-{variant}-{seed}", run)


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The words of the command; `--small` overrides sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="what the teachers are fine-tuned from")
    parser.add_argument("--data_dir", required=True, help="folder with glue_partial/qqp/, conll2003/, cluener/")
    parser.add_argument("--cases", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--entities", default="conll2003", choices=["conll2003", "cluener"])
    parser.add_argument("--shape", default="4x312")
    parser.add_argument("--teacher_updates", type=int, default=300)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--rows", type=int, default=2_400, help="training rows at most")
    parser.add_argument("--batch_size", type=int, default=8, help="rows; of the reranker queries with all candidates")
    parser.add_argument("--candidates", type=int, default=4, help="of a query in training")
    parser.add_argument("--queries", type=int, default=200, help="questions that rerankers are scored on")
    parser.add_argument("--depth", type=int, default=20, help="candidates of each of these")
    parser.add_argument("--teacher_rate", type=float, default=5e-5)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--random_rate", type=float, default=3e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work_dir", default="runs/real_rows")
    parser.add_argument("--output")
    parser.add_argument("--small", action="store_true", help="a few updates, to see that everything runs")
    words = parser.parse_args(argv)
    if words.small:
        words.teacher_updates, words.updates, words.seeds, words.rows = 2, 2, [1], 40
        words.batch_size, words.queries, words.depth = 4, 4, 4
    return words


if __name__ == "__main__":
    main()
