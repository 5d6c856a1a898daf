"""From what a model says about tokens to scores of words and of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from transformers.utils import logging

from hf_distill.tasks.answers import squad_scores
from hf_distill.tasks.entities import entity_scores
from hf_distill.tasks.span_decoding import decode_spans
from hf_distill.tasks.spec import ENTITY_METRICS, OUTSIDE_TAG, TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)

DIVERGED = "Lower `--learning_rate`, or train without `--fp16`."


def score_words(spec: TaskSpec, rows: Dataset, tokens: Dataset, outputs: np.ndarray) -> dict[str, float]:
    """Scores of the words' tags. A word that was cut off counts as `O` (or the first tag): it is not left out.

    Args:
        spec: A task of token classification.
        rows: Normalised rows.
        tokens: Their tokens, with `row` and `word_index`.
        outputs: Logits (N, T, C), or the best tags (N, T), in the order of `tokens`.

    Raises:
        ValueError: If an output is not finite, or no tag is known.
    """
    names = list(spec.label_names or ())
    best = _best_tags(spec, outputs)
    unseen = names.index(OUTSIDE_TAG) if OUTSIDE_TAG in names else 0
    gold = rows[spec.label_column]
    guessed = [np.full(len(tags), unseen) for tags in gold]
    found = 0
    for number, row, words in zip(range(len(tokens)), tokens["row"], tokens["word_index"], strict=True):
        places = np.asarray(words)
        firsts = places >= 0
        chosen = best[number, : len(places)][firsts]
        if (chosen < 0).any():
            raise ValueError(f"The model's outputs on task {spec.name!r} are not finite: it diverged. {DIVERGED}")
        guessed[row][places[firsts]] = chosen
        found += int(firsts.sum())
    lost = sum(map(len, gold)) - found
    if lost:
        logger.warning(
            f"Task {spec.name!r}: {lost} of {lost + found} words lie behind `--max_length` and count as "
            f"{names[unseen]!r}."
        )
    shown = [[tag >= 0 for tag in tags] for tags in gold]
    if not any(map(any, shown)):
        raise ValueError(f"Task {spec.name!r}: all tags are hidden; evaluate on {list(spec.evaluation_splits)}.")
    references, predictions = (
        [
            [names[tag] for tag, known in zip(tags, flags, strict=True) if known]
            for tags, flags in zip(side, shown, strict=True)
        ]
        for side in (gold, guessed)
    )
    return _tag_scores(spec, predictions, references)


def _best_tags(spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """Tags (N, T), -1 where an output is not finite."""
    if outputs.ndim == 2:
        return outputs
    if outputs.ndim != 3 or outputs.shape[-1] != spec.num_labels:
        raise ValueError(
            f"Task {spec.name!r} needs {spec.num_labels} outputs per token, the model gives {outputs.shape[2:]}."
        )
    return np.where(np.isfinite(outputs).all(-1), outputs.argmax(-1), -1)


def _tag_scores(spec: TaskSpec, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
    """The task's scores; tags that mark no entities have an accuracy only."""
    if set(spec.metrics) & set(ENTITY_METRICS[:3]):
        scores = entity_scores(predictions, references)
        return {name: scores[name] for name in spec.metrics}
    right = [p == r for side in zip(predictions, references, strict=True) for p, r in zip(*side, strict=True)]
    return {"accuracy": sum(right) / len(right)}


def score_answers(
    spec: TaskSpec, rows: Dataset, tokens: Dataset, start: np.ndarray, end: np.ndarray
) -> dict[str, float]:
    """Scores of the best span of every question, over all windows of its context.

    Args:
        spec: A task of question answering.
        rows: Normalised rows.
        tokens: Their windows, with `row`, `offset_starts` and `offset_ends`.
        start: Scores of a token to be the first of the answer, (N, T), in the order of `tokens`.
        end: Likewise of the last.

    Raises:
        ValueError: If an output is not finite, or a question has no answer that is known.
    """
    windows = tokens.select_columns(["row", "offset_starts", "offset_ends"])
    spans = decode_spans(start, end, windows, rows[spec.text_columns[1]])
    predictions = {str(number): span.text for number, span in enumerate(spans)}
    references = {str(number): answers["text"] for number, answers in enumerate(rows[spec.label_column])}
    scores = squad_scores(predictions, references)
    return {name: scores[name] for name in spec.metrics}
