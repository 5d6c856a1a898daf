"""Distil a classifier on the rows of a GLUE task: the student learns from the teacher's logits and from the labels.

    python examples/run_glue.py --teacher_model textattack/bert-base-uncased-SST-2 --task_name sst2 \
        --student_shape 4x312 --num_train_epochs 5 --learning_rate 3e-4 --output_dir outputs/sst2

The teacher is a classifier that was fine-tuned on the task (`hf-distill teach` makes one). Instead of a shape,
`--student_model` takes a student from an earlier distillation. Labels of task, teacher and student are matched by
name. `--do_predict` writes the predictions for the test set, as index and label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    HfArgumentParser,
    TrainingArguments,
    set_seed,
)

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    TaskSpec,
    create_student,
    evaluate_model,
    load_task,
    size_table,
)


@dataclass
class ModelArguments:
    """Teacher and student."""

    teacher_model: str = field(metadata={"help": "Hub id or folder of a classifier for the task."})
    student_model: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the student. Default: a new one of the given shape."}
    )
    student_shape: str = field(
        default="4x312", metadata={"help": "LAYERSxHIDDEN, optionally with heads and width: 6x384:12h:1536."}
    )


@dataclass
class DataArguments:
    """The task and its rows."""

    task_name: str = field(metadata={"help": "cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb, wnli, or a folder."})
    data_dir: str | None = field(default=None, metadata={"help": "Local files of the task. Default: the Hub."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Maximum number of training rows."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Maximum number of rows per evaluation split."}
    )


def as_text(rows: Dataset, spec: TaskSpec, text_column: str) -> Dataset:
    """Rows of a task with the columns that a trainer tokenizes: `text`, and `text_pair` if a row has two texts."""
    return rows.rename_columns(dict(zip(spec.text_columns, (text_column, "text_pair"), strict=False)))


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Distil, score student and teacher, save the student with its card, and return the metrics."""
    parser = HfArgumentParser((ModelArguments, DataArguments, DistillationArguments), description=__doc__)
    model_args, data_args, args = parser.parse_args_into_dataclasses(argv)
    set_seed(args.seed)
    args.objectives = args.objectives or ["logits", "labels"]

    task = load_task(data_args.task_name, data_args.data_dir)
    task = task.subset(data_args.max_train_samples, data_args.max_eval_samples, seed=args.seed)
    train = as_text(task.train, task.spec, args.text_column)

    tokenizer = AutoTokenizer.from_pretrained(model_args.teacher_model)
    teacher = AutoModelForSequenceClassification.from_pretrained(model_args.teacher_model)
    if model_args.student_model is not None:
        student = AutoModelForSequenceClassification.from_pretrained(
            model_args.student_model, id2label=teacher.config.id2label, label2id=teacher.config.label2id
        )
    else:
        text = zip(*(task.train[column] for column in task.spec.text_columns), strict=True)
        shape = model_args.student_shape
        student = create_student(teacher, shape, calibration_text=text, tokenizer=tokenizer, seed=args.seed)
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
    metrics = {}
    for name, model in (("student", trainer.student), ("teacher", teacher)):
        scores = evaluate_model(model, task, tokenizer, scoring, max_length=args.max_length, name=f"the {name}")
        metrics |= {
            f"{name}_{split}_{metric}": value for split, found in scores.items() for metric, value in found.items()
        }
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)

    if args.do_predict:
        for split in task.spec.test_splits:
            rows = as_text(task.split(split), task.spec, args.text_column).remove_columns(task.spec.label_column)
            logits = trainer.predict(rows).predictions
            if task.spec.label_names is None:
                predicted = [f"{value:.3f}" for value in logits[:, 0]]
            else:
                predicted = [student.config.id2label[index] for index in logits.argmax(-1).tolist()]
            lines = [f"{index}\t{prediction}" for index, prediction in enumerate(predicted)]
            path = Path(args.output_dir, f"predictions_{split}.tsv")
            path.write_text("\n".join(["index\tprediction", *lines]) + "\n", encoding="utf-8")

    if args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.create_model_card()
    return metrics


if __name__ == "__main__":
    main()
