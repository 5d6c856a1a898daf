"""Callbacks of trainings: the progress bar, epochs for schedules, and gradual unfreezing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import transformers.trainer
from torch import nn
from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import has_length

from ..capture.architectures import describe_architecture


def epochs_in(max_steps: int, loader: Any, accumulation_steps: int) -> float | None:
    """Passes over the rows in `max_steps` updates of so many batches each; `None` for rows without a length."""
    if not has_length(loader):
        return None
    return max_steps / max(1, -(-len(loader) // accumulation_steps))


class CountsEpochs(TrainerCallback):
    """Tells the schedules of the trained model, when the training begins, how many epochs it has."""

    def __init__(self, model: Callable[[], Any]) -> None:
        """Make the callback; `model` gives the `DistillationModel` of the moment (a search makes several)."""
        self._model = model

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Count them."""
        epochs = epochs_in(state.max_steps, train_dataloader, args.gradient_accumulation_steps)
        self._model().count_epochs(epochs)


class TermsInProgressBar(ProgressCallback):
    """The stock progress bar with the last loss and its terms at its end, and a bar for every pass of an evaluation.

    The lines with all values, one a log, are those of the stock bar, unless `writes_logs` is off.

    Attributes:
        label: Whose training it is, where several take place at once.
    """

    writes_logs = True
    label = ""
    training_bar: Any
    prediction_bar: Any
    _loader: Any = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the line, and the terms into the bar."""
        if self.writes_logs or any(name.startswith("eval_") for name in logs or ()):
            named = {"student": self.label} if self.label else {}
            super().on_log(args, state, control, logs={**named, **(logs or {})}, **kwargs)
        if state.is_world_process_zero and self.training_bar is not None and "loss" in (logs or {}):
            if self.label:
                self.training_bar.set_description(self.label, refresh=False)
            # In a file every refresh is one more line.
            self.training_bar.set_postfix_str(terms_of(logs or {}), refresh=sys.stderr.isatty())

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Begin a new bar where a new pass begins, such as that over the rows of a task."""
        if eval_dataloader is not self._loader and self.prediction_bar is not None:
            self.prediction_bar.close()
            self.prediction_bar = None
        self._loader = eval_dataloader
        super().on_prediction_step(args, state, control, eval_dataloader=eval_dataloader, **kwargs)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar and forget its rows."""
        self._loader = None
        super().on_evaluate(args, state, control, **kwargs)


@contextmanager
def one_line_trainings() -> Iterator[None]:
    """Every training shows one line with its last loss and terms, and a line an evaluation; notebooks keep a table."""
    before = transformers.trainer.DEFAULT_PROGRESS_CALLBACK
    if before is ProgressCallback:
        transformers.trainer.DEFAULT_PROGRESS_CALLBACK = TermsInProgressBar
    TermsInProgressBar.writes_logs = False
    try:
        yield
    finally:
        transformers.trainer.DEFAULT_PROGRESS_CALLBACK = before
        TermsInProgressBar.writes_logs = True


def terms_of(logs: dict[str, Any]) -> str:
    """The loss and its terms of one log entry, short: `loss 1.24, relation/qq 0.31`."""
    names = [name for name in logs if name == "loss" or name.startswith("loss/")]
    return ", ".join(f"{name.removeprefix('loss/')} {float(logs[name]):.3g}" for name in names)


class GradualUnfreezing(TrainerCallback):
    """Trains only the top of the student for a while (XtremeDistil; Howard and Ruder 2018).

    Until the share `start` of the steps everything is trained. At `start` all but the head is frozen; then one layer
    after the other is unfrozen, from the top down and at equal distances, and at `end` the embeddings too. What is
    frozen depends only on the progress, so a resumed run freezes the same parameters. Frozen parameters get no
    gradient, so clipping, weight decay and Adam's averages do not include them.
    """

    def __init__(self, start: float = 0.0, end: float = 0.5) -> None:
        """Make the callback.

        Args:
            start: Share of the steps at which the student is frozen.
            end: Share of the steps at which everything is free again.

        Raises:
            ValueError: If the shares do not rise within 0 and 1.
        """
        if not 0 <= start < end <= 1:
            raise ValueError(f"`--gradual_unfreezing` is [{start}, {end}]; give two rising shares of the steps.")
        self.start, self.end = start, end
        self._groups: list[list[nn.Parameter]] = []

    def num_free(self, progress: float, num_groups: int) -> int:
        """Return how many groups below the head train at `progress`, counted from the top."""
        if not self.start <= progress < self.end:
            return num_groups
        return int((progress - self.start) / (self.end - self.start) * num_groups)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Find what can be frozen; parameters that are frozen already stay so."""
        if args.fsdp or args.deepspeed:
            raise ValueError("`--gradual_unfreezing` works without FSDP and DeepSpeed only: they shard parameters.")
        if args.world_size > 1 and args.ddp_find_unused_parameters is False:
            raise ValueError("`--gradual_unfreezing` on several processes needs `--ddp_find_unused_parameters true`.")
        objectives = getattr(model, "objectives", {})
        if objectives and not any(objective.student_request.logits for objective in objectives.values()):
            raise ValueError(
                "`--gradual_unfreezing` trains the head alone at first, but no objective reads the head: add `logits` "
                f"or `labels` to {sorted(objectives)}."
            )
        self._groups = groups_from_top(getattr(model, "student", model))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze and free for the optimizer step to come."""
        free = self.num_free(state.global_step / max(1, state.max_steps), len(self._groups))
        for index, group in enumerate(self._groups):
            for parameter in group:
                parameter.requires_grad_(index < free)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave a student that trains everywhere, as it was."""
        self.free()

    def free(self) -> None:
        """Free what is frozen, also where a training was broken off."""
        for group in self._groups:
            for parameter in group:
                parameter.requires_grad_(True)
        self._groups = []


def groups_from_top(student: nn.Module) -> list[list[nn.Parameter]]:
    """The trainable parameters of every layer, the last layer first, and those of the embeddings."""
    architecture = describe_architecture(student)
    layers = [list(layer.parameters()) for layer in reversed(architecture.layer_list())]
    inside = {id(parameter) for layer in layers for parameter in layer}
    embeddings = [
        parameter
        for name, parameter in architecture.base.named_parameters()
        if "embed" in name and id(parameter) not in inside
    ]
    return [[parameter for parameter in group if parameter.requires_grad] for group in (*layers, embeddings)]
