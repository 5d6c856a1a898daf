"""Distil a model for extractive question answering, on SQuAD: from the teacher's logits and hidden states.

    python examples/run_squad.py --teacher_model csarron/bert-base-uncased-squad-v1 --student_shape t4-tiny \
        --max_length 384 --num_train_epochs 5 --learning_rate 1e-4 --output_dir outputs/squad

The teacher is a model that was fine-tuned on the task (`hf-distill teach --task squad` makes one). Contexts that are
longer than `--max_length` are cut into windows that share `--doc_stride` tokens. Other tasks: `--task squad_v2`,
`clue/cmrc2018`, `clue/drcd`, or a folder of your own with a task.yaml of `kind: question_answering`. The default
objectives are those of TextBrewer's T4-tiny.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import AutoModelForQuestionAnswering, AutoTokenizer, HfArgumentParser, TrainingArguments, set_seed

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    create_student,
    evaluate_model,
    load_preset,
    load_task,
    size_table,
)
from hf_distill.tasks import tokenize_task


@dataclass
class ModelArguments:
    """Teacher and student."""

    teacher_model: str = field(metadata={"help": "Hub id or folder of a model that was fine-tuned on the task."})
    student_shape: str = field(
        default="t4-tiny", metadata={"help": "A named shape, or LAYERSxHIDDEN such as 6x384:12h:1536."}
    )


@dataclass
class DataArguments:
    """The task and its rows."""

    task: str = field(default="squad", metadata={"help": "A question answering task, or a folder of your own."})
    data_dir: str | None = field(default=None, metadata={"help": "Local files of the task. Default: the Hub."})
    doc_stride: int | None = field(
        default=None, metadata={"help": "Tokens that two windows of a context share. Default: the task's."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Maximum number of training questions."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Maximum number of evaluation questions."})


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Distil, score student and teacher, save the student with its card, and return the metrics."""
    parser = HfArgumentParser((ModelArguments, DataArguments, DistillationArguments), description=__doc__)
    model_args, data_args, args = parser.parse_args_into_dataclasses(argv)
    set_seed(args.seed)
    args.objectives = args.objectives or load_preset("textbrewer_t4_tiny")["objectives"]

    task = load_task(data_args.task, data_args.data_dir)
    task = task.subset(data_args.max_train_samples, data_args.max_eval_samples, seed=args.seed)
    tokenizer = AutoTokenizer.from_pretrained(model_args.teacher_model)
    # Windows with `start_positions` and `end_positions`, which the objective `labels` would use.
    train = tokenize_task(task.train, task.spec, tokenizer, args.max_length, doc_stride=data_args.doc_stride)

    teacher = AutoModelForQuestionAnswering.from_pretrained(model_args.teacher_model)
    student = create_student(
        teacher,
        model_args.student_shape,
        calibration_text=train,
        tokenizer=tokenizer,
        seed=args.seed,
    )
    print(size_table(teacher, student))

    trainer = DistillationTrainer(
        student, args, train_dataset=train, processing_class=tokenizer, teacher_model=teacher, eval_task=task
    )
    print(trainer.describe())
    result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_metrics("train", result.metrics)
    trainer.save_model()

    scoring = TrainingArguments(
        args.output_dir,
        per_device_eval_batch_size=args.per_device_eval_batch_size,
        use_cpu=args.use_cpu,
        report_to="none",
    )
    lengths = {"max_length": args.max_length, "doc_stride": data_args.doc_stride}
    metrics = {}
    for name, model in (("student", trainer.student), ("teacher", teacher)):
        scores = evaluate_model(model, task, tokenizer, scoring, name=f"the {name}", **lengths)
        metrics |= {
            f"{name}_{split}_{metric}": value for split, found in scores.items() for metric, value in found.items()
        }
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)

    if args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.create_model_card()
    return metrics


if __name__ == "__main__":
    main()
