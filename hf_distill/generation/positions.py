"""Checks that an encoder can be made to write, and finds its table of positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hf_distill.hub.loading import forward_columns


def check_encoder(masked_lm: Any) -> None:
    """Refuse an encoder that cannot learn and write in UniLM's way.

    Raises:
        ValueError: If it takes no positions, has an attention of its own, or sees less or more than the mask says.
    """
    name = type(masked_lm).__name__
    if masked_lm.get_output_embeddings() is None or masked_lm.base_model is masked_lm:
        raise ValueError(f"{name} has no masked-LM head: load it with `AutoModelForMaskedLM`.")
    if "position_ids" not in forward_columns(masked_lm):
        raise ValueError(f"{name} takes no `position_ids`, which generation must set.")
    if not masked_lm.base_model._can_set_attn_implementation():
        raise ValueError(f"{name} does not use transformers' attention interface, which generation reads along.")
    if "sliding_attention" in (getattr(masked_lm.config, "layer_types", None) or ()):
        raise ValueError(f"{name} has layers that see a window only, but generation must see the whole source.")
    if getattr(masked_lm.config, "trigram_input", False):
        raise ValueError(f"{name} mixes the embeddings of neighbours (`trigram_input`), which would show what comes.")


def position_table(masked_lm: Any) -> nn.Embedding | None:
    """The learnt positions of an encoder; None if it has none (rotary ones)."""
    table = getattr(getattr(masked_lm.base_model, "embeddings", None), "position_embeddings", None)
    return table if isinstance(table, nn.Embedding) else None


def num_positions(masked_lm: Any) -> int:
    """Tokens that a row may have."""
    table = position_table(masked_lm)
    if table is None:
        return masked_lm.config.max_position_embeddings
    # RoBERTa counts from behind the padding's position.
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


@torch.no_grad()
def lengthen_positions(masked_lm: Any, length: int) -> None:
    """Give an encoder room for longer rows by repeating its table of positions; a long enough one stays.

    Args:
        masked_lm: The model; its configuration changes with it.
        length: Tokens of a row.
    """
    table, known = position_table(masked_lm), num_positions(masked_lm)
    if length <= known:
        return
    if table is None:
        raise ValueError(f"{type(masked_lm).__name__} has no table of positions to lengthen from {known} to {length}.")
    first = table.num_embeddings - known
    repeated = table.weight[first:].repeat(-(-length // known), 1)[:length]
    table.weight = nn.Parameter(torch.cat([table.weight[:first], repeated]))
    table.num_embeddings = masked_lm.config.max_position_embeddings = first + length
    embeddings = masked_lm.base_model.embeddings
    for name, rows in (("position_ids", torch.arange(first + length)), ("token_type_ids", None)):
        old = getattr(embeddings, name, None)
        if isinstance(old, torch.Tensor):
            new = torch.zeros(first + length, dtype=torch.long) if rows is None else rows
            setattr(embeddings, name, nn.Buffer(new[None].to(old.device), persistent=False))
