"""Adapt a student to a task's labels and score it, beside its teacher and beside itself without a teacher."""

from __future__ import annotations

import copy
import os
import time
from typing import Any

from transformers import PreTrainedModel, set_seed

from hf_distill.commands.card import adapted_facts, completed, shown_command, write_card
from hf_distill.commands.evaluate import score_model
from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import environment, write_results
from hf_distill.commands.teach import load_task_from
from hf_distill.hub.loading import load_tokenizer
from hf_distill.settings import AdaptationArguments, FineTuningArguments, TaskArguments, TeacherArguments
from hf_distill.settings.parsing import write_arguments
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.majority import constant_remark, majority_line, majority_scores
from hf_distill.trainers.checkpoints import LAST_CHECKPOINT
from hf_distill.trainers.fine_tuning.task_models import load_task_model, random_task_model
from hf_distill.trainers.fine_tuning.trainer import FineTuningResult, finetune

BASELINE_FOLDER = "baseline"


@writes_folder("baseline")
def run(
    task: TaskArguments,
    adaptation: AdaptationArguments,
    training: FineTuningArguments,
    teacher: TeacherArguments | None = None,
    *,
    as_it_is: bool = False,
) -> dict[str, Any]:
    """Fine-tune a student on the task's labels and score it.

    With a teacher (a model already fine-tuned on the task), its score and the student's retention of it are reported
    too; with `adaptation.from_scratch`, the same student with random weights is fine-tuned in the same way.
    Writes to `training.output_dir`: the adapted student with its tokenizer and card, `baseline/`, `results.json` and
    `arguments.yaml`.

    Args:
        task: The task and where its rows are.
        adaptation: The student, and whether it is trained without a teacher as well.
        training: How to fine-tune; the task's paper settings where left unset.
        teacher: The teacher to score beside it.
        as_it_is: Whether the student is only scored, with the head that it has.

    Returns:
        The content of `results.json`: `student`, `teacher`, `baseline` (each with `score`, `constant`, the only label
        that it predicts, or `None`, `scores`, `parameters`; `None` where not asked for), `retention` (student /
        teacher), `gain` (student - baseline).

    Raises:
        ValueError: If task, labels and models do not fit.
    """
    started = time.perf_counter()
    rows = load_task_from(task, seed=training.seed)
    student, adapted = _student(task, adaptation, training, rows, as_it_is=as_it_is)
    reference = None
    if teacher is not None and teacher.teacher_model is not None:
        name, revision = teacher.teacher_model, teacher.teacher_revision
        reference = score_model(name, rows, training, task, flag="--teacher_model", revision=revision)
    baseline = _baseline(task, adaptation, training, rows) if adaptation.from_scratch else None
    facts: dict[str, Any] = {
        "job": "adapt",
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
        given = (task, adaptation, training, *([teacher] if teacher else []))
        write_arguments(str(training.output_dir), *given)
        if adapted is not None:
            command = shown_command("adapt", *given)
            folder = str(training.output_dir)
            known = adapted_facts(adapted, adaptation.student_model, rows.spec, facts, folder, command)
            write_card(folder, completed(known, adapted, _tokenizer(adaptation)))
    return facts


def summary(results: dict[str, Any]) -> str:
    """Say the scores of student, teacher, baseline and majority."""
    lines = []
    for role in ("student", "teacher", "baseline"):
        if results[role] is not None:
            remark = constant_remark(results[role]["constant"])
            lines.append(f"{role}: {results['metric']} {results[role]['score']:.4f} on {results['split']}{remark}")
    return "\n".join(filter(None, [*lines, majority_line(results["majority"])]))


def _student(
    task: TaskArguments,
    adaptation: AdaptationArguments,
    training: FineTuningArguments,
    rows: LoadedTask,
    *,
    as_it_is: bool,
) -> tuple[dict[str, Any], PreTrainedModel | None]:
    """Adapt the student, or only score it; the model is that which was trained."""
    source = adaptation.student_model
    given: dict[str, Any] = {"flag": "--student_model", "revision": adaptation.student_revision}
    if as_it_is:
        return score_model(source, rows, training, task, tokenizer_name=adaptation.tokenizer_name, **given), None
    set_seed(training.seed)
    model = load_task_model(source, rows.spec, **given)
    result = finetune(model, rows, _tokenizer(adaptation), training, **_lengths(task))
    return _trained(result, source, str(training.output_dir)), result.model


def _baseline(
    task: TaskArguments, adaptation: AdaptationArguments, training: FineTuningArguments, rows: LoadedTask
) -> dict[str, Any]:
    """The same student with random weights, fine-tuned in the same way."""
    own = copy.copy(training)
    own.output_dir = os.path.join(str(training.output_dir), BASELINE_FOLDER)
    if own.resume_from_checkpoint not in (True, "True", "true", LAST_CHECKPOINT):
        own.resume_from_checkpoint = None
    set_seed(training.seed)
    model = random_task_model(
        adaptation.student_model, rows.spec, flag="--student_model", revision=adaptation.student_revision
    )
    result = finetune(model, rows, _tokenizer(adaptation), own, **_lengths(task))
    return _trained(result, adaptation.student_model, own.output_dir)


def _lengths(task: TaskArguments) -> dict[str, Any]:
    """Return the settings for the lengths of rows and of the overlaps of windows, in tokens."""
    return {"max_length": task.max_length, "doc_stride": task.doc_stride}


def _trained(result: FineTuningResult, source: str, folder: str) -> dict[str, Any]:
    """Return the facts that are reported of a model that was trained here."""
    details = result.to_dict()
    return {
        "source": source,
        **{name: details[name] for name in ("score", "constant", "scores")},
        "parameters": result.model.num_parameters(),
        "model": folder,
        **{
            name: details[name] for name in ("train_rows", "steps", "train_loss", "fp32_matmul", "settings", "history")
        },
        "training_seconds": result.seconds,
    }


def _tokenizer(adaptation: AdaptationArguments) -> Any:
    """The student's tokenizer."""
    if adaptation.tokenizer_name is not None:
        return load_tokenizer(adaptation.tokenizer_name, flag="--tokenizer_name")
    return load_tokenizer(adaptation.student_model, flag="--student_model", revision=adaptation.student_revision)
