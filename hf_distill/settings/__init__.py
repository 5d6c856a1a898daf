"""Settings of every verb: flat dataclasses, filled from flags or YAML; nothing here does a job.

The settings of a verb are in the module of its name; the help text of a field is its only documentation, and errors
name the flag. A class is loaded when it is first used: those of trainings take seconds, since they extend
`transformers.TrainingArguments`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._optional import lazy_names, names_of

if TYPE_CHECKING:
    from .adapt import AdaptationArguments as AdaptationArguments
    from .attention import AttentionArguments as AttentionArguments
    from .augment import AugmentationArguments as AugmentationArguments
    from .bench import BenchmarkArguments as BenchmarkArguments
    from .card import CardArguments as CardArguments
    from .compare import ComparisonArguments as ComparisonArguments
    from .convert import ConversionArguments as ConversionArguments
    from .corpus import CorpusArguments as CorpusArguments, ShardArguments as ShardArguments
    from .distill import (
        DistillationArguments as DistillationArguments,
        FamilyArguments as FamilyArguments,
        MultiTeacherArguments as MultiTeacherArguments,
        RunArguments as RunArguments,
        StudentArguments as StudentArguments,
        TextbookArguments as TextbookArguments,
    )
    from .evaluate import EvaluationArguments as EvaluationArguments
    from .export import ExportArguments as ExportArguments, ScoredTaskArguments as ScoredTaskArguments
    from .general import GeneralCorpusArguments as GeneralCorpusArguments
    from .generate import (
        GenerationArguments as GenerationArguments,
        GenerationTaskArguments as GenerationTaskArguments,
        GenerationTrainingArguments as GenerationTrainingArguments,
    )
    from .grid import GridArguments as GridArguments
    from .info import InfoArguments as InfoArguments
    from .mlm import MaskedHeadArguments as MaskedHeadArguments, MLMHeadArguments as MLMHeadArguments
    from .mtl import MTLArguments as MTLArguments, TasksArguments as TasksArguments
    from .pipeline import PipelineArguments as PipelineArguments
    from .precompute import PrecomputeArguments as PrecomputeArguments
    from .predict import PredictionArguments as PredictionArguments
    from .push import PushArguments as PushArguments
    from .report import ReportArguments as ReportArguments
    from .task import ColumnArguments as ColumnArguments, TaskArguments as TaskArguments
    from .teach import (
        FineTuningArguments as FineTuningArguments,
        TeacherArguments as TeacherArguments,
        TeacherModelArguments as TeacherModelArguments,
    )
    from .vocabulary import VocabularyArguments as VocabularyArguments

_MODULE_OF = names_of(__name__)
__all__ = list(_MODULE_OF)
__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
