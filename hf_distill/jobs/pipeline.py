"""The whole job: teach, build the corpus, distil, adapt and evaluate, measure, write the card.

Every stage writes its own folder and is skipped when it was finished with the same settings, so that a killed run
continues where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import xxhash
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from hf_distill.arguments import (
    CorpusArguments,
    DistillationArguments,
    EvaluationArguments,
    FineTuningArguments,
    PipelineArguments,
    StudentArguments,
    TaskArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.benchmark.speed import latency_ratio
from hf_distill.hub.model_card import CardFacts, CorpusFacts, ScoreFacts, read_facts, write_model_card
from hf_distill.jobs.corpus import build_corpus
from hf_distill.jobs.distill import distill
from hf_distill.jobs.evaluate import adapt_and_evaluate
from hf_distill.jobs.results import RESULTS_FILE, environment, write_results
from hf_distill.jobs.teach import teach
from hf_distill.parsing import arguments_to_dict

logger = logging.get_logger(__name__)

# The underscore keeps it out of every push to the Hub.
STAGE_FILE = "_stage"
# The latency of one stage: small, because it runs at the end of every demo.
SPEED_PROTOCOL = {"batch_size": 32, "seq_length": 128, "num_batches": 8, "warmup": 2}


def run_pipeline(
    task: TaskArguments,
    teacher: TeacherArguments,
    student: StudentArguments,
    corpus: CorpusArguments,
    pipeline: PipelineArguments,
    command: str = "",
) -> dict[str, Any]:
    """Run every stage and compare teacher, student and baseline.

    Writes to `pipeline.output_dir`: `teacher/`, `corpus/`, `distilled/` (the student before it saw a label),
    `student/` (adapted, with its card), `student/baseline/` and `report.json`.

    Args:
        task: The task and where its rows are.
        teacher: The model to make the teacher of.
        student: Shape and first weights of the student.
        corpus: The general corpus and how to search it.
        pipeline: Folder, seed, and the settings of each training stage.
        command: What repeats the run, for report and card.

    Returns:
        The report: `teacher`, `student`, `baseline` (each with `score`), `task`, `metric`, `retention`, `latency`,
        `command`, `seconds`.

    Raises:
        ValueError: If a stage's settings are unknown or do not fit.
    """
    started = time.perf_counter()
    folder = Path(pipeline.output_dir)
    stages = _Stages(folder)

    fine_tuning = _fine_tuning(folder / "teacher", pipeline.settings("teach"), pipeline)
    taught = stages.run("teacher", lambda: teach(task, teacher, fine_tuning), task, teacher, fine_tuning)

    corpus = replace(corpus, corpus_dir=str(folder / "corpus"))
    built = stages.run("corpus", lambda: build_corpus(task, corpus), task, corpus)

    own_teacher = replace(teacher, teacher_model=str(folder / "teacher"), teacher_revision=None, **_NO_LORA)
    textbook = TextbookArguments(str(folder / "corpus"), pipeline.max_textbook_rows)
    settings = {"max_length": task.max_length, **_common(pipeline), **pipeline.settings("distill")}
    training = DistillationArguments(
        str(folder / "distilled"), **{name: value for name, value in settings.items() if value is not None}
    )
    distilled = stages.run(
        "distilled",
        lambda: distill(student, own_teacher, textbook, training),
        *(student, own_teacher, textbook, training),
    )

    adaptation = _fine_tuning(folder / "student", pipeline.settings("adapt"), pipeline)
    evaluation = EvaluationArguments(str(folder / "distilled"), from_scratch=True)
    adapted = stages.run(
        "student",
        lambda: adapt_and_evaluate(task, evaluation, adaptation, own_teacher),
        *(task, evaluation, adaptation, own_teacher),
    )

    speed = _measure_speed(folder)
    report = {
        **{name: adapted[name] for name in ("teacher", "student", "baseline", "task", "metric", "split", "retention")},
        "latency": speed,
        "corpus": built["statistics"],
        "distillation": {name: distilled[name] for name in ("objectives", "steps", "textbook_rows", "seed")},
        "stage_seconds": {
            name: result["seconds"]
            for name, result in (("teach", taught), ("corpus", built), ("distill", distilled), ("adapt", adapted))
        },
        "command": command,
        "seconds": round(time.perf_counter() - started, 1),
        "seed": pipeline.seed,
        "environment": environment(),
    }
    write_results(folder, report, name="report.json")
    write_model_card(folder / "student", _card(folder, report, taught, adaptation))
    return report


_NO_LORA: dict[str, Any] = {"lora_r": None, "lora_alpha": None, "lora_target_modules": None}


class _Stages:
    """Runs stages once: a stage is known by its settings and by everything before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ""

    def run(self, name: str, job: Callable[[], dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """The result of `job`, from its folder if the stage was finished with these settings."""
        folder = self.folder / name
        described = json.dumps([self.key, arguments_to_dict(*arguments)], sort_keys=True)
        self.key = xxhash.xxh3_128(described.encode()).hexdigest()
        marker, results = folder / STAGE_FILE, folder / RESULTS_FILE
        if marker.is_file() and marker.read_text(encoding="utf-8") == self.key and results.is_file():
            logger.warning(f"[{name}] finished before with the same settings: {folder}")
            return json.loads(results.read_text(encoding="utf-8"))
        logger.warning(f"[{name}] starts")
        result = job()
        write_results(folder, result)
        marker.write_text(self.key, encoding="utf-8")
        logger.warning(f"[{name}] done in {result['seconds']:.0f} s")
        return result


def _common(pipeline: PipelineArguments) -> dict[str, Any]:
    return {"seed": pipeline.seed, "use_cpu": pipeline.use_cpu, "bf16": pipeline.bf16, "save_strategy": "no"}


def _fine_tuning(folder: Path, settings: dict[str, Any], pipeline: PipelineArguments) -> FineTuningArguments:
    return FineTuningArguments(output_dir=str(folder), **{**_common(pipeline), **settings})


def _measure_speed(folder: Path) -> dict[str, Any]:
    teacher, student = (
        AutoModelForSequenceClassification.from_pretrained(folder / name, dtype="float32")
        for name in ("teacher", "student")
    )
    return latency_ratio(teacher, student, **SPEED_PROTOCOL).to_dict()


def _card(folder: Path, report: dict[str, Any], taught: dict[str, Any], adaptation: FineTuningArguments) -> CardFacts:
    """The card of the distilled student, completed with what came before and after it."""
    facts = read_facts(folder / "distilled")
    task = report["task"]
    facts.model_name = facts.student.name = f"{folder.name}-{Path(task).name}"
    base = str(taught["base_model"]).rstrip("/").split("/")[-1]
    if facts.teacher:
        facts.teacher[0].name = f"{base}, fine-tuned on {task}"
        facts.teacher[0].lineage = f"{base} fine-tuned on {task} for {taught['steps']} steps"
    facts.initialisation = "random"
    facts.corpus = CorpusFacts(
        name=f"Contextualized corpus of {task}",
        description=f"sentences that BM25 ({report['corpus']['engine']}) finds for the task's training sentences",
        statistics={k: v for k, v in report["corpus"].items() if isinstance(v, (int, float, str))},
    )
    facts.adaptation = f"fine-tuned on the labels of {task} ({adaptation.num_train_epochs or 'default'} epochs)"
    student, teacher, baseline = (report[role]["score"] for role in ("student", "teacher", "baseline"))
    facts.scores = [ScoreFacts(task, report["metric"], report["split"], student, teacher, baseline)]
    facts.speed = report["latency"]
    facts.commands = [report["command"]] if report["command"] else []
    facts.seconds = report["seconds"]
    facts.hardware = f"{report['environment']['device']}, {report['environment']['threads']} threads"
    facts.limits = [
        "One seed; differences of about a point are within what another seed gives.",
        "Knows the task it was made for, in the language of its corpus.",
    ]
    facts.citations = [*facts.citations, "contextualized_corpus", "rake"]
    facts.pipeline_tag = "text-classification"
    return facts


def format_report(report: dict[str, Any]) -> str:
    """The table that a run ends with."""
    speedup = report["latency"]["speedup"]
    teacher = report["teacher"]["score"]
    rows = [f"{'':<10}{report['metric']:>22}{'of the teacher':>16}{'parameters':>12}{'speed-up':>10}"]
    for role in ("teacher", "student", "baseline"):
        model = report[role]
        retention = f"{model['score'] / teacher:.1%}" if teacher else "-"
        speed = "1.0x" if role == "teacher" else f"{speedup:.1f}x"
        size = f"{model['parameters'] / 1e6:.1f} M"
        rows.append(f"{role:<10}{model['score']:>22.4f}{retention:>16}{size:>12}{speed:>10}")
    rows.append("baseline: the same student, trained on the labels without a teacher")
    return "\n".join(rows)
