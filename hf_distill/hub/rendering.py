"""Renders cards and pages from templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

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
    """Return the text of a template; a value that it names and that is not given is an error.

    Args:
        name: Its file.
        filters: What it may apply to values.
        templates: Folder that it lies in.
        autoescape: Whether it is HTML, so that values are text and no tags.
        values: What it names.
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
