"""Distil language models into small ones with the Hugging Face `Trainer`.

Importing the package is cheap: names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._optional import lazy_names, names_of, quiet_imports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .capture.architecture_table import register_architecture as register_architecture
    from .capture.signals import SignalRequest as SignalRequest, Signals as Signals
    from .capture.transformer import SignalCapture as SignalCapture
    from .corpus.augment.builder import (
        AugmentedCorpus as AugmentedCorpus,
        build_augmented_corpus as build_augmented_corpus,
    )
    from .corpus.build.builder import (
        CorpusResult as CorpusResult,
        build_contextualized_corpus as build_contextualized_corpus,
    )
    from .corpus.build.general import GeneralCorpus as GeneralCorpus, build_general_corpus as build_general_corpus
    from .corpus.build.loading import load_general_corpus as load_general_corpus
    from .corpus.search.retrieval import register_engine as register_engine
    from .generation.model import EncoderForGeneration as EncoderForGeneration
    from .generation.settings import GenerationSettings as GenerationSettings
    from .generation.trainer import GenerationTrainer as GenerationTrainer
    from .hub.push import push_folder as push_folder
    from .objectives import (
        Objective as Objective,
        WeightedObjective as WeightedObjective,
        list_objectives as list_objectives,
        register_objective as register_objective,
    )
    from .reports.onnx.onnx_export import export_onnx as export_onnx, quantize_onnx as quantize_onnx
    from .reports.onnx.onnx_model import OnnxModel as OnnxModel
    from .reports.speed.latency import latency_ratio as latency_ratio
    from .settings import (
        AugmentationArguments as AugmentationArguments,
        CorpusArguments as CorpusArguments,
        DistillationArguments as DistillationArguments,
        FineTuningArguments as FineTuningArguments,
        GeneralCorpusArguments as GeneralCorpusArguments,
        GenerationTrainingArguments as GenerationTrainingArguments,
        MTLArguments as MTLArguments,
        MultiTeacherArguments as MultiTeacherArguments,
    )
    from .settings.presets import load_preset as load_preset
    from .students.creation import create_student as create_student
    from .students.shapes import StudentShape as StudentShape, parse_shape as parse_shape
    from .students.sizes import size_table as size_table
    from .tasks import (
        LoadedTask as LoadedTask,
        TaskSpec as TaskSpec,
        list_tasks as list_tasks,
        load_task as load_task,
        register_task as register_task,
    )
    from .teachers.adapters import adapter_teachers as adapter_teachers
    from .teachers.base import LiveTeacher as LiveTeacher, TeacherSource as TeacherSource
    from .teachers.stored.precompute import precompute as precompute
    from .teachers.stored.teacher import StoredTeacher as StoredTeacher
    from .trainers.distillation.family import train_family as train_family
    from .trainers.distillation.multi_teacher import MultiTeacherTrainer as MultiTeacherTrainer
    from .trainers.distillation.trainer import DistillationTrainer as DistillationTrainer
    from .trainers.fine_tuning.trainer import evaluate_model as evaluate_model, finetune as finetune
    from .trainers.multi_task.trainer import MTLTrainer as MTLTrainer

quiet_imports()
_MODULE_OF = names_of(__name__)
__all__ = list(_MODULE_OF)
__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
