"""The whole job: teach, build the corpus, distil, adapt and evaluate, measure, write the card.

Every stage writes its own folder and is skipped when it was finished with the same settings, so that a killed run
continues where it stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import xxhash
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
from hf_distill.corpus import corpus_label
from hf_distill.hub.model_card import CardFacts, CorpusFacts, ScoreFacts, read_facts, write_model_card
from hf_distill.jobs.augment import augment
from hf_distill.jobs.corpus import build_corpus
from hf_distill.jobs.distill import distill
from hf_distill.jobs.evaluate import adapt_and_evaluate
from hf_distill.jobs.general import mix_general
from hf_distill.jobs.pipeline_textbooks import augmentation_settings, chosen_sources, general_settings
from hf_distill.jobs.results import RESULTS_FILE, environment, write_results
from hf_distill.jobs.teach import teach
from hf_distill.loading import load_model
from hf_distill.objectives import build_objectives
from hf_distill.parsing import arguments_to_dict, changed_arguments, from_mapping
from hf_distill.presets import read_preset
from hf_distill.shapes import parse_shape

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

    Writes to `pipeline.output_dir`: `teacher/`, `corpus/` (or `augmented/`, `general/`, as the textbook source says),
    `distilled/` (the student before it saw a label; of an earlier stage `distilled_cc/` and the like),
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
    student = _with_preset(student, pipeline.preset)
    fine_tuning = _stage_arguments(FineTuningArguments, "teach", folder / "teacher", pipeline)
    sources = chosen_sources(pipeline, corpus)
    trainings = [_training(pipeline, task, folder, source, sources) for source in sources]
    adaptation = _stage_arguments(FineTuningArguments, "adapt", folder / "student", pipeline)
    _check(teacher, student, pipeline, sources, trainings)
    if pipeline.with_task_text and task.spec_fields():
        raise ValueError(
            f"`--with_task_text` reads the task by its name alone, but {sorted(task.spec_fields())} came as flags: "
            "write them into a task.yaml beside its files."
        )
    stages = _Stages(folder)

    taught, own_teacher = None, teacher
    if pipeline.finetune_teacher:
        taught = stages.run("teacher", lambda: teach(task, teacher, fine_tuning), task, teacher, fine_tuning)
        own_teacher = replace(teacher, teacher_model=str(folder / "teacher"), teacher_revision=None, **_NO_LORA)

    made, built = _make_textbooks(stages, sources, task, corpus, pipeline)
    learner, distilled = student, []
    for source, training in zip(sources, trainings, strict=True):
        arguments = (learner, own_teacher, _textbook(made[source], task, pipeline), training)
        distilled.append(stages.run(Path(str(training.output_dir)).name, partial(distill, *arguments), *arguments))
        learner = replace(student, student_model=str(training.output_dir))

    evaluation = EvaluationArguments(str(folder / "distilled"), adapt=pipeline.adapt_student, from_scratch=True)
    adapted = stages.run(
        "student",
        lambda: adapt_and_evaluate(task, evaluation, adaptation, own_teacher),
        *(task, evaluation, adaptation, own_teacher),
    )

    if not pipeline.adapt_student:
        shutil.copytree(folder / "distilled", folder / "student", ignore=_KEPT_APART, dirs_exist_ok=True)
    speed = _measure_speed(str(own_teacher.teacher_model), str(folder / "student"))
    results = {"teach": taught, "corpus": built, "distill": distilled[-1], "adapt": adapted}
    # Of the whole job, also where stages were finished in an earlier call.
    seconds = time.perf_counter() - started + stages.seconds_before
    report = _report(results, speed, command, seconds, pipeline.seed)
    write_results(folder, report, name="report.json")
    write_model_card(folder / "student", _card(folder, report, taught, distilled[0], adapted, corpus))
    return report


def _training(
    pipeline: PipelineArguments, task: TaskArguments, folder: Path, source: str, sources: list[str]
) -> DistillationArguments:
    """The settings of one stage of the distillation; only the last has the name of the whole."""
    output = folder / ("distilled" if source == sources[-1] else f"distilled_{source}")
    later = {} if source == sources[0] else pipeline.settings("distill_next")
    training: DistillationArguments = _stage_arguments(
        DistillationArguments, "distill", output, pipeline, later, max_length=task.max_length
    )
    if training.eval_task is not None and training.eval_task_dir is None:
        training.eval_task_dir = task.data_dir
    return training


def _make_textbooks(
    stages: _Stages, sources: list[str], task: TaskArguments, corpus: CorpusArguments, pipeline: PipelineArguments
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Where every textbook is, and what the job of the task's corpus returned."""
    folder, built = stages.folder, None
    if "cc" in sources:
        corpus = replace(corpus, corpus_dir=str(folder / "corpus"))
        built = stages.run("corpus", lambda: build_corpus(task, corpus, seed=pipeline.seed), task, corpus)
    if "taskda" in sources:
        augmentation = augmentation_settings(pipeline, folder / "augmented")
        stages.run("augmented", lambda: augment(task, augmentation), task, augmentation)
    if "general" in sources:
        general = general_settings(pipeline, corpus, folder / "general")
        stages.run("general", lambda: mix_general(general), general)
    places = {"cc": folder / "corpus", "taskda": folder / "augmented", "general": folder / "general"}
    return {**{name: str(place) for name, place in places.items()}, "task": task.task}, built


def _textbook(place: str, task: TaskArguments, pipeline: PipelineArguments) -> TextbookArguments:
    """The text of one stage."""
    return TextbookArguments(
        [place, *([task.task] if pipeline.with_task_text and place != task.task else [])],
        data_dir=task.data_dir,
        max_textbook_rows=pipeline.max_textbook_rows,
        with_labels=pipeline.with_labels,
        textbook_eval_rows=pipeline.textbook_eval_rows,
    )


def _report(results: dict[str, Any], speed: dict[str, Any], command: str, seconds: float, seed: int) -> dict[str, Any]:
    """What `report.json` says.

    Args:
        results: Stage -> what it returned, `None` for one that was left out.
        speed: Latency of teacher and student.
        command: What repeats the run.
        seconds: Of the whole job.
        seed: Of every stage.
    """
    built, distilled, adapted = results["corpus"], results["distill"], results["adapt"]
    return {
        **{name: adapted[name] for name in REPORTED},
        "latency": speed,
        "corpus": built["statistics"] if built else None,
        "distillation": {name: distilled[name] for name in ("objectives", "steps", "textbook_rows", "seed")},
        "stage_seconds": {name: result["seconds"] for name, result in results.items() if result},
        "command": command,
        "seconds": round(seconds, 1),
        "seed": seed,
        "environment": environment(),
    }


REPORTED = ("teacher", "student", "baseline", "task", "kind", "metric", "split", "retention")
# Of the folder of the distillation; checkpoints hold more than the student.
_KEPT_APART = shutil.ignore_patterns("checkpoint-*", "results.json", "arguments.yaml", "_*")
_NO_LORA: dict[str, Any] = {"lora_r": None, "lora_alpha": None, "lora_target_modules": None}


class _Stages:
    """Runs stages once: a stage is known by its settings and by everything before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ""
        self.seconds_before = 0.0

    def run(self, name: str, job: Callable[[], dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """The result of `job`, from its folder if the stage was finished with these settings."""
        folder = self.folder / name
        settings = arguments_to_dict(*arguments)
        described = json.dumps([self.key, settings, self._files(settings)], sort_keys=True)
        self.key = xxhash.xxh3_128(described.encode()).hexdigest()
        marker, results = folder / STAGE_FILE, folder / RESULTS_FILE
        if marker.is_file() and marker.read_text(encoding="utf-8") == self.key and results.is_file():
            logger.warning(f"[{name}] finished before with the same settings: {folder}")
            result = json.loads(results.read_text(encoding="utf-8"))
            self.seconds_before += result["seconds"]
            return result
        # From here on the folder is neither the old result nor the new one.
        marker.unlink(missing_ok=True)
        logger.warning(f"[{name}] starts")
        result = job()
        write_results(folder, result)
        marker.write_text(self.key, encoding="utf-8")
        logger.warning(f"[{name}] done in {result['seconds']:.0f} s")
        return result

    def _files(self, settings: dict[str, Any]) -> list[tuple[str, int, int]]:
        """Path, size and time of every file that the settings name: other data under an old name is other data.

        What lies in the pipeline's own folder is known by the stages that wrote it.
        """
        own = self.folder.resolve()
        found = []
        values = (item for value in settings.values() for item in (value if isinstance(value, list) else [value]))
        for value in values:
            path = Path(value) if isinstance(value, str) and value else None
            if path is None or not path.exists() or path.resolve().is_relative_to(own):
                continue
            if own.is_relative_to(path.resolve()):
                continue  # a folder around the output, such as the working directory, changes with every run
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    found.append((str(file), file.stat().st_size, file.stat().st_mtime_ns))
        return found


def _with_preset(student: StudentArguments, preset: str | None) -> StudentArguments:
    """The student of a preset; what was given as flags wins."""
    return (
        student
        if preset is None
        else replace(student, **{**read_preset(preset).student, **changed_arguments(student)})
    )


def _stage_arguments(
    argument_class: type,
    stage: Literal["teach", "distill", "adapt"],
    folder: Path,
    pipeline: PipelineArguments,
    later: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """The arguments of a training stage: its settings, `later` first, over those of all stages."""
    given = {**pipeline.settings(stage), **(later or {})}
    if "output_dir" in given:
        raise ValueError(f"`--{stage}` cannot set `output_dir`: stages write below `--output_dir`.")
    common = {"seed": pipeline.seed, "use_cpu": pipeline.use_cpu, "bf16": pipeline.bf16, "save_strategy": "no"}
    preset = dict(read_preset(pipeline.preset).training) if stage == "distill" and pipeline.preset else {}
    values = preset | {name: value for name, value in {**more, **common, **given}.items() if value is not None}
    return from_mapping(argument_class, {"output_dir": str(folder), **values}, f"`--{stage}`")


def _check(
    teacher: TeacherArguments,
    student: StudentArguments,
    pipeline: PipelineArguments,
    sources: list[str],
    trainings: list[DistillationArguments],
) -> None:
    """Refuse before the first stage what a late one would refuse."""
    if teacher.teacher_model is None:
        raise ValueError("`--teacher_model` is missing: give the Hub id or folder of the model to fine-tune.")
    if pipeline.with_labels and sources != ["task"]:
        raise ValueError(
            "`--with_labels` needs the task's own text alone (`--with_task_text` without `--corpus`, or "
            "`--textbook_source task`): only the task's rows have labels."
        )
    if student.student_model is None:
        parse_shape(student.student_shape)
    for training in trainings:
        build_objectives(
            ["relation"] if training.objectives is None else training.objectives, training.objective_options()
        )


def _measure_speed(*folders: str) -> dict[str, Any]:
    """Latency of the teacher over that of the student."""
    teacher, student = (load_model(folder, flag="--teacher_model") for folder in folders)
    positions = (getattr(model.config, "max_position_embeddings", None) for model in (teacher, student))
    seq_length = min(SPEED_PROTOCOL["seq_length"], *(number for number in positions if number))
    return latency_ratio(teacher, student, **{**SPEED_PROTOCOL, "seq_length": seq_length}).to_dict()


def _card(
    folder: Path,
    report: dict[str, Any],
    taught: dict[str, Any] | None,
    distilled: dict[str, Any],
    adapted: dict[str, Any],
    corpus: CorpusArguments,
) -> CardFacts:
    """The card of the distilled student, completed with what came before and after it."""
    facts = read_facts(folder / "distilled")
    task = report["task"]
    facts.model_name = facts.student.name = f"{folder.name}-{Path(task).name}"
    if facts.teacher and taught:
        base = str(taught["base_model"]).rstrip("/").split("/")[-1]
        facts.teacher[0].name = f"{base}, fine-tuned on {task}"
        facts.teacher[0].lineage = f"{base} fine-tuned on {task} for {taught['steps']} steps"
    first_weights = str(distilled["student_init"])
    facts.initialisation = (
        first_weights.replace("_", " ")
        if distilled["student_shape"] is not None
        else f"the weights of {corpus_label(first_weights)}"
    )
    if report["corpus"]:
        facts.corpus = CorpusFacts(
            name=f"Contextualized corpus of {task}",
            description=(
                f"sentences of {corpus_label(str(corpus.corpus))} that BM25 ({report['corpus']['engine']['name']}) "
                "finds for the task's training sentences"
            ),
            licence=corpus.corpus_licence,
            statistics={k: v for k, v in report["corpus"].items() if isinstance(v, (int, float, str))},
        )
    settings = adapted["student"].get("settings")
    if settings is not None:
        facts.adaptation = (
            f"fine-tuned on the labels of {task} ({settings['num_train_epochs']:g} epochs, learning rate "
            f"{settings['learning_rate']:g})"
        )
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
    if report["corpus"]:
        facts.citations = [*facts.citations, "contextualized_corpus", "rake"]
    # The Hub names what a head does as kinds of tasks are named here, with hyphens.
    facts.pipeline_tag = report["kind"].replace("_", "-")
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
