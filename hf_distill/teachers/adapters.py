"""Several LoRA adapters on one base model: several teachers in the memory of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from .._optional import require
from ..capture.signals import Signals
from ..hub.loading import load_model, update_digest
from .base import LiveTeacher
from .offload import weights_of


class AdapterTeacher(LiveTeacher):
    """One adapter of a `PeftModel` that other teachers share; it is switched on before each of its passes.

    Nothing of the shared model is trained. Label names are those of the base model's configuration.
    """

    def __init__(
        self, model: Any, adapter: str, dtype: str = "auto", device: str | torch.device | None = None
    ) -> None:
        """Freeze the shared model.

        Args:
            model: A `PeftModel` that has the adapter.
            adapter: Its name in the model.
            dtype: Arithmetic of the forward pass, as for `LiveTeacher`, but not int8.
            device: Where it stays, as for `LiveTeacher`.

        Raises:
            ValueError: If the model has no such adapter.
        """
        known = sorted(getattr(model, "peft_config", {}))
        if adapter not in known:
            raise ValueError(f"{type(model).__name__} has no adapter {adapter!r}; it has {known}.")
        super().__init__(model, dtype, device)
        self.adapter = adapter

    def signals(self, inputs: Mapping[str, Tensor]) -> Signals:
        """The requested signals for one batch, through the own adapter."""
        if self.model.active_adapter != self.adapter:
            self.model.set_adapter(self.adapter, inference_mode=True)
        return super().signals(inputs)

    def source(self) -> dict[str, str | None]:
        """Where the base model came from, under a name with the adapter's."""
        source = super().source()
        return {**source, "name": f"{source['name']} with adapter {self.adapter}"}

    def fingerprint(self) -> dict[str, str]:
        """Class and a hash of the weights of base and own adapter; other adapters do not count."""
        peft = require("peft", extra="peft", needed_by="`adapter_teachers`")
        # The embeddings are in the base; to decide whether they changed, peft would ask the Hub.
        own = peft.get_peft_model_state_dict(self.model, adapter_name=self.adapter, save_embedding_layers=False)
        others = set(self.model.peft_config)
        digest = xxhash.xxh3_128()
        for name, weight in weights_of(self.model.get_base_model()):
            if others.isdisjoint(name.split(".")):
                update_digest(digest, {name: weight})
        update_digest(digest, own)
        return {"teacher": type(self.model.get_base_model()).__name__, "teacher_weights": digest.hexdigest()}


def adapter_teachers(
    base: nn.Module | str,
    adapters: Sequence[str | PathLike[str]],
    dtype: str = "auto",
    device: str | torch.device | None = None,
) -> list[AdapterTeacher]:
    """Make one teacher of each adapter; all share one base model in memory.

    Args:
        base: The model that the adapters were trained on, as an instance, a Hub id or a folder. It becomes part of
            the teachers.
        adapters: Hub ids or folders of the adapters, with the heads that were saved in them.
        dtype: Arithmetic of the forward pass, as for `LiveTeacher`, but not int8.
        device: Where all of them stay, as for `LiveTeacher`.

    Returns:
        Teachers for `MultiTeacherTrainer`, in the order of `adapters`.

    Raises:
        ValueError: If there is no adapter, or one that cannot be switched (prompt learning).
    """
    if not adapters:
        raise ValueError("`adapters` is empty; give the folder or Hub id of at least one adapter.")
    peft = require("peft", extra="peft", needed_by="`adapter_teachers`")
    names = [f"teacher_{index}" for index in range(len(adapters))]
    model = peft.PeftModel.from_pretrained(
        load_model(base, flag="base"), adapters[0], adapter_name=names[0], is_trainable=False
    )
    for name, adapter in zip(names[1:], adapters[1:], strict=True):
        model.load_adapter(adapter, adapter_name=name, is_trainable=False)
    kinds = [model.peft_config[name] for name in names]
    prompts = [str(path) for kind, path in zip(kinds, adapters, strict=True) if kind.is_prompt_learning]
    if prompts:
        raise ValueError(f"{prompts} are adapters of prompts, which several teachers cannot share; use LoRA.")
    return [AdapterTeacher(model, name, dtype, device) for name in names]
