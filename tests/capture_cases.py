"""A tiny configuration of every architecture that capture knows, and where a plain reference finds its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainings import sharpened
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, set_seed

SIZES = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"),
    "seq_classif_dropout",
)
BERT_PARTS = ("encoder.layer.{}.attention.self.", "query", "key", "value")
LLAMA_PARTS = ("layers.{}.self_attn.", "q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Case:
    """One architecture: its tiny configuration and where a plain reference finds its parts."""

    model_type: str
    options: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = BERT_PARTS
    norm: str | None = None
    final_norm: str | None = None
    rotary: bool = False
    causal: bool = False
    groups: int | None = None
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.model_type


CASES = [
    Case("bert"),
    Case("roberta"),
    Case("xlm-roberta"),
    Case("camembert"),
    Case("electra", {"embedding_size": 16}),
    Case("ernie"),
    Case("distilbert", parts=("transformer.layer.{}.attention.", "q_lin", "k_lin", "v_lin")),
    Case(
        "albert",
        {"embedding_size": 16},
        parts=("encoder.albert_layer_groups.0.albert_layers.0.attention.", "query", "key", "value"),
    ),
    Case(
        "albert",
        {"embedding_size": 16, "num_hidden_groups": 2},
        parts=("encoder.albert_layer_groups.{}.albert_layers.0.attention.", "query", "key", "value"),
        groups=2,
        name="albert-groups",
    ),
    Case("mobilebert", {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2}, parts=()),
    Case(
        "modernbert",
        {"local_attention": 4, "global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2},
        parts=("layers.{}.attn.", "Wqkv"),
        norm="layers.{}.attn_norm",
        final_norm="final_norm",
        rotary=True,
    ),
    Case("nomic_bert", parts=LLAMA_PARTS, rotary=True),
    Case("eurobert", parts=LLAMA_PARTS, norm="layers.{}.input_layernorm", final_norm="norm", rotary=True),
    Case("llama", parts=LLAMA_PARTS, norm="layers.{}.input_layernorm", final_norm="norm", rotary=True, causal=True),
    Case(
        "qwen2",
        {"num_key_value_heads": 2},
        parts=LLAMA_PARTS,
        norm="layers.{}.input_layernorm",
        final_norm="norm",
        rotary=True,
        causal=True,
    ),
    Case("mpnet", parts=("encoder.layer.{}.attention.attn.", "q", "k", "v")),
    Case("deberta", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, parts=()),
    Case("deberta", {"relative_attention": False}, parts=(), name="deberta-absolute"),
    Case(
        "deberta-v2",
        {
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "position_buckets": 4,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
        },
        parts=("encoder.layer.{}.attention.self.", "query_proj", "key_proj", "value_proj"),
    ),
    Case(
        "deberta-v2",
        {"relative_attention": True, "pos_att_type": ["c2p"], "conv_kernel_size": 3, "conv_act": "gelu"},
        parts=("encoder.layer.{}.attention.self.", "query_proj", "key_proj", "value_proj"),
        name="deberta-v2-convolution",
    ),
    Case("deberta-v2", {"relative_attention": True}, parts=(), name="deberta-v2-no-bias"),
    Case(
        "deberta-v2",
        {"relative_attention": False},
        parts=("encoder.layer.{}.attention.self.", "query_proj", "key_proj", "value_proj"),
        name="deberta-v2-absolute",
    ),
]


def classifier_of(case: Case, seed: int, **fields: Any) -> PreTrainedModel:
    """A classifier of the architecture without dropout, attention sharp enough to matter."""
    given = {**SIZES, **dict.fromkeys(DROPOUTS, 0.0), **case.options, **fields}
    config = AutoConfig.for_model(case.model_type, **given)
    config.dtype = None
    set_seed(seed)
    return sharpened(AutoModelForSequenceClassification.from_config(config))
