"""Settings of every verb: flat dataclasses for `HfArgumentParser`, from flags or YAML; nothing here does a job.

The help text of a field is its only documentation, and errors name the flag. A class is loaded when it is first used:
those of trainings take seconds, since they extend `transformers.TrainingArguments`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attention import AttentionArguments
    from .augmenting import AugmentationArguments, MLMHeadArguments
    from .comparing import ComparisonArguments
    from .data import CorpusArguments, TaskArguments, TextbookArguments
    from .deployment import BenchmarkArguments, ExportArguments, ScoredTaskArguments
    from .general import GeneralCorpusArguments
    from .generation import GenerationArguments, GenerationTaskArguments, GenerationTrainingArguments
    from .grid import GridArguments
    from .models import EvaluationArguments, PipelineArguments, RunArguments, StudentArguments, TeacherArguments
    from .multi_task import MTLArguments, TasksArguments
    from .multi_teacher import MultiTeacherArguments
    from .pushing import PushArguments
    from .reporting import ReportArguments
    from .sharding import ShardArguments
    from .storing import PrecomputeArguments
    from .training import DistillationArguments, FineTuningArguments

_MODULE_OF = {
    "AttentionArguments": "attention",
    "AugmentationArguments": "augmenting",
    "BenchmarkArguments": "deployment",
    "ComparisonArguments": "comparing",
    "CorpusArguments": "data",
    "DistillationArguments": "training",
    "EvaluationArguments": "models",
    "ExportArguments": "deployment",
    "FineTuningArguments": "training",
    "GeneralCorpusArguments": "general",
    "GenerationArguments": "generation",
    "GenerationTaskArguments": "generation",
    "GenerationTrainingArguments": "generation",
    "GridArguments": "grid",
    "MLMHeadArguments": "augmenting",
    "MTLArguments": "multi_task",
    "MultiTeacherArguments": "multi_teacher",
    "PipelineArguments": "models",
    "PrecomputeArguments": "storing",
    "PushArguments": "pushing",
    "ReportArguments": "reporting",
    "RunArguments": "models",
    "ScoredTaskArguments": "deployment",
    "ShardArguments": "sharding",
    "StudentArguments": "models",
    "TaskArguments": "data",
    "TasksArguments": "multi_task",
    "TeacherArguments": "models",
    "TextbookArguments": "data",
}

__all__ = [
    "AttentionArguments",
    "AugmentationArguments",
    "BenchmarkArguments",
    "ComparisonArguments",
    "CorpusArguments",
    "DistillationArguments",
    "EvaluationArguments",
    "ExportArguments",
    "FineTuningArguments",
    "GeneralCorpusArguments",
    "GenerationArguments",
    "GenerationTaskArguments",
    "GenerationTrainingArguments",
    "GridArguments",
    "MLMHeadArguments",
    "MTLArguments",
    "MultiTeacherArguments",
    "PipelineArguments",
    "PrecomputeArguments",
    "PushArguments",
    "ReportArguments",
    "RunArguments",
    "ScoredTaskArguments",
    "ShardArguments",
    "StudentArguments",
    "TaskArguments",
    "TasksArguments",
    "TeacherArguments",
    "TextbookArguments",
]


def __getattr__(name: str) -> Any:
    """Load a class on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The argument classes."""
    return [*__all__]
