"""A frozen model with linear layers in int8 on the CPU, by torchao.

Weights are quantised once, with a scale for every row of a matrix; activations while the model runs, with a scale for
every token. Only the linear layers inside the transformer's layers are quantised: embeddings are only looked up, a
head is small, and a decoder that is tied to the embeddings shares their weights.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import nn

from .._optional import require
from ..capture.architectures import describe_architecture


def int8_copy(model: nn.Module) -> Any:
    """A copy of the model with linear layers in int8; the given model is not changed.

    Everything that is not quantised is shared with the given model, so the copy needs little more memory than its int8
    weights.

    Args:
        model: A transformers model on the CPU.

    Raises:
        ValueError: If it is on another device, compiled, or has adapters.
        ImportError: If torchao is missing.
        UnsupportedArchitectureError: If its layers are not known.
    """
    _check(model)
    quantization, facts = (
        require(f"torchao.{name}", extra="int8", needed_by="`--teacher_dtype int8`")
        for name in ("quantization", "utils")
    )
    settings = quantization.Int8DynamicActivationInt8WeightConfig(
        # Processors without int8 products (VNNI) add in 16 bits, which full ranges would overflow.
        reduce_range=facts.should_reduce_range(torch.device("cpu")),
        set_inductor_config=False,
    )
    shared: dict[int, Any] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    rounded = copy.deepcopy(model, shared)
    for layer in describe_architecture(rounded).layer_list():
        quantization.quantize_(layer, settings)
    return rounded


def _check(model: nn.Module) -> None:
    devices = {tensor.device.type for tensor in model.parameters()}
    if devices != {"cpu"}:
        raise ValueError(
            f"`--teacher_dtype int8` computes on the CPU, but the teacher's weights are on {sorted(devices)}: give it "
            "on the CPU, or take bfloat16."
        )
    if hasattr(model, "_orig_mod") or model._compiled_call_impl is not None:
        raise ValueError(
            "`--teacher_dtype int8` cannot be used on a compiled teacher: give the model without `torch.compile`."
        )
    if getattr(model, "peft_config", None):
        raise ValueError(
            "`--teacher_dtype int8` cannot be used on a teacher with adapters (LoRA), whose weights are added to the "
            "layers': merge them first with `merge_and_unload()`, or take bfloat16."
        )
