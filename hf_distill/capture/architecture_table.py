"""The table of architectures: one row per `model_type` says where its layers and attention modules are.

Reading it needs no torch. `register_architecture` adds a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mechanism = Literal["interface", "linear", "mpnet", "deberta", "deberta-v2"]


@dataclass(frozen=True)
class ArchitectureSpec:
    """The places of the layers and of the attention modules in one architecture.

    Attributes:
        layers: Path of the list of layers, relative to the base model.
        attention: Path of the attention module, relative to a layer.
        mechanism: `interface` if the attention calls transformers' attention interface; otherwise the hooks that
            know the module (`linear`: three modules whose outputs are the queries, keys and values).
        shared: Whether the modules in the list of layers are called `num_hidden_layers` times in all (ALBERT).
        query: Path of the query projection, relative to the attention module (hooks only).
        key: Path of the key projection.
        value: Path of the value projection.
    """

    layers: str
    attention: str
    mechanism: Mechanism = "interface"
    shared: bool = False
    query: str = ""
    key: str = ""
    value: str = ""


_BERT = ArchitectureSpec(layers="encoder.layer", attention="attention.self")
_DECODER = ArchitectureSpec(layers="layers", attention="self_attn")
ARCHITECTURES: dict[str, ArchitectureSpec] = {
    "albert": ArchitectureSpec(
        layers="encoder.albert_layer_groups", attention="albert_layers.0.attention", shared=True
    ),
    "bert": _BERT,
    "camembert": _BERT,
    "deberta": ArchitectureSpec(layers="encoder.layer", attention="attention.self", mechanism="deberta"),
    "deberta-v2": ArchitectureSpec(
        layers="encoder.layer",
        attention="attention.self",
        mechanism="deberta-v2",
        query="query_proj",
        key="key_proj",
        value="value_proj",
    ),
    "distilbert": ArchitectureSpec(layers="transformer.layer", attention="attention"),
    "electra": _BERT,
    "ernie": _BERT,
    "eurobert": _DECODER,
    "llama": _DECODER,
    "mobilebert": _BERT,
    "modernbert": ArchitectureSpec(layers="layers", attention="attn"),
    "mpnet": ArchitectureSpec(
        layers="encoder.layer", attention="attention.attn", mechanism="mpnet", query="q", key="k", value="v"
    ),
    "nomic_bert": _DECODER,
    "qwen2": _DECODER,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
}


def known_architectures() -> dict[str, ArchitectureSpec]:
    """Every row of the table, by `model_type`."""
    return dict(sorted(ARCHITECTURES.items()))


def register_architecture(
    model_type: str,
    *,
    layers: str,
    attention: str,
    query: str | None = None,
    key: str | None = None,
    value: str | None = None,
) -> None:
    """Tell capture where the modules of an architecture are.

    Args:
        model_type: The `model_type` of its configuration.
        layers: Path of its list of layers, relative to the base model, e.g. `encoder.layer`.
        attention: Path of the attention module, relative to a layer, e.g. `attention.self`.
        query: Path of the query projection, relative to the attention module. Give `query`, `key` and `value` for a
            model that does not use transformers' attention interface; their outputs must be what the attention uses,
            and its scores must be `query @ key / sqrt(head size)`.
        key: Path of the key projection.
        value: Path of the value projection.

    Raises:
        ValueError: If only some of `query`, `key`, `value` are given.
    """
    projections = [path for path in (query, key, value) if path]
    if len(projections) not in (0, 3):
        raise ValueError(
            f"register_architecture({model_type!r}): give all of query, key, value or none of them, not {projections}."
        )
    ARCHITECTURES[model_type] = ArchitectureSpec(
        layers=layers,
        attention=attention,
        mechanism="linear" if projections else "interface",
        query=query or "",
        key=key or "",
        value=value or "",
    )
