"""Settings for fine-tuning on many tasks at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..storage.plain_values import check_range
from .task import ColumnArguments
from .teach import FineTuningArguments
from .values import check_choices, check_least, setting

TaskSampling = Literal["all", "size", "uniform", "annealed"]
LossScaling = Literal["log_classes", "none"]
TaskWeighting = Literal["none", "uncertainty", "gradient_norm"]
Noise = Literal["uniform", "normal"]
MEAN = "eval_mean"


@dataclass
class TasksArguments(ColumnArguments):
    """The tasks, and the places of their rows."""

    tasks: list[str] = field(
        metadata={
            "help": "Names of registered tasks (glue/sst2 glue/cola, see `hf-distill info tasks`), your own files "
            "(reviews.csv), or folders with a task.yaml. The flags of columns hold for all files, and for "
            "folders without a task.yaml."
        }
    )
    data_dir: str | None = setting(
        None, "Local files of the tasks: a parent folder with a folder for each name. Default: the Hub."
    )
    max_length: int | None = setting(
        None, "Largest number of tokens in a row; the rest is truncated. Default: each task's own."
    )
    doc_stride: int | None = setting(
        None, "Question answering: number of tokens by which two windows overlap. Default: the task's."
    )
    max_train_samples: int | None = setting(
        None, "Number of training rows of each task, drawn with the seed. Default: all."
    )
    max_eval_samples: int | None = setting(
        None, "Number of evaluation rows of each split, drawn with the seed. Default: all."
    )
    task_teachers: list[str] | None = setting(
        None,
        "Teachers of single tasks, each as TASK=MODEL (a Hub id, a folder, or a stored teacher). If a "
        "task is named several times, it learns from the mean of its teachers' probabilities. Default: "
        "labels only.",
    )
    save_heads: list[str] | None = setting(
        None, "Tasks for which a whole model with the task's head is saved too, under OUTPUT_DIR/tasks; or `all`."
    )

    def __post_init__(self) -> None:
        """Check names and numbers; one task may be given as a string.

        Raises:
            ValueError: If a task is named twice, a number is below 1, or a teacher has no task.
        """
        self.tasks = [self.tasks] if isinstance(self.tasks, str) else list(self.tasks)
        twice = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        if twice or not self.tasks:
            raise ValueError(f"`--tasks` is {self.tasks}; it must name every task once, and at least one.")
        check_least(self, 1, "max_length", "max_train_samples", "max_eval_samples")
        for task in self.teachers_by_task():
            if task not in self.tasks:
                raise ValueError(f"`--task_teachers` names {task!r}; `--tasks` are {self.tasks}.")
        unknown = sorted(set(self.save_heads or []) - {*self.tasks, "all"})
        if unknown:
            raise ValueError(f"`--save_heads` names {unknown}; allowed are all and {self.tasks}.")

    def teachers_by_task(self) -> dict[str, list[str]]:
        """Task -> its teachers.

        Raises:
            ValueError: If an entry is no TASK=MODEL.
        """
        found: dict[str, list[str]] = {}
        for entry in self.task_teachers or []:
            task, sign, model = entry.partition("=")
            if not (sign and task and model):
                raise ValueError(f"`--task_teachers` has {entry!r}; it must be TASK=MODEL, such as glue/rte=my_model.")
            found.setdefault(task, []).append(model)
        return found

    def heads_to_save(self) -> list[str]:
        """The tasks whose heads are saved."""
        return list(self.tasks) if self.save_heads and "all" in self.save_heads else list(self.save_heads or [])


@dataclass
class MTLArguments(FineTuningArguments):
    """`TrainingArguments` of a fine-tuning on many tasks (Muppet; MITKD section 3)."""

    learning_rate: float = setting(3e-5, "Peak learning rate.")
    num_train_epochs: float = setting(
        3.0, "Number of epochs; an epoch has as many micro-batches as all tasks have together."
    )
    per_device_train_batch_size: int = setting(16, "Rows in a micro-batch, all of the same task.")
    gradient_accumulation_steps: int = setting(
        4,
        "Number of micro-batches in an update; with more than one an update mixes tasks (Muppet's "
        "heterogeneous batches).",
    )
    warmup_steps: float = setting(0.06, "Linear warm-up: a number of steps, or a share of all steps if below 1.")
    weight_decay: float = setting(0.01, "Weight decay of AdamW.")
    task_sampling: TaskSampling = setting(
        "all",
        "How the task of each micro-batch is chosen: all (every batch of every task once, shuffled; "
        "MT-DNN), size (drawn in proportion to its number of rows to the power of "
        "--sampling_exponent), uniform, or annealed (as size, with an exponent that falls from 1 to "
        "0.2 over the epochs; PALs).",
    )
    sampling_exponent: float = setting(0.75, "Exponent of `--task_sampling size`: 1 as in Muppet, 0.75 as in BAM.")
    loss_scaling: LossScaling = setting(
        "log_classes",
        "log_classes divides a task's loss by the logarithm of its number of classes (Muppet); none does not.",
    )
    task_weighting: TaskWeighting = setting(
        "none",
        "Weights of the tasks: none, uncertainty (a learnt variance for each task), or gradient_norm "
        "(gradients of all tasks have similar norms, larger ones for tasks that learn slowly).",
    )
    gradient_norm_alpha: float = setting(
        1.5, "gradient_norm: GradNorm's alpha; the larger, the larger are the gradients of slow tasks."
    )
    r3f_lambda: float = setting(
        0.0,
        "Weight of R3F, which keeps predictions the same under noise on the embeddings (a second "
        "forward pass). 0: off.",
    )
    r3f_epsilon: float = setting(1e-5, "R3F: scale of the noise.")
    r3f_noise: Noise = setting("uniform", "R3F: distribution of the noise, uniform or normal.")
    hard_label_weight: float = setting(
        1.0, "Weight of the loss on labels in a task that has teachers (MT-DNN's ensembles: 0.5)."
    )
    soft_label_weight: float = setting(1.0, "Weight of the loss on the teachers' predictions.")
    temperature: float = setting(1.0, "Divides the logits of teachers and student.")
    scale_by_squared_temperature: bool = setting(
        True, "Multiply the loss on the teachers' predictions by the square of the temperature (Hinton et al. 2015)."
    )
    teacher_annealing: bool = setting(
        False, "Move linearly from the teachers' predictions to the labels during the training (BAM)."
    )

    def __post_init__(self) -> None:
        """Check the numbers and choices.

        Raises:
            ValueError: If one is out of its range.
        """
        check_choices(self, "task_sampling", "loss_scaling", "task_weighting", "r3f_noise")
        check_least(self, 0, "r3f_lambda", "hard_label_weight", "soft_label_weight", "sampling_exponent")
        check_least(self, 0, "gradient_norm_alpha")
        for name in ("r3f_epsilon", "temperature"):
            check_range(getattr(self, name), f"`--{name}`", above=0)
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model, self.greater_is_better = MEAN, True
        super().__post_init__()
