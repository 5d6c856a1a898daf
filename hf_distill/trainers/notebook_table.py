"""The table of a training in a notebook: that of transformers, with headings in words.

It needs IPython, so that it is imported where a notebook is the place of the training.
"""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy
from transformers.utils.notebook import NotebookProgressCallback

# What an evaluation calls its values -> the heading; the braces are what stands behind the slash.
HEADINGS = {
    "loss": "Loss of {}",
    "kl": "Divergence from the teacher ({})",
    "agreement": "Agreement with the teacher ({})",
    "task": "{} on the task",
    "probe": "{} of a linear probe",
    "vectors": "{} of the vectors",
}


def heading(name: str) -> str:
    """A name in the log without `eval_` as words: `kl/logits` is "Divergence from the teacher (logits)".

    Names without a slash, which transformers has too, stay as they are. Behind the words stands the evaluation set,
    where there are several.
    """
    family, slash, rest = name.partition("/")
    evaluation_set, _, kind = family.rpartition("_")
    if not slash or kind not in HEADINGS:
        return name
    # The table would cut at an underscore.
    words = f"{rest.replace('/', ', ')}|{evaluation_set}".replace("_", " ").partition("|")
    return HEADINGS[kind].format(words[0]) + (f", {words[2]}" if words[2] else "")


class TermsInNotebookTable(NotebookProgressCallback):
    """A row for every evaluation, or for every log where nothing is evaluated, with the terms of the loss."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the row, and the terms beside the loss."""
        super().on_log(args, state, control, logs=logs or {}, **kwargs)
        terms = {heading(name): value for name, value in (logs or {}).items() if name.startswith("loss/")}
        if args.eval_strategy == IntervalStrategy.NO and terms and self.training_tracker is not None:
            self.training_tracker.write_line({"Step": state.global_step, **terms})

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the row; an evaluation outside of a training has its values returned, and no table of one row."""
        if self.training_tracker is None:
            if self.prediction_bar is not None:
                self.prediction_bar.close()
            self.prediction_bar = None
            return
        # The agreement of all is that of one objective, which has a column of its own.
        shown = dict(metrics or {})
        if any(name.startswith("eval_agreement/") for name in shown):
            shown.pop("eval_agreement", None)
        renamed = {
            f"eval_{heading(name.removeprefix('eval_'))}" if name.startswith("eval_") else name: value
            for name, value in shown.items()
        }
        super().on_evaluate(args, state, control, metrics=renamed, **kwargs)


def show_terms(trainer: Trainer) -> None:
    """Put this table in the place of the stock one; a trainer without one stays as it is."""
    if trainer.pop_callback(NotebookProgressCallback) is not None:
        trainer.add_callback(TermsInNotebookTable())
