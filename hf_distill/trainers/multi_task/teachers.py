"""Teachers of single tasks, whose predictions on a micro-batch the student's are compared with.

Shape legend: B rows, T padded length, C outputs of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_distill.capture.signals import SignalRequest
from hf_distill.objectives.logits import soft_binary_loss, soft_loss
from hf_distill.settings.distill import CombinationRule
from hf_distill.tasks.rows.words import IGNORED
from hf_distill.tasks.spec import TaskSpec
from hf_distill.teachers.base import TeacherSource
from hf_distill.teachers.combination import combine_logits

SPANS = ("start_logits", "end_logits")


class TaskTeachers:
    """The teachers of every task that has some; a task with several learns from the mean of their probabilities."""

    def __init__(self, teachers: Mapping[str, Sequence[TeacherSource]], temperature: float) -> None:
        """Take the teachers.

        Args:
            teachers: Task -> its teachers.
            temperature: Divides the logits on both sides.
        """
        self.teachers = {task: list(found) for task, found in teachers.items() if found}
        self.temperature = temperature
        self._problem_types: dict[str, str | None] = {}

    def connect(self, configs: Mapping[str, Any], device: torch.device) -> None:
        """Ask every teacher for its predictions, and compare its labels with the task's.

        Args:
            configs: Task -> configuration of the trained model with the task's head.
            device: Where training takes place.

        Raises:
            ValueError: If a teacher's vocabulary or labels do not fit.
        """
        self._problem_types = {task: config.problem_type for task, config in configs.items()}
        for task, found in self.teachers.items():
            for teacher in found:
                teacher.ask_for(SignalRequest(logits=True), configs[task])
                teacher.to(device)

    def targets(self, task: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits by name, whose probabilities at the temperature are the mean of the teachers'; none without one.

        In regression they are the mean of the values; padding is no place of an answer, and has no probability.
        """
        found = [teacher.signals(inputs) for teacher in self.teachers.get(task, ())]
        if not found:
            return {}
        mask, problem = found[0].attention_mask, self._problem_types.get(task)
        weights = torch.full((len(found),), 1 / len(found), device=mask.device)
        rule: CombinationRule = "mean_logits" if problem == "regression" else "mean_probabilities"
        logits = [signals.logits for signals in found]
        return combine_logits(logits, rule, weights, mask, temperature=self.temperature, problem_type=problem)

    def fingerprint(self) -> dict[str, list[dict[str, str]]]:
        """Return the values that identify the teachers; a resumed run must find the same."""
        return {task: [teacher.fingerprint() for teacher in found] for task, found in self.teachers.items()}


def soft_task_loss(
    spec: TaskSpec,
    outputs: Mapping[str, Any],
    targets: Mapping[str, Tensor],
    temperature: float,
    shown: Tensor | None,
    *,
    scale_by_squared_temperature: bool = True,
) -> Tensor:
    """Mean soft cross-entropy over rows, words, or starts and ends.

    Args:
        spec: The task; in regression the loss is the squared error of the values, with several labels a row the mean
            of the binary cross-entropies.
        outputs: The student's, by name.
        targets: The teachers'.
        temperature: Divides the logits on both sides.
        shown: Which distributions count (B, T) for words; `None`: all.
        scale_by_squared_temperature: Multiply by the square of the temperature (not in regression).
    """
    factor = temperature**2 if scale_by_squared_temperature else 1.0
    parts = []
    for name, target in targets.items():
        if spec.problem_type == "regression":
            parts.append(soft_loss(outputs[name], target, "mse", 1.0).mean())
            continue
        each = soft_binary_loss if spec.several_labels else soft_loss
        values = each(outputs[name], target, "ce", temperature) * factor
        parts.append(values.mean() if shown is None else (values * shown).sum() / shown.sum().clamp(min=1))
    return torch.stack(parts).mean()


def shown_positions(spec: TaskSpec, labels: Tensor | None) -> Tensor | None:
    """Return 1 for every word that has a label, else 0, (B, T); `None` for tasks about rows and answers."""
    if spec.kind != "token_classification" or labels is None:
        return None
    return (labels != IGNORED).float()


def without_padding(outputs: Mapping[str, Any], attention_mask: Tensor | None) -> dict[str, Tensor]:
    """Return the outputs of a head by name; starts and ends on padding get the lowest score that there is."""
    found = {name: value for name, value in outputs.items() if name in ("logits", *SPANS)}
    if attention_mask is None:
        return found
    padding = ~attention_mask.bool()
    return {
        name: value.masked_fill(padding, torch.finfo(value.dtype).min) if name in SPANS else value
        for name, value in found.items()
    }
