"""Arguments of every job: flat dataclasses for `HfArgumentParser`, flags or YAML.

The help text of a field is its only documentation; errors name the flag.
"""

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
