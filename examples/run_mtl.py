"""Fine-tune one encoder on many tasks at once, to make a teacher for all of them (MITKD, Muppet).

    python examples/run_mtl.py --model_name_or_path google-bert/bert-base-uncased \
        --tasks glue/sst2 glue/rte glue/mrpc --save_heads --output_dir outputs/mtl_teacher

Then distil the encoder into a student on general text, which can be adapted to any task:

    python examples/run_distillation.py --teacher_model outputs/mtl_teacher --train_file general.parquet \
        --student_shape 4x312 --output_dir outputs/student

Tasks are names from `hf-distill info tasks`, or folders of your own with a `task.yaml`. `--task_teachers
glue/rte=outputs/rte_teacher` adds single-task teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoTokenizer, HfArgumentParser, set_seed

from hf_distill import MTLArguments, MTLTrainer, load_task


@dataclass
class ModelArguments:
    """The encoder, and the teachers that it learns from in addition to the labels."""

    model_name_or_path: str = field(metadata={"help": "Hub id or folder of the encoder."})
    task_teachers: list[str] | None = field(
        default=None, metadata={"help": "Single-task teachers, as TASK=MODEL. Default: labels only."}
    )
    save_heads: bool = field(
        default=False, metadata={"help": "Also save a whole model with the head of each task, under OUTPUT_DIR/tasks."}
    )


@dataclass
class DataArguments:
    """The tasks and their rows."""

    tasks: list[str] = field(metadata={"help": "Names of registered tasks, or folders of your own."})
    data_dir: str | None = field(
        default=None, metadata={"help": "A folder that holds local files of registered tasks. Default: the Hub."}
    )
    max_length: int | None = field(default=None, metadata={"help": "Maximum tokens of a row. Default: each task's."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Maximum number of training rows per task."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Maximum number of rows per evaluation split."}
    )


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, score every task, save the encoder, and return the metrics."""
    parser = HfArgumentParser((ModelArguments, DataArguments, MTLArguments), description=__doc__)
    model_args, data_args, args = parser.parse_args_into_dataclasses(argv)
    set_seed(args.seed)

    tasks = {}
    for name in data_args.tasks:
        task = load_task(name, None if Path(name).is_dir() else data_args.data_dir)
        tasks[name] = task.subset(data_args.max_train_samples, data_args.max_eval_samples, seed=args.seed)
    teachers: dict[str, list[str]] = {}
    for entry in model_args.task_teachers or []:
        name, _, model = entry.partition("=")
        if name not in tasks or not model:
            parser.error(f"--task_teachers {entry}: give TASK=MODEL, with a task of {list(tasks)}.")
        teachers.setdefault(tasks[name].spec.name, []).append(model)

    trainer = MTLTrainer(
        model_args.model_name_or_path,
        args,
        tasks=list(tasks.values()),
        task_teachers=teachers,
        processing_class=AutoTokenizer.from_pretrained(model_args.model_name_or_path),
        max_length=data_args.max_length,
    )
    result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_metrics("train", result.metrics)
    evaluation = trainer.evaluate()
    trainer.log_metrics("eval", evaluation)
    trainer.save_metrics("eval", evaluation)

    trainer.save_model()  # the plain encoder, without the heads
    if model_args.save_heads:
        for task in tasks.values():
            trainer.save_task(task.spec.name, Path(args.output_dir, "tasks", task.spec.name))
    trainer.create_model_card(finetuned_from=model_args.model_name_or_path, tasks="feature-extraction")
    return result.metrics | evaluation


if __name__ == "__main__":
    main()
