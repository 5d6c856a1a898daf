"""Callbacks of a distillation: progress for a person to see, and the number of epochs for schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length


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

    The lines with all values, one a log, are those of the stock bar.
    """

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
        super().on_log(args, state, control, logs=logs, **kwargs)
        if state.is_world_process_zero and self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix_str(terms_of(logs or {}), refresh=True)

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


def terms_of(logs: dict[str, Any]) -> str:
    """The loss and its terms of one log entry, short: `loss 1.24, relation/qq 0.31`."""
    names = [name for name in logs if name == "loss" or name.startswith("loss/")]
    return ", ".join(f"{name.removeprefix('loss/')} {float(logs[name]):.3g}" for name in names)
