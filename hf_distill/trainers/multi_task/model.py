"""One encoder with the heads of many tasks.

Each head is that of the transformers model for its kind of task (`AutoModelFor...`), without an encoder of its own, so
that encoder and head can be saved as a plain model at any time.

Shape legend: B rows, T padded length, C outputs of a head.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_distill.capture.architectures import without_adapters
from hf_distill.capture.batch import reading
from hf_distill.settings import TeacherArguments
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.task_models import load_task_model, task_config, wrap_in_lora


class MultiTaskModel(nn.Module):
    """An encoder and a head for each task.

    Attributes:
        encoder: The shared encoder, possibly with LoRA around it.
        heads: Task (dots replaced, see `key`) -> the task's model without its encoder.
        config: Configuration of the encoder.
    """

    def __init__(self, encoder: Any, models: Mapping[str, PreTrainedModel]) -> None:
        """Put the heads of `models` on `encoder`.

        Args:
            encoder: The encoder; a pooler that a head needs and it lacks is added.
            models: Task -> a model of the same architecture with the task's head; its encoder is dropped.

        Raises:
            ValueError: If the architectures differ.
        """
        super().__init__()
        kinds = sorted({model.config.model_type for model in (encoder, *models.values())})
        if len(kinds) != 1:
            raise ValueError(f"Tasks share one encoder, so their models are of one architecture; these are {kinds}.")
        self.config = encoder.config
        self.prefixes = {name: model.base_model_prefix for name, model in models.items()}
        if getattr(encoder, "pooler", None) is None:
            poolers = [getattr(model.base_model, "pooler", None) for model in models.values()]
            encoder.pooler = next((pooler for pooler in poolers if pooler is not None), None)
        for name, model in models.items():
            delattr(model, self.prefixes[name])
        self.encoder: Any = encoder
        self.heads = nn.ModuleDict({key(name): model for name, model in models.items()})
        self._connect()

    def _connect(self) -> None:
        """Let every head find the encoder under its name, without owning it."""
        for name, prefix in self.prefixes.items():
            # Past `nn.Module.__setattr__`, which would make the encoder's weights a part of every head.
            object.__setattr__(self.heads[key(name)], prefix, self.plain_encoder)

    @property
    def plain_encoder(self) -> Any:
        """The encoder itself, with the layers of LoRA in it while that trains."""
        return without_adapters(self.encoder)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.prefixes)

    def add_lora(self, arguments: TeacherArguments) -> None:
        """Train low-rank matrices in the encoder instead of its weights; heads train in full.

        Raises:
            ImportError: If peft is not installed.
            ValueError: If peft knows no target modules for the architecture and none were given.
        """
        self.encoder = wrap_in_lora(self.encoder, arguments, "FEATURE_EXTRACTION")
        self._connect()

    def merge_lora(self) -> None:
        """Add LoRA's matrices to the weights; without LoRA nothing changes."""
        if hasattr(self.encoder, "merge_and_unload"):
            self.encoder = self.encoder.merge_and_unload()
            self._connect()

    def forward(self, task: str, **inputs: Tensor) -> Any:
        """Output of a task's head: `logits` (B, C) or (B, T, C), or `start_logits` and `end_logits` (B, T)."""
        with reading(inputs.get("attention_mask")) if not torch.compiler.is_compiling() else nullcontext():
            return self.heads[key(task)](**inputs)

    def task_model(self, task: str) -> PreTrainedModel:
        """The plain model of one task; it shares the weights.

        Raises:
            KeyError: If there is no such task.
        """
        head: Any = self.heads[key(task)]
        whole = copy.copy(head)
        del whole.__dict__[self.prefixes[task]]
        whole.__dict__["_modules"] = {self.prefixes[task]: self.plain_encoder, **head._modules}
        return whole


def key(task: str) -> str:
    """A task's name as a name of a module, which has no dots."""
    return task.replace(".", "·")


def multi_task_model(
    encoder: str | PreTrainedModel,
    specs: Sequence[TaskSpec],
    *,
    flag: str = "--teacher_model",
    revision: str | None = None,
) -> MultiTaskModel:
    """An encoder with a new head for each task, or the stored head where the model has the task's.

    Args:
        encoder: Hub id or folder of a model, or a model, with or without a head; a model itself is used, not copied.
        specs: The tasks.
        flag: The argument that carried a name, for errors.
        revision: Branch, tag or commit.

    Raises:
        OSError: If there is no such model.
        ValueError: If two tasks have one name.
    """
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"Tasks are told apart by their names; these are {names}.")
    if isinstance(encoder, str):
        models = {spec.name: load_task_model(encoder, spec, flag=flag, revision=revision) for spec in specs}
        return MultiTaskModel(next(iter(models.values())).base_model, models)
    models = {
        spec.name: head_of(spec).auto_class.from_config(task_config(encoder.config, spec), dtype=torch.float32)
        for spec in specs
    }
    return MultiTaskModel(encoder.base_model, models)
