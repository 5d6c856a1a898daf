"""Rows without a known length (streams): the last update of an epoch, and the row at which a training resumes.

`Trainer` counts the batches of an epoch by the number of rows. A stream has no such number, so the rest of an epoch,
less than an update, would be added to the first update of the next epoch, and a training that is resumed after the
first epoch would continue with other rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME


class NoRows(dict[str, Any]):
    """A micro-batch without rows, with the columns of another."""

    def __init__(self, like: Mapping[str, Any]) -> None:
        """Take no row of a batch."""
        super().__init__({name: value[:0] if isinstance(value, Tensor) else value for name, value in like.items()})


def whole_update(batches: list[Any], number: int) -> list[Any]:
    """The micro-batches of an update, as many as it should have, where the rows ended before.

    Those without rows come first: in several processes the last one brings the gradients together.

    Args:
        batches: What is left of a pass, perhaps nothing.
        number: Micro-batches of an update.
    """
    return [NoRows(batches[0])] * (number - len(batches)) + batches if batches else batches


def place_in_stream(checkpoint: str, accumulation_steps: int) -> tuple[int, int]:
    """Passes over a stream that a checkpoint had ended, and micro-batches of the one that it had begun.

    Args:
        checkpoint: Its folder.
        accumulation_steps: Micro-batches of an update.
    """
    state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
    # `Trainer` takes a pass to be as long as the whole training.
    passes = int(state.epoch or 0)
    return passes, round(((state.epoch or 0) - passes) * state.max_steps * accumulation_steps)
