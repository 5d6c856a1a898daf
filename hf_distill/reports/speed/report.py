"""Formats a comparison of speeds as Markdown, and draws quality against latency."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_distill._optional import require
from hf_distill.hub.rendering import render_template
from hf_distill.storage.files import new_file

TEMPLATES = Path(__file__).parents[1] / "templates"


def format_report(facts: dict[str, Any]) -> str:
    """The tables of a comparison, as printed by `hf-distill bench`.

    Args:
        facts: The content of `bench.json`.
    """
    filters = {"score": _score, "ratio": lambda value: "–" if value is None else f"{value:.2f}x"}
    return render_template("bench.md", filters, templates=TEMPLATES, **facts) + "\n"


def _score(quality: dict[str, Any] | None) -> str:
    """A score beside that of the majority label; a dash if there is none."""
    if quality is None:
        return "–"
    majority, constant = quality.get("majority"), quality.get("constant")
    remarks = [quality["metric"], quality["task"]]
    remarks += [] if majority is None else [f"majority {majority:.4f}"]
    remarks += [] if constant is None else [f"predicts only {constant!r}"]
    return f"{quality['score']:.4f} ({', '.join(remarks)})"


MARKERS = {"sdpa": "o", "eager": "P", "compiled": "D", "onnx": "s", "onnx_int8": "^"}


@dataclass(frozen=True)
class Point:
    """A model on an engine, as a point of the figure.

    Attributes:
        model: Name of the model.
        engine: Name of the engine.
        milliseconds: Median time for one sentence.
        score: Its score on this engine.
    """

    model: str
    engine: str
    milliseconds: float
    score: float


def points_of(facts: dict[str, Any]) -> list[Point]:
    """The points of a comparison, for the last shape of its grid.

    Only scores on the same task are comparable: it is the task of the first model with a score; models with scores on
    other tasks are left out.

    Args:
        facts: The content of `bench.json`.
    """
    qualities = {model["name"]: model["quality"] for model in facts["models"] if model["quality"] is not None}
    if not qualities:
        return []
    first = next(iter(qualities.values()))
    shape = (facts["grid"][-1]["batch_size"], facts["grid"][-1]["seq_length"])
    found = []
    for row in facts["grid"]:
        quality = qualities.get(row["model"])
        if quality is None or (quality["task"], quality["metric"]) != (first["task"], first["metric"]):
            continue
        score = quality["by_engine"].get(row["engine"])
        if (row["batch_size"], row["seq_length"]) == shape and score is not None:
            found.append(Point(row["model"], row["engine"], 1000 * row["seconds"] / row["batch_size"], score))
    return found


# Names of the engines in a figure.
ENGINE_NAMES = {
    "sdpa": "PyTorch",
    "eager": "PyTorch, eager attention",
    "compiled": "PyTorch, compiled",
    "onnx": "ONNX Runtime",
    "onnx_int8": "ONNX Runtime, int8",
}


def short_models(names: Sequence[str]) -> dict[str, str]:
    """Names of models without their common first words: `sst2_teacher` and `sst2_4x312` become teacher and 4x312."""
    words = {name: re.split(r"[_\s]+", name) for name in names}
    beginnings = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*words.values(), strict=False))
    # Keep at least one word of every name.
    shared = min(len(list(beginnings)) if len(words) > 1 else 0, *(len(found) - 1 for found in words.values()))
    return {name: " ".join(found[shared:]) for name, found in words.items()}


def draw_quality(points: list[Point], path: str | os.PathLike[str], *, title: str, ylabel: str) -> Path:
    """Draw the points; a line joins the points of each model.

    Args:
        points: At least one.
        path: Image file to write; its suffix determines the format (png, svg, pdf).
        title: Title of the figure.
        ylabel: Name of the score.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figures = require("matplotlib.figure", extra="plots", needed_by="the figure of quality against latency")
    ticker = require("matplotlib.ticker", extra="plots", needed_by="the figure of quality against latency")
    figure = figures.Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    models = list(dict.fromkeys(point.model for point in points))
    called = short_models(models)
    for number, model in enumerate(models):
        own = sorted((point for point in points if point.model == model), key=lambda point: point.milliseconds)
        times, scores = [point.milliseconds for point in own], [100 * point.score for point in own]
        axes.plot(times, scores, color=f"C{number}", linewidth=1, alpha=0.6, label=model)
        for point in own:
            axes.plot(point.milliseconds, 100 * point.score, MARKERS[point.engine], color=f"C{number}", markersize=7)
        # The names of lower models go below their lines, which run below the others.
        below = scores[-1] < max(100 * point.score for point in points)
        place: dict[str, Any] = {"xytext": (0, -17 if below else 9), "textcoords": "offset points", "ha": "center"}
        place |= {"fontsize": 11, "fontweight": "bold"}
        axes.annotate(called[model], (times[-1], scores[-1]), color=f"C{number}", **place)
    for engine in dict.fromkeys(point.engine for point in points):
        axes.plot([], [], MARKERS[engine], color="0.3", label=ENGINE_NAMES.get(engine, engine))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[len(models) :], labels[len(models) :], frameon=False, loc="upper left")
    axes.set_xscale("log")
    # Ticks at 1, 2, 5, 10, … in plain numbers.
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.margins(x=0.2, y=0.15)
    axes.set(xlabel="milliseconds per sentence (left is faster)", ylabel=f"{ylabel}, in percent")
    axes.set_title(title, fontsize=10)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    with new_file(path) as part:
        figure.savefig(part, dpi=160)
    return Path(path)
