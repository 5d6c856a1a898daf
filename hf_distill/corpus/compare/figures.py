"""Figures of a comparison: common words as a heat map, and over the top shares of a corpus (extra `plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_distill._optional import require
from hf_distill.storage.files import new_file

_DPI = 120


def draw_overlap(
    values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], path: Path, *, title: str
) -> Path:
    """Draw the common words as a heat map with numbers.

    Args:
        values: Percent, one list for each row.
        rows: Names of the rows.
        columns: Names of the columns.
        path: Image file to write.
        title: Title of the figure.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure, axes = _axes(2.2 + 0.75 * len(columns), 1.6 + 0.45 * len(rows))
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            colour = "white" if value < 60 else "black"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label="words in common, %", shrink=0.9)
    with new_file(path) as part:
        figure.savefig(part, dpi=_DPI)
    return path


def draw_top_shares(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], levels: Mapping[str, float], path: Path, *, title: str
) -> Path:
    """Draw the words in common with the task over the top shares of retrieved corpora.

    Args:
        curves: Corpus -> its points (`top_share`, `share`).
        levels: Other corpora -> their words in common, drawn as horizontal lines.
        path: Image file to write.
        title: Title of the figure.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure, axes = _axes(6.4, 4)
    for number, (name, points) in enumerate(curves.items()):
        shares, overlaps = [100 * point["top_share"] for point in points], [point["share"] for point in points]
        axes.plot(shares, overlaps, "o-", color=f"C{number}", label=name)
    for number, (name, level) in enumerate(levels.items(), len(curves)):
        axes.axhline(level, color=f"C{number}", linestyle="--", linewidth=1, label=name)
    axes.set(xlabel="top share of the corpus, %", ylabel="words in common with the task, %", title=title)
    axes.grid(visible=True, alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    with new_file(path) as part:
        figure.savefig(part, dpi=_DPI)
    return path


def _axes(width: float, height: float) -> tuple[Any, Any]:
    figures = require("matplotlib.figure", extra="plots", needed_by="the figure of this comparison")
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
