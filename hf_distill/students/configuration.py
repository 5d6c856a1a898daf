"""Configurations of students: the teacher's, in another shape and without what belongs to the teacher alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transformers.configuration_utils import PreTrainedConfig

from .shapes import StudentShape, intermediate_field, shape_of

# What a teacher's configuration says about the teacher only. Head sizes are dropped so that they follow the new width.
_TEACHER_ONLY = (
    "_name_or_path",
    "architectures",
    "attention_head_size",
    "auto_map",
    "dtype",
    "head_dim",
    "output_attentions",
    "pooler_hidden_size",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "true_hidden_size",
)


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
    for name, value in fields.items():
        # Such as ModernBERT's kinds of layers and Longformer's windows.
        if isinstance(value, list) and len(value) == old.num_layers:
            fields[name] = _cut_per_layer(value, shape.num_layers, layers)
    _follow_width(fields, old, shape, teacher.model_type)
    # Set afterwards and not as fields: only its setter lets `num_labels` renew the label names.
    config = type(teacher).from_dict(fields)
    for name, value in overrides.items():
        setattr(config, name, value)
    return config
