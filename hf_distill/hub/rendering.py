"""Renders cards and pages from templates."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from hf_distill.storage.files import write_text

logger = logging.getLogger(__name__)

# Only the cards of corpora contain this text.
_OF_CORPUS = "corpus made with `hf_distill`"
TEMPLATES = Path(__file__).parent / "templates"


def render_template(
    name: str,
    filters: Mapping[str, Callable[..., Any]],
    /,
    *,
    templates: Path = TEMPLATES,
    autoescape: bool = False,
    **values: Any,
) -> str:
    """Render a template; a value that it uses but that is not given is an error.

    Args:
        name: File name of the template.
        filters: Filters that it may use.
        templates: Folder of the template.
        autoescape: Whether it is HTML, so that values are escaped.
        values: Values that it uses.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
    )
    environment.filters.update(filters)
    return environment.get_template(name).render(**values).strip()


def write_card_text(path: Path, text: str) -> Path:
    """Write a card; an existing `README.md` is kept under another name, with a warning, unless hf_distill wrote it.

    Returns:
        The card.
    """
    before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    if before is not None and ("hf_distill" not in before or (_OF_CORPUS in before) != (_OF_CORPUS in text)):
        names = (path.with_name(f"{path.stem}.earlier{number or ''}{path.suffix}") for number in itertools.count())
        kept = next(name for name in names if not name.exists())
        path.rename(kept)
        logger.warning(
            f"{path} is the card now; the README.md that was there is about something else and is kept as {kept.name}."
        )
    return write_text(path, text)
