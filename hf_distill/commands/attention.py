"""Draws attention maps of teacher and students for a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.reports.attention import attention_map, draw_attention
from hf_distill.settings import AttentionArguments


def run(arguments: AttentionArguments) -> dict[str, Any]:
    """Draw the attention of models on a sentence.

    Args:
        arguments: The models, the sentence, layers and heads, and the image file.

    Returns:
        `output`, and for each of the `models` its name, layer, number of heads and tokens.

    Raises:
        OSError: If a model does not exist.
        ValueError: If a layer or a head does not exist, or the sentence cannot be used.
    """
    maps = []
    for place, name in enumerate(arguments.models):
        maps.append(
            attention_map(
                load_model(name, flag="--models"),
                load_tokenizer(name, flag="--models"),
                arguments.text,
                layer=-1 if arguments.layers is None else arguments.layers[place],
                name=Path(name).name,
            )
        )
    output = draw_attention(maps, arguments.output, heads=arguments.heads)
    return {
        "job": "attention",
        "output": str(output),
        "models": [
            {"name": one.name, "layer": one.layer, "heads": len(one.weights), "tokens": len(one.tokens)}
            for one in maps
        ],
    }


def summary(results: dict[str, Any]) -> str:
    """Report whose attention was drawn, and where the image is."""
    names = ", ".join(model["name"] for model in results["models"])
    return f"attention of {names}; picture in {results['output']}"
