"""Distil several teachers of one task into one student.

    python examples/run_multi_teacher.py --teacher_models outputs/sst2_bert outputs/sst2_roberta \
        --train_file train.jsonl --validation_file validation.jsonl --objectives logits labels:0.5 \
        --combine confidence --output_dir outputs/student

The files have the columns `text` (and `text_pair`, if a row has two texts) and `label`. Every teacher is a classifier
with the labels of the task; `--combine` determines how their predictions are combined. Teachers with different
tokenizers need `--align_tokenizers`. The student has the first teacher's architecture, labels and tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    HfArgumentParser,
    set_seed,
)

from hf_distill import MultiTeacherArguments, MultiTeacherTrainer, create_student
from hf_distill.tasks import load_metric


@dataclass
class ScriptArguments:
    """Student and data; the teachers are arguments of the training."""

    train_file: str = field(metadata={"help": "Rows to train on: JSON lines, csv or parquet."})
    validation_file: str = field(metadata={"help": "Rows to evaluate on, in the same format."})
    student_shape: str = field(
        default="4x312", metadata={"help": "LAYERSxHIDDEN, optionally with heads and width: 6x384:12h:1536."}
    )
    metric: str = field(default="accuracy", metadata={"help": "Score of predictions: accuracy, f1, f1_macro, ..."})


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Distil, evaluate, save the student with its card, and return the metrics."""
    parser = HfArgumentParser((ScriptArguments, MultiTeacherArguments), description=__doc__)
    script_args, args = parser.parse_args_into_dataclasses(argv)
    if not args.teacher_models:
        parser.error("--teacher_models names no teacher.")
    set_seed(args.seed)

    suffix = script_args.train_file.rpartition(".")[2]
    files = {"train": script_args.train_file, "validation": script_args.validation_file}
    rows = load_dataset({"jsonl": "json"}.get(suffix, suffix), data_files=files)

    teachers = [AutoModelForSequenceClassification.from_pretrained(name) for name in args.teacher_models]
    tokenizers = [AutoTokenizer.from_pretrained(name) for name in args.teacher_models]
    student = create_student(
        teachers[0],
        script_args.student_shape,
        calibration_text=rows["train"][args.text_column],
        tokenizer=tokenizers[0],
        seed=args.seed,
    )
    metric = load_metric(script_args.metric)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return metric.compute(predictions=prediction.predictions.argmax(-1), references=prediction.label_ids)

    trainer = MultiTeacherTrainer(
        student,
        args,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizers[0],
        compute_metrics=compute_metrics,
        teacher_models=teachers,
        teacher_processing_class=tokenizers,
    )
    print(trainer.describe())
    result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_metrics("train", result.metrics)
    evaluation = trainer.evaluate()
    trainer.log_metrics("eval", evaluation)
    trainer.save_metrics("eval", evaluation)

    trainer.save_model()
    if args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.create_model_card()
    return result.metrics | evaluation


if __name__ == "__main__":
    main()
