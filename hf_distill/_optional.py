"""Imports that wait until something is used: names of lazy packages, and packages that only an extra installs."""

import ast
import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

# transformers imports torchao with any model where it is installed. On most machines some of its kernels, which int8
# does not use, cannot be loaded, and it registers two enumerations in a way that torch no longer likes.
_FOR_DEBUGGING = {
    "torchao": ("Failed to load ",),
    "torch.utils._pytree": ("<enum 'KernelPreference'>", "<enum 'ScaleCalculationMode'>"),
}


class _OnlyForDebugging(logging.Filter):
    """Lets records whose text begins in known ways pass only where their logger is set to show debugging."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self.beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        if record.getMessage().startswith(self.beginnings):
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


def names_of(package: str) -> dict[str, str]:
    """Public name -> the module below a package that has it, in alphabetical order.

    They stand in the block `if TYPE_CHECKING:` of the package's source alone, which type checkers read too.

    Args:
        package: Its `__name__`.
    """
    loader: Any = sys.modules[package].__spec__.loader  # type: ignore[union-attr]
    [block] = [node for node in ast.parse(loader.get_source(package)).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return dict(sorted((one.name, str(node.module)) for node in imports for one in node.names))


def lazy_names(package: str, module_of: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose names are loaded when they are first used.

    Args:
        package: Its `__name__`.
        module_of: Public name -> the module below the package that has it.
    """

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(module_of)}")
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: list(module_of)


def quiet_imports() -> None:
    """Keep what torchao's import says for those who debug it: a user of another part can do nothing about it."""
    for name, beginnings in _FOR_DEBUGGING.items():
        logger = logging.getLogger(name)
        if not any(isinstance(known, _OnlyForDebugging) for known in logger.filters):
            logger.addFilter(_OnlyForDebugging(beginnings))


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
