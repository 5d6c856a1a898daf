"""Settings of a teacher and of any fine-tuning on labels."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Self

from ..tasks.spec import TaskSpec
from ..tasks.spec_values import FineTuningDefaults
from .distill import HEADLINE, CheckedTrainingArguments
from .values import setting


@dataclass
class TeacherModelArguments:
    """The teacher."""

    teacher_model: str | None = setting(None, "Hub id or local folder of the teacher.")
    teacher_revision: str | None = setting(None, "Branch, tag or commit of the teacher.")


@dataclass
class TeacherArguments(TeacherModelArguments):
    """The model that becomes a teacher by fine-tuning, and LoRA for it."""

    lora_r: int | None = setting(
        None,
        "LoRA: train low-rank matrices of this rank instead of all weights, and merge them at the end. "
        "Default: all weights are trained.",
    )
    lora_alpha: float | None = setting(None, "LoRA: the update is scaled by alpha / r. Default: twice the rank.")
    lora_dropout: float = setting(0.0, "LoRA: dropout before the low-rank matrices.")
    lora_target_modules: list[str] | None = setting(
        None, "LoRA: names of the linear layers to adapt, or all-linear. Default: peft's choice."
    )

    def __post_init__(self) -> None:
        """Check that LoRA settings come with a rank."""
        if self.lora_r is not None and self.lora_r < 1:
            raise ValueError(f"`--lora_r` is {self.lora_r}; it must be at least 1, or absent for full fine-tuning.")
        if self.lora_r is None and (self.lora_alpha is not None or self.lora_target_modules is not None):
            raise ValueError("`--lora_alpha` and `--lora_target_modules` need `--lora_r`.")


@dataclass
class FineTuningArguments(CheckedTrainingArguments):
    """`TrainingArguments` whose unset learning rate, epochs, batch size, warm-up and decay are the task's.

    The task's settings come from the paper named in its spec; `with_task_defaults` fills them in.
    """

    learning_rate: float | None = setting(  # type: ignore[assignment]
        None, "Peak learning rate. Default: the task's (GLUE: 1e-5 or 2e-5)."
    )
    num_train_epochs: float | None = setting(  # type: ignore[assignment]
        None, "Number of epochs. Default: the task's (GLUE: 10)."
    )
    per_device_train_batch_size: int | None = setting(  # type: ignore[assignment]
        None, "Rows per device and step. Default: the task's batch size (GLUE: 16 or 32) divided among all devices."
    )
    per_device_eval_batch_size: int = setting(64, "Rows per device in evaluation.")
    warmup_steps: float | None = setting(  # type: ignore[assignment]
        None, "Linear warm-up: a number of steps, or a share of all steps if below 1. Default: the task's (0.06)."
    )
    weight_decay: float | None = setting(  # type: ignore[assignment]
        None, "Weight decay of AdamW. Default: the task's (0.01)."
    )
    logging_steps: float = setting(10, "Number of steps between two logs of the loss.")
    save_strategy: str = setting("epoch", "When to write checkpoints to resume from: no, steps, epoch or best.")
    save_total_limit: int | None = setting(1, "Number of checkpoints that are kept, the latest ones.")
    train_sampling_strategy: str = setting(
        "group_by_length", "How rows are batched: group_by_length (little padding), random or sequential."
    )

    def __post_init__(self) -> None:
        """Let the base class check a number where the warm-up is left to the task.

        Raises:
            ValueError: If something is to be pushed to the Hub, or a number is not finite.
        """
        warmup_steps = self.warmup_steps
        self.warmup_steps = 0.0 if warmup_steps is None else warmup_steps
        if self.push_to_hub:
            raise ValueError(
                "`--push_to_hub` is not for a fine-tuning, which also makes teachers and baselines: push the folder "
                "of the student afterwards with `hf-distill push FOLDER REPO`."
            )
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = HEADLINE
        super().__post_init__()
        self.warmup_steps = warmup_steps

    def with_task_defaults(self, spec: TaskSpec) -> FineTuningArguments:
        """A copy in which everything left unset has the task's value.

        Raises:
            ValueError: If the best checkpoint is to be chosen by a score that the task does not have.
        """
        metric = (self.metric_for_best_model or HEADLINE).removeprefix("eval_")
        # Scores of words and answers have parts of other names.
        if spec.kind == "text_classification" and metric not in (HEADLINE, "loss", *spec.metrics):
            raise ValueError(
                f"`--metric_for_best_model {metric}` is not measured on task {spec.name!r}; measured are loss, "
                f"{', '.join(spec.metrics)} (`--metrics`), and {HEADLINE} is the main one of them."
            )
        return self.with_defaults(spec.fine_tuning, spec.headline)

    def with_defaults(self, defaults: FineTuningDefaults, headline: str) -> Self:
        """A copy in which everything left unset has the given value.

        The batch of the defaults is that of one update: it is shared out over devices and accumulation steps.

        Args:
            defaults: Settings of a task.
            headline: Its main score, by which the best checkpoint is chosen.
        """
        shares = max(1, self.world_size * max(1, self.n_gpu) * self.gradient_accumulation_steps)
        values = {
            "learning_rate": defaults.learning_rate,
            "num_train_epochs": defaults.epochs,
            "per_device_train_batch_size": max(1, defaults.batch_size // shares),
            "warmup_steps": defaults.warmup,
            "weight_decay": defaults.weight_decay,
        }
        filled = copy.copy(self)
        for name, value in values.items():
            if getattr(filled, name) is None:
                setattr(filled, name, value)
        if filled.metric_for_best_model == HEADLINE:
            filled.metric_for_best_model = headline
        return filled
