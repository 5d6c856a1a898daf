"""Fine-tunes one encoder on many tasks: the teacher of MITKD, or a student of single-task teachers."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import cost_of_training, finish
from hf_distill.commands.student_facts import completed, of_task, shared_facts, shown_command, write_card
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.hub.model_card import hub_id_of, shown_name
from hf_distill.settings import MTLArguments, TasksArguments, TeacherArguments
from hf_distill.tasks.loading import load_tasks
from hf_distill.tasks.majority import constant_remark, majority_line, majority_scores
from hf_distill.trainers.fine_tuning.task_models import lora_alpha
from hf_distill.trainers.fine_tuning.trainer import headline_score
from hf_distill.trainers.multi_task.model import multi_task_model
from hf_distill.trainers.multi_task.trainer import MTLTrainer

TASKS_FOLDER = "tasks"


@writes_folder("tasks")
def run(tasks: TasksArguments, teacher: TeacherArguments, training: MTLArguments) -> dict[str, Any]:
    """Fine-tune one encoder on many tasks and score it on each of them.

    Writes to `training.output_dir`: the encoder (LoRA merged) with its tokenizer and card, models with the heads of
    `tasks.save_heads` under `tasks` with their own cards, `results.json`, and `arguments.yaml`, which repeats the run.

    Args:
        tasks: The tasks, their rows, their teachers, and the heads to save.
        teacher: The model to start from, and settings of LoRA.
        training: Settings of the training.

    Returns:
        The content of `results.json`: `score` (mean of the headline metrics, as a fraction), `scores` of every task
        and split, rows, settings, seed, seconds, curve.

    Raises:
        ValueError: If no model is given, or tasks, teachers and model do not match.
    """
    if teacher.teacher_model is None:
        raise ValueError("`--teacher_model` is missing: give the Hub id or folder of the model to fine-tune.")
    started = time.perf_counter()
    set_seed(training.seed)
    loaded = [
        task.subset(tasks.max_train_samples, tasks.max_eval_samples, seed=training.seed)
        for task in load_tasks(tasks.tasks, tasks.data_dir, **tasks.column_fields())
    ]
    # A user's own folder may be given as a path, which differs from the name of its task.
    names = dict(zip(tasks.tasks, (task.spec.name for task in loaded), strict=True))
    trainer = MTLTrainer(
        multi_task_model(teacher.teacher_model, [task.spec for task in loaded], revision=teacher.teacher_revision),
        training,
        tasks=loaded,
        processing_class=load_tokenizer(
            teacher.teacher_model, flag="--teacher_model", revision=teacher.teacher_revision
        ),
        task_teachers={names[task]: found for task, found in tasks.teachers_by_task().items()},
        lora=teacher,
        max_length=tasks.max_length,
        doc_stride=tasks.doc_stride,
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    history = list(trainer.state.log_history)
    trainer.save_model()
    for task in tasks.heads_to_save():
        trainer.save_task(names[task], Path(str(training.output_dir), TASKS_FOLDER, names[task]))
    scores = trainer.scores()
    headlines = {task: headline_score(found, trainer.specs[task]) for task, found in scores.items()}
    facts = {
        "job": "mtl",
        "tasks": list(trainer.specs),
        "metrics": {name: spec.headline for name, spec in trainer.specs.items()},
        "score": sum(headlines.values()) / len(headlines) if headlines else None,
        "headlines": headlines,
        "scores": scores,
        "constants": {task: found.constants.get(trainer.specs[task].headline_split) for task, found in scores.items()},
        "majority": {task.spec.name: majority_scores(task) for task in loaded},
        "split_rows": {task.spec.name: {name: len(rows) for name, rows in task.evaluation.items()} for task in loaded},
        "max_eval_samples": tasks.max_eval_samples,
        "model": str(training.output_dir),
        "heads": [names[task] for task in tasks.heads_to_save()],
        "base_model": teacher.teacher_model,
        "base_name": shown_name(teacher.teacher_model),
        "base_id": hub_id_of(teacher.teacher_model),
        "task_teachers": tasks.teachers_by_task(),
        "parameters": trainer.tasks_model.plain_encoder.num_parameters(),
        "lora": {"r": teacher.lora_r, "alpha": lora_alpha(teacher)} if teacher.lora_r else None,
        "seed": training.seed,
        "data": {task.spec.name: task.source for task in loaded},
        "train_rows": trainer.train_rows,
        **trainer.whole_run.facts(),
        "settings": {name: getattr(training, name) for name in DECIDING},
        "history": history,
    }
    given, folder = (tasks, teacher, training), str(training.output_dir)
    finish(folder, facts, started, *given, write=training.should_save)
    if training.should_save:
        command = shown_command("mtl", *given)
        encoder, specs = trainer.tasks_model.plain_encoder, list(trainer.specs.values())
        write_card(folder, shared_facts(encoder, teacher.teacher_model, specs, facts, folder, command))
        for name in facts["heads"]:
            place = str(Path(folder, TASKS_FOLDER, name))
            model = load_model(place, flag="--save_heads")
            known = shared_facts(model, teacher.teacher_model, [trainer.specs[name]], facts, place, command)
            known = replace(known, **of_task(trainer.specs[name], known))
            write_card(place, completed(known, model, trainer.processing_class))
    return facts


def summary(results: dict[str, Any]) -> str:
    """Report the score of every task beside the majority's, the cost of the training and where the encoder is."""
    lines: list[str | None] = []
    for task, score in results["headlines"].items():
        lines.append(f"{task}: {results['metrics'][task]} {score:.4f}{constant_remark(results['constants'][task])}")
        lines.append(majority_line(results["majority"][task]))
    lines.append(f"{cost_of_training(results)}; encoder in {results['model']}")
    return "\n".join(line for line in lines if line)


# Settings that change the result, besides model, tasks and seed.
DECIDING = (
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("world_size", "warmup_steps", "weight_decay", "bf16", "fp16", "task_sampling", "sampling_exponent"),
    *("loss_scaling", "task_weighting", "r3f_lambda", "hard_label_weight", "soft_label_weight", "temperature"),
    "teacher_annealing",
)
