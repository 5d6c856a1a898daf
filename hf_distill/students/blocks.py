"""The modules of a BERT-like encoder by what they do, whatever an architecture calls them.

Such a block adds, then normalises: attention, sum, norm, feed-forward, sum, norm. BERT, RoBERTa, ELECTRA, MPNet,
DistilBERT and their kin are built of it, so that a student of one of them may be given weights of another.

Shape legend: B rows, T padded length, H hidden size, A heads, D head size, F neurons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig

from hf_distill.capture.architectures import ArchitectureInfo, describe_architecture

_BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "expand": "intermediate.dense",
    "contract": "output.dense",
    "output_norm": "output.LayerNorm",
}
_BLOCKS: dict[str, dict[str, str]] = {
    **dict.fromkeys(("bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta"), _BERT),
    "mpnet": {
        **_BERT,
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "attention_output": "attention.attn.o",
        "attention_norm": "attention.LayerNorm",
    },
    "distilbert": {
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_output": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "expand": "ffn.lin1",
        "contract": "ffn.lin2",
        "output_norm": "output_layer_norm",
    },
}


@dataclass(frozen=True)
class Block:
    """The modules of one layer: `query` to `output_norm`, in the order in which they work."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_output: nn.Linear
    attention_norm: nn.LayerNorm
    expand: nn.Linear
    contract: nn.Linear
    output_norm: nn.LayerNorm


def is_bert_like(model: PreTrainedModel | PreTrainedConfig | type[PreTrainedConfig]) -> bool:
    """Whether a model, or that of a configuration, is built of blocks that add, then normalise."""
    return getattr(model, "config", model).model_type in _BLOCKS


def block_of(model: PreTrainedModel, layer: int) -> Block:
    """The modules of a layer (1-based) of a BERT-like model."""
    found = describe_architecture(model)
    parts = {name: found.layer(layer).get_submodule(path) for name, path in _BLOCKS[found.model_type].items()}
    return Block(**parts)  # type: ignore[arg-type]


def activation_of(model: PreTrainedModel) -> Any:
    """The activation function of the feed-forward blocks."""
    config = model.config
    name = getattr(config, "hidden_act", None) or getattr(config, "activation", "gelu")
    return ACT2FN[name] if isinstance(name, str) else name


def attend(model: PreTrainedModel, block: Block, states: Tensor, mask: Tensor) -> Tensor:
    """Compute the output of the heads of a block, before the attention's output matrix.

    Args:
        model: The model of the block.
        block: The block.
        states: Its input, (B, T, H).
        mask: True on real tokens, (B, T).

    Returns:
        (B, T, A * D).
    """
    heads = describe_architecture(model).num_heads
    query, key, value = (
        linear(states).unflatten(-1, (heads, -1)).transpose(1, 2) for linear in (block.query, block.key, block.value)
    )
    allowed = mask[:, None, None, :]
    bias = position_bias(model, states)
    if bias is not None:
        allowed = bias.masked_fill(~allowed, torch.finfo(bias.dtype).min)
    found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    return found.transpose(1, 2).flatten(2)


def position_bias(model: PreTrainedModel, states: Tensor) -> Tensor | None:
    """Return MPNet's bias on scores for the distance of two tokens, (1 or B, A, T, T); nothing in other models."""
    encoder: Any = getattr(model.base_model, "encoder", None)
    return encoder.compute_position_bias(states) if hasattr(encoder, "compute_position_bias") else None


def embed(model: PreTrainedModel, inputs: dict[str, Tensor], *, projected: bool = True) -> Tensor:
    """The input of the first block, (B, T, H); not `projected`: what narrow embeddings give before their matrix."""
    base: Any = model.base_model
    known = {name: inputs[name] for name in ("input_ids", "token_type_ids") if name in inputs}
    if not hasattr(base.embeddings, "token_type_embeddings"):
        known.pop("token_type_ids", None)
    states = base.embeddings(**known)
    project = getattr(base, "embeddings_project", None)
    return project(states) if project is not None and projected else states


def embedding_tables(found: ArchitectureInfo) -> dict[str, Any]:
    """The tables below the first block, those of them that there are: `word`, `position`, `type`, and the `norm`."""
    embeddings: Any = getattr(found.base, "embeddings", None)
    if embeddings is None:
        return {"word": found.base.get_input_embeddings()}
    names = {
        "word": ("word_embeddings", "tok_embeddings"),
        "position": ("position_embeddings",),
        "type": ("token_type_embeddings",),
        "norm": ("LayerNorm", "norm"),
    }
    return {
        part: getattr(embeddings, name)
        for part, options in names.items()
        for name in options
        if getattr(embeddings, name, None) is not None
    }


def widening(found: ArchitectureInfo) -> Any:
    """The matrix that leads from narrow embeddings to the first block; `None` where there is none."""
    places = (
        (found.base, "embeddings_project"),
        (getattr(found.base, "embeddings", None), "embed_proj"),
        (getattr(found.base, "encoder", None), "embedding_hidden_mapping_in"),
    )
    return next(filter(None, (getattr(owner, name, None) for owner, name in places)), None)
