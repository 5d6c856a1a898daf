"""The curves of runs as pictures: one place for every quantity, one line for every run."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_distill._optional import require
from hf_distill.reports.runs import Curve, Run

STAGES = {
    "teach": "Fine-tuning the teacher",
    "distill": "Distillation",
    "adapt": "Fine-tuning the student",
    "baseline": "Fine-tuning the baseline",
    "fine-tuning": "Fine-tuning",
}
# What a curve is about, by the beginning of its name without `eval_`; the first that fits.
GROUPS = {
    "Score on the task": ("task/", "probe/"),
    "Agreement with the teacher": ("agreement", "kl/"),
    "Loss and its terms": ("loss",),
    "Schedules": ("weight/", "temperature/", "gold_share/"),
    "Optimizer": ("learning_rate", "grad_norm"),
}
OTHER = "Scores"
COLUMNS = 3
MOST_POINTS = 400


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        run: Name of the run.
        points: Its points.
        evaluated: Whether it was measured on held-out rows.
    """

    run: str
    points: Curve
    evaluated: bool


@dataclass(frozen=True)
class Panel:
    """One quantity.

    Attributes:
        name: What it is, as in the logs but for `eval_`.
        lines: At least one.
    """

    name: str
    lines: list[Line]


@dataclass(frozen=True)
class Figure:
    """Quantities of one kind, of one stage.

    Attributes:
        stage: The stage, in words.
        title: What they are about.
        panels: In alphabetical order.
    """

    stage: str
    title: str
    panels: list[Panel]


def plan_figures(runs: Sequence[Run]) -> list[Figure]:
    """Every curve of every run, by stage and kind."""
    figures = []
    stages = [stage for stage in STAGES if any(stage in run.curves for run in runs)]
    for stage in stages:
        grouped: dict[str, dict[str, list[Line]]] = {title: {} for title in (*GROUPS, OTHER)}
        for run in runs:
            for name, points in run.curves.get(stage, {}).items():
                plain = name.removeprefix("eval_")
                line = Line(run.name, points, evaluated=plain != name)
                grouped[group_of(plain)].setdefault(plain, []).append(line)
        for title, panels in grouped.items():
            if panels:
                ordered = [Panel(name, panels[name]) for name in sorted(panels)]
                figures.append(Figure(STAGES[stage], title, ordered))
    return figures


def group_of(name: str) -> str:
    """Return the group of curves that a curve belongs to."""
    return next((title for title, beginnings in GROUPS.items() if name.startswith(beginnings)), OTHER)


def thinned(points: Curve) -> Curve:
    """At most `MOST_POINTS` points, evenly spread, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return points
    last = len(points) - 1
    return [points[round(index * last / (MOST_POINTS - 1))] for index in range(MOST_POINTS)]


def draw(figure: Figure, runs: Sequence[str]) -> str:
    """A figure as SVG: the panels side by side, held-out values dashed with dots.

    Args:
        figure: What to draw.
        runs: Names of all runs, whose order gives them their colours.

    Raises:
        ImportError: If matplotlib is missing.
    """
    matplotlib = require("matplotlib", extra="plots", needed_by="the curves of a report")
    figures = require("matplotlib.figure", extra="plots", needed_by="the curves of a report")
    columns = min(COLUMNS, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    # The same curves give the same file; text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "hf_distill", "svg.fonttype": "none", "font.size": 9}):
        picture = figures.Figure(figsize=(3.6 * columns, 2.5 * rows + 0.35), layout="constrained")
        grid = picture.subplots(rows, columns, squeeze=False).flatten()
        for axes, panel in zip(grid, figure.panels, strict=False):
            _draw_panel(axes, panel, list(runs))
        for axes in grid[len(figure.panels) :]:
            axes.set_visible(False)
        _add_legend(picture, grid[: len(figure.panels)])
        buffer = io.StringIO()
        picture.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def as_data_uri(svg: str) -> str:
    """A picture that needs no file."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _draw_panel(axes: Any, panel: Panel, runs: list[str]) -> None:
    for line in panel.lines:
        points = thinned(line.points)
        style: dict[str, Any] = {"linestyle": "--", "marker": "o", "markersize": 3} if line.evaluated else {}
        if len(points) == 1:
            style["marker"] = "o"
        label = f"{line.run}, held out" if line.evaluated else line.run
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=f"C{runs.index(line.run) % 10}", linewidth=1.2, label=label, **style)
    axes.set_title(panel.name, fontsize=9)
    axes.set_xlabel("updates", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(picture: Any, grid: Sequence[Any]) -> None:
    """One legend for all panels, if there is more than one kind of line."""
    found: dict[str, Any] = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if len(found) > 1:
        picture.legend(
            found.values(),
            found.keys(),
            loc="outside upper center",
            ncols=min(4, len(found)),
            frameon=False,
            fontsize=8,
        )
