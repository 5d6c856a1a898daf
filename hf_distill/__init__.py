"""Distil language models into small ones with the Hugging Face `Trainer`.

Importing the package is cheap: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULE_OF: dict[str, str] = {
    "DistillationArguments": "arguments",
    "DistillationTrainer": "trainers.distillation",
    "Objective": "objectives",
    "SignalCapture": "capture",
    "WeightedObjective": "objectives",
    "create_student": "students",
    "list_objectives": "objectives",
    "register_objective": "objectives",
    "size_table": "students",
}

__all__ = [
    "DistillationArguments",
    "DistillationTrainer",
    "Objective",
    "SignalCapture",
    "WeightedObjective",
    "create_student",
    "list_objectives",
    "register_objective",
    "size_table",
]

if TYPE_CHECKING:
    from .arguments import DistillationArguments
    from .capture import SignalCapture
    from .objectives import Objective, WeightedObjective, list_objectives, register_objective
    from .students import create_student, size_table
    from .trainers.distillation import DistillationTrainer


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names."""
    return [*__all__, "__version__"]
