"""Counts the cost of a training from its first step on, however often it was stopped and resumed.

`Trainer` measures the call of `train` alone: resumed from its last checkpoint, a training of a week took no time and
had no loss. Every checkpoint therefore says, in `trainer_state.json`, what was spent and lost until then.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from .distillation.checkpoints import CheckpointedTrainer

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


class WholeRunTrainer(CheckpointedTrainer):
    """A `Trainer` that knows what its training took before it was resumed."""

    _before: _Spent | None = None
    _first_step = 0
    _began = 0.0
    _whole: WholeRun | None = None

    @property
    def tells_whole_run(self) -> bool:
        """Whether checkpoints say what was spent; otherwise they are those of `Trainer`."""
        return True

    @property
    def whole_run(self) -> WholeRun:
        """The training that ended last.

        Raises:
            RuntimeError: If none has ended.
        """
        if self._whole is None:
            raise RuntimeError("No training has ended: call `train` first.")
        return self._whole

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`; what it returns is about this call alone, `whole_run` about all of them."""
        self._before, self._began = None, time.perf_counter()
        output = super().train(*args, **kwargs)
        before = self._spent_before()
        steps = self.state.global_step
        here = _Spent(output.metrics["train_runtime"], output.training_loss * (steps - self._first_step))
        seconds, loss_sum = _add(before.seconds, here.seconds), _add(before.loss_sum, here.loss_sum)
        self._whole = WholeRun(steps, seconds, None if loss_sum is None or not steps else loss_sum / steps)
        return output

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`."""
        self._spent_before()
        return super().training_step(model, inputs, *args, **kwargs)

    def _spent_before(self) -> _Spent:
        """Read the cost that the continued checkpoint notes; asked before another one is written."""
        if self._before is None:
            self._first_step = self.state.global_step
            entry: Any = self.state.stateful_callbacks
            found = entry.get(ENTRY) if isinstance(entry, dict) else None
            unknown = _Spent(None, None) if self._first_step else _Spent()
            self._before = unknown if found is None else _Spent(**found["attributes"])
        return self._before

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.tells_whole_run and isinstance(self.state.stateful_callbacks, dict):
            before = self._spent_before()
            # On the device since the last log.
            loss_sum = self._total_loss_scalar + float(getattr(self, "_tr_loss", 0.0))
            spent = _Spent(_add(before.seconds, time.perf_counter() - self._began), _add(before.loss_sum, loss_sum))
            self.state.stateful_callbacks[ENTRY] = {"args": {}, "attributes": asdict(spent)}
        super()._save_checkpoint(model, trial)


def _add(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
