"""Makes a teacher: fine-tunes a model on a task."""

from __future__ import annotations

import time
from typing import Any, Literal

from transformers import set_seed

from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import finish
from hf_distill.hub.loading import load_tokenizer
from hf_distill.hub.model_card import hub_id_of, shown_name
from hf_distill.settings import FineTuningArguments, TaskArguments, TeacherArguments
from hf_distill.tasks.loading import LoadedTask, load_task
from hf_distill.tasks.majority import constant_remark, majority_line, majority_scores
from hf_distill.trainers.fine_tuning.task_models import add_lora, load_task_model, lora_alpha
from hf_distill.trainers.fine_tuning.trainer import finetune


@writes_folder()
def run(task: TaskArguments, teacher: TeacherArguments, training: FineTuningArguments) -> dict[str, Any]:
    """Fine-tune a teacher on one task.

    Writes to `training.output_dir`: the model (with LoRA merged into plain weights) with its tokenizer,
    `results.json`, and `arguments.yaml`, which repeats the run.

    Args:
        task: The task and the location of its rows.
        teacher: The model to start from, and settings of LoRA.
        training: Settings of the training; unset ones come from the task's paper.

    Returns:
        The content of `results.json`: `score` (headline metric on the headline split, as a fraction), `scores` of
        every split, settings, seed, seconds, rows, curve.

    Raises:
        ValueError: If no teacher is given, or task, labels and model do not match.
    """
    if teacher.teacher_model is None:
        raise ValueError("`--teacher_model` is missing: give the Hub id or folder of the model to fine-tune.")
    started = time.perf_counter()
    set_seed(training.seed)
    rows = load_task_from(task, seed=training.seed)
    tokenizer = load_tokenizer(teacher.teacher_model, flag="--teacher_model", revision=teacher.teacher_revision)
    model = load_task_model(
        teacher.teacher_model, rows.spec, flag="--teacher_model", revision=teacher.teacher_revision
    )
    result = finetune(
        add_lora(model, teacher, rows.spec),
        rows,
        tokenizer,
        training,
        max_length=task.max_length,
        doc_stride=task.doc_stride,
    )
    facts = {
        "job": "teach",
        "task": rows.spec.name,
        "metric": result.metric,
        "score": result.score,
        "scores": result.scores,
        "constant": result.constant,
        "majority": majority_scores(rows),
        "model": str(training.output_dir),
        "base_model": teacher.teacher_model,
        "base_name": shown_name(teacher.teacher_model),
        "base_id": hub_id_of(teacher.teacher_model),
        "parameters": result.model.num_parameters(),
        "lora": {"r": teacher.lora_r, "alpha": lora_alpha(teacher)} if teacher.lora_r else None,
        "seed": training.seed,
        "data": rows.source,
        "train_rows": result.train_rows,
        "steps": result.steps,
        "training_seconds": result.seconds,
        "train_loss": result.train_loss,
        "fp32_matmul": result.fp32_matmul,
        "settings": result.settings,
        "settings_source": rows.spec.fine_tuning.source,
        "history": result.history,
    }
    return finish(str(training.output_dir), facts, started, task, teacher, training, write=training.should_save)


def summary(results: dict[str, Any]) -> str:
    """Report the score beside the majority's, and where the teacher is."""
    remark = constant_remark(results["constant"])
    said = f"{results['task']}: {results['metric']} {results['score']:.4f}{remark}; teacher in {results['model']}"
    return "\n".join(filter(None, (said, majority_line(results["majority"]))))


def load_task_from(task: TaskArguments, *, seed: int, splits: Literal["evaluation"] | None = None) -> LoadedTask:
    """Load the rows that a job's arguments name."""
    loaded = load_task(task.task, task.data_dir, splits=splits, **task.spec_fields())
    return loaded.subset(task.max_train_samples, task.max_eval_samples, seed=seed)
