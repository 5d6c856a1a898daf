"""Adapt a student to a task's labels and evaluate it, beside its teacher and beside itself without a teacher."""

from __future__ import annotations

import copy
import os
import time
from typing import Any

from transformers import PreTrainedModel, set_seed

from hf_distill.commands.cards import adapted_facts, shown_command, write_card
from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import environment, write_results
from hf_distill.commands.teach import load_task_from
from hf_distill.hub.loading import UNREADABLE, check_complete, load_error, load_tokenizer
from hf_distill.settings import EvaluationArguments, FineTuningArguments, TaskArguments, TeacherArguments
from hf_distill.settings.parsing import write_arguments
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.majority import majority_scores
from hf_distill.trainers.checkpoints import LAST_CHECKPOINT
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.task_models import load_task_model, random_task_model
from hf_distill.trainers.fine_tuning.trainer import FineTuningResult, Scores, evaluate_model, finetune

BASELINE_FOLDER = "baseline"


@writes_folder("baseline")
def adapt_and_evaluate(
    task: TaskArguments,
    evaluation: EvaluationArguments,
    training: FineTuningArguments,
    teacher: TeacherArguments | None = None,
) -> dict[str, Any]:
    """Fine-tune a student on the task's labels and score it.

    With a teacher (a model already fine-tuned on the task), its score and the student's retention of it are reported
    too; with `evaluation.from_scratch`, the same student with random weights is fine-tuned in the same way.
    Writes to `training.output_dir`: the adapted student with its tokenizer and card, `baseline/`, `results.json` and
    `arguments.yaml`.

    Args:
        task: The task and where its rows are.
        evaluation: The student and what to do with it.
        training: How to fine-tune; the task's paper settings where left unset.
        teacher: The teacher to score beside it.

    Returns:
        The content of `results.json`: `student`, `teacher`, `baseline` (each with `score`, `constant`, the only label
        that it predicts, or `None`, `scores`, `parameters`; `None` where not asked for), `retention` (student /
        teacher), `gain` (student - baseline).

    Raises:
        ValueError: If task, labels and models do not fit.
    """
    started = time.perf_counter()
    trains = evaluation.adapt or evaluation.from_scratch
    rows = load_task_from(task, seed=training.seed, splits=None if trains else "evaluation")
    student, adapted = _student(task, evaluation, training, rows)
    reference = None
    if teacher is not None and teacher.teacher_model is not None:
        reference = _score(teacher.teacher_model, rows, training, task, "--teacher_model", teacher.teacher_revision)
    baseline = _baseline(task, evaluation, training, rows) if evaluation.from_scratch else None
    facts: dict[str, Any] = {
        "job": "evaluate",
        "task": rows.spec.name,
        "kind": rows.spec.kind,
        "metric": rows.spec.headline,
        "split": rows.spec.headline_split,
        "split_rows": len(rows.split(rows.spec.headline_split)),
        "max_eval_samples": task.max_eval_samples,
        "student": student,
        "teacher": reference,
        "baseline": baseline,
        "majority": majority_scores(rows),
        "retention": student["score"] / reference["score"] if reference and reference["score"] else None,
        "gain": student["score"] - baseline["score"] if baseline else None,
        "seed": training.seed,
        "data": rows.source,
        "settings_source": rows.spec.fine_tuning.source,
        "environment": environment(),
        "seconds": round(time.perf_counter() - started, 2),
    }
    if training.should_save:
        write_results(str(training.output_dir), facts)
        given = (task, evaluation, training, *([teacher] if teacher else []))
        write_arguments(str(training.output_dir), *given)
        if adapted is not None:
            command = shown_command("evaluate", *given)
            folder = str(training.output_dir)
            write_card(folder, adapted_facts(adapted, evaluation.student_model, rows.spec, facts, folder, command))
    return facts


def _student(
    task: TaskArguments, evaluation: EvaluationArguments, training: FineTuningArguments, rows: LoadedTask
) -> tuple[dict[str, Any], PreTrainedModel | None]:
    """Adapt the student, or only score it; the model is that which was trained."""
    source, revision = evaluation.student_model, evaluation.student_revision
    if not evaluation.adapt:
        return _score(source, rows, training, task, "--student_model", revision, evaluation.tokenizer_name), None
    set_seed(training.seed)
    model = load_task_model(source, rows.spec, flag="--student_model", revision=revision)
    result = finetune(model, rows, _tokenizer(evaluation), training, **_lengths(task))
    return _trained(result, source, str(training.output_dir)), result.model


def _baseline(
    task: TaskArguments, evaluation: EvaluationArguments, training: FineTuningArguments, rows: LoadedTask
) -> dict[str, Any]:
    """The same student with random weights, fine-tuned in the same way."""
    own = copy.copy(training)
    own.output_dir = os.path.join(str(training.output_dir), BASELINE_FOLDER)
    if own.resume_from_checkpoint not in (True, "True", "true", LAST_CHECKPOINT):
        own.resume_from_checkpoint = None
    set_seed(training.seed)
    model = random_task_model(
        evaluation.student_model, rows.spec, flag="--student_model", revision=evaluation.student_revision
    )
    result = finetune(model, rows, _tokenizer(evaluation), own, **_lengths(task))
    return _trained(result, evaluation.student_model, own.output_dir)


def _score(
    model: str,
    rows: LoadedTask,
    training: FineTuningArguments,
    task: TaskArguments,
    flag: str,
    revision: str | None,
    tokenizer_name: str | None = None,
) -> dict[str, Any]:
    """Score a model as it is."""
    try:
        loaded, report = head_of(rows.spec).auto_class.from_pretrained(
            model, revision=revision, dtype="float32", output_loading_info=True
        )
    except UNREADABLE as error:
        raise load_error(model, error, flag=flag) from error
    check_complete(model, report, flag=flag)
    tokenizer = (
        load_tokenizer(tokenizer_name, flag="--tokenizer_name")
        if tokenizer_name
        else load_tokenizer(model, flag=flag, revision=revision)
    )
    name = f"`{flag}` {model!r}"
    scores = evaluate_model(loaded, rows, tokenizer, training, name=name, **_lengths(task))
    headline = rows.spec.headline_split
    return _facts(loaded, scores, scores[headline][rows.spec.headline], model, scores.constants.get(headline))


def _lengths(task: TaskArguments) -> dict[str, Any]:
    """Return the settings for the lengths of rows and of the overlaps of windows, in tokens."""
    return {"max_length": task.max_length, "doc_stride": task.doc_stride}


def _facts(
    model: PreTrainedModel, scores: Scores, score: float, source: str, constant: str | float | None
) -> dict[str, Any]:
    """Return the facts that are reported of every model."""
    facts: dict[str, Any] = {"source": source, "score": score, "constant": constant, "scores": scores}
    return {**facts, "parameters": model.num_parameters()}


def _trained(result: FineTuningResult, source: str, folder: str) -> dict[str, Any]:
    """Return the facts that are reported of a model that was trained here."""
    details = result.to_dict()
    return {
        **_facts(result.model, result.scores, result.score, source, result.constant),
        "model": folder,
        **{
            name: details[name] for name in ("train_rows", "steps", "train_loss", "fp32_matmul", "settings", "history")
        },
        "training_seconds": result.seconds,
    }


def _tokenizer(evaluation: EvaluationArguments) -> Any:
    """The student's tokenizer."""
    if evaluation.tokenizer_name is not None:
        return load_tokenizer(evaluation.tokenizer_name, flag="--tokenizer_name")
    return load_tokenizer(evaluation.student_model, flag="--student_model", revision=evaluation.student_revision)
