"""The modules of an encoder's layers by what they do, whatever an architecture calls them.

A layer is an attention block and a feed-forward block, each with a residual connection. BERT, RoBERTa, ELECTRA, MPNet,
DistilBERT and their kin normalise after each sum (post-norm) and are built of the same parts, so that a student of one
of them may be given weights of another. ModernBERT, Llama and their kin normalise before each block (pre-norm).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from hf_distill.capture.architectures import ArchitectureInfo, describe_architecture


@dataclass(frozen=True)
class BlockPaths:
    """Where the modules of a layer are, relative to it.

    Attributes:
        into_heads: Linear layers to queries, keys and values, or the one that gives all of them.
        attention_output: Linear layer behind the heads.
        attention_norm: Norm that reads the sum of the layer's input and the attention's output.
        into_neurons: Linear layers to the neurons; that which goes through the activation is the first.
        contract: Linear layer behind the neurons.
        output_norm: Norm of the last sum; `None` in a pre-norm layer.
    """

    into_heads: tuple[str, ...]
    attention_output: str
    attention_norm: str
    into_neurons: tuple[str, ...]
    contract: str
    output_norm: str | None = None


_BERT = BlockPaths(
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    "attention.output.LayerNorm",
    ("intermediate.dense",),
    "output.dense",
    "output.LayerNorm",
)
_LLAMA = BlockPaths(
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj",
    "post_attention_layernorm",
    ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj",
)
_BERT_LIKE: dict[str, BlockPaths] = {
    **dict.fromkeys(("bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta"), _BERT),
    "mpnet": replace(
        _BERT,
        into_heads=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
    ),
    "distilbert": BlockPaths(
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out_lin",
        "sa_layer_norm",
        ("ffn.lin1",),
        "ffn.lin2",
        "output_layer_norm",
    ),
}
_BLOCKS: dict[str, BlockPaths] = {
    **_BERT_LIKE,
    "deberta": replace(_BERT, into_heads=("attention.self.in_proj",)),
    "deberta-v2": replace(
        _BERT, into_heads=tuple(f"attention.self.{name}_proj" for name in ("query", "key", "value"))
    ),
    "nomic_bert": replace(_LLAMA, output_norm="post_mlp_layernorm"),
    **dict.fromkeys(("eurobert", "llama", "qwen2"), _LLAMA),
    "modernbert": BlockPaths(("attn.Wqkv",), "attn.Wo", "mlp_norm", ("mlp.Wi",), "mlp.Wo"),
}


@dataclass(frozen=True)
class Block:
    """The modules of one layer (see `BlockPaths`), in the order in which they compute."""

    into_heads: list[nn.Linear]
    attention_output: nn.Linear
    attention_norm: Any
    into_neurons: list[nn.Linear]
    contract: nn.Linear
    output_norm: Any

    @property
    def is_post_norm(self) -> bool:
        """Whether it normalises after each sum."""
        return self.output_norm is not None


def is_bert_like(model: PreTrainedModel | PreTrainedConfig | type[PreTrainedConfig]) -> bool:
    """Whether the layers of a model, or of the model of a configuration, have the parts of BERT's layers."""
    return getattr(model, "config", model).model_type in _BERT_LIKE


def has_known_blocks(model: PreTrainedModel) -> bool:
    """Whether the modules of a model's layers are known by what they do."""
    return describe_architecture(model).model_type in _BLOCKS


def paths_of(model: PreTrainedModel) -> BlockPaths:
    """The paths of the modules of a model with known blocks."""
    return _BLOCKS[describe_architecture(model).model_type]


def block_of(model: PreTrainedModel, layer: int) -> Block:
    """The modules of a layer (1-based) of a model with known blocks."""
    module = describe_architecture(model).layer(layer)

    def found(path: str | tuple[str, ...] | None) -> Any:
        if isinstance(path, tuple):
            return [module.get_submodule(one) for one in path]
        return None if path is None else module.get_submodule(path)

    return Block(**{name: found(path) for name, path in vars(paths_of(model)).items()})


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
