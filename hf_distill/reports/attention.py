"""Draws the attention of teacher and students as images (MiniLM, supplement).

Shape legend: A attention heads, T tokens of the text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill._optional import require
from hf_distill.capture.architectures import describe_architecture
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture
from hf_distill.storage.files import new_file

# The labels of more tokens would be unreadable.
MAX_TOKENS = 64
INCHES_PER_MAP = 2.6


@dataclass(frozen=True)
class AttentionMap:
    """The attention of one layer on one text.

    Attributes:
        name: Name of the model.
        layer: Number of the layer, from 1.
        tokens: The T tokens.
        weights: (A, T, T) attention weights of every head; each row sums to 1.
    """

    name: str
    layer: int
    tokens: list[str]
    weights: Tensor


@torch.no_grad()
def attention_map(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, *, layer: int = -1, name: str = "model"
) -> AttentionMap:
    """Compute the attention of a model for a text, from the scores of one layer.

    Args:
        model: An encoder with or without a head, or one with adapters; it is not changed.
        tokenizer: Its tokenizer.
        text: The text, at most 64 tokens with the special ones.
        layer: Number of the layer, from 1, or negative to count from the end.
        name: Name of the model in messages and on the image.

    Raises:
        ValueError: If the text is empty or too long, the model does not have the layer, or its attention is causal.
    """
    depth = describe_architecture(model).num_layers
    if layer == 0 or not -depth <= layer <= depth:
        raise ValueError(
            f"`--layers` has {layer}; {name} has the layers 1 to {depth}, or -1 to -{depth} from the end."
        )
    # Attention modules of transformers have this attribute.
    if any(getattr(module, "is_causal", False) is True for module in model.modules()):
        raise ValueError(f"{name} has causal attention; attention maps are drawn only for encoders.")
    if not text.strip():
        raise ValueError("`--text` is empty; give a sentence.")
    inputs = tokenizer(text, return_tensors="pt").to(model.device)
    ids = inputs["input_ids"][0].tolist()
    if len(ids) > MAX_TOKENS:
        raise ValueError(f"`--text` has {len(ids)} tokens; a map has room for {MAX_TOKENS}.")
    number = layer if layer > 0 else depth + 1 + layer
    was_training = model.training
    model.eval()
    capture = SignalCapture(model, SignalRequest(attention_scores=frozenset({number})))
    scores = capture(**{key: value for key, value in inputs.items() if key in tokenizer.model_input_names})
    model.train(was_training)
    weights = scores.attention_scores[number][0].float().softmax(-1).cpu()
    return AttentionMap(name, number, [str(token) for token in tokenizer.convert_ids_to_tokens(ids)], weights)


def draw_attention(
    maps: Sequence[AttentionMap], path: str | os.PathLike[str], *, heads: Sequence[int] | None = None
) -> Path:
    """Draw a row of maps for each model: the mean over its heads, then single heads, all on the same scale.

    Args:
        maps: Maps of one or several models.
        path: Image file to write; its suffix determines the format (png, svg, pdf).
        heads: Numbers of heads to draw beside the mean, from 1; by default none.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is no map, or a model does not have a head.
    """
    chosen = list(heads or ())
    if not maps:
        raise ValueError("There is no map to draw.")
    for one in maps:
        missing = [head for head in chosen if not 1 <= head <= len(one.weights)]
        if missing:
            raise ValueError(f"`--heads` has {missing}; {one.name} has the heads 1 to {len(one.weights)}.")
    figures = require("matplotlib.figure", extra="plots", needed_by="the picture of attention")
    rows, columns = len(maps), 1 + len(chosen)
    figure = figures.Figure(figsize=(INCHES_PER_MAP * columns + 1, INCHES_PER_MAP * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    rows_of_pictures = [[one.weights.mean(0), *(one.weights[head - 1] for head in chosen)] for one in maps]
    highest = max(float(picture.max()) for pictures in rows_of_pictures for picture in pictures)
    for one, axes, pictures in zip(maps, grid, rows_of_pictures, strict=True):
        titles = [f"{one.name}, layer {one.layer}, mean of {len(one.weights)}", *(f"head {head}" for head in chosen)]
        for axis, picture, title in zip(axes, pictures, titles, strict=True):
            drawn = _draw(axis, picture, one.tokens, title, highest)
    bar = figure.colorbar(drawn, ax=grid, shrink=0.6, aspect=30)
    bar.set_label("attention, the same scale in all maps", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    target = Path(path)
    with new_file(target) as part:
        figure.savefig(part, dpi=150)
    return target


def _draw(axis: Any, picture: Tensor, tokens: list[str], title: str, highest: float) -> Any:
    """Draw one map: queries from top to bottom, keys from left to right; `highest` has the darkest blue."""
    drawn = axis.imshow(picture.numpy(), cmap="Blues", vmin=0, vmax=highest)
    axis.set_title(title, fontsize=8)
    # A dollar sign would start a formula.
    labels = [token.replace("$", r"\$") for token in tokens]
    axis.set_xticks(range(len(tokens)), labels, rotation=90, fontsize=6)
    axis.set_yticks(range(len(tokens)), labels, fontsize=6)
    return drawn
