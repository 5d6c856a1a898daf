"""Counts the cost of a training from its first step, however often it was stopped and resumed.

`Trainer` only measures one call of `train`: if a training of a week is resumed from its last checkpoint, the reported
time and loss are those of the last steps. Therefore every checkpoint has, in `trainer_state.json`, the time and the
summed loss until then.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import TrainerState
from transformers.trainer_utils import TrainOutput

# Name in `TrainerState.stateful_callbacks`, the part of the state that may hold more than its own fields.
ENTRY = "WholeRun"


@dataclass(frozen=True)
class WholeRun:
    """A training from its first step on.

    Attributes:
        steps: Updates.
        seconds: Time of all calls of `train`, up to the checkpoints that were continued; `None` if the first of these
            does not tell.
        train_loss: Mean of the logged loss over all steps; likewise, and `None` where there was no step.
    """

    steps: int
    seconds: float | None
    train_loss: float | None

    def facts(self) -> dict[str, Any]:
        """Its fields as they stand in `results.json`."""
        seconds = None if self.seconds is None else round(self.seconds, 2)
        return {"steps": self.steps, "train_loss": self.train_loss, "training_seconds": seconds}


@dataclass(frozen=True)
class _Spent:
    """The cost of steps together; `None` where it is not known."""

    seconds: float | None = 0.0
    loss_sum: float | None = 0.0

    def and_then(self, seconds: float, loss_sum: float) -> _Spent:
        """The cost of these steps and of further ones."""
        return _Spent(
            None if self.seconds is None else self.seconds + seconds,
            None if self.loss_sum is None else self.loss_sum + loss_sum,
        )


@dataclass
class RunCosts:
    """The costs of one call of `train`, and of what the checkpoint that it continues had cost before."""

    _began: float = field(default_factory=time.perf_counter)
    _before: _Spent | None = None
    _first_step: int = 0

    def before(self, state: TrainerState) -> _Spent:
        """The cost that the continued checkpoint notes: asked when it is loaded, before another one is written."""
        if self._before is None:
            self._first_step = state.global_step
            entry: Any = state.stateful_callbacks
            found = entry.get(ENTRY) if isinstance(entry, dict) else None
            unknown = _Spent(None, None) if self._first_step else _Spent()
            self._before = unknown if found is None else _Spent(**found["attributes"])
        return self._before

    def note(self, state: TrainerState, loss_sum: float) -> None:
        """Write the cost until now into the state that a checkpoint will hold.

        Args:
            state: Of the training.
            loss_sum: Sum of the losses of this call's steps.
        """
        if isinstance(state.stateful_callbacks, dict):
            spent = self.before(state).and_then(time.perf_counter() - self._began, loss_sum)
            state.stateful_callbacks[ENTRY] = {"args": {}, "attributes": asdict(spent)}

    def whole(self, state: TrainerState, output: TrainOutput) -> WholeRun:
        """The training from its first step on, once a call of `train` is over."""
        steps, before = state.global_step, self.before(state)
        seconds, loss_sum = output.metrics["train_runtime"], output.training_loss * (steps - self._first_step)
        spent = before.and_then(seconds, loss_sum)
        return WholeRun(steps, spent.seconds, None if spent.loss_sum is None or not steps else spent.loss_sum / steps)
