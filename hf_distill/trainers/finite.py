"""A training that diverges ends with one line, which names the step, the term and the side it came from.

Terms, loss, gradient and what the teacher said are watched on the device. They are looked at where a training waits
anyway: at every log, before a checkpoint, and at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from ..capture.signals import Signals, named_signals
from ..storage.finite import FiniteWatch, NotFiniteError, check_weights, listed
from .distillation.chance import without_chance
from .whole_run import WholeRunTrainer

LOSS, GRADIENT, OUTPUT, WEIGHT = "loss", "gradient", "output: ", "weight: "
# Whose fault it may be; alone they do no harm: padding may hold anything, and not every label is read.
SIDES = TEACHER, LABELS = "teacher: ", "labels: "


class FiniteTrainer(WholeRunTrainer):
    """A `Trainer` that stops with an error once a number that counts is NaN or infinite, and saves no such model.

    With fp16, gradients may be infinite: the scaler skips such a step.
    """

    accelerator: Any
    model: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As `Trainer`."""
        self._watch = FiniteWatch()
        self._last_batch: Any = None
        super().__init__(*args, **kwargs)

    @property
    def stops_if_not_finite(self) -> bool:
        """Whether such numbers end the training; otherwise it behaves as `Trainer` does."""
        return True

    @property
    def marks_checkpoints(self) -> bool:
        """Whether checkpoints have a marker: not where this behaves as `Trainer` does."""
        return self.stops_if_not_finite

    @property
    def tells_whole_run(self) -> bool:
        """Whether checkpoints say what was spent: not where this behaves as `Trainer` does."""
        return self.stops_if_not_finite

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`.

        Raises:
            NotFiniteError: If a loss, a gradient or a weight of the student is not finite.
        """
        self._watch = FiniteWatch()
        try:
            return super().train(*args, **kwargs)
        finally:
            self._last_batch = None

    def watch(self, values: Mapping[str, Any]) -> None:
        """Look at numbers of the step that is being computed."""
        if self.stops_if_not_finite:
            self._watch.see(self.state.global_step + 1, values)

    def watch_teacher(self, signals: Signals | Mapping[str, Signals] | None, inputs: Mapping[str, Any]) -> None:
        """Look at what the teacher says to a batch, and at its labels."""
        if not self.stops_if_not_finite:
            return
        sides = {LABELS + name: value for name, value in inputs.items() if "label" in name}
        by_objective = signals if isinstance(signals, Mapping) else {"": signals}
        # Objectives that learn from one teacher share what it said.
        for one in {id(one): one for one in by_objective.values() if isinstance(one, Signals)}.values():
            sides |= {TEACHER + name: value for name, value in named_signals(one)}
        self.watch(sides)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """As in `Trainer`; the loss is watched."""
        self._last_batch = inputs
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.watch({LOSS: loss})
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if getattr(self.accelerator, "scaler", None) is None:
            self.watch({GRADIENT: norm})
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `Trainer`, once everything is known to be finite."""
        if "loss" in logs:
            self.check_finite()
        elif "train_loss" in logs:
            self.check_student()
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in `Trainer`.

        Raises:
            NotFiniteError: If a weight is not finite.
        """
        if self.stops_if_not_finite:
            check_weights(self.model, "Nothing is saved: the trained")
        super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_student()
        super()._save_checkpoint(model, trial)

    def check_student(self) -> None:
        """Check what the last update made: the weights, and what the student says with them to the last rows.

        In all processes at once.

        Raises:
            NotFiniteError: If something is not finite.
        """
        if not self.stops_if_not_finite:
            return
        step = self.state.global_step
        # Sharded models speak in training only.
        if self._last_batch is not None and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            self._watch.see(step, {OUTPUT + name: value for name, value in self._say_again().items()})
        self._watch.see(step, {WEIGHT + name: values for name, values in self.model.named_parameters()})
        self._watch.see(step, {WEIGHT + name: values for name, values in self._moments().items()})
        self.check_finite()

    def _moments(self) -> dict[str, Tensor]:
        """Return what the optimizer keeps of every weight, which a checkpoint would hand on to the next step."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        states = enumerate(getattr(optimizer, "state", {}).values())
        return {
            f"{name} of the optimizer, weight {place}": value
            for place, state in states
            if isinstance(state, Mapping)
            for name, value in state.items()
        }

    @torch.no_grad()
    def _say_again(self) -> dict[str, Tensor]:
        """Return the student's outputs for the last rows with the weights as they are now; draws no random number."""
        training = self.model.training
        self.model.eval()
        try:
            with without_chance(self.args.device), self.compute_loss_context_manager(), self.accelerator.autocast():
                return self.outputs_of(self._prepare_inputs(self._last_batch))
        finally:
            self.model.train(training)

    def outputs_of(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the student's outputs for a batch, by name."""
        outputs: Any = self.model(**{name: value for name, value in batch.items() if name != "labels"})
        return {name: value for name, value in outputs.items() if isinstance(value, Tensor)}

    def check_finite(self) -> None:
        """Check everything that was watched since the training began; in all processes at once.

        Raises:
            NotFiniteError: If something was not finite.
        """
        if not self.stops_if_not_finite:
            return
        found = self._watch.first_steps()
        first = min((step for name, step in found.items() if not name.startswith(SIDES)), default=0)
        # The number of a step is above 0.
        steps = self.accelerator.gather(torch.tensor([first], device=self.args.device)).tolist()
        step = min((one for one in steps if one > 0), default=0)
        if step == 0:
            return
        here = [name for name, at in found.items() if at == step or (at < step and name.startswith(SIDES))]
        names = list(dict.fromkeys(gather_object(here))) if self.accelerator.num_processes > 1 else here
        raise NotFiniteError(_message(step, names))


def _message(step: int, names: list[str]) -> str:
    """Say what was not finite, where that came from, and what to do."""
    labels, teacher, weights = (
        [name.removeprefix(kind) for name in names if name.startswith(kind)] for kind in (LABELS, TEACHER, WEIGHT)
    )
    terms = [n for n in names if n not in (LOSS, GRADIENT) and not n.startswith((*SIDES, WEIGHT, OUTPUT))]
    if terms:
        what = f"the loss of {listed(terms)}"
    elif LOSS in names:
        what = "the loss"
    elif GRADIENT in names:
        what = "the gradient"
    else:
        what = (
            f"a weight after the update ({listed(weights)})" if weights else "what the student says after the update"
        )
    if labels:
        why = f"{listed(labels)} of the rows are not finite: mend them, or leave out rows without a label"
    elif teacher:
        why = f"the teacher's {listed(teacher)} are not finite: look at its weights, or at `--teacher_dtype`"
    else:
        why = "the student diverged: lower `--learning_rate`, clip with `--max_grad_norm`, or leave out `--fp16`"
    return f"Step {step}: {what} is not finite (NaN or infinite); {why}. Nothing of this step is saved."
