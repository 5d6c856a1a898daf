"""Distil language models into small ones with the Hugging Face `Trainer`.

Importing the package is cheap: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._optional import quiet_imports

__version__ = "0.1.0"

_MODULE_OF: dict[str, str] = {
    "AugmentationArguments": "settings",
    "AugmentedCorpus": "corpus.augment.builder",
    "CorpusArguments": "settings",
    "CorpusResult": "corpus.build.builder",
    "DistillationArguments": "settings",
    "DistillationTrainer": "trainers.distillation.trainer",
    "EncoderForGeneration": "generation.model",
    "FineTuningArguments": "settings",
    "GeneralCorpus": "corpus.build.general",
    "GeneralCorpusArguments": "settings",
    "GenerationSettings": "generation.settings",
    "GenerationTrainer": "generation.trainer",
    "GenerationTrainingArguments": "settings",
    "LoadedTask": "tasks",
    "MTLArguments": "settings",
    "MTLTrainer": "trainers.multi_task.trainer",
    "MultiTeacherArguments": "settings",
    "MultiTeacherTrainer": "trainers.distillation.multi_teacher",
    "Objective": "objectives",
    "OnnxModel": "reports.onnx.onnx_model",
    "SignalCapture": "capture.transformer",
    "SignalRequest": "capture.signals",
    "Signals": "capture.signals",
    "StoredTeacher": "teachers.stored.teacher",
    "StudentShape": "students.shapes",
    "TaskSpec": "tasks",
    "TeacherSource": "teachers.base",
    "WeightedObjective": "objectives",
    "adapter_teachers": "teachers.adapters",
    "build_augmented_corpus": "corpus.augment.builder",
    "build_contextualized_corpus": "corpus.build.builder",
    "build_general_corpus": "corpus.build.general",
    "create_student": "students.creation",
    "evaluate_model": "trainers.fine_tuning.trainer",
    "export_onnx": "reports.onnx.onnx_export",
    "finetune": "trainers.fine_tuning.trainer",
    "latency_ratio": "reports.speed.latency",
    "list_objectives": "objectives",
    "list_tasks": "tasks",
    "load_general_corpus": "corpus.build.loading",
    "load_preset": "settings.presets",
    "load_task": "tasks",
    "parse_shape": "students.shapes",
    "precompute": "teachers.stored.precompute",
    "push_folder": "hub.push",
    "quantize_onnx": "reports.onnx.onnx_export",
    "register_architecture": "capture.architectures",
    "register_engine": "corpus.search.retrieval",
    "register_objective": "objectives",
    "register_task": "tasks",
    "size_table": "students.sizes",
}

__all__ = [
    "AugmentationArguments",
    "AugmentedCorpus",
    "CorpusArguments",
    "CorpusResult",
    "DistillationArguments",
    "DistillationTrainer",
    "EncoderForGeneration",
    "FineTuningArguments",
    "GeneralCorpus",
    "GeneralCorpusArguments",
    "GenerationSettings",
    "GenerationTrainer",
    "GenerationTrainingArguments",
    "LoadedTask",
    "MTLArguments",
    "MTLTrainer",
    "MultiTeacherArguments",
    "MultiTeacherTrainer",
    "Objective",
    "OnnxModel",
    "SignalCapture",
    "SignalRequest",
    "Signals",
    "StoredTeacher",
    "StudentShape",
    "TaskSpec",
    "TeacherSource",
    "WeightedObjective",
    "adapter_teachers",
    "build_augmented_corpus",
    "build_contextualized_corpus",
    "build_general_corpus",
    "create_student",
    "evaluate_model",
    "export_onnx",
    "finetune",
    "latency_ratio",
    "list_objectives",
    "list_tasks",
    "load_general_corpus",
    "load_preset",
    "load_task",
    "parse_shape",
    "precompute",
    "push_folder",
    "quantize_onnx",
    "register_architecture",
    "register_engine",
    "register_objective",
    "register_task",
    "size_table",
]

if TYPE_CHECKING:
    from .capture.architectures import register_architecture
    from .capture.signals import SignalRequest, Signals
    from .capture.transformer import SignalCapture
    from .corpus.augment.builder import AugmentedCorpus, build_augmented_corpus
    from .corpus.build.builder import CorpusResult, build_contextualized_corpus
    from .corpus.build.general import GeneralCorpus, build_general_corpus
    from .corpus.build.loading import load_general_corpus
    from .corpus.search.retrieval import register_engine
    from .generation.model import EncoderForGeneration
    from .generation.settings import GenerationSettings
    from .generation.trainer import GenerationTrainer
    from .hub.push import push_folder
    from .objectives import Objective, WeightedObjective, list_objectives, register_objective
    from .reports.onnx.onnx_export import export_onnx, quantize_onnx
    from .reports.onnx.onnx_model import OnnxModel
    from .reports.speed.latency import latency_ratio
    from .settings import (
        AugmentationArguments,
        CorpusArguments,
        DistillationArguments,
        FineTuningArguments,
        GeneralCorpusArguments,
        GenerationTrainingArguments,
        MTLArguments,
        MultiTeacherArguments,
    )
    from .settings.presets import load_preset
    from .students.creation import create_student
    from .students.shapes import StudentShape, parse_shape
    from .students.sizes import size_table
    from .tasks import LoadedTask, TaskSpec, list_tasks, load_task, register_task
    from .teachers.adapters import adapter_teachers
    from .teachers.base import TeacherSource
    from .teachers.stored.precompute import precompute
    from .teachers.stored.teacher import StoredTeacher
    from .trainers.distillation.multi_teacher import MultiTeacherTrainer
    from .trainers.distillation.trainer import DistillationTrainer
    from .trainers.fine_tuning.trainer import evaluate_model, finetune
    from .trainers.multi_task.trainer import MTLTrainer


quiet_imports()


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
