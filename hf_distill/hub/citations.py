"""BibTeX of the methods and data that a student is based on: the entries of `citations.bib` by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files

_ENTRY = re.compile(r"^% (?P<name>\w+)\n(?P<entry>@.*?^\})", flags=re.DOTALL | re.MULTILINE)
CITATIONS: dict[str, str] = {
    found["name"]: found["entry"]
    for found in _ENTRY.finditer((files(__package__) / "citations.bib").read_text(encoding="utf-8"))
}


def resolve_citations(items: Iterable[str]) -> list[str]:
    """BibTeX entries for keys of `CITATIONS`; an item that is already an entry (`@…`) is kept; duplicates are removed.

    Raises:
        ValueError: If an item is neither a known key nor an entry.
    """
    entries: list[str] = []
    for item in items:
        entry = item.strip() if item.lstrip().startswith("@") else CITATIONS.get(item)
        if entry is None:
            raise ValueError(f"Unknown citation {item!r}: use a BibTeX entry or one of {', '.join(CITATIONS)}.")
        if entry not in entries:
            entries.append(entry)
    return entries
