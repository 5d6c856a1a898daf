"""Writes a comparison of speeds as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def format_report(facts: dict[str, Any]) -> str:
    """The tables of a comparison, as `hf-distill bench` writes them.

    Args:
        facts: The content of `bench.json`.
    """
    names = [model["name"] for model in facts["models"]]
    parts = [
        f"# {', '.join(names[1:])} against {names[0]}",
        f"{facts['device']}, {facts['inputs']}, fp32 products: {facts['fp32_matmul']}. All models ran in one process, "
        "in turns on the same batches.",
        "## Models",
        _models(facts),
        "## The papers' protocol",
        _protocol(facts),
        "## Every engine",
        "Speed-ups are medians over the batches: over the teacher on the same engine, and over the teacher on "
        f"{facts['reference_engine']}.",
        _grid(facts),
    ]
    if facts["left_out"]:
        parts += ["## Left out", "\n".join(_left_out(item) for item in facts["left_out"])]
    return "\n\n".join(parts) + "\n"


def _models(facts: dict[str, Any]) -> str:
    engines = list(dict.fromkeys(engine for model in facts["models"] for engine in model["bytes"]))
    # PyTorch's engines read the same weights.
    shown = [engine for engine in (facts["reference_engine"], "onnx", "onnx_int8") if engine in engines]
    shown = list(dict.fromkeys(shown))
    head = ["model", "layers x width", "parameters", "without embeddings", *(f"MB, {name}" for name in shown), "score"]
    rows = []
    for model in facts["models"]:
        sizes = [f"{model['bytes'][name] / 1e6:.1f}" if name in model["bytes"] else "–" for name in shown]
        quality = model["quality"]
        score = "–" if quality is None else _score(quality)
        without = model["parameters"] - model["embedding_parameters"]
        rows.append(
            [
                model["name"],
                f"{model['layers']}x{model['hidden_size']}",
                f"{model['parameters'] / 1e6:.1f} M",
                f"{without / 1e6:.1f} M",
                *sizes,
                score,
            ]
        )
    return _table(head, rows)


def _score(quality: dict[str, Any]) -> str:
    """A score beside that of the most frequent label."""
    majority, constant = quality.get("majority"), quality.get("constant")
    remarks = [quality["metric"], quality["task"]]
    remarks += [] if majority is None else [f"majority {majority:.4f}"]
    remarks += [] if constant is None else [f"predicts only {constant!r}"]
    return f"{quality['score']:.4f} ({', '.join(remarks)})"


def _protocol(facts: dict[str, Any]) -> str:
    first = facts["protocol"][0]
    said = (
        f"Mean time of {first['num_batches']} batches of {first['batch_size']} rows with {first['seq_length']} "
        f"tokens, on {facts['reference_engine']}. The papers' ratios are those of their machine."
    )
    head = ["model", "ms per batch", "sentences per second", "speed-up", "median of ratios", "papers"]
    rows = [
        [
            row["model"],
            f"{1000 * row['mean_seconds']:.1f}",
            f"{row['batch_size'] / row['mean_seconds']:.1f}",
            f"{row['ratio_of_means']:.2f}x",
            f"{row['speedup']:.2f}x",
            "–" if row["papers"] is None else f"{row['papers']:.1f}x",
        ]
        for row in facts["protocol"]
    ]
    return f"{said}\n\n{_table(head, rows)}"


def _grid(facts: dict[str, Any]) -> str:
    head = [
        *("batch x length", "model", "engine", "ms per batch", "sentences per second"),
        *("speed-up, same engine", f"speed-up over {facts['reference_engine']}"),
    ]
    rows = [
        [
            f"{row['batch_size']} x {row['seq_length']}",
            row["model"],
            row["engine"],
            f"{1000 * row['seconds']:.2f}",
            f"{row['sentences_per_second']:.1f}",
            "–" if row["speedup"] is None else f"{row['speedup']:.2f}x",
            f"{row['speedup_over_reference']:.2f}x",
        ]
        for row in facts["grid"]
    ]
    return _table(head, rows)


def _left_out(item: dict[str, str]) -> str:
    what = f"{item['model']} on {item['engine']}" if "engine" in item else item["what"]
    return f"- {what}: {item['reason']}"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Words on the left, numbers on the right."""
    words = {"model", "layers x width", "engine", "batch x length", "score"}
    line = "|".join("---" if name in words else "---:" for name in head)
    return "\n".join(["| " + " | ".join(head) + " |", f"|{line}|", *("| " + " | ".join(row) + " |" for row in rows)])
