"""Ways to run a model: on candidates, in evaluation mode, without checkpointing, a masked-LM head at some tokens only.

A masked-LM head multiplies every token with the whole vocabulary, which costs as much as some ten layers of a small
encoder; at the few masked tokens it costs next to nothing.

Shape legend: B rows, C candidates of a row, T tokens, E width, N chosen tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .batch import as_single_rows, facts_of, places_where, reading, take_rows, units_of
from .signals import ABSENT, Signals


def logits_at(model: Any, inputs: Mapping[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor:
    """Run a model with a masked-LM head, whose head sees the chosen tokens alone.

    Args:
        model: A model of `AutoModelForMaskedLM`, of any architecture whose head looks at one token at a time.
        inputs: Inputs of its `forward`, (B, T), without labels.
        rows: (N,) rows of the chosen tokens.
        positions: (N,) their places in the rows.

    Returns:
        (N, V) logits.

    Raises:
        ValueError: If the model has no such head.
    """
    encoder = model.base_model
    if encoder is model:
        raise ValueError(f"{type(model).__name__} has no masked-LM head: load it with `AutoModelForMaskedLM`.")

    def keep_chosen(_module: Any, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[rows, positions][:, None]
        return output

    hook = encoder.register_forward_hook(keep_chosen)
    try:
        with reading(inputs.get("attention_mask")):
            logits = model(**inputs, return_dict=True).logits
    finally:
        hook.remove()
    if logits.shape[:2] != (len(rows), 1):
        raise ValueError(
            f"The head of {type(model).__name__} gives {tuple(logits.shape)} for {len(rows)} chosen tokens: it does "
            "not look at one token at a time, so it cannot be asked for some tokens only."
        )
    return logits[:, 0]


def run_candidates(run: Callable[..., tuple[Signals, Any]], model: nn.Module, inputs: dict[str, Any]) -> Signals:
    """Run a model that reads one sequence a row; candidates of a row run as rows, and their scores are put together.

    A place without a candidate does not run, and is in no signal.

    Args:
        run: Runs it.
        model: The model, for the message.
        inputs: Tensors (B, C, T). A candidate whose mask has no token is none.

    Raises:
        ValueError: If candidates have another number of scores than one.
    """
    mask = inputs.get("attention_mask")
    candidates = torch.ones_like(inputs["input_ids"][..., 0]).bool() if mask is None else units_of(mask)
    places = places_where(candidates.flatten(), facts_of(mask).num_units)
    flat = {
        name: take_rows(as_single_rows(value), places) if torch.is_tensor(value) else value
        for name, value in inputs.items()
    }
    signals = run(**flat)[0]
    for name, scores in signals.logits.items():
        if scores.dim() != 2 or scores.shape[-1] != 1:
            raise ValueError(
                f"Rows with candidates need a head with one score, but {type(model).__name__} gives {name!r} of the "
                f"shape {tuple(scores.shape[1:])}: load or create it with `num_labels=1`."
            )
        everywhere = scores.new_full((candidates.numel(), 1), ABSENT).index_copy(0, places, scores)
        signals.logits[name] = everywhere.view(candidates.shape)
    signals.candidates = candidates
    return signals


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode without gradients; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def without_checkpointing(layers: list[nn.Module]) -> Iterator[None]:
    """Run layers without activation checkpointing."""
    for layer in layers:
        layer.gradient_checkpointing = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = True  # type: ignore[assignment]


@contextmanager
def removing_stale_pre_hooks(model: nn.Module) -> Iterator[None]:
    """Remove the pre-hooks that peft leaves behind when a forward with `adapter_names` ends by an exception."""
    before = {module: set(module._forward_pre_hooks) for module in model.modules()}
    try:
        yield
    finally:
        for module, known in before.items():
            for key in set(module._forward_pre_hooks) - known:
                del module._forward_pre_hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
