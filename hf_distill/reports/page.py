"""The page itself: one file of HTML that needs nothing else, or Markdown with its pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_distill.hub.disclosure import public
from hf_distill.hub.model_card import CARD_FILE
from hf_distill.hub.rendering import render_template
from hf_distill.reports.figures import as_data_uri, draw, plan_figures
from hf_distill.reports.runs import Run
from hf_distill.reports.tables import shown, tables_of
from hf_distill.storage.files import write_text

TEMPLATES = Path(__file__).parent / "templates"
SUFFIXES = {".html": "report.html", ".htm": "report.html", ".md": "report.md"}


def write_page(runs: Sequence[Run], output: str | Path, title: str) -> tuple[Path, str | None]:
    """Write the page of some runs.

    Args:
        runs: At least one.
        output: File to write; `.html` or `.md` says which kind.
        title: Its heading.

    Returns:
        The file, and why it has no curves if it has none.

    Raises:
        ValueError: If the file has another ending.
    """
    path = Path(output).expanduser()
    if path.suffix not in SUFFIXES:
        raise ValueError(f"`--output` is {str(output)!r}; its ending must be one of {', '.join(SUFFIXES)}.")
    if path.name == CARD_FILE and path.is_file():
        raise ValueError(f"`--output` is {str(output)!r}, a card that is there already: name another file.")
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
    """Every figure with its headings, or why there is none."""
    planned = plan_figures(runs)
    if not planned:
        return [], "the runs have no log of a training."
    names = [run.name for run in runs]
    try:
        return [{"stage": figure.stage, "title": figure.title, "svg": draw(figure, names)} for figure in planned], None
    except ImportError as error:
        return [], str(error)


def _beside(path: Path, number: int, figure: dict[str, Any]) -> str:
    """Write a picture into the folder of the page's pictures; its path as the page names it."""
    folder = path.with_name(f"{path.stem}_figures")
    words = f"{figure['stage']} {figure['title']}".lower().split()
    file = folder / f"{number:02d}_{'_'.join(words)}.svg"
    write_text(file, figure["svg"])
    return f"{folder.name}/{file.name}"


def _cell(value: Any) -> str:
    """A cell of a Markdown table: bars would end it, line breaks its row, angle brackets begin a tag."""
    text = " ".join(shown(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
