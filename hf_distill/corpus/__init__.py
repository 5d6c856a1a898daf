"""Contextualized corpora: general text that is like a task's text.

Torch may be imported by `augment` alone, and nothing here knows an objective, a teacher or a training.
"""

from __future__ import annotations

from .build.builder import CorpusResult, build_contextualized_corpus
from .build.sources import corpus_label, load_general_corpus

__all__ = ["CorpusResult", "build_contextualized_corpus", "corpus_label", "load_general_corpus"]
