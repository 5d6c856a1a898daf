"""Distils a teacher into a student on a textbook."""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from hf_distill.commands.distill_family import members, table
from hf_distill.commands.distill_student import Begun, FirstWeightsNote, begin
from hf_distill.commands.distill_teachers import Teachers, open_teachers
from hf_distill.commands.folders import check_folders, writes_folder
from hf_distill.commands.results import cost_of_training, environment, finish
from hf_distill.commands.student_facts import completed, distillation_details, shown_command
from hf_distill.settings import (
    DistillationArguments,
    RunArguments,
    StudentArguments,
    TeacherModelArguments,
    TextbookArguments,
)
from hf_distill.settings.parsing import changed_arguments
from hf_distill.storage.steps import writing_to
from hf_distill.students.sizes import count_parameters
from hf_distill.trainers.distillation.card import card_facts
from hf_distill.trainers.distillation.family import train_family
from hf_distill.trainers.distillation.multi_teacher import MultiTeacherTrainer
from hf_distill.trainers.distillation.trainer import DistillationTrainer

logger = logging.getLogger(__name__)


def run(
    student: StudentArguments,
    teacher: TeacherModelArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
    how_far: RunArguments | None = None,
) -> dict[str, Any]:
    """Distil one or several teachers into a student on text, with labels if objectives need them.

    Writes to `training.output_dir`: the student as a plain model with its tokenizer, `results.json` and
    `arguments.yaml`, which repeats the run. With `training.push_to_hub`, everything but the arguments is pushed at the
    end.

    Args:
        student: Shape and first weights of the student; `FamilyArguments` for several students in one pass of the
            teacher.
        teacher: The teacher's Hub id or folder; a folder that `precompute` wrote is a stored teacher without weights.
        textbook: The text; empty for a stored teacher, which has its own rows.
        training: Objectives and training; `resume_from_checkpoint="last"` continues in `output_dir`.
            `MultiTeacherArguments` may name several teachers; students get the architecture of the first.
        how_far: Whether this is a dry run; see `dry_run` for its result.

    Returns:
        The content of `results.json`: sizes of student and teacher, resolved objectives, the loss curve of every term,
        seconds. For a family: `students`, a mapping from name to this content.

    Raises:
        ValueError: If no teacher is given, or models, objectives and text do not match.
    """
    job = dry_run if how_far is not None and how_far.dry_run else None
    students = members(student, training)
    if len(students) == 1:
        [(alone, own)] = students.values()
        return (job or _train)(alone, teacher, textbook, own)
    if job is None:
        return _train_family(student, teacher, textbook, training)
    found = {name: job(one, teacher, textbook, own) for name, (one, own) in students.items()}
    return {"job": "family", "students": found}


@writes_folder()
def _train(
    student: StudentArguments,
    teacher: TeacherModelArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
) -> dict[str, Any]:
    """Train one student, and write the files that `run` describes."""
    started = time.perf_counter()
    ready = prepare(student, teacher, textbook, training)
    _describe(ready, student, teacher, textbook, training)
    ready.trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    return _write(ready, started, student, teacher, textbook, training)


@writes_folder()
def _train_family(
    student: StudentArguments,
    teacher: TeacherModelArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
) -> dict[str, Any]:
    """Train several students in one pass of the teachers, and write each as if it had been trained alone."""
    started = time.perf_counter()
    students = members(student, training)
    teachers = open_teachers(teacher, training)
    begun, ready = {}, {}
    with ExitStack() as stack:
        for name, (one, own) in students.items():
            check_folders((one, teacher, textbook, own), "--output_dir", own.output_dir, ())
            stack.enter_context(writing_to(str(own.output_dir)))
            # A tokenizer stores its last truncation setting.
            theirs = replace(teachers, tokenizers=copy.deepcopy(teachers.tokenizers))
            begun[name] = begin(one, textbook, own, theirs)
        # Make the trainers last: the first one freezes the teachers, and may switch them to faster arithmetic.
        for name, (one, own) in students.items():
            ready[name] = make_trainer(begun.pop(name), own, teachers)
            _describe(ready[name], one, teacher, textbook, own)
            others = ", ".join(other for other in students if other != name)
            ready[name].trainer.card_details["hardware"] += f"; in one pass of the teacher with {others}"
        teachers.let_go()
        resumed: Any = training.resume_from_checkpoint
        train_family([prepared.trainer for prepared in ready.values()], resumed)
        results = {
            name: _write(ready[name], started, one, teacher, textbook, own, family=list(students))
            for name, (one, own) in students.items()
        }
    return {"job": "family", "model": str(training.output_dir), "students": results}


def _describe(
    ready: Prepared,
    student: StudentArguments,
    teacher: TeacherModelArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
) -> None:
    """Report what will be trained, in the log and on the card."""
    begun = ready.begun
    logger.warning("\n".join([ready.trainer.describe(), f"first weights: {begun.first_weights}", begun.sizes]))
    command = shown_command("distill", student, teacher, textbook, training)
    ready.trainer.card_details = distillation_details(
        begun.first_weights, textbook, begun.train_rows, command, environment()
    )


def _write(
    ready: Prepared,
    started: float,
    student: StudentArguments,
    teacher: TeacherModelArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
    **further: Any,
) -> dict[str, Any]:
    """Write a trained student with its card and its results, including `further`; return the results."""
    trainer, begun = ready.trainer, ready.begun
    seconds = trainer.whole_run.facts()["training_seconds"]
    trainer.card_details |= {"seconds": seconds, "initialisation": ready.first_weights.words}
    # Save everything before pushing anything.
    trainer.save_model(_internal_call=True)
    evaluation = trainer.evaluate() if trainer.eval_dataset is not None else None
    vectors = trainer.evaluation.vectors
    teachers_vectors = None if vectors is None else vectors.score_teacher(trainer.teachers[0])
    if training.world_size == 1:
        # One process alone cannot run a student that is sharded over several processes.
        known = replace(card_facts(trainer, ""), text_pairs=trainer.card_details["text_pairs"])
        told = completed(known, trainer.student, trainer.processing_class)
        trainer.card_details |= {"example": told.example, "limits": told.limits}
    trainer.create_model_card()
    facts = {
        "job": "distill",
        "model": str(training.output_dir),
        "teacher": ready.teachers if len(ready.teachers) > 1 else ready.teachers[0],
        "teacher_parameters": ready.teacher_parameters,
        "student_shape": student.student_shape if student.student_model is None else None,
        "student_parameters": count_parameters(trainer.student).total,
        "student_init": begun.student_init,
        "first_weights": ready.first_weights.words,
        "objectives": trainer.manifest()["objectives"],
        "textbook": textbook.textbook,
        "textbook_rows": len(begun.train_rows),
        **trainer.whole_run.facts(),
        "evaluation": evaluation,
        **({} if vectors is None or teachers_vectors is None else {f"teacher_{vectors.way}": teachers_vectors}),
        "best": _best(trainer),
        "seed": training.seed,
        "settings": changed_arguments(student, training),
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
        "evaluations": [entry for entry in trainer.state.log_history if "eval_loss" in entry],
        **further,
    }
    given = (student, teacher, textbook, training)
    finish(str(training.output_dir), facts, started, *given, write=training.should_save)
    if training.push_to_hub:
        trainer.push_to_hub()
    return facts


def summary(results: dict[str, Any]) -> str:
    """Report the cost of the training and where the student is; for a dry run everything that it found.

    A family is reported as a table.
    """
    if results["job"] == "family":
        students = results["students"]
        if "model" in results:
            return table(students)
        return "\n\n".join(f"{name}\n{summary(found)}" for name, found in students.items())
    if results["job"] == "dry_run":
        from hf_distill.reports.dry_run import format_dry_run

        return format_dry_run(results)
    return f"{cost_of_training(results)}; student in {results['model']}"


def dry_run(
    student: StudentArguments,
    teacher: TeacherModelArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
) -> dict[str, Any]:
    """Prepare a distillation as `run` does, run the first batch forward, and stop; nothing is trained or saved.

    Args:
        student: As for `run`.
        teacher: As for `run`.
        textbook: As for `run`.
        training: As for `run`.

    Returns:
        The result of `hf_distill.reports.dry_run.first_batch`, with `settings` (differences from the defaults),
        `sizes`, `first_weights` and `rows`.

    Raises:
        ValueError: Every error that `run` would raise before its first step.
    """
    from hf_distill.reports.dry_run import first_batch

    with tempfile.TemporaryDirectory() as scratch:
        quiet = copy.copy(training)
        quiet.output_dir, quiet.push_to_hub, quiet.report_to = scratch, False, []
        ready = prepare(student, teacher, textbook, quiet)
        found = first_batch(ready.trainer, quiet)
    return {
        "job": "dry_run",
        "settings": changed_arguments(student, training),
        "sizes": ready.begun.sizes,
        "first_weights": ready.begun.first_weights,
        "rows": len(ready.begun.train_rows),
        **found,
    }


def _best(trainer: Any) -> dict[str, Any] | None:
    """The best evaluation, and whether the student is from that step; `None` if no metric defines the best."""
    state, args = trainer.state, trainer.args
    if args.metric_for_best_model is None or state.best_global_step is None:
        return None
    return {
        "metric": args.metric_for_best_model,
        "value": state.best_metric,
        "step": state.best_global_step,
        "loaded": args.load_best_model_at_end,
    }


@dataclass(frozen=True)
class Prepared:
    """A distillation that is ready to start.

    Attributes:
        trainer: The trainer with its models and rows.
        begun: The student and rows that the trainer was made from.
        first_weights: The origin of the student's first weights, also after a resumed training.
        teachers: Ids or folders of the teachers.
        teacher_parameters: Number of parameters of all teachers together.
    """

    trainer: Any
    begun: Begun
    first_weights: FirstWeightsNote
    teachers: list[str]
    teacher_parameters: int


def prepare(
    student: StudentArguments,
    teacher: TeacherModelArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
) -> Prepared:
    """Load, read and check everything that `distill` needs; see `run`.

    Raises:
        ValueError: If no teacher is given, or models, objectives and text do not match.
    """
    teachers = open_teachers(teacher, training)
    ready = make_trainer(begin(student, textbook, training, teachers), training, teachers)
    teachers.let_go()
    return ready


def make_trainer(begun: Begun, training: DistillationArguments, teachers: Teachers) -> Prepared:
    """Make the trainer for a student and its teachers.

    Raises:
        ValueError: If models, objectives and rows do not match.
    """
    several = len(teachers.sources) > 1
    trainer_class: type[Any] = MultiTeacherTrainer if several else DistillationTrainer
    given: Any = {"teacher_models": teachers.sources} if several else {"teacher_model": teachers.sources[0]}
    trainer = trainer_class(
        begun.student,
        training,
        train_dataset=begun.train_rows,
        eval_dataset=begun.eval_rows,
        eval_task=begun.eval_task,
        processing_class=begun.tokenizer,
        teacher_processing_class=teachers.tokenizers if several else teachers.tokenizers[0],
        **given,
    )
    # Results and arguments record the value that the trainer chose where the user gave none.
    training.learning_rate = trainer.args.learning_rate
    trainer.started_from = begun.identity
    note = FirstWeightsNote(begun.first_weights)
    trainer.add_callback(note)
    parameters = sum(count_parameters(model).total for model in teachers.models)
    return Prepared(trainer, begun, note, list(teachers.names), parameters)
