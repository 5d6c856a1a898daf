"""Training signals: what they need, their formulas, and the registry of their names."""

from .annealed import AnnealedObjective
from .base import (
    Objective,
    WeightedObjective,
    build_objective,
    build_objectives,
    list_objectives,
    register_objective,
)
from .logits import LabelsObjective, LogitsObjective
from .relation import MiniLMObjective, RelationObjective, relation_loss

__all__ = [
    "AnnealedObjective",
    "LabelsObjective",
    "LogitsObjective",
    "MiniLMObjective",
    "Objective",
    "RelationObjective",
    "WeightedObjective",
    "build_objective",
    "build_objectives",
    "list_objectives",
    "register_objective",
    "relation_loss",
]
