"""Objectives: the signals that each needs, the formula of its loss, and the registry of their names.

Weights, sums and logs belong to the trainers, and nothing here knows a corpus or a task.
"""

from .annealed import AnnealedObjective
from .attention import AttentionObjective
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
from .ranking import ListwiseObjective, MarginObjective
from .relation import MiniLMObjective, RelationObjective, relation_loss
from .sentence import EmbeddingObjective, SimilarityObjective
from .tinybert import TinyBERTObjective, TinyBERTPredictionObjective
from .transport import BertEMDObjective, solve_transport

__all__ = [
    "AnnealedObjective",
    "AttentionObjective",
    "BertEMDObjective",
    "CosineObjective",
    "EmbeddingObjective",
    "FSPObjective",
    "HiddenObjective",
    "LabelsObjective",
    "ListwiseObjective",
    "LogitsObjective",
    "MarginObjective",
    "MiniLMObjective",
    "NSTObjective",
    "Objective",
    "PKDObjective",
    "RelationObjective",
    "SimilarityObjective",
    "TinyBERTObjective",
    "TinyBERTPredictionObjective",
    "WeightedObjective",
    "build_objective",
    "build_objectives",
    "list_objectives",
    "make_projection",
    "register_objective",
    "relation_loss",
    "solve_transport",
]
