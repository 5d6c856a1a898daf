"""Describes a model without running it: its layers and attention modules, sizes, inputs, longest row, labels.

Where the modules are comes from the table of architectures (`architecture_table`). Models without a row there are
described from what they declare to transformers, if they use its attention interface.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.output_capturing import OutputRecorder

from .architecture_table import ARCHITECTURES, ArchitectureSpec


class UnsupportedArchitectureError(ValueError):
    """Signals cannot be captured from this model."""


# Names under which models keep a vector for each position of a row.
POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
# Their first usable position is the one after the padding token's.
_OFFSET_POSITIONS = frozenset(
    {
        *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm"),
        *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)


@dataclass(frozen=True)
class ArchitectureInfo:
    """Sizes of one model, and the modules that capture works on.

    Attributes:
        model_type: The `model_type` of the configuration.
        num_layers: Layers that the model really has (a shared layer counts once per call).
        hidden_size: H.
        num_heads: A.
        num_key_value_heads: G.
        head_size: D. Queries are A * D wide, keys and values G * D; A * D may differ from H.
        spec: Where the modules are.
        base: The model below head, adapter and compile wrappers.
    """

    model_type: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_key_value_heads: int
    head_size: int
    spec: ArchitectureSpec
    base: PreTrainedModel = field(repr=False, compare=False)

    def layer(self, index: int) -> nn.Module:
        """The module of the 1-based layer."""
        layers = self.layer_list()
        # ALBERT spreads its calls evenly over its groups.
        position = (index - 1) * len(layers) // self.num_layers if self.spec.shared else index - 1
        return layers[position]

    def attention(self, index: int) -> nn.Module:
        """The attention module of the 1-based layer."""
        return self.layer(index).get_submodule(self.spec.attention)

    def layer_list(self) -> list[nn.Module]:
        """The distinct layer modules, in order."""
        return list(self.base.get_submodule(self.spec.layers).children())


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside compile, data-parallel and peft wrappers.

    Raises:
        UnsupportedArchitectureError: If there is none, or the adapter changes the sequence (prompt learning).
    """
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        if hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        elif hasattr(inner, "get_base_model"):
            if inner.active_peft_config.is_prompt_learning:
                raise UnsupportedArchitectureError(
                    "Signals cannot be captured from a peft model with prompt learning "
                    f"({inner.active_peft_config.peft_type}): it changes the length of the sequence. "
                    "Adapters inside the layers, such as LoRA, are supported."
                )
            inner = inner.get_base_model()
        elif isinstance(getattr(inner, "module", None), nn.Module):
            inner = inner.module
        else:
            raise UnsupportedArchitectureError(
                f"Signals can be captured from a PreTrainedModel of transformers, not from {type(model).__name__}: "
                "derive it from `PreTrainedModel`, or wrap it by `as_student` (docs/other_models.md)."
            )
    return inner


def without_adapters(model: Any) -> Any:
    """The model below `torch.compile` and the adapters of peft; itself if there are none."""
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def shows_its_signals(model: nn.Module) -> bool:
    """Whether a model gives its signals in its output instead of being a transformer to look into."""
    return bool(getattr(unwrap(model), "signals_in_output", False))


def forward_columns(model: Any) -> list[str]:
    """Names of the inputs that a model reads (of the base model, below an adapter): those that its `forward` knows.

    A model with one kind of segment, such as RoBERTa, was trained on pairs without segment ids: those of another
    model's tokenizer are beyond its table, and not for it.
    """
    inner = without_adapters(model)
    has_one_segment = getattr(getattr(inner, "config", None), "type_vocab_size", None) == 1
    return [
        name
        for name, parameter in inspect.signature(inner.forward).parameters.items()
        if parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        and not (has_one_segment and name == "token_type_ids")
    ]


def describe_architecture(model: nn.Module) -> ArchitectureInfo:
    """Sizes and module paths of a model, with or without a head or peft adapters.

    Raises:
        UnsupportedArchitectureError: If the architecture is unknown. The message lists the modules that look like
            query, key and value projections and the call that adds the architecture.
    """
    base = cast(PreTrainedModel, unwrap(model).base_model)
    config = base.config
    spec = ARCHITECTURES.get(config.model_type) or _discover(base)
    if spec is None or not _fits(base, spec):
        raise UnsupportedArchitectureError(_explain(base, spec))
    modules = list(base.get_submodule(spec.layers).children())
    return ArchitectureInfo(
        model_type=config.model_type,
        num_layers=config.num_hidden_layers if spec.shared else len(modules),
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_key_value_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_size=_head_size(config),
        spec=spec,
        base=base,
    )


def is_known(model: nn.Module) -> bool:
    """Whether `describe_architecture` can say where the layers of a model are."""
    try:
        describe_architecture(model)
    except UnsupportedArchitectureError:
        return False
    return True


def _head_size(config: PreTrainedConfig) -> int:
    stated = getattr(config, "head_dim", None) or getattr(config, "attention_head_size", None)
    # Inside MobileBERT's bottlenecks the attention is narrower than the model.
    return stated or getattr(config, "true_hidden_size", config.hidden_size) // config.num_attention_heads


def _fits(base: PreTrainedModel, spec: ArchitectureSpec) -> bool:
    """Whether the paths of the row exist in the model."""
    try:
        layers = list(base.get_submodule(spec.layers).children())
        for layer in layers:
            attention = layer.get_submodule(spec.attention)
            for path in (spec.query, spec.key, spec.value):
                attention.get_submodule(path)
    except AttributeError:
        return False
    return bool(layers)


def _discover(base: PreTrainedModel) -> ArchitectureSpec | None:
    """A row from the layer and attention classes that transformers records outputs of, if they are unambiguous."""
    recordable = getattr(base, "_can_record_outputs", None) or {}
    layer_class = _recorded_class(recordable.get("hidden_states"))
    attention_class = _recorded_class(recordable.get("attentions"))
    if layer_class is None or attention_class is None or not base._can_set_attn_implementation():
        return None
    layers = [name for name, module in base.named_modules() if isinstance(module, layer_class)]
    lists = {name.rpartition(".")[0] for name in layers}
    if len(lists) != 1 or len(layers) != getattr(base.config, "num_hidden_layers", None):
        return None
    paths = {
        name
        for layer in layers
        for name, module in base.get_submodule(layer).named_modules()
        if isinstance(module, attention_class)
    }
    return ArchitectureSpec(layers=lists.pop(), attention=paths.pop()) if len(paths) == 1 else None


def _recorded_class(recorder: object) -> type[nn.Module] | None:
    if isinstance(recorder, list) and len(recorder) == 1:
        recorder = recorder[0]
    if isinstance(recorder, OutputRecorder):
        recorder = recorder.target_class
    return recorder if isinstance(recorder, type) else None


def _explain(base: PreTrainedModel, spec: ArchitectureSpec | None) -> str:
    """The error text for an architecture without a fitting row."""
    model_type = base.config.model_type
    if getattr(base.config, "is_encoder_decoder", False) and hasattr(base, "decoder"):
        return (
            f"Cannot capture signals from {type(base).__name__}: it is an encoder with a decoder behind it; teachers "
            "and students are encoders, such as BERT, or decoders alone, such as Llama."
        )
    reason = "is unknown" if spec is None else f"does not have the modules of its row ({spec})"
    candidates = [name for name, module in base.named_modules() if _looks_like_projection(name, module)]
    listed = ", ".join(candidates[:6]) or "none found"
    return (
        f"Cannot capture signals from {type(base).__name__}: model_type {model_type!r} {reason}. Modules that look "
        f"like query, key and value projections: {listed}. Add the architecture with hf_distill."
        f"register_architecture({model_type!r}, layers='path of the list of layers', attention='path of the attention "
        "module inside a layer'), and query=, key=, value= (paths inside the attention module) if the model does not "
        f"use transformers' attention interface. Known: {', '.join(sorted(ARCHITECTURES))}."
    )


def _looks_like_projection(name: str, module: nn.Module) -> bool:
    words = name.rpartition(".")[2].lower().split("_")
    marks = {"q", "k", "v", "qkv", "wqkv", "query", "key", "value", "attn"}
    return isinstance(getattr(module, "weight", None), nn.Parameter) and (
        not marks.isdisjoint(words) or words[0] == "in"
    )


def first_position(config: PreTrainedConfig) -> int:
    """The row of the table of positions that the first token of a text gets."""
    if config.model_type == "mpnet":
        # Whatever its padding token is.
        return 2
    return (getattr(config, "pad_token_id", None) or 0) + 1 if config.model_type in _OFFSET_POSITIONS else 0


def num_positions(config: PreTrainedConfig) -> int | None:
    """The longest row that a model can read in tokens; `None` where its configuration sets no bound."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    return positions - first_position(config)


def longest_row(model: Any) -> int | None:
    """Tokens that a model has positions for; `None` where it has no table of them (rotary or relative positions)."""
    named = ((name.rpartition(".")[2], module) for name, module in model.named_modules())
    has_table = any(name in POSITION_TABLES and isinstance(module, nn.Embedding) for name, module in named)
    return num_positions(model.config) if has_table else None


# ---- Labels ----

# A class, a value or several yes-or-no answers of a row; a class of every token, of a vocabulary or not; positions of
# an answer; `row`: a class or, where the rows say so, several answers; `any`: no head that is known.
LabelKind = Literal["class", "value", "several", "row", "tokens", "words", "spans", "any"]
_KINDS: dict[str, LabelKind] = {
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "spans",
    "ForMultipleChoice": "class",
    "ForSequenceClassification": "row",
    "ForMaskedLM": "words",
    "ForCausalLM": "words",
    "LMHead": "words",
}
# Language models that predict the next token: their labels stand one place to the right of what predicts them.
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_PROBLEMS: dict[str | None, LabelKind] = {
    "regression": "value",
    "multi_label_classification": "several",
    "single_label_classification": "class",
}


class LabelHead(NamedTuple):
    """The labels that the head of a model wants.

    Attributes:
        kind: Their kind.
        has_choices: Whether a row of a batch is several texts, one of which is the answer.
        num_outputs: Outputs of the head; `None` where they are as many as a row has choices.
        model_name: Class of the model.
        config: Its configuration, which names the classes.
        is_causal: Whether what it says at a token is about the next one.
    """

    kind: LabelKind
    has_choices: bool
    num_outputs: int | None
    model_name: str
    config: PreTrainedConfig
    is_causal: bool = False


def has_label_outputs(names: Iterable[str]) -> bool:
    """Whether the outputs of a head stand for the labels of its configuration, one each and in their order.

    Those of a vocabulary, of positions in a text and of choices do not, whatever `id2label` says.

    Args:
        names: Name of the model's class, and perhaps of those that it is derived from.
    """
    kinds = (kind for name in names for part, kind in _KINDS.items() if part in name)
    return next(kinds, "any") in ("row", "tokens", "any")


def label_head(model: Any) -> LabelHead:
    """The labels that the head of a model wants: its class and `config.problem_type` decide.

    Args:
        model: A model, perhaps with adapters around it.
    """
    inner = without_adapters(model)
    names = [base.__name__ for base in type(inner).__mro__]
    kind: LabelKind = next((kind for name in names for part, kind in _KINDS.items() if part in name), "any")
    num_labels = getattr(inner.config, "num_labels", None)
    if kind == "row":
        kind = _PROBLEMS.get(getattr(inner.config, "problem_type", None), "value" if num_labels == 1 else "row")
    has_choices = any("ForMultipleChoice" in name for name in names)
    is_causal = any(part in name for name in names for part in _CAUSAL)
    num_outputs = None if has_choices else num_labels
    return LabelHead(kind, has_choices, num_outputs, type(model).__name__, inner.config, is_causal)
