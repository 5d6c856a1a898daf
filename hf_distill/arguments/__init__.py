"""Arguments of every job: flat dataclasses for `HfArgumentParser`, flags or YAML.

The help text of a field is its only documentation; errors name the flag.
"""

from .data import CorpusArguments, TaskArguments, TextbookArguments
from .models import EvaluationArguments, PipelineArguments, StudentArguments, TeacherArguments
from .multi_teacher import MultiTeacherArguments
from .pushing import PushArguments
from .storing import PrecomputeArguments
from .training import DistillationArguments, FineTuningArguments

__all__ = [
    "CorpusArguments",
    "DistillationArguments",
    "EvaluationArguments",
    "FineTuningArguments",
    "MultiTeacherArguments",
    "PipelineArguments",
    "PrecomputeArguments",
    "PushArguments",
    "StudentArguments",
    "TaskArguments",
    "TeacherArguments",
    "TextbookArguments",
]
