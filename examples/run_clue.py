"""Fine-tune a Chinese student on the tasks of CLUE, one after the other, and compare it with a larger model.

    python examples/run_clue.py --model_name_or_path outputs/zh_4x312 --reference_model outputs/zh_teacher \
        --tasks afqmc tnews iflytek ocnli cluewsc2020 csl --output_dir outputs/clue

Epochs, learning rate and batch size default to those of each task's paper. `--reference_model` is fine-tuned in the
same way, so that the table shows how much of its scores the student keeps. The student itself comes from
`run_distillation.py`, with a Chinese teacher and Chinese text.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer, HfArgumentParser, set_seed

from hf_distill import FineTuningArguments, finetune, load_task, push_folder


@dataclass
class ModelArguments:
    """The models to compare."""

    model_name_or_path: str = field(metadata={"help": "Hub id or folder of the student."})
    reference_model: str | None = field(
        default=None, metadata={"help": "Hub id or folder of a model to compare it with, such as its teacher."}
    )
    hub_prefix: str | None = field(
        default=None, metadata={"help": "Push the student of each task to PREFIX-TASK. Default: do not push."}
    )


@dataclass
class DataArguments:
    """The tasks and their rows."""

    tasks: list[str] = field(
        default_factory=lambda: ["afqmc", "tnews", "iflytek", "ocnli", "cluewsc2020", "csl"],
        metadata={"help": "Classification tasks of CLUE, any other registered task, or folders of your own."},
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "A folder with the local files of the tasks. Default: the Hub."}
    )
    max_length: int | None = field(default=None, metadata={"help": "Maximum tokens of a row. Default: each task's."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Maximum number of training rows per task."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Maximum number of rows per evaluation split."}
    )


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Fine-tune every model on every task, print and write the scores, and return them: task -> model -> score."""
    parser = HfArgumentParser((ModelArguments, DataArguments, FineTuningArguments), description=__doc__)
    model_args, data_args, args = parser.parse_args_into_dataclasses(argv)
    models = {"student": model_args.model_name_or_path, "reference": model_args.reference_model}

    scores: dict[str, dict[str, float]] = {}
    for name in data_args.tasks:
        task = load_task(name, None if Path(name).is_dir() else data_args.data_dir)
        task = task.subset(data_args.max_train_samples, data_args.max_eval_samples, seed=args.seed)
        scores[task.spec.name] = {}
        for role, source in models.items():
            if source is None:
                continue
            set_seed(args.seed)
            own = copy.copy(args)
            own.output_dir = str(Path(args.output_dir, task.spec.name, role))
            model = AutoModelForSequenceClassification.from_pretrained(
                source, num_labels=task.spec.num_labels, ignore_mismatched_sizes=True
            )
            # Trains, saves model and tokenizer, and scores every evaluation split by the task's own metrics.
            result = finetune(model, task, AutoTokenizer.from_pretrained(source), own, max_length=data_args.max_length)
            scores[task.spec.name][role] = result.score
            print(f"{task.spec.name}: {role} {result.metric} {100 * result.score:.1f} after {result.steps} steps")
            if role == "student" and model_args.hub_prefix is not None:
                push_folder(own.output_dir, f"{model_args.hub_prefix}-{task.spec.name.replace('/', '-')}")

    for role in scores[next(iter(scores))]:
        mean = sum(found[role] for found in scores.values()) / len(scores)
        print(f"mean of {len(scores)} tasks: {role} {100 * mean:.1f}")
    Path(args.output_dir, "scores.json").write_text(json.dumps(scores, indent=2), encoding="utf-8")
    return scores


if __name__ == "__main__":
    main()
