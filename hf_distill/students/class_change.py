"""Weights for students of another class than their teacher's, such as a DistilBERT of a BERT.

Configurations are translated field by field, weights module by module (`blocks`); what the new class has no place for,
such as MPNet's bias of distances, is left to the refits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from hf_distill.capture.architectures import describe_architecture

from .blocks import block_of, embedding_tables, first_position, is_bert_like
from .embedding_init import principal_loadings
from .refitting import head_linears
from .slicing import Cut

# What one thing is called, by architecture; the first name is that of most.
_NAMES = {
    "hidden_act": ("hidden_act", "activation", "hidden_activation"),
    "hidden_dropout_prob": ("hidden_dropout_prob", "dropout"),
    "attention_probs_dropout_prob": ("attention_probs_dropout_prob", "attention_dropout"),
    "layer_norm_eps": ("layer_norm_eps", "norm_eps"),
    "initializer_range": ("initializer_range",),
    "vocab_size": ("vocab_size",),
    "pad_token_id": ("pad_token_id",),
    "bos_token_id": ("bos_token_id",),
    "eos_token_id": ("eos_token_id",),
    "id2label": ("id2label",),
    "label2id": ("label2id",),
    "problem_type": ("problem_type",),
    "classifier_dropout": ("classifier_dropout", "seq_classif_dropout"),
}


def translated_config(teacher: PreTrainedConfig, config_class: type[PreTrainedConfig]) -> PreTrainedConfig:
    """The configuration of a model of another class that reads what the teacher reads.

    It has the teacher's sizes, vocabulary, labels, activation and dropout, and as many positions for tokens: tables
    that begin behind the padding token are longer by that. Segments that the teacher does not know share one row.
    """
    config = config_class()
    for names in _NAMES.values():
        values = [getattr(teacher, name) for name in names if getattr(teacher, name, None) is not None]
        target = next((name for name in names if hasattr(config, name)), None)
        if values and target is not None:
            setattr(config, target, values[0])
    for name in ("num_hidden_layers", "hidden_size", "num_attention_heads"):
        setattr(config, name, getattr(teacher, name))
    if hasattr(config, "type_vocab_size"):
        config.type_vocab_size = max(1, getattr(teacher, "type_vocab_size", 1))
    config.max_position_embeddings = teacher.max_position_embeddings - first_position(teacher) + first_position(config)
    return config


@torch.no_grad()
def copy_parts(teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut) -> None:
    """Give a student of another class its part of the weights that both classes have a place for; in place."""
    _copy_embeddings(teacher, student, cut)
    if is_bert_like(teacher) and is_bert_like(student):
        for number, layer in enumerate(cut.layers, start=1):
            _copy_block(teacher, student, cut, number, layer)
    theirs, mine = head_linears(teacher), head_linears(student)
    if len(theirs) == len(mine):
        width = describe_architecture(teacher).hidden_size
        for big, small in zip(theirs, mine, strict=True):
            _copy_linear(big, small, cut.hidden if big.out_features == width else None, cut.hidden)


def _copy_embeddings(teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut) -> None:
    """Tables of words, positions and segments in the student's width, and the norm above them."""
    big, small = (describe_architecture(model).base for model in (teacher, student))
    theirs, mine = (embedding_tables(describe_architecture(model)) for model in (teacher, student))
    widen, narrow = (getattr(base, "embeddings_project", None) for base in (big, small))
    rows: dict[str, Tensor] = {
        part: (theirs[part].weight if widen is None else theirs[part].weight @ widen.weight.T)[:, cut.hidden]
        for part in ("word", "position", "type")
        if part in theirs
    }
    if narrow is not None:
        loadings = principal_loadings(rows["word"], narrow.in_features)
        rows["word"] = rows["word"] - rows["word"].mean(0)
        rows = {part: table @ loadings for part, table in rows.items()}
        # The norm between the tables and this matrix gives rows of variance 1.
        narrow.weight.copy_(loadings * rows["word"].std(1).mean())
        narrow.bias.zero_()
    elif widen is None and "norm" in theirs:
        _copy_norm(theirs["norm"], mine["norm"], cut.hidden)
    if "position" in rows:
        rows["position"] = rows["position"][first_position(teacher.config) :]
    _fill_tables(mine, rows, first_position(student.config))


def _fill_tables(tables: dict[str, Any], rows: dict[str, Tensor], first: int) -> None:
    """Give a student's tables the rows that they have a place for; positions begin with row `first`."""
    if len(rows["word"]) == len(tables["word"].weight):
        tables["word"].weight.copy_(rows["word"])
    positions = tables["position"].weight[first:] if "position" in tables else None
    if positions is not None and "position" in rows:
        count = min(len(positions), len(rows["position"]))
        positions[:count].copy_(rows["position"][:count])
    segments = rows.get("type")
    if "type" in tables:
        tables["type"].weight.zero_()
        if segments is not None:
            tables["type"].weight[: len(segments)].copy_(segments[: len(tables["type"].weight)])
    elif segments is not None and positions is not None:
        # A student without segments takes every token for one of the first.
        positions.add_(segments[0])


def _copy_block(teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut, number: int, layer: int) -> None:
    big, small = block_of(teacher, layer), block_of(student, number)
    heads, neurons = cut.heads[layer], cut.feed_forward[layer]
    for name in ("query", "key", "value"):
        _copy_linear(getattr(big, name), getattr(small, name), heads, cut.hidden)
        if name != "value":
            for parameter in getattr(small, name).parameters():
                parameter.mul_(cut.gain)
    _copy_linear(big.attention_output, small.attention_output, cut.hidden, heads)
    _copy_norm(big.attention_norm, small.attention_norm, cut.hidden)
    _copy_linear(big.expand, small.expand, neurons, cut.hidden)
    _copy_linear(big.contract, small.contract, cut.hidden, neurons)
    _copy_norm(big.output_norm, small.output_norm, cut.hidden)


def _copy_linear(big: nn.Linear, small: nn.Linear, rows: Tensor | None, columns: Tensor) -> None:
    weight = big.weight[:, columns] if rows is None else big.weight[rows][:, columns]
    if weight.shape != small.weight.shape:
        return
    small.weight.copy_(weight)
    if big.bias is not None and small.bias is not None:
        small.bias.copy_(big.bias if rows is None else big.bias[rows])


def _copy_norm(big: Any, small: Any, hidden: Tensor) -> None:
    small.weight.copy_(big.weight[hidden])
    if getattr(big, "bias", None) is not None and small.bias is not None:
        small.bias.copy_(big.bias[hidden])
