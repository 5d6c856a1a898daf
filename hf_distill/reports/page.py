"""Writes a page about runs: a single self-contained HTML file, or Markdown with images beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_distill.hub.disclosure import is_secret_name, public
from hf_distill.hub.rendering import render_template
from hf_distill.hub.selection import CARD_FILE
from hf_distill.reports.figures import Bar, as_data_uri, draw, draw_scores, plan_figures
from hf_distill.reports.runs import Run
from hf_distill.settings.help import defaults_in_source
from hf_distill.settings.values import FILLED_IN, SILENT
from hf_distill.storage.files import write_text

TEMPLATES = Path(__file__).parent / "templates"
# Heading of the figures with scores beside sizes.
SCORES = "Scores and sizes"
SUFFIXES = {".html": "report.html", ".htm": "report.html", ".md": "report.md"}


def write_page(runs: Sequence[Run], output: str | Path, title: str) -> tuple[Path, str | None]:
    """Write a page about runs.

    Args:
        runs: At least one.
        output: File to write; its suffix, `.html` or `.md`, determines the format.
        title: Heading of the page.

    Returns:
        The path of the file, and the reason if it has no curves.

    Raises:
        ValueError: If the file has another suffix.
    """
    path = Path(output).expanduser()
    if path.suffix not in SUFFIXES:
        raise ValueError(f"`--output` is {str(output)!r}; its ending must be one of {', '.join(SUFFIXES)}.")
    if path.name == CARD_FILE and path.is_file():
        raise ValueError(f"`--output` is {str(output)!r}, which is an existing card: name another file.")
    figures, reason = _pictures(runs)
    if path.suffix == ".md":
        figures = [{**figure, "source": _beside(path, number, figure)} for number, figure in enumerate(figures, 1)]
    else:
        figures = [{**figure, "source": as_data_uri(figure["svg"])} for figure in figures]
    text = render_template(
        SUFFIXES[path.suffix],
        {"shown": shown, "cell": _cell},
        templates=TEMPLATES,
        autoescape=path.suffix != ".md",
        title=public(title),
        tables=public(tables_of(runs)),
        figures=figures,
        reason=reason,
    )
    write_text(path, text + "\n")
    return path, reason


def _pictures(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], str | None]:
    """Draw every figure, or return the reason why there is none."""
    planned = plan_figures(runs)
    names = [run.name for run in runs]
    try:
        found = [
            {"stage": SCORES, "title": title, "svg": draw_scores(bars, title)} for title, bars in bars_of(runs).items()
        ]
        found += [{"stage": figure.stage, "title": figure.title, "svg": draw(figure, names)} for figure in planned]
    except ImportError as error:
        return [], str(error)
    return found, None if planned else "the runs have no log of a training."


def bars_of(runs: Sequence[Run]) -> dict[str, list[Bar]]:
    """Name of a score -> its models, if at least two of them have a score and a size."""
    found: dict[str, dict[str, Bar]] = {}
    for run in runs:
        for item in run.scores:
            score, parameters = item.get("score"), item.get("parameters")
            if score is None or (parameters is None and item["role"] != "majority"):
                continue
            of_all = item["role"] in ("teacher", "majority") or len(runs) == 1
            name = item["role"] if of_all else f"{run.name}: {item['role']}"
            title = " ".join(str(item[key]) for key in ("task", "metric") if item.get(key))
            millions = None if parameters is None else parameters / 1e6
            bars = found.setdefault(title, {})
            if name in bars and bars[name].score != score:
                name = f"{run.name}: {item['role']}"
            bars.setdefault(name, Bar(name, score, millions))
    several = {title: list(bars.values()) for title, bars in found.items()}
    return {title: bars for title, bars in several.items() if sum(bar.millions is not None for bar in bars) > 1}


def _beside(path: Path, number: int, figure: dict[str, Any]) -> str:
    """Write an image into the page's folder of images, and return its path relative to the page."""
    folder = path.with_name(f"{path.stem}_figures")
    words = f"{figure['stage']} {figure['title']}".lower().split()
    file = folder / f"{number:02d}_{'_'.join(words)}.svg"
    write_text(file, figure["svg"])
    return f"{folder.name}/{file.name}"


def _cell(value: Any) -> str:
    """Format a cell of a Markdown table: bars would end it, line breaks its row, angle brackets start a tag."""
    text = " ".join(shown(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


# Settings that are never compared, in addition to the generally silent ones: folders, and values derived from others.
NOT_COMPARED = (
    SILENT
    | FILLED_IN
    | {
        *("student_model", "corpus_dir", "work_dir", "index_dir", "fsdp_config", "fsdp", "greater_is_better", "debug"),
        *("label_names", "activation_checkpointing", "gradient_checkpointing"),
    }
)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: Its heading.
        head: Names of its columns.
        rows: Cells, `None` for a missing value.
        note: A sentence below it.
    """

    title: str
    head: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    note: str = ""


_NOTES = {
    "baseline": "baseline: the same student, trained on the labels without a teacher.",
    "majority": "majority: the most frequent label for every row.",
}


def tables_of(runs: Sequence[Run]) -> list[Table]:
    """Tables of runs, scores, settings and final values of the curves; a table without rows is left out."""
    tables = [_facts(runs), _scores(runs), _settings(runs), _ends(runs), _left_out(runs)]
    return [table for table in tables if table.rows]


def _facts(runs: Sequence[Run]) -> Table:
    names = list(dict.fromkeys(name for run in runs for name in run.facts))
    rows: list[list[Any]] = [["job", *(run.job for run in runs)]]
    rows += [[name.replace("_", " "), *(run.facts.get(name) for run in runs)] for name in names]
    return Table("Runs", ["", *(run.name for run in runs)], rows)


def _scores(runs: Sequence[Run]) -> Table:
    head = ["run", "model", "task", "split", "metric", "score", "of the teacher", "parameters", "speed-up"]
    rows = []
    for run in runs:
        for item in run.scores:
            score, teacher, speed = item.get("score"), item.get("teacher_score"), item.get("speedup")
            share = f"{score / teacher:.1%}" if score is not None and teacher else None
            parameters = item.get("parameters")
            rows.append(
                [
                    run.name,
                    *(item.get(key) for key in ("role", "task", "split", "metric")),
                    None if score is None else f"{score:.4f}",
                    share,
                    None if parameters is None else f"{parameters / 1e6:.1f} M",
                    None if speed is None else f"{speed:.1f}x",
                ]
            )
    roles = {item["role"] for run in runs for item in run.scores}
    notes = [note for role, note in _NOTES.items() if role in roles]
    notes += [
        f"{run.name}: the {item['role']} predicts only {item['constant']!r}, whatever the text says."
        for run in runs
        for item in run.scores
        if item.get("constant") is not None
    ]
    return Table("Scores", head, rows, " ".join(dict.fromkeys(notes)))


def _settings(runs: Sequence[Run]) -> Table:
    """Settings that two runs share and that differ; for a single run, those that are not the default."""
    plain = {name: name.rpartition(".")[2] for run in runs for name in run.settings}
    names = sorted(name for name, own in plain.items() if own not in NOT_COMPARED and not is_secret_name(own))
    if len(runs) == 1:
        defaults, [run] = defaults_in_source(), runs
        given = [(name, run.settings[name]) for name in names if run.settings[name] is not None]
        rows = [[name, value] for name, value in given if (plain[name], repr(value)) not in defaults]
        return Table("Settings", ["setting", run.name], rows, "Without those that have their default.")
    missing = object()
    rows = []
    for name in names:
        values = [run.settings.get(name, missing) for run in runs]
        # A setting that only one kind of run has is not a difference.
        if len({repr(value) for value in values if value is not missing}) > 1:
            rows.append([name, *(None if value is missing else value for value in values)])
    without = ", ".join(run.name for run in runs if not run.settings)
    note = f"There are no settings beside {without}." if without else ""
    return Table("Settings that differ", ["setting", *(run.name for run in runs)], rows, note)


def _ends(runs: Sequence[Run]) -> Table:
    """The table of the last value of every curve."""
    keys = dict.fromkeys((stage, name) for run in runs for stage, curves in run.curves.items() for name in curves)
    rows = []
    for stage, name in keys:
        curves = [run.curves.get(stage, {}).get(name) for run in runs]
        rows.append([stage, name, *(curve[-1][1] if curve else None for curve in curves)])
    return Table("Last values", ["stage", "value", *(run.name for run in runs)], rows)


def _left_out(runs: Sequence[Run]) -> Table:
    rows = [[run.name, name, count] for run in runs for name, count in run.left_out.items()]
    return Table("Values that are not finite", ["run", "value", "how many"], rows, "They are in no curve.")


def shown(value: Any) -> str:
    """Format a value: a dash for a missing one, four digits of a number, only the last name of a path."""
    if value in (None, "", [], {}):
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    text = str(value)
    return os.path.basename(text.rstrip("/")) if os.path.isabs(text) and "\n" not in text else text
