"""Students: named shapes, models built from a teacher's configuration, and their sizes.

Nothing is added to a student: it is a plain model of the teacher's class, vocabulary, label names and positions, with
fewer or narrower layers. Layers are 1-based.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from hf_distill.capture.architectures import describe_architecture
from hf_distill.capture.outputs import shows_its_signals
from hf_distill.objectives.layer_map import resolve_layer, uniform_teacher_layer
from hf_distill.students.embedding_init import compress_embeddings
from hf_distill.students.shapes import (
    NAMED_SHAPES,
    SHAPE_ALIASES,
    StudentShape,
    intermediate_field,
    parse_shape,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NAMED_SHAPES",
    "SHAPE_ALIASES",
    "ParameterCount",
    "StudentShape",
    "count_parameters",
    "create_student",
    "parse_shape",
    "shape_of",
    "size_table",
    "student_config",
]

INITIALISATIONS = ("random", "teacher_layers", "svd_embeddings")


def create_student(
    teacher: PreTrainedModel | PreTrainedConfig | str,
    shape: str | StudentShape,
    *,
    init: str = "random",
    layers: Sequence[int] | None = None,
    model_class: type | str | None = None,
    dtype: torch.dtype | str = torch.float32,
    seed: int = 42,
    **config_overrides: Any,
) -> PreTrainedModel:
    """Build a student of the teacher's architecture, vocabulary, labels and positions.

    The weights are drawn in float32 on the CPU from `seed` alone; the global random state is left as it was. The
    teacher is not changed, and the student is returned in training mode with SDPA where its architecture has it.

    Args:
        teacher: A model, its configuration, a Hub id or a local folder.
        shape: A name or grammar of `parse_shape`, or a `StudentShape`.
        init: `"random"`; `"teacher_layers"` to copy embeddings, head and chosen layers (equal widths only); or
            `"svd_embeddings"` to compress the teacher's word embeddings to the student's width (the rest is random).
        layers: Teacher layers (1-based, negative from the end) for student layers 1, 2, …; uniform by default.
        model_class: A model class, an `AutoModelFor…` class, or the name of either in `transformers`. Default: the
            class of the teacher, so that a sequence-classification teacher gives such a student with its labels.
        dtype: Type of the returned weights.
        seed: Seed of the initialisation.
        config_overrides: Fields of the configuration to set last, such as `num_labels=3`.

    Raises:
        ValueError: If shape, initialisation, layers or architecture do not go together; the message names the way
            out.
        TypeError: If `teacher` is none of the four kinds.
    """
    if init not in INITIALISATIONS:
        raise ValueError(f"Unknown initialisation {init!r} (--student_init): use one of {list(INITIALISATIONS)}.")
    if layers is not None and init != "teacher_layers":
        raise ValueError("layers= chooses teacher layers to copy: it needs init='teacher_layers' (--student_init).")
    shape = parse_shape(shape) if isinstance(shape, str) else shape
    teacher_config = _teacher_config(teacher)
    chosen = _resolve_layers(layers, shape, teacher_config) if init == "teacher_layers" else None
    config = student_config(teacher_config, shape, layers=chosen, **config_overrides)
    cls = _resolve_class(model_class, teacher, config)
    with _private_cpu_rng(seed):
        student = cls(config)
    if chosen is not None:
        _copy_layers(_teacher_weights(teacher, cls, init), student, chosen)
    elif init == "svd_embeddings":
        compress_embeddings(_teacher_weights(teacher, cls, init), student)
    student.train()
    nn.Module.to(student, getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return student


def student_config(
    teacher: PreTrainedConfig, shape: StudentShape, *, layers: Sequence[int] | None = None, **overrides: Any
) -> PreTrainedConfig:
    """The teacher's configuration with the student's shape and without what belongs to the teacher alone.

    Args:
        teacher: Configuration of the teacher; not changed.
        shape: Shape of the student.
        layers: Teacher layers (1-based) that become the student's; they decide its local and global attention
            layers. Default: the teacher's pattern from its first layer on.
        overrides: Fields to set last.

    Raises:
        ValueError: If the architecture cannot take the shape.
    """
    fields = teacher.to_dict()
    for name in _TEACHER_ONLY:
        fields.pop(name, None)
    names = getattr(type(teacher), "attribute_map", {})
    old = shape_of(teacher)
    fields[names.get("num_hidden_layers", "num_hidden_layers")] = shape.num_layers
    fields[names.get("hidden_size", "hidden_size")] = shape.hidden_size
    fields[names.get("num_attention_heads", "num_attention_heads")] = shape.num_heads
    fields[intermediate_field(teacher)] = shape.intermediate_size
    for name in _PER_LAYER_LISTS:
        if isinstance(fields.get(name), list):
            fields[name] = _cut_per_layer(fields[name], shape.num_layers, layers)
    _follow_width(fields, old, shape, teacher.model_type)
    # Set afterwards and not as fields: only its setter lets `num_labels` renew the label names.
    config = type(teacher).from_dict(fields)
    for name, value in overrides.items():
        setattr(config, name, value)
    return config


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model; shared (tied) parameters count once.

    Attributes:
        embeddings: Token, position and type embeddings with their norm and projection.
        layers: Transformer layers and what stands between them and the head.
        head: Pooler and task head.
    """

    embeddings: int
    layers: int
    head: int

    @property
    def backbone(self) -> int:
        """Embeddings and layers: what the papers' tables call the size of a model."""
        return self.embeddings + self.layers

    @property
    def total(self) -> int:
        """Everything."""
        return self.embeddings + self.layers + self.head


def count_parameters(model: PreTrainedModel) -> ParameterCount:
    """Count a model's parameters by part.

    Raises:
        UnsupportedArchitectureError: If the architecture is unknown
        (`hf_distill.capture.transformer.register_architecture`).
    """
    base, prefix = model.base_model, model.base_model_prefix + "."
    own = str(model.layers_name) if shows_its_signals(model) else describe_architecture(model).spec.layers
    layers = f"{own}."
    counts = {"embeddings": 0, "layers": 0, "head": 0}
    for name, parameter in model.named_parameters():
        inner = name.removeprefix(prefix)
        outside = base is not model and inner == name
        counts[_part_of(inner, outside, layers)] += parameter.numel()
    return ParameterCount(**counts)


def size_table(teacher: PreTrainedModel, student: PreTrainedModel) -> str:
    """A Markdown table of both models: shape, parameters in millions with and without embeddings, and ratios."""
    big, small = count_parameters(teacher), count_parameters(student)
    rows = [
        "| | layers x width (heads, feed-forward) | embeddings | layers | head | total | total without embeddings |",
        "|---|---|---:|---:|---:|---:|---:|",
        _size_row("teacher", teacher, big),
        _size_row("student", student, small),
        "| student / teacher | | "
        + " | ".join(
            f"{a / b:.1%}" if b else "–"
            for a, b in (
                (small.embeddings, big.embeddings),
                (small.layers, big.layers),
                (small.head, big.head),
                (small.total, big.total),
                (small.total - small.embeddings, big.total - big.embeddings),
            )
        )
        + " |",
    ]
    return "\n".join(rows)


def _size_row(label: str, model: PreTrainedModel, count: ParameterCount) -> str:
    config, shape = model.config, None if shows_its_signals(model) else shape_of(model)
    inside = "" if shape is None else f" ({shape.num_heads}, {shape.intermediate_size})"
    numbers = (count.embeddings, count.layers, count.head, count.total, count.total - count.embeddings)
    return (
        f"| {label} | {config.num_hidden_layers}x{config.hidden_size}{inside} | "
        + " | ".join(f"{number / 1e6:.2f} M" for number in numbers)
        + " |"
    )


def _part_of(name: str, outside_base: bool, layers: str) -> str:
    """Which part of `ParameterCount` a parameter of the base model belongs to."""
    if outside_base or name.split(".")[0] in ("pooler", "classifier"):
        return "head"
    if name.startswith(layers):
        return "layers"
    return "embeddings" if "embed" in name else "layers"


# --- configurations -------------------------------------------------------------------------------------------------

# What a teacher's configuration says about the teacher only. Head sizes are dropped so that they follow the new width.
_TEACHER_ONLY = (
    "_name_or_path",
    "architectures",
    "attention_head_size",
    "auto_map",
    "dtype",
    "head_dim",
    "pooler_hidden_size",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "true_hidden_size",
)
_PER_LAYER_LISTS = ("layer_types",)


def _cut_per_layer(values: list[Any], num_layers: int, layers: Sequence[int] | None) -> list[Any]:
    if layers is not None:
        return [values[layer - 1] for layer in layers]
    return [values[index % len(values)] for index in range(num_layers)]


def _follow_width(fields: dict[str, Any], old: StudentShape, shape: StudentShape, model_type: str) -> None:
    """Adapt the fields that depend on width or heads; `fields` is changed in place."""
    if "num_key_value_heads" in fields:
        groups = old.num_heads // fields["num_key_value_heads"]
        fields["num_key_value_heads"] = (
            shape.num_heads // groups
            if shape.num_heads % groups == 0
            else math.gcd(shape.num_heads, fields["num_key_value_heads"])
        )
    # A narrow (factorised) embedding stays as it is, so that it can be copied; a full-width one follows.
    if fields.get("embedding_size") == old.hidden_size:
        fields["embedding_size"] = shape.hidden_size
    if "num_hidden_groups" in fields:
        fields["num_hidden_groups"] = min(fields["num_hidden_groups"], shape.num_layers)
    if "intra_bottleneck_size" in fields:
        ratio = fields["intra_bottleneck_size"] / old.hidden_size
        fields["intra_bottleneck_size"] = shape.num_heads * max(1, round(shape.hidden_size * ratio / shape.num_heads))
    head_size = shape.hidden_size // shape.num_heads
    if fields.get("rope_parameters") and head_size % 2:
        legal = [heads for heads in range(1, 65) if shape.hidden_size % (2 * heads) == 0]
        raise ValueError(
            f"{model_type} uses rotary positions, which need heads of even size; {shape} gives {head_size}. "
            f"Heads that do for a width of {shape.hidden_size}: {legal} (--student_shape LAYERSxHIDDEN:HEADSh)."
        )


# --- teacher, class, random state -----------------------------------------------------------------------------------


def _teacher_config(teacher: PreTrainedModel | PreTrainedConfig | str) -> PreTrainedConfig:
    if isinstance(teacher, PreTrainedConfig):
        return teacher
    if isinstance(teacher, PreTrainedModel):
        return teacher.config
    if isinstance(teacher, str):
        return AutoConfig.from_pretrained(teacher)
    hint = " Merge an adapter first: teacher.merge_and_unload()." if hasattr(teacher, "get_base_model") else ""
    raise TypeError(
        f"A teacher is a model, a configuration, a Hub id or a folder, not {type(teacher).__name__}.{hint}"
    )


def _resolve_class(
    model_class: type | str | None, teacher: PreTrainedModel | PreTrainedConfig | str, config: PreTrainedConfig
) -> type[PreTrainedModel]:
    """The concrete model class of the student."""
    if model_class is None:
        if isinstance(teacher, PreTrainedModel):
            return type(teacher)
        names = _teacher_config(teacher).architectures or []
        model_class = getattr(transformers, names[0], AutoModel) if names else AutoModel
    if isinstance(model_class, str):
        found = getattr(transformers, model_class, None)
        if found is None:
            raise ValueError(f"model_class={model_class!r} is no class of transformers, such as BertForMaskedLM.")
        model_class = found
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is not None:
        if type(config) not in mapping:
            raise ValueError(
                f"{getattr(model_class, '__name__', model_class)} has no model for the architecture "
                f"{config.model_type!r}."
            )
        model_class = mapping[type(config)]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    if not (isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)):
        raise ValueError(f"model_class={model_class!r} is not a model class of transformers.")
    return model_class


@contextmanager
def _private_cpu_rng(seed: int) -> Iterator[None]:
    """Seed the CPU generator for a block, build there in float32, and put everything back."""
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed: that would reseed every accelerator too, which fork_rng does not restore here.
        torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


# --- initialisation from the teacher's layers -----------------------------------------------------------------------


def _resolve_layers(layers: Sequence[int] | None, shape: StudentShape, config: PreTrainedConfig) -> list[int]:
    """1-based teacher layers for the student's layers, after checking that the widths agree."""
    teacher = shape_of(config)
    wanted = replace(shape, num_layers=teacher.num_layers)
    if wanted != teacher:
        raise ValueError(
            f"init='teacher_layers' needs the teacher's widths: teacher {teacher}, student {shape} "
            "(LAYERSxHIDDEN:HEADSh:INTERMEDIATE). Give a student of the teacher's width "
            f"({replace(teacher, num_layers=min(shape.num_layers, teacher.num_layers))}), or use init='random' "
            "(--student_init random)."
        )
    total = teacher.num_layers
    if layers is None:
        if shape.num_layers > total:
            raise ValueError(
                f"A student of {shape.num_layers} layers cannot take its layers from a teacher of {total} without "
                "repeating some: name them in layers=, or use init='random' (--student_init random)."
            )
        return [uniform_teacher_layer(layer, shape.num_layers, total) for layer in range(1, shape.num_layers + 1)]
    if len(layers) != shape.num_layers:
        raise ValueError(
            f"layers={list(layers)} names {len(layers)} teacher layers for a student of "
            f"{shape.num_layers}: give one each."
        )
    return [resolve_layer(layer, total, flag="layers") for layer in layers]


def _teacher_weights(
    teacher: PreTrainedModel | PreTrainedConfig | str, cls: type[PreTrainedModel], init: str
) -> PreTrainedModel:
    if isinstance(teacher, PreTrainedModel):
        return teacher
    if isinstance(teacher, str):
        return cls.from_pretrained(teacher, dtype=torch.float32)
    raise ValueError(f"init={init!r} copies weights: give the teacher as a model, an id or a folder.")


@torch.no_grad()
def _copy_layers(teacher: PreTrainedModel, student: PreTrainedModel, layers: list[int]) -> None:
    """Copy embeddings, chosen layers and, where class and shape agree, the head; in float32.

    A tensor that only one side has keeps its initialisation: ModernBERT's first layer, for one, has no norm.
    """
    source, target = teacher.base_model.state_dict(), student.base_model.state_dict()
    spec = describe_architecture(student).spec
    if spec.shared and student.config.num_hidden_groups != 1:
        raise ValueError("init='teacher_layers' of an ALBERT needs one layer group (num_hidden_groups=1).")
    for name, tensor in target.items():
        origin = name if spec.shared else _teacher_name(name, spec.layers, layers)
        if origin in source and source[origin].shape == tensor.shape:
            tensor.copy_(source[origin])
    if type(teacher) is type(student) and teacher.base_model is not teacher:
        prefix = student.base_model_prefix + "."
        heads = teacher.state_dict()
        for name, tensor in student.state_dict().items():
            if not name.startswith(prefix) and name in heads and heads[name].shape == tensor.shape:
                tensor.copy_(heads[name])


def _teacher_name(name: str, path: str, layers: list[int]) -> str:
    """Name in the teacher's base model of a tensor of the student's."""
    if not name.startswith(path + "."):
        return name
    index, rest = name[len(path) + 1 :].split(".", 1)
    return f"{path}.{layers[int(index)] - 1}.{rest}"
