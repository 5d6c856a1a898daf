"""Finds what every axis of a model's weights stands for (width, heads, feed-forward) by building it at other widths.

A weight can be cut to another width only if it is known what its rows and columns stand for. A hidden dimension is the
same one in every layer; the dimensions inside attention heads and the neurons of a feed-forward block are a layer's
own. The models are built on no device: only the sizes of their weights are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from transformers import PreTrainedModel

from .shapes import StudentShape

Space = Literal["hidden", "heads", "key_value_heads", "feed_forward", "fixed"]

# Hidden and head dimensions are equally many, so that only names can tell which of them a matrix of an attention reads
# and writes.
_INTO_HEADS = re.compile(
    r"(^|[._])(query|key|value|pos_key|pos_query|pos|pos_q|q|k|v|in|W?qkv)"
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
