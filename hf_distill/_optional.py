"""Delayed imports: names of lazy packages, and packages that only an extra installs."""

import ast
import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

# transformers imports torchao with any model if it is installed. On most machines some of its kernels, which int8 does
# not use, cannot be loaded, and it registers two enumerations in a way that torch has deprecated.
_FOR_DEBUGGING = {
    "torchao": ("Failed to load ",),
    "torch.utils._pytree": ("<enum 'KernelPreference'>", "<enum 'ScaleCalculationMode'>"),
}


class _OnlyForDebugging(logging.Filter):
    """Lets records whose text begins in known ways pass only if their logger's level is DEBUG."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self.beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        if record.getMessage().startswith(self.beginnings):
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


def names_of(package: str) -> dict[str, str]:
    """Public name -> the module of a package that defines it, in alphabetical order.

    The names are read from the block `if TYPE_CHECKING:` in the package's source, which type checkers read too.

    Args:
        package: Its `__name__`.
    """
    loader: Any = sys.modules[package].__spec__.loader  # type: ignore[union-attr]
    [block] = [node for node in ast.parse(loader.get_source(package)).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return dict(sorted((one.name, str(node.module)) for node in imports for one in node.names))


def lazy_names(package: str, module_of: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package whose names are imported on first use.

    Args:
        package: Its `__name__`.
        module_of: Public name -> the module of the package that defines it.
    """

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(module_of)}")
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: list(module_of)


def quiet_imports() -> None:
    """Show the messages of torchao's import only when debugging: other users cannot do anything about them."""
    for name, beginnings in _FOR_DEBUGGING.items():
        logger = logging.getLogger(name)
        if not any(isinstance(known, _OnlyForDebugging) for known in logger.filters):
            logger.addFilter(_OnlyForDebugging(beginnings))


def require(module: str, *, extra: str, needed_by: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Dotted name of the module to import.
        extra: Extra of `hf_distill` that installs it.
        needed_by: The feature that the user requested, as they would recognise it (a flag, a class, a verb).

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
