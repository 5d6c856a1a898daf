"""Distil any encoder into a small student on plain text.

    python examples/run_distillation.py --teacher_model google-bert/bert-base-uncased --student_shape 4x312 \
        --dataset_name Salesforce/wikitext --dataset_config_name wikitext-103-v1 --num_train_epochs 1 \
        --output_dir outputs/student

The student is cut out of the teacher's weights and learns the attention relations of its last layer (MiniLMv2). Other
objectives: `--objectives hidden:1 logits:0.5` (with `--model_class AutoModelForMaskedLM`, or any class with a head for
the logits). The teacher runs beside the student. With `--stored_teacher FOLDER` it runs once over the text and the
signals for the objectives are stored in that folder, from which any number of students can be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import transformers
from datasets import load_dataset
from transformers import AutoTokenizer, HfArgumentParser, set_seed

from hf_distill import DistillationArguments, DistillationTrainer, create_student, precompute, size_table


@dataclass
class ModelArguments:
    """Teacher and student."""

    teacher_model: str = field(metadata={"help": "Hub id or folder of the teacher."})
    model_class: str = field(
        default="AutoModel",
        metadata={
            "help": "Class of both models: AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification."
        },
    )
    student_shape: str = field(
        default="4x312", metadata={"help": "LAYERSxHIDDEN, optionally with heads and width: 6x384:12h:1536."}
    )
    stored_teacher: str | None = field(
        default=None, metadata={"help": "Store the teacher's signals in this folder, or continue with those in it."}
    )


@dataclass
class DataArguments:
    """The text that the student is trained on."""

    dataset_name: str | None = field(default=None, metadata={"help": "Data set on the Hub."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    train_file: str | None = field(default=None, metadata={"help": "A text, JSON lines, csv or parquet file instead."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first rows only."})
    validation_rows: int = field(default=0, metadata={"help": "Rows that are held out for the evaluation."})


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Distil, evaluate on the held-out rows, save the student with its card, and return the metrics."""
    parser = HfArgumentParser((ModelArguments, DataArguments, DistillationArguments), description=__doc__)
    model_args, data_args, args = parser.parse_args_into_dataclasses(argv)
    set_seed(args.seed)

    if data_args.train_file is not None:
        suffix = data_args.train_file.rpartition(".")[2]
        kind = {"txt": "text", "jsonl": "json"}.get(suffix, suffix)
        rows = load_dataset(kind, data_files=data_args.train_file, split="train")
    else:
        rows = load_dataset(data_args.dataset_name, data_args.dataset_config_name, split="train")
    rows = rows.filter(lambda text: bool(text and text.strip()), input_columns=[args.text_column])
    if data_args.max_train_samples is not None:
        rows = rows.select(range(min(len(rows), data_args.max_train_samples)))
    held_out = None
    if data_args.validation_rows:
        rows, held_out = rows.train_test_split(data_args.validation_rows, seed=args.seed).values()

    tokenizer = AutoTokenizer.from_pretrained(model_args.teacher_model)
    teacher = getattr(transformers, model_args.model_class).from_pretrained(model_args.teacher_model)
    # The first weights are cut out of the teacher and refitted to its outputs on a few thousand texts.
    student = create_student(
        teacher,
        model_args.student_shape,
        calibration_text=rows[args.text_column],
        tokenizer=tokenizer,
        seed=args.seed,
    )
    print(size_table(teacher, student))

    source: Any = teacher
    if model_args.stored_teacher is not None:
        precompute(
            rows,
            teacher,
            args.objectives or ["relation"],
            model_args.stored_teacher,
            processing_class=tokenizer,
            num_student_layers=student.config.num_hidden_layers,
            text_column=args.text_column,
            max_length=args.max_length,
        )
        # The folder holds the tokens of its rows too; there are no teacher signals for held-out rows.
        source, rows, held_out = model_args.stored_teacher, None, None
    trainer = DistillationTrainer(
        student,
        args,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        teacher_model=source,
    )
    print(trainer.describe())
    result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    metrics = dict(result.metrics)
    trainer.save_metrics("train", result.metrics)
    if held_out is not None:
        evaluation = trainer.evaluate()
        trainer.save_metrics("eval", evaluation)
        metrics |= evaluation

    trainer.save_model()  # a plain transformers model with its tokenizer, without any part of the teacher
    if args.push_to_hub:
        trainer.push_to_hub()
    else:
        trainer.create_model_card()
    return metrics


if __name__ == "__main__":
    main()
