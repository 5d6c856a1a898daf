"""BLEU-4, METEOR and ROUGE of generated texts, as question generation and summaries are scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hf_distill.tasks.catalogue.generation import GenerationSpec
from hf_distill.tasks.metrics.text_scores import bleu_scores, meteor_scores, rouge_scores

# A word-piece tokenizer writes "john ' s", people write "John's", and the scorers of question generation count
# "john 's".
_CLITIC = re.compile(r"(?<=\w) ?['’] ?(s|m|d|re|ve|ll|t)\b")
_WORD = re.compile(r"'(?:s|m|d|re|ve|ll|t)\b|\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def score_generated(
    spec: GenerationSpec, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """The task's scores by name, as fractions.

    Words of BLEU and METEOR are lower-cased and parted from punctuation on both sides, so that it does not count how a
    tokenizer puts its pieces together. ROUGE-Lsum compares sentences: lines, or what ends with a full stop where a
    text has one line.

    Raises:
        ImportError: If a package of the extra `generation` is missing.
        ValueError: If the rows do not fit.
    """
    language = spec.language
    golds = [list(texts) for texts in references]
    plain = [text.strip() for text in predictions]
    words, gold_words = list(plain), golds
    if language != "zh":
        words, gold_words = [_words(text) for text in plain], [[_words(text) for text in texts] for texts in golds]
    found: dict[str, Any] = {}
    if "bleu" in spec.metrics:
        found |= bleu_scores(words, gold_words, language=language, tokenized=language != "zh")
    if "meteor" in spec.metrics:
        found |= meteor_scores(words, gold_words, language=language)
    if any(name.startswith("rouge") for name in spec.metrics):
        lines = [[_lines(text) for text in texts] for texts in golds]
        found |= rouge_scores([_lines(text) for text in plain], lines, language=language)
    return {name: float(found[name]) for name in spec.metrics}


def check_scorers(spec: GenerationSpec) -> None:
    """Try the task's scores, so that what is missing is known before hours of training.

    Raises:
        ImportError: If a package of the extra `generation` is missing.
    """
    score_generated(spec, ["a b c d"], [["a b c d"]])


def _words(text: str) -> str:
    """Words and punctuation in lower case, parted by spaces."""
    return " ".join(_WORD.findall(_CLITIC.sub(r" '\1", text.lower())))


def _lines(text: str) -> str:
    """Sentences, one a line."""
    return text if "\n" in text else _SENTENCE_END.sub("\n", text)
