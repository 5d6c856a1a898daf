"""Ends a training that diverges with one line, which names the step, the term, and the model that caused it.

Terms, loss, gradient and the teacher's signals are checked on the device (`capture.signals.FiniteWatch`). The result
is read when a training waits for the device anyway: at every log, before a checkpoint, and at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ..capture.signals import FiniteWatch
from ..storage.plain_values import NotFiniteError, listed

LOSS, GRADIENT, OUTPUT, WEIGHT = "loss", "gradient", "output: ", "weight: "
# Whose fault it may be; alone they do no harm: padding may hold anything, and not every label is read.
TARGETS = TEACHER, LABELS = "teacher: ", "labels: "


def end_if_not_finite(watch: FiniteWatch, accelerator: Accelerator) -> None:
    """End a training if something that was watched was not finite; called in all processes at once.

    Args:
        watch: Its numbers have names that begin with the constants of this module, or are those of loss terms.
        accelerator: Knows the processes.

    Raises:
        NotFiniteError: If something was not finite.
    """
    found = watch.first_steps()
    first = min((step for name, step in found.items() if not name.startswith(TARGETS)), default=0)
    # The number of a step is above 0.
    steps = accelerator.gather(torch.tensor([first], device=accelerator.device)).tolist()
    step = min((one for one in steps if one > 0), default=0)
    if step == 0:
        return
    here = [name for name, at in found.items() if at == step or (at < step and name.startswith(TARGETS))]
    names = list(dict.fromkeys(gather_object(here))) if accelerator.num_processes > 1 else here
    raise NotFiniteError(_message(step, names))


def moments_of(optimizer: Any) -> dict[str, Tensor]:
    """Return what an optimizer keeps of every weight, which a checkpoint would hand on to the next step."""
    states = enumerate(getattr(getattr(optimizer, "optimizer", optimizer), "state", {}).values())
    return {
        f"{name} of the optimizer, weight {place}": value
        for place, state in states
        if isinstance(state, Mapping)
        for name, value in state.items()
    }


def _message(step: int, names: list[str]) -> str:
    """Say what was not finite, where that came from, and what to do."""
    labels, teacher, weights = (
        [name.removeprefix(kind) for name in names if name.startswith(kind)] for kind in (LABELS, TEACHER, WEIGHT)
    )
    terms = [n for n in names if n not in (LOSS, GRADIENT) and not n.startswith((*TARGETS, WEIGHT, OUTPUT))]
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
