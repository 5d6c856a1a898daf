"""Distil language models into small ones with the Hugging Face `Trainer`.

Importing the package is cheap: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._optional import quiet_imports

__version__ = "0.1.0"

_MODULE_OF: dict[str, str] = {
    "AugmentationArguments": "arguments",
    "AugmentedCorpus": "corpus.augmentation",
    "CorpusArguments": "arguments",
    "CorpusResult": "corpus",
    "DistillationArguments": "arguments",
    "DistillationTrainer": "trainers.distillation",
    "EncoderForGeneration": "generation.model",
    "FineTuningArguments": "arguments",
    "GeneralCorpus": "corpus.general",
    "GeneralCorpusArguments": "arguments",
    "GenerationSettings": "generation.settings",
    "GenerationTrainer": "trainers.generation",
    "GenerationTrainingArguments": "arguments",
    "LoadedTask": "tasks",
    "MTLArguments": "arguments",
    "MTLTrainer": "trainers.multi_task",
    "MultiTeacherArguments": "arguments",
    "MultiTeacherTrainer": "trainers.multi_teacher",
    "Objective": "objectives",
    "OnnxModel": "deployment.onnx_model",
    "SignalCapture": "capture",
    "SignalRequest": "signals",
    "StoredTeacher": "stored.teacher",
    "StudentShape": "shapes",
    "TaskSpec": "tasks",
    "WeightedObjective": "objectives",
    "adapter_teachers": "teachers_adapters",
    "build_augmented_corpus": "corpus.augmentation",
    "build_contextualized_corpus": "corpus",
    "build_general_corpus": "corpus.general",
    "create_student": "students",
    "evaluate_model": "trainers.finetuning",
    "export_onnx": "deployment.onnx_export",
    "finetune": "trainers.finetuning",
    "latency_ratio": "benchmark.speed",
    "list_objectives": "objectives",
    "list_tasks": "tasks",
    "load_general_corpus": "corpus",
    "load_preset": "presets",
    "load_task": "tasks",
    "parse_shape": "shapes",
    "precompute": "stored.precompute",
    "push_folder": "hub.push",
    "quantize_onnx": "deployment.onnx_export",
    "register_architecture": "capture",
    "register_engine": "corpus.retrieval",
    "register_objective": "objectives",
    "register_task": "tasks",
    "size_table": "students",
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
    "StoredTeacher",
    "StudentShape",
    "TaskSpec",
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
    from .arguments import (
        AugmentationArguments,
        CorpusArguments,
        DistillationArguments,
        FineTuningArguments,
        GeneralCorpusArguments,
        GenerationTrainingArguments,
        MTLArguments,
        MultiTeacherArguments,
    )
    from .benchmark.speed import latency_ratio
    from .capture import SignalCapture, register_architecture
    from .corpus import CorpusResult, build_contextualized_corpus, load_general_corpus
    from .corpus.augmentation import AugmentedCorpus, build_augmented_corpus
    from .corpus.general import GeneralCorpus, build_general_corpus
    from .corpus.retrieval import register_engine
    from .deployment.onnx_export import export_onnx, quantize_onnx
    from .deployment.onnx_model import OnnxModel
    from .generation.model import EncoderForGeneration
    from .generation.settings import GenerationSettings
    from .hub.push import push_folder
    from .objectives import Objective, WeightedObjective, list_objectives, register_objective
    from .presets import load_preset
    from .shapes import StudentShape, parse_shape
    from .signals import SignalRequest
    from .stored.precompute import precompute
    from .stored.teacher import StoredTeacher
    from .students import create_student, size_table
    from .tasks import LoadedTask, TaskSpec, list_tasks, load_task, register_task
    from .teachers_adapters import adapter_teachers
    from .trainers.distillation import DistillationTrainer
    from .trainers.finetuning import evaluate_model, finetune
    from .trainers.generation import GenerationTrainer
    from .trainers.multi_task import MTLTrainer
    from .trainers.multi_teacher import MultiTeacherTrainer


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
