"""Converts a model's outputs for tokens into scores of words and of answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from hf_distill.tasks.metrics.answers import squad_scores, squad_v2_scores
from hf_distill.tasks.metrics.answers_chinese import cmrc_scores
from hf_distill.tasks.metrics.answers_mlqa import mlqa_scores
from hf_distill.tasks.metrics.entities import entity_scores
from hf_distill.tasks.rows.span_decoding import SpanPrediction, decode_spans
from hf_distill.tasks.spec import ENTITY_METRICS, OUTSIDE_TAG, TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

DIVERGED = "Lower `--learning_rate`, or train without `--fp16`."


def score_words(spec: TaskSpec, rows: Dataset, tokens: Dataset, outputs: np.ndarray) -> dict[str, float]:
    """Scores of the words' tags. A truncated word counts as tagged `O` (or with the first tag); it is not ignored.

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
            f"Task {spec.name!r}: {lost} of {lost + found} words are after `--max_length` and count as "
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
    return tag_scores(spec, predictions, references)


def _best_tags(spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """Tags (N, T); -1 where an output is not finite."""
    if outputs.ndim == 2:
        return outputs
    if outputs.ndim != 3 or outputs.shape[-1] != spec.num_labels:
        raise ValueError(
            f"Task {spec.name!r} needs {spec.num_labels} outputs per token, the model gives {outputs.shape[2:]}."
        )
    return np.where(np.isfinite(outputs).all(-1), outputs.argmax(-1), -1)


def tag_scores(spec: TaskSpec, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
    """The task's scores; if the tags do not mark entities, only the accuracy."""
    if set(spec.metrics) & set(ENTITY_METRICS[:3]):
        scores = entity_scores(predictions, references)
        return {name: scores[name] for name in spec.metrics}
    right = [p == r for side in zip(predictions, references, strict=True) for p, r in zip(*side, strict=True)]
    return {"accuracy": sum(right) / len(right)}


def score_answers(
    spec: TaskSpec, rows: Dataset, tokens: Dataset, start: np.ndarray, end: np.ndarray
) -> dict[str, float]:
    """Score the best span of every question over all windows of its context, by the task's official script.

    If a question may have no answer (SQuAD 2.0), the scores are those at a null-score difference of 0 and, as
    `best_...`, at the threshold that is best on these questions.

    Args:
        spec: A task of question answering.
        rows: Normalised rows.
        tokens: Their windows, with `row`, `offset_starts` and `offset_ends`.
        start: Scores of each token as the first token of the answer, (N, T), in the order of `tokens`.
        end: Scores of each token as the last token of the answer, (N, T).

    Raises:
        ValueError: If an output is not finite, or no answer of a question is known.
    """
    windows = tokens.select_columns(["row", "offset_starts", "offset_ends"])
    spans = decode_spans(
        start,
        end,
        windows,
        rows[spec.text_columns[1]],
        max_answer_length=spec.max_answer_length,
        with_null=spec.may_have_no_answer,
    )
    scores = _script(spec, spans, {str(number): gold["text"] for number, gold in enumerate(rows[spec.label_column])})
    # SQuAD 2.0 has separate scores for questions with and without an answer, if there are any.
    return {name: scores[name] for name in spec.metrics if name in scores}


def _script(spec: TaskSpec, spans: list[SpanPrediction], references: dict[str, list[str]]) -> dict[str, float]:
    """Scores of the best spans by the official script of the task."""
    predictions = {str(span.row): span.text for span in spans}
    if spec.answer_scorer == "squad_v2":
        # The script searches the threshold itself, so it gets the best span of every question, even of unanswerable
        # ones.
        differences = {str(span.row): float(span.null_score_difference or 0.0) for span in spans}
        return squad_v2_scores(predictions, references, differences, no_answer_threshold=0.0)
    if spec.answer_scorer == "cmrc2018":
        return cmrc_scores(predictions, references)
    if spec.answer_scorer == "mlqa":
        return mlqa_scores(predictions, references, spec.language or "en")
    return squad_scores(predictions, references)
