"""One place that asks for an optional package and says how to install it."""

import importlib
from types import ModuleType


def require(module: str, *, extra: str, needed_by: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Dotted name of the module to import.
        extra: Extra of `hf_distill` that installs it.
        needed_by: What the user asked for, as they would recognise it (a flag, a class, a verb).

    Raises:
        ImportError: If the package is missing or broken; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{needed_by} needs the package `{module.split('.')[0]}`, which could not be imported ({error}). "
            f"Install it with: pip install 'hf_distill[{extra}]'"
        ) from error
