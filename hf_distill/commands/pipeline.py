"""The whole job: teach, build the corpus, distil, adapt and evaluate, measure, write the card.

Every stage writes its own folder and is skipped when it was finished with the same settings, so that a killed run
continues where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hf_distill.commands.augment import augment
from hf_distill.commands.corpus import build_corpus
from hf_distill.commands.distill import distill
from hf_distill.commands.evaluate import adapt_and_evaluate
from hf_distill.commands.folders import writes_folder
from hf_distill.commands.general import mix_general
from hf_distill.commands.pipeline_report import card_facts, make_report, measure_speed
from hf_distill.commands.pipeline_stages import Stages
from hf_distill.commands.pipeline_textbooks import augmentation_settings, chosen_sources, general_settings
from hf_distill.commands.results import write_results
from hf_distill.commands.teach import teach
from hf_distill.hub.model_card import write_model_card
from hf_distill.objectives import build_objectives
from hf_distill.settings import (
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
from hf_distill.settings.parsing import changed_arguments, from_mapping
from hf_distill.settings.presets import read_preset
from hf_distill.storage.files import copy_folder
from hf_distill.students.shapes import parse_shape

# Of the folder of the distillation; checkpoints hold more than the student.
_KEPT_APART = ("checkpoint-*", "results.json", "arguments.yaml", "_*", ".*")
_NO_LORA: dict[str, Any] = {"lora_r": None, "lora_alpha": None, "lora_target_modules": None}


@writes_folder("teacher", "corpus", "augmented", "general", "distilled*", "student")
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
    stages = Stages(folder)

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
        copy_folder(folder / "distilled", folder / "student", leave_out=_KEPT_APART)
    speed = measure_speed(str(own_teacher.teacher_model), str(folder / "student"))
    results = {"teach": taught, "corpus": built, "distill": distilled[-1], "adapt": adapted}
    # Of the whole job, also where stages were finished in an earlier call.
    seconds = time.perf_counter() - started + stages.seconds_before
    report = make_report(results, speed, command, seconds, pipeline.seed)
    write_results(folder, report, name="report.json")
    write_model_card(folder / "student", card_facts(folder, report, taught, distilled[0], adapted, corpus))
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
    stages: Stages, sources: list[str], task: TaskArguments, corpus: CorpusArguments, pipeline: PipelineArguments
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Make the textbooks; return the place of each, and the result of the job that built the task's corpus."""
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
