"""Sizes of models, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from hf_distill.capture.architectures import describe_architecture, shows_its_signals

from .shapes import shape_of


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
        """All parameters."""
        return self.embeddings + self.layers + self.head


def count_parameters(model: PreTrainedModel) -> ParameterCount:
    """Count a model's parameters by part.

    Raises:
        UnsupportedArchitectureError: If the architecture is unknown (see `register_architecture`).
    """
    base, prefix = model.base_model, model.base_model_prefix + "."
    own = str(model.layers_name) if shows_its_signals(model) else describe_architecture(model).spec.layers
    layers = f"{own}."
    counts = {"embeddings": 0, "layers": 0, "head": 0}
    for name, parameter in model.named_parameters():
        inner = name.removeprefix(prefix)
        outside = base is not model and inner == name
        # Of weights that DeepSpeed shares out a process has a part.
        counts[_part_of(inner, outside, layers)] += getattr(parameter, "ds_numel", parameter.numel())
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
    """Return the part of `ParameterCount` that a parameter of the base model belongs to."""
    if outside_base or name.split(".")[0] in ("pooler", "classifier"):
        return "head"
    if name.startswith(layers):
        return "layers"
    return "embeddings" if "embed" in name else "layers"
