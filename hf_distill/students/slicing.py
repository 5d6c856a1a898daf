"""Cuts a student out of its teacher: keeps the most important hidden dimensions, dimensions inside heads, and neurons.

Shape legend: H hidden dimensions, A heads, D dimensions of a head, F neurons of a feed-forward block.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_distill.capture.architectures import ArchitectureInfo, describe_architecture

from .blocks import widening
from .shapes import StudentShape, shape_of

# Groups of neighbouring dimensions keep their borders: as many as MiniLMv2 has relation heads at most.
MAX_GROUPS = 48
_VALUES = re.compile(r"(^|[._])(value|v)(_proj|_lin|_global)?\.(weight|bias)$|(^|\.)v_bias$")


@dataclass(frozen=True)
class Importance:
    """The importance of each dimension of a teacher.

    Attributes:
        hidden: Energy (sum of squares) of every hidden dimension, (H,).
        feed_forward: Layer (1-based) -> mean absolute activation of every neuron, (F,); empty if no text was read.
    """

    hidden: Tensor
    feed_forward: Mapping[int, Tensor]


@dataclass(frozen=True)
class Cut:
    """The dimensions of its teacher that a student keeps: their numbers, in the student's order.

    Attributes:
        layers: Teacher layer (1-based) of every student layer.
        hidden: Hidden dimensions.
        heads: Teacher layer -> dimensions inside its heads.
        key_value_heads: Teacher layer -> dimensions inside its heads of keys and values.
        feed_forward: Teacher layer -> neurons.
        head_sizes: D of the teacher and of the student.
        energy: Share of the energy of all hidden dimensions that the chosen ones have.
    """

    layers: tuple[int, ...]
    hidden: Tensor
    heads: Mapping[int, Tensor]
    key_value_heads: Mapping[int, Tensor]
    feed_forward: Mapping[int, Tensor]
    head_sizes: tuple[int, int]
    energy: float

    @property
    def gain(self) -> float:
        """Factor on queries and keys by which attention scores keep their size with fewer dimensions a head."""
        return (self.head_sizes[0] / self.head_sizes[1]) ** 0.25

    def chosen(self, space: Space, layer: int) -> Tensor:
        """The teacher's dimensions of a space in one of its layers (1-based)."""
        spaces = {"heads": self.heads, "key_value_heads": self.key_value_heads, "feed_forward": self.feed_forward}
        return self.hidden if space == "hidden" else spaces[space][layer]

    def places(self, axis: Axis, layer: int, length: int) -> Tensor:
        """The entries that stay of an axis of a teacher layer, whose copies are `length` long."""
        chosen = self.chosen(axis.space, layer)
        if axis.by_head:
            theirs, mine = self.head_sizes
            head, inside = (chosen // theirs).view(-1, 1, mine), (chosen % theirs).view(-1, 1, mine)
            copy = torch.arange(axis.copies).view(1, -1, 1)
            return ((head * axis.copies + copy) * theirs + inside).flatten()
        return torch.cat([chosen + copy * length for copy in range(axis.copies)])


def check_can_be_cut(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Check that a student can be cut out of its teacher.

    Raises:
        ValueError: If it is larger in some dimension, or its layers have bottlenecks (MobileBERT).
    """
    big, small = describe_architecture(teacher), describe_architecture(student)
    if hasattr(teacher.config, "intra_bottleneck_size"):
        raise ValueError(
            f"A {teacher.config.model_type} has bottlenecks inside its layers and cannot be cut: use "
            "--student_init teacher_layers or random."
        )
    sizes = {
        "hidden dimensions": (big.hidden_size, small.hidden_size),
        "dimensions a head": (big.head_size, small.head_size),
        "neurons": (shape_of(teacher).intermediate_size, shape_of(student).intermediate_size),
    }
    larger = [
        f"{mine} {name} where its teacher has {theirs}" for name, (theirs, mine) in sizes.items() if mine > theirs
    ]
    if larger:
        raise ValueError(
            f"A student with {' and '.join(larger)} cannot be cut out of it: give a smaller --student_shape, or "
            "--student_init random."
        )


def importance_of_weights(teacher: PreTrainedModel) -> Importance:
    """Measure the importance of hidden dimensions where there is no text: by the variance of the word embeddings."""
    table = cast(Any, teacher.get_input_embeddings()).weight.detach().float()
    found = describe_architecture(teacher)
    widen = widening(found)
    if widen is not None and widen.in_features == table.shape[1]:
        # The variance of what narrow embeddings are widened to.
        matrix = widen.weight.detach().float()
        return Importance(((matrix @ table.T.cov()) * matrix).sum(1), {})
    return Importance(table.var(0) if table.shape[1] == found.hidden_size else torch.ones(found.hidden_size), {})


def choose_cut(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    layers: Sequence[int],
    importance: Importance,
    axes: Mapping[str, tuple[Axis, ...]],
) -> Cut:
    """Choose what a student keeps of its teacher.

    The kept hidden dimensions are those with the largest energy. Inside heads, every group of neighbouring dimensions
    keeps its share, so that the relation heads of teacher and student stay aligned; with rotary positions the kept
    pairs are spread evenly over the frequencies, which are then the student's own frequencies. The importance of a
    neuron is its mean absolute activation times the norm of its outgoing weights.

    Args:
        teacher: The teacher.
        student: A model that `check_can_be_cut` accepts; its weights are not read.
        layers: Teacher layer (1-based) of every student layer.
        importance: The importance of the dimensions.
        axes: The axes of the weights of the teacher's base model.
    """
    big, small = describe_architecture(teacher), describe_architecture(student)
    hidden = _largest(importance.hidden, small.hidden_size)
    weights = {name: tensor for name, tensor in big.base.state_dict().items() if name in axes}
    heads, key_value_heads, feed_forward = {}, {}, {}
    for layer in dict.fromkeys(layers):
        prefix = f"{big.spec.layers}.{0 if big.spec.shared else layer - 1}."
        inside = [(weights[name], axes[name]) for name in weights if name.startswith(prefix)]
        heads[layer] = _inside_heads(inside, "heads", big, small)
        key_value_heads[layer] = heads[layer]
        if big.num_key_value_heads != big.num_heads:
            key_value_heads[layer] = _inside_heads(inside, "key_value_heads", big, small)
        use = importance.feed_forward.get(layer, torch.ones(()))
        strength = _energy(inside, "feed_forward", big.head_size, outgoing=True).sqrt() * use
        feed_forward[layer] = _largest(strength, shape_of(student).intermediate_size)
    energy = float(importance.hidden[hidden].sum() / importance.hidden.sum().clamp(min=1e-30))
    sizes = (big.head_size, small.head_size)
    return Cut(tuple(layers), hidden, heads, key_value_heads, feed_forward, sizes, energy)


def cut_weights(
    teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut, axes: Mapping[str, tuple[Axis, ...]]
) -> None:
    """Give a student its part of every weight of a teacher of the same class; in place.

    Args:
        teacher: The teacher.
        student: The student.
        cut: What is kept.
        axes: The axes of the teacher's weights.
    """

    def part(name: str, tensor: Tensor, layer: int) -> Tensor:
        return cut_tensor(tensor, axes[name], cut, layer) * row_factors(name, axes[name], cut)

    take_weights(teacher, student, cut.layers, part)


@torch.no_grad()
def take_weights(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    layers: Sequence[int],
    part: Callable[[str, Tensor, int], Tensor],
) -> None:
    """Copy a part of every weight of a teacher of the same class to a student; in place.

    A tensor that only one of the models has, or that has another shape, keeps its random values: for example,
    ModernBERT's first layer has no norm. Embedding tables share their first rows.

    Args:
        teacher: The teacher.
        student: The student.
        layers: Teacher layer (1-based) of every student layer.
        part: Name of a teacher's weight, the weight, and its layer (1-based; 0 outside of all) -> what is taken.

    Raises:
        ValueError: If the layers are shared (ALBERT) in several groups.
    """
    spec = describe_architecture(student).spec
    if spec.shared and student.config.num_hidden_groups != 1:
        raise ValueError(
            f"The weights of an ALBERT can be taken from one layer group, not from {student.config.num_hidden_groups} "
            "(num_hidden_groups): use --student_init random."
        )
    theirs, mine = (base_prefix(model) for model in (teacher, student))
    source, given = teacher.state_dict(), set()
    for name, target in student.state_dict().items():
        # One of them may be a base model, and the other have a head.
        inside = name.removeprefix(mine) if name.startswith(mine) else None
        origin, layer = name if inside is None else theirs + inside, layers[0] if spec.shared else 0
        if not spec.shared and inside is not None and inside.startswith(f"{spec.layers}."):
            number, rest = inside.removeprefix(f"{spec.layers}.").split(".", 1)
            layer = layers[int(number)]
            origin = f"{theirs}{spec.layers}.{layer - 1}.{rest}"
        # The matrix of a head may be the table of words, which has those of the table.
        if origin in source and target.data_ptr() not in given:
            given.add(target.data_ptr())
            value = part(origin, source[origin], layer)
            if value.shape == target.shape:
                target.copy_(value)
            elif value.shape[1:] == target.shape[1:] and isinstance(_module_of(student, name), nn.Embedding):
                # A table of more or fewer positions, or words, has those that both have.
                rows = min(len(value), len(target))
                target[:rows].copy_(value[:rows])


def _module_of(model: PreTrainedModel, name: str) -> nn.Module:
    """The module that has a weight."""
    return model.get_submodule(name.rpartition(".")[0])


def base_prefix(model: PreTrainedModel) -> str:
    """What the names of the base model's weights begin with in a model; nothing in a base model itself."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def cut_tensor(tensor: Tensor, axes: Sequence[Axis], cut: Cut, layer: int) -> Tensor:
    """The part of a weight that a student keeps.

    Args:
        tensor: A weight of the teacher.
        axes: Its axes.
        cut: What is kept.
        layer: The teacher layer that it belongs to (1-based); 0 for weights outside of all layers.
    """
    for position, axis in enumerate(axes):
        if axis.space != "fixed":
            length = tensor.shape[position] // axis.copies
            tensor = tensor.index_select(position, cut.places(axis, layer, length).to(tensor.device))
    return tensor


def row_factors(name: str, axes: Sequence[Axis], cut: Cut) -> Tensor:
    """Return the factors of the rows of a cut weight: `cut.gain` where they give queries and keys, else 1."""
    first = axes[0] if axes else Axis("fixed")
    if first.space not in ("heads", "key_value_heads") or _VALUES.search(name) or cut.gain == 1.0:
        return torch.ones(())
    if first.copies == 1:
        return torch.tensor(cut.gain)
    gains = torch.tensor([cut.gain, cut.gain, 1.0])
    dimensions = len(next(iter(cut.heads.values())))
    rows = gains.repeat_interleave(cut.head_sizes[1]).repeat(dimensions // cut.head_sizes[1])
    rows = rows if first.by_head else gains.repeat_interleave(dimensions)
    return rows.view(-1, *[1] * (len(axes) - 1))


def _inside_heads(
    inside: Sequence[tuple[Tensor, tuple[Axis, ...]]], space: Space, big: ArchitectureInfo, small: ArchitectureInfo
) -> Tensor:
    """The dimensions that stay inside the heads of a layer, group by group."""
    counts = (big.num_heads, small.num_heads)
    if space == "key_value_heads":
        counts = (big.num_key_value_heads, small.num_key_value_heads)
    theirs, mine = big.head_size, small.head_size
    if getattr(big.base.config, "rope_parameters", None) or counts[0] * theirs != big.hidden_size:
        from_head = torch.arange(counts[1]) * counts[0] // counts[1]
        # A rotation turns a dimension of the first half of a head together with its partner in the second.
        pairs = torch.arange(mine // 2) * (theirs // 2) // (mine // 2)
        return (from_head[:, None] * theirs + torch.cat([pairs, pairs + theirs // 2])).flatten()
    groups = _groups(big, small)
    energy = _energy(inside, space, theirs).view(groups, -1)
    kept = small.hidden_size // groups
    within = torch.stack([_largest(group, kept) for group in energy])
    return (within + torch.arange(groups)[:, None] * energy.shape[1]).flatten()


def _groups(big: ArchitectureInfo, small: ArchitectureInfo) -> int:
    """As many groups as relation heads that both widths allow; whole heads where both sides have equally many."""
    both = math.gcd(big.hidden_size, small.hidden_size)
    legal = [count for count in range(1, MAX_GROUPS + 1) if both % count == 0]
    if big.num_heads == small.num_heads:
        legal = [count for count in legal if count % big.num_heads == 0] or [big.num_heads]
    return max(legal)


def _energy(
    inside: Sequence[tuple[Tensor, tuple[Axis, ...]]], space: Space, head_size: int, *, outgoing: bool = False
) -> Tensor:
    """Squared length of the weights of every dimension of a space in a layer: those into it, or those out of it."""
    found: Any = 0.0
    for tensor, axes in inside:
        for position, axis in enumerate(axes):
            if axis.space != space or tensor.dim() != 2 or (position == 1) != outgoing:
                continue
            rows = tensor.detach().double().movedim(position, 0).square().sum(1)
            if axis.by_head:
                found = found + rows.view(-1, axis.copies, head_size).sum(1).flatten()
            else:
                found = found + rows.view(axis.copies, -1).sum(0)
    return found


def _largest(values: Tensor, count: int) -> Tensor:
    """Numbers of the `count` largest values in rising order; of equal values the first."""
    return torch.argsort(values, descending=True, stable=True)[:count].sort().values


Space = Literal["hidden", "heads", "key_value_heads", "feed_forward", "fixed"]

# Hidden and head dimensions are equally many, so that only names can tell which of them a matrix of an attention reads
# and writes.
_INTO_HEADS = re.compile(
    r"(^|[._])(query|key|value|pos_key|pos_query|pos|pos_q|q|k|v|in(?=_proj)|W?qkv)"
    r"(_proj|_lin|_global)?\.(weight|bias)$|(^|\.)[qv]_bias$"
)
_KEYS_OR_VALUES = re.compile(r"(^|[._])(key|value|k|v)(_proj|_lin)?\.(weight|bias)$")
_OUT_OF_HEADS = re.compile(
    r"(attention\.output\.dense|(attn|attention)\.(o|Wo|o_proj|out_proj|out_lin|dense))\.weight$"
)


@dataclass(frozen=True)
class Axis:
    """One axis of a weight.

    Attributes:
        space: What its entries stand for; a `fixed` axis is as long in a teacher as in its student.
        copies: How often the space stands on it, such as in one matrix for queries, keys and values.
        by_head: Whether the copies of one head stand side by side (DeBERTa) instead of those of all heads.
    """

    space: Space
    copies: int = 1
    by_head: bool = False


def axes_of(
    build: Callable[[StudentShape], PreTrainedModel], shape: StudentShape, key_value_heads: int
) -> Mapping[str, tuple[Axis, ...]]:
    """The axes of every weight of an architecture.

    Args:
        build: Makes a model of the architecture in a shape.
        shape: A shape that it can take.
        key_value_heads: Heads of the keys and values in that shape.

    Returns:
        Name of the weight -> its axes, in order.
    """
    wider = replace(shape, hidden_size=2 * shape.hidden_size)
    fatter = replace(shape, intermediate_size=2 * shape.intermediate_size)
    sizes, wide, fat = (_sizes(build, each) for each in (shape, wider, fatter))
    lengths = {
        "hidden": shape.hidden_size,
        "heads": shape.hidden_size,
        "key_value_heads": shape.hidden_size // shape.num_heads * key_value_heads,
        "feed_forward": shape.intermediate_size,
    }
    grouped = key_value_heads != shape.num_heads
    axes = {}
    for name, size in sizes.items():
        found = []
        for position, length in enumerate(size):
            if fat[name][position] != length:
                space: Space = "feed_forward"
            elif wide[name][position] != length:
                space = _space_of_width(name, position, len(size), grouped)
            else:
                space = "fixed"
            copies = 1 if space == "fixed" else length // lengths[space]
            found.append(Axis(space, copies, by_head=name.endswith("in_proj.weight") and space == "heads"))
        axes[name] = tuple(found)
    return axes


def _sizes(build: Callable[[StudentShape], PreTrainedModel], shape: StudentShape) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build(shape).state_dict().items()}


def _space_of_width(name: str, position: int, dimensions: int, grouped: bool) -> Space:
    """Return what an axis that grows with the width stands for: hidden dimensions, or those inside heads."""
    if position == 0 and _INTO_HEADS.search(name):
        return "key_value_heads" if grouped and _KEYS_OR_VALUES.search(name) else "heads"
    if (position, dimensions) == (1, 2) and _OUT_OF_HEADS.search(name):
        return "heads"
    return "hidden"
