"""Shapes of students: four numbers, the names of shapes in the papers' tables, and the form of any other shape."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..storage.plain_values import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.configuration_utils import PreTrainedConfig

GRAMMAR = "LAYERSxHIDDEN[:HEADSh[:INTERMEDIATE]], such as 6x384, 6x384:32h or 5x256:8h:1024"


@dataclass(frozen=True)
class StudentShape:
    """The four numbers that make a student.

    Attributes:
        num_layers: Transformer layers.
        hidden_size: Width of the hidden states.
        num_heads: Attention heads; must divide `hidden_size`.
        intermediate_size: Inner width of the feed-forward blocks, taken literally by every architecture (a gated
            block, as in ModernBERT or Llama, has three matrices of it where BERT has two).

    Raises:
        ValueError: If a number is not positive or the heads do not divide the width.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int

    def __post_init__(self) -> None:
        for name in ("num_layers", "hidden_size", "num_heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} (--student_shape): it must be 1 or more.")
        if self.hidden_size % self.num_heads:
            legal = [heads for heads in range(1, 65) if self.hidden_size % heads == 0]
            raise ValueError(
                f"{self.num_heads} heads do not divide the hidden size {self.hidden_size} (--student_shape); heads "
                f"that do: {legal}."
            )

    def __str__(self) -> str:
        """The shape in the grammar of `parse_shape`."""
        return f"{self.num_layers}x{self.hidden_size}:{self.num_heads}h:{self.intermediate_size}"


# Every student of the papers' tables. 4x312 has TinyBERT4's 1200; its ERNIE 3.0 Nano twin has 1248. T12-nano's
# number of heads is not stated (12 does not divide 256): 4 heads of 64, the width of BERT's own heads.
NAMED_SHAPES: Mapping[str, StudentShape] = {
    "6x384": StudentShape(6, 384, 12, 1536),
    "4x312": StudentShape(4, 312, 12, 1200),
    "4x312-ernie": StudentShape(4, 312, 12, 1248),
    "6x768": StudentShape(6, 768, 12, 3072),
    "3x768": StudentShape(3, 768, 12, 3072),
    "3x384": StudentShape(3, 384, 12, 1536),
    "4x384": StudentShape(4, 384, 12, 1536),
    "12x384": StudentShape(12, 384, 12, 1536),
    "12x256": StudentShape(12, 256, 4, 1024),
}
SHAPE_ALIASES: Mapping[str, str] = {
    "t6": "6x768",
    "t3": "3x768",
    "t3-small": "3x384",
    "t4-tiny": "4x312",
    "t12-nano": "12x256",
    "tinybert4": "4x312",
    "tinybert6": "6x768",
    "ernie-3.0-nano": "4x312-ernie",
}
# No model has more than six digits of anything.
_SHAPE = re.compile(r"(\d{1,6})x(\d{1,6})(?::(\d{1,6})h(?::(\d{1,6}))?)?", re.ASCII)


def parse_shape(text: str) -> StudentShape:
    """Read a shape by its name (`"4x312"`, `"T4-tiny"`) or in the form `LAYERSxWIDTH[:HEADSh[:FEED_FORWARD]]`.

    Examples of the form are `"6x384:32h"` and `"5x256:8h:1024"`. Without heads and feed-forward width, those of the
    named shape with the same layers and width are used; if there is none, 12 heads and four times the width, as in
    every table of the papers.

    Raises:
        ValueError: If the text is neither; the message lists the names and the form.
    """
    if not isinstance(text, str):
        raise ValueError(f"The student shape is {shown(text)} (--student_shape); it must be text: {GRAMMAR}.")
    key = text.strip().lower().replace("×", "x")
    key = SHAPE_ALIASES.get(key, key)
    if key in NAMED_SHAPES:
        return NAMED_SHAPES[key]
    match = _SHAPE.fullmatch(key)
    if match is None:
        raise ValueError(
            f"Unknown student shape {shown(text)} (--student_shape). Names: {', '.join(NAMED_SHAPES)}; aliases: "
            f"{', '.join(SHAPE_ALIASES)}; anything else: {GRAMMAR}."
        )
    layers, hidden = int(match[1]), int(match[2])
    named = NAMED_SHAPES.get(f"{layers}x{hidden}")
    heads = int(match[3]) if match[3] else (named.num_heads if named else 12)
    if not match[3] and hidden % heads:
        raise ValueError(
            f"Student shape {text!r} (--student_shape): the usual 12 heads do not divide {hidden}, so name the "
            f"heads, for example {layers}x{hidden}:{max(1, math.gcd(hidden, 64))}h. Grammar: {GRAMMAR}."
        )
    intermediate = int(match[4]) if match[4] else (named.intermediate_size if named else 4 * hidden)
    return StudentShape(layers, hidden, heads, intermediate)


def shape_of(model: PreTrainedModel | PreTrainedConfig) -> StudentShape:
    """The shape of a model or configuration, whatever its architecture calls the four numbers."""
    config: Any = getattr(model, "config", model)
    return StudentShape(
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        intermediate_size=getattr(config, intermediate_field(config)),
    )


def intermediate_field(config: PreTrainedConfig) -> str:
    """Name of the feed-forward width in this configuration (`hidden_dim` in DistilBERT)."""
    there = [name for name in ("intermediate_size", "hidden_dim") if hasattr(config, name)]
    # A configuration keeps names that its model does not read, such as those of the BERT that it was made from.
    read = [name for name in there if name in inspect.signature(type(config)).parameters]
    if there:
        return (read or there)[0]
    raise ValueError(
        f"The architecture {config.model_type!r} keeps its feed-forward width under a name this package does not "
        "know (neither `intermediate_size` nor `hidden_dim`). Build its student yourself and pass the model."
    )
