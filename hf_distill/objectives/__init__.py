"""Objectives: the signals that each one needs, the formula of its loss, and the registry of their names.

Weights, sums and logs belong to the trainers. Nothing here depends on a corpus or a task.
"""

from .annealed import AnnealedObjective as AnnealedObjective
from .attention import AttentionObjective as AttentionObjective
from .base import (
    Objective as Objective,
    WeightedObjective as WeightedObjective,
    build_objective as build_objective,
    build_objectives as build_objectives,
    list_objectives as list_objectives,
    register_objective as register_objective,
)
from .features import (
    CosineObjective as CosineObjective,
    FSPObjective as FSPObjective,
    HiddenObjective as HiddenObjective,
    NSTObjective as NSTObjective,
    PKDObjective as PKDObjective,
)
from .logits import LabelsObjective as LabelsObjective, LogitsObjective as LogitsObjective
from .projections import make_projection as make_projection
from .ranking import ListwiseObjective as ListwiseObjective, MarginObjective as MarginObjective
from .relation import (
    MiniLMObjective as MiniLMObjective,
    RelationObjective as RelationObjective,
    relation_loss as relation_loss,
)
from .sentence import EmbeddingObjective as EmbeddingObjective, SimilarityObjective as SimilarityObjective
from .tinybert import (
    TinyBERTObjective as TinyBERTObjective,
    TinyBERTPredictionObjective as TinyBERTPredictionObjective,
)
from .transport import BertEMDObjective as BertEMDObjective, solve_transport as solve_transport
