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
from .features import CosineObjective, FSPObjective, HiddenObjective, NSTObjective, PKDObjective
from .logits import LabelsObjective, LogitsObjective
from .projections import make_projection
from .relation import MiniLMObjective, RelationObjective, relation_loss

__all__ = [
    "AnnealedObjective",
    "CosineObjective",
    "FSPObjective",
    "HiddenObjective",
    "LabelsObjective",
    "LogitsObjective",
    "MiniLMObjective",
    "NSTObjective",
    "Objective",
    "PKDObjective",
    "RelationObjective",
    "WeightedObjective",
    "build_objective",
    "build_objectives",
    "list_objectives",
    "make_projection",
    "register_objective",
    "relation_loss",
]
