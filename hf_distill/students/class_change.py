"""Weights for students of another class than their teacher's, such as a DistilBERT of a BERT.

Configurations are translated field by field, weights module by module (`blocks`). Weights for which the new class has
no module, such as MPNet's relative position bias, are dropped; refitting corrects the rest.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from hf_distill.capture.architectures import describe_architecture, first_position

from .blocks import block_of, embedding_tables, is_bert_like, widening
from .embedding_init import principal_loadings
from .refitting import head_linears, head_rows
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
    "tie_word_embeddings": ("tie_word_embeddings",),
    "classifier_dropout": ("classifier_dropout", "seq_classif_dropout"),
}


def translated_config(teacher: PreTrainedConfig, config_class: type[PreTrainedConfig]) -> PreTrainedConfig:
    """The configuration of a model of another class that reads what the teacher reads.

    It has the teacher's sizes, vocabulary, labels, activation and dropout, and as many positions for tokens: tables
    that begin behind the padding token are longer by that. Segments that the teacher does not know share one row.
    """
    # Lists a layer, which some configurations make and check, follow the number of layers that they are made with.
    alike = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
    sizes = {name: getattr(teacher, name, None) or teacher.num_attention_heads for name in alike}
    mapped = getattr(config_class, "attribute_map", {})
    known = inspect.signature(config_class).parameters
    config = config_class(
        **{mapped.get(name, name): size for name, size in sizes.items() if mapped.get(name, name) in known}
    )
    for names in _NAMES.values():
        values = [getattr(teacher, name) for name in names if getattr(teacher, name, None) is not None]
        target = next((name for name in names if hasattr(config, name)), None)
        if values and target is not None:
            setattr(config, target, values[0])
    if hasattr(config, "type_vocab_size"):
        config.type_vocab_size = max(1, getattr(teacher, "type_vocab_size", 1))
    if hasattr(config, "embedding_size"):
        config.embedding_size = getattr(teacher, "embedding_size", config.hidden_size)
    config.max_position_embeddings = teacher.max_position_embeddings - first_position(teacher) + first_position(config)
    return config


def hindrance(teacher: PreTrainedConfig, config_class: type[PreTrainedConfig], *, has_text: bool) -> str | None:
    """Why a student of another class cannot begin with weights of its teacher; `None` if it can."""
    if not is_bert_like(config_class):
        return f"weights of another architecture are for layers like BERT's, which {config_class.model_type!r} has not"
    if not is_bert_like(teacher) and not has_text:
        return f"layers of {teacher.model_type!r} become layers like BERT's by a fit to text alone (calibration_text=)"
    return None


@torch.no_grad()
def copy_parts(teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut) -> None:
    """Give a student of another class its part of the weights that both classes have a place for; in place."""
    if is_bert_like(teacher) and is_bert_like(student):
        for number, layer in enumerate(cut.layers, start=1):
            _copy_block(teacher, student, cut, number, layer)
    theirs, mine = head_linears(teacher), head_linears(student)
    if len(theirs) == len(mine):
        for big, small in zip(theirs, mine, strict=True):
            _copy_linear(big, small, head_rows(teacher, cut, big, small), cut.hidden)
    big_norms, small_norms = (_head_norms(model) for model in (teacher, student))
    if len(big_norms) == len(small_norms):
        for big_norm, small_norm in zip(big_norms, small_norms, strict=True):
            _copy_norm(big_norm, small_norm, cut.hidden)
    # The matrix of a head may be the table of words, which was copied from the table of words.
    copy_embeddings(teacher, student, cut)
    distances = getattr(getattr(student.base_model, "encoder", None), "relative_attention_bias", None)
    if distances is not None:
        distances.weight.zero_()


def _head_norms(model: PreTrainedModel) -> list[nn.LayerNorm]:
    """The norms of a head, in the order of their definition."""
    inside = {id(module) for module in model.base_model.modules()}
    return [m for m in model.modules() if isinstance(m, nn.LayerNorm) and id(m) not in inside]


@torch.no_grad()
def copy_embeddings(teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut) -> None:
    """Give a student the tables of words, positions and segments in its width, and the norm above them; in place."""
    big, small = (describe_architecture(model) for model in (teacher, student))
    theirs, mine = (embedding_tables(found) for found in (big, small))
    widen, narrow = (widening(found) for found in (big, small))
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
        if narrow.bias is not None:
            narrow.bias.zero_()
    elif widen is None and "norm" in theirs:
        _copy_norm(theirs["norm"], mine["norm"], cut.hidden)
    if "position" in rows:
        rows["position"] = rows["position"][first_position(teacher.config) :]
    _fill_tables(mine, rows, first_position(student.config))


def _fill_tables(tables: dict[str, Any], rows: dict[str, Tensor], first: int) -> None:
    """Give a student's tables the rows that they have a place for; positions begin with row `first`."""
    count = min(len(rows["word"]), len(tables["word"].weight))
    tables["word"].weight[:count].copy_(rows["word"][:count])
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
    gains = (cut.gain, cut.gain, 1.0)
    for theirs, mine, gain in zip(big.into_heads, small.into_heads, gains, strict=True):
        _copy_linear(theirs, mine, heads, cut.hidden)
        for parameter in mine.parameters():
            parameter.mul_(gain)
    _copy_linear(big.attention_output, small.attention_output, cut.hidden, heads)
    _copy_norm(big.attention_norm, small.attention_norm, cut.hidden)
    _copy_linear(big.into_neurons[0], small.into_neurons[0], neurons, cut.hidden)
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
    if small.weight.shape != hidden.shape:
        # That of narrow embeddings.
        return
    small.weight.copy_(big.weight[hidden])
    if getattr(big, "bias", None) is not None and small.bias is not None:
        small.bias.copy_(big.bias[hidden])
