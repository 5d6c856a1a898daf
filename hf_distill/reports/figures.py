"""Draws the curves of runs: one panel for every quantity, one line for every run."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
# Group of a curve -> beginnings of its name without `eval_`; the first match counts.
GROUPS = {
    "Score on the task": ("task/", "probe/"),
    "Agreement with the teacher": ("agreement", "kl/"),
    "Loss and its terms": ("loss",),
    "Schedules": ("weight/", "temperature/", "gold_share/"),
    "Optimizer": ("learning_rate", "grad_norm"),
}
OTHER = "Scores"
# Groups whose curves are fractions: their panels share one scale.
ONE_SCALE = ("Score on the task", OTHER)
COLUMNS = 3
MOST_POINTS = 400
# A curve with fewer points is drawn unsmoothed; otherwise values are exponential means over this share of the points.
FEWEST_SMOOTHED = 30
SMOOTHED_SHARE = 0.05


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        run: Name of the run.
        points: Its points (step, value).
        evaluated: Whether it was measured on held-out rows.
    """

    run: str
    points: Curve
    evaluated: bool


@dataclass(frozen=True)
class Panel:
    """One quantity.

    Attributes:
        name: Name of the quantity in the logs, without `eval_`.
        lines: The lines, at least one.
    """

    name: str
    lines: list[Line]


@dataclass(frozen=True)
class Figure:
    """Quantities of one kind, from one stage.

    Attributes:
        stage: The stage, in words.
        title: The kind of quantities.
        panels: The panels, in alphabetical order.
    """

    stage: str
    title: str
    panels: list[Panel]


def plan_figures(runs: Sequence[Run]) -> list[Figure]:
    """Plan a figure for every stage and kind of curve of all runs."""
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
    """Return the group of a curve."""
    return next((title for title, beginnings in GROUPS.items() if name.startswith(beginnings)), OTHER)


def thinned(points: Curve) -> Curve:
    """At most `MOST_POINTS` points, evenly spaced, including the first and the last."""
    if len(points) <= MOST_POINTS:
        return points
    last = len(points) - 1
    return [points[round(index * last / (MOST_POINTS - 1))] for index in range(MOST_POINTS)]


def smoothed(points: Curve) -> Curve:
    """Smooth a curve with an exponential moving average.

    The result begins with the first value, and the steps are unchanged. Short curves are returned unchanged.
    """
    if len(points) < FEWEST_SMOOTHED:
        return points
    keep = 1 - 1 / max(2.0, SMOOTHED_SHARE * len(points))
    total = weight = 0.0
    found = []
    for step, value in points:
        total, weight = keep * total + value, keep * weight + 1
        found.append((step, total / weight))
    return found


def shown_points(line: Line, name: str) -> Curve:
    """The points to draw for a line: only values from training batches are noisy, so only these are smoothed."""
    noisy = not line.evaluated and name.startswith(("loss", "grad_norm"))
    return smoothed(line.points) if noisy else line.points


def scale_of(figure: Figure, panel: Panel) -> str:
    """The name of a panel's scale; panels with the same scale (terms of one objective, scores) share their limits."""
    if figure.title in ONE_SCALE:
        return figure.title
    family = panel.name.rpartition("/")[0]
    return family if family not in ("", "weight", "temperature", "gold_share") else panel.name


def limits(panels: Sequence[Panel]) -> tuple[float, float]:
    """The lowest and the highest value to show; outliers of a noisy curve are ignored."""
    values: list[float] = []
    for panel in panels:
        for line in panel.lines:
            points = shown_points(line, panel.name)
            raw = sorted(value for _, value in line.points)
            cut = len(raw) // 50 if points != line.points else 0
            values += [*raw[cut : len(raw) - cut], *(value for _, value in points)]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def draw(figure: Figure, runs: Sequence[str]) -> str:
    """Draw a figure as SVG: panels side by side, smoothed curves over the raw values, held-out curves dashed.

    Comparable panels share the limits of the y axis (see `scale_of`), and all panels share those of the x axis.

    Args:
        figure: The figure to draw.
        runs: Names of all runs; their order determines the colours.

    Raises:
        ImportError: If matplotlib is missing.
    """
    columns = min(COLUMNS, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    with _svg(3.6 * columns, 2.5 * rows + 0.35) as (picture, drawn):
        grid = picture.subplots(rows, columns, squeeze=False, sharex=True).flatten()
        for axes, panel in zip(grid, figure.panels, strict=False):
            _draw_panel(axes, panel, list(runs))
            same = [one for one in figure.panels if scale_of(figure, one) == scale_of(figure, panel)]
            axes.set_ylim(*limits(same))
        for axes in grid[len(figure.panels) :]:
            axes.set_visible(False)
        _add_legend(picture, grid[: len(figure.panels)])
    return drawn.getvalue()


@contextmanager
def _svg(width: float, height: float) -> Iterator[tuple[Any, io.StringIO]]:
    """Yield a figure of the given size in inches, and a buffer that holds its SVG when the context ends.

    Equal curves give identical files, in which text is stored as text.

    Raises:
        ImportError: If matplotlib is missing.
    """
    matplotlib = require("matplotlib", extra="plots", needed_by="the figure of curves")
    figures = require("matplotlib.figure", extra="plots", needed_by="the figure of curves")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "hf_distill", "svg.fonttype": "none", "font.size": 9}):
        picture = figures.Figure(figsize=(width, height), layout="constrained")
        yield picture, buffer
        picture.savefig(buffer, format="svg", metadata={"Date": None})


@dataclass(frozen=True)
class Bar:
    """A model that was scored.

    Attributes:
        name: Name of the model.
        score: Its score, as a fraction.
        millions: Its parameters in millions; `None` for the majority label.
    """

    name: str
    score: float
    millions: float | None


def draw_scores(bars: Sequence[Bar], score: str) -> str:
    """Draw scores (left) and sizes (right) as SVG, one bar for each model; the majority's score is a dotted line.

    Args:
        bars: At least one, all on the same task.
        score: Name of the score.

    Raises:
        ImportError: If matplotlib is missing.
    """
    models = [bar for bar in bars if bar.millions is not None]
    with _svg(9.6, 0.75 + 0.36 * len(models)) as (picture, text):
        left, right = picture.subplots(1, 2, sharey=True)
        names = [bar.name for bar in models]
        colors = [f"C{number % 10}" for number in range(len(models))]
        for axes, values, title in (
            (left, [100 * bar.score for bar in models], f"{score}, in percent"),
            (right, [bar.millions for bar in models], "parameters, in millions"),
        ):
            drawn = axes.barh(names, values, color=colors, height=0.62)
            axes.bar_label(drawn, fmt="{:.1f}", padding=3, fontsize=8)
            axes.set_title(title, fontsize=9, loc="left")
            axes.margins(x=0.14)
            axes.tick_params(axis="y", length=0)
            axes.spines[["top", "right"]].set_visible(False)
        left.invert_yaxis()
        for bar in bars:
            if bar.millions is None:
                left.axvline(100 * bar.score, color="0.35", linestyle=":", linewidth=1.2)
                left.set_xlabel(f"dotted: {bar.name}, {100 * bar.score:.1f}", fontsize=8)
    return text.getvalue()


def as_data_uri(svg: str) -> str:
    """Return an image as a data URI, which needs no separate file."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _draw_panel(axes: Any, panel: Panel, runs: list[str]) -> None:
    for line in panel.lines:
        color = f"C{runs.index(line.run) % 10}"
        points = thinned(shown_points(line, panel.name))
        if points != thinned(line.points):
            axes.plot(*zip(*thinned(line.points), strict=True), color=color, linewidth=0.7, alpha=0.35)
        style: dict[str, Any] = {"linestyle": "--", "marker": "o", "markersize": 3} if line.evaluated else {}
        if len(points) == 1:
            style["marker"] = "o"
        label = f"{line.run}, held out" if line.evaluated else line.run
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=color, linewidth=1.4, label=label, **style)
    axes.set_title(panel.name, fontsize=9)
    axes.set_xlabel("updates", fontsize=8)
    axes.tick_params(labelsize=8, labelbottom=True)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(picture: Any, grid: Sequence[Any]) -> None:
    """Add one legend for all panels, if there is more than one kind of line."""
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
