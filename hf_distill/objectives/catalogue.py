"""A table for readers: what every registered objective needs, its formula, and the paper that it comes from."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from ..capture.signals import SignalRequest
from .base import Objective, list_objectives, objective_class

# Deep enough for every named layer map.
DEPTH = 3
SIGNALS = {
    "logits": "logits",
    "hidden_states": "hidden states",
    "projections": "queries, keys and values",
    "attention_scores": "attention scores",
    "pooled": "vectors of texts",
}
# What the trainer tells every objective that asks.
OF_THE_MODELS = ("problem_type", "teacher_model_type")
OPTIONAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class CatalogueEntry:
    """One objective.

    Attributes:
        name: Its name in the registry.
        summary: First line of its documentation.
        needs: `teacher` and `labels`, where it cannot do without; then the signals that it reads with its default
            settings.
        settings: Name of every setting -> its default as text, `required` where there is none.
        formula: One line of plain text, or "".
        citation: BibTeX key, or "".
    """

    name: str
    summary: str
    needs: tuple[str, ...]
    settings: dict[str, str]
    formula: str
    citation: str


def catalogue() -> list[CatalogueEntry]:
    """Every registered objective, by name.

    An objective whose constructor cannot do without settings is listed without its signals.
    """
    return [_entry(name, summary) for name, summary in list_objectives().items()]


def _entry(name: str, summary: str) -> CatalogueEntry:
    cls = objective_class(name)
    request = _default_request(cls)
    signals = [word for field, word in SIGNALS.items() if getattr(request, field)]
    sources = [word for word, needed in (("teacher", cls.needs_teacher), ("labels", cls.needs_labels)) if needed]
    return CatalogueEntry(name, summary, (*sources, *signals), _settings(cls), cls.formula, cls.citation)


def _settings(cls: type[Objective]) -> dict[str, str]:
    """The parameters of the constructor that a user may set; the trainer fills in what it knows of the models."""
    return {
        name: "required" if item.default is item.empty else str(item.default)
        for name, item in inspect.signature(cls).parameters.items()
        if item.kind not in OPTIONAL and name not in OF_THE_MODELS
    }


def _default_request(cls: type[Objective]) -> SignalRequest:
    """Return the student's signals that an objective with default settings reads."""
    if any(p.default is p.empty and p.kind not in OPTIONAL for p in inspect.signature(cls).parameters.values()):
        return SignalRequest()
    objective = cls()
    objective.bind(DEPTH, DEPTH)
    return objective.student_request
