"""Modules of the user's own that register objectives, tasks, engines or architectures when they are imported.

On the command line they are named with `--plugins`; in Python an `import` does the same.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

FLAG_HELP = "Modules of yours to import first, which register objectives, tasks, engines or architectures."

_LOADED: list[str] = []


def load_plugins(modules: Sequence[str]) -> None:
    """Import modules that register something of their own; one that is loaded already is left as it is.

    Raises:
        ImportError: If a module, or something that it imports, cannot be found.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            # A module of the user's own may raise anything.
            reason = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise ImportError(
                f"`--plugins` has {name!r}, which cannot be imported ({reason}). It must be a module that "
                "Python finds: install its package, or put its folder into PYTHONPATH."
            ) from error
        if name not in _LOADED:
            _LOADED.append(name)


def loaded_plugins() -> list[str]:
    """The plugins of this process, in the order in which they were named; they belong to its arguments."""
    return list(_LOADED)


def take_plugins(words: Sequence[str], prog: str | None = None) -> tuple[list[str], list[str]]:
    """Split the words of a command line into those without `--plugins`, and the modules that it names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=prog, usage=argparse.SUPPRESS)
    parser.add_argument("--plugins", nargs="+", action="extend", default=[])
    found, rest = parser.parse_known_args(list(words))
    return rest, found.plugins
