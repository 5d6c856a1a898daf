"""Corpora on a command line: each is given as NAME=PLACE, or as its place alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from .sources import corpus_label


def named_corpora(given: Sequence[str], flag: str, taken: Collection[str] = ()) -> dict[str, str]:
    """Name -> where; the last part of a path, or the Hub id, where no name is given.

    Args:
        given: Values of the flag.
        flag: The flag, for errors.
        taken: Names that mean something else.

    Raises:
        ValueError: If a name is there twice, or is taken.
    """
    named: dict[str, str] = {}
    for corpus in given:
        name, equals, where = corpus.partition("=")
        if not equals or Path(corpus).expanduser().exists():
            name, where = corpus_label(corpus), corpus
        if name in named or name in taken:
            raise ValueError(f"`{flag}` has two corpora of the name {name!r}: give them as NAME=WHERE, with others.")
        named[name] = where
    return named


def split_config(where: str) -> tuple[str, str | None]:
    """A Hub id and its configuration after a colon (`wikimedia/wikipedia:20231101.en`); a path stays as it is."""
    path, colon, config = where.partition(":")
    return (where, None) if not colon or Path(where).expanduser().exists() else (path, config)
