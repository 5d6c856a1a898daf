"""Turns start and end scores of overlapping windows into answers cut from their contexts.

N windows, T tokens of the padded batch, t context tokens of one window, L `max_answer_length`. A long context is read
in several windows; the best span of any of them answers the question (Devlin et al. 2019, section 4.2; with no answer,
section 4.3: the null score is that of the span at the first token, `[CLS]`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True)
class AnswerCandidate:
    """An entry of a question's n-best list.

    Attributes:
        text: `context[start:end]`; empty for "no answer".
        start: First character.
        end: Character after the last.
        score: Start score plus end score.
        probability: Softmax of the scores over the list.
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


@dataclass(frozen=True)
class SpanPrediction:
    """The model's answer to one question.

    Attributes:
        row: Number of the question, as in `contexts`.
        text: The best span; empty where no window holds a token of the context.
        candidates: N-best list of distinct spans, best first, with "no answer" in its place where it was asked for.
        null_score: Least `[CLS]` score of the windows; `None` where "no answer" was not asked for.
        null_score_difference: `null_score` minus the score of the best span, infinite where there is no span; `None`
            where "no answer" was not asked for.
    """

    row: int
    text: str
    candidates: tuple[AnswerCandidate, ...]
    null_score: float | None = None
    null_score_difference: float | None = None

    def answer(self, null_threshold: float = 0.0) -> str:
        """The best span, or nothing if `null_score_difference` is above a threshold."""
        refused = self.null_score_difference is not None and self.null_score_difference > null_threshold
        return "" if refused else self.text

    @property
    def no_answer_probability(self) -> float:
        """Sigmoid of `null_score_difference`: "no answer" against the best span; 0.0 where it was not asked for."""
        if self.null_score_difference is None:
            return 0.0
        return float(0.5 * (1.0 + np.tanh(0.5 * self.null_score_difference)))


class _Spans(NamedTuple):
    """Some spans of one question, best first: scores, first characters, characters after the last, each (k,)."""

    scores: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def decode_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    features: Iterable[Mapping[str, Any]],
    contexts: Sequence[str],
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
    with_null: bool = False,
) -> list[SpanPrediction]:
    """The best spans of every question over its windows.

    A span starts and ends at tokens of the context, does not end before it starts and has at most `max_answer_length`
    tokens. None is lost: all of a window's spans are compared. Among equal scores the earlier window goes first, then
    the earlier start, then the shorter span. A span that two windows (or two tokens of one character) share counts
    once, with its best score.

    Args:
        start_logits: Start scores, (N, T).
        end_logits: End scores, (N, T).
        features: One per window: `row`, the question's number; `offset_starts` and `offset_ends`, the characters of
            every token in the context, -1 for tokens outside it. Scores beyond their length are padding.
        contexts: One text per question.
        n_best: Length of the n-best lists, "no answer" not counted.
        max_answer_length: Tokens of the longest span.
        with_null: Whether questions may have no answer: token 0 of every window is `[CLS]`.

    Returns:
        One prediction per context, in order.

    Raises:
        ValueError: If shapes or lengths do not fit, a score is not finite, a window has no context or a context no
            window, or a number is below 1.
    """
    for name, value in (("n_best", n_best), ("max_answer_length", max_answer_length)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    start_logits, end_logits = np.asarray(start_logits), np.asarray(end_logits)
    windows, contexts = list(features), list(contexts)
    if start_logits.ndim != 2 or start_logits.shape != end_logits.shape or len(start_logits) != len(windows):
        raise ValueError(
            f"Start scores {start_logits.shape} and end scores {end_logits.shape} must be (windows, tokens) "
            f"for {len(windows)} windows."
        )
    found: list[list[_Spans]] = [[] for _ in contexts]
    nulls = [math.inf] * len(contexts)
    for number, window in enumerate(windows):
        row = int(window["row"])
        if not 0 <= row < len(contexts):
            raise ValueError(f"Window {number} belongs to row {row}, but there are {len(contexts)} contexts.")
        offsets = np.asarray(window["offset_starts"]), np.asarray(window["offset_ends"])
        start, end = _own_scores(start_logits[number], end_logits[number], offsets, number)
        found[row].append(_window_spans(start, end, *offsets, n_best, max_answer_length))
        nulls[row] = min(nulls[row], float(start[0] + end[0]))
    empty = [row for row, spans in enumerate(found) if not spans]
    if empty:
        raise ValueError(f"{len(empty)} of {len(contexts)} contexts have no window, the first is row {empty[0]}.")
    return [
        _prediction(row, contexts[row], _merge(spans, n_best), nulls[row] if with_null else None)
        for row, spans in enumerate(found)
    ]


def _own_scores(
    start: np.ndarray, end: np.ndarray, offsets: tuple[np.ndarray, np.ndarray], number: int
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a window's own tokens, without padding, in double precision."""
    length = len(offsets[0])
    if length != len(offsets[1]) or not 0 < length <= len(start):
        raise ValueError(
            f"Window {number} has {length} starts and {len(offsets[1])} ends of tokens for {len(start)} scores."
        )
    start, end = start[:length].astype(np.float64), end[:length].astype(np.float64)
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise ValueError(
            f"The scores of window {number} are not finite: the training diverged. "
            "Lower `--learning_rate`, or train without `--fp16`."
        )
    return start, end


def _window_spans(
    start: np.ndarray, end: np.ndarray, offset_starts: np.ndarray, offset_ends: np.ndarray, n_best: int, longest: int
) -> _Spans:
    """The best distinct spans of one window."""
    allowed = (offset_starts >= 0) & (offset_ends > offset_starts)
    positions = np.flatnonzero(allowed)
    if not len(positions):
        return _Spans(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    first, after = positions[0], positions[-1] + 1
    longest = min(longest, after - first)
    start = np.where(allowed, start, -np.inf)[first:after]
    end = np.pad(np.where(allowed, end, -np.inf)[first:after], (0, longest - 1), constant_values=-np.inf)
    # (t, L): entry (i, j) is the span from token i with j more tokens, so that reading order settles ties.
    scores = (start[:, None] + np.lib.stride_tricks.sliding_window_view(end, longest)).ravel()
    wanted = n_best
    while True:
        best = _best(scores, wanted)
        begins, extra = np.divmod(best, longest)
        spans = _Spans(scores[best], offset_starts[first + begins], offset_ends[first + begins + extra])
        distinct = _distinct(spans)
        # Tokens can share a character (bytes of one character): look further if that left too few.
        if len(distinct) >= n_best or len(best) < wanted:
            return _take(spans, distinct[:n_best])
        wanted *= 2


def _best(scores: np.ndarray, wanted: int) -> np.ndarray:
    """Positions of the highest possible scores, best first, equal ones in their order."""
    best = np.arange(len(scores))
    if wanted < len(scores):
        least = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
        best = np.flatnonzero(scores >= least)
    best = best[scores[best] > -np.inf]
    return best[np.argsort(-scores[best], kind="stable")][:wanted]


def _distinct(spans: _Spans) -> np.ndarray:
    """Positions of the first of every span among equal ones, in order."""
    return np.sort(np.unique((spans.starts.astype(np.int64) << 32) | spans.ends, return_index=True)[1])


def _take(spans: _Spans, positions: np.ndarray) -> _Spans:
    """Some of the spans."""
    return _Spans(*(values[positions] for values in spans))


def _merge(windows: list[_Spans], n_best: int) -> _Spans:
    """The best distinct spans of all windows of a question."""
    spans = _Spans(*(np.concatenate(values) for values in zip(*windows, strict=True)))
    spans = _take(spans, np.argsort(-spans.scores, kind="stable"))
    return _take(spans, _distinct(spans)[:n_best])


def _prediction(row: int, context: str, spans: _Spans, null: float | None) -> SpanPrediction:
    """A question's prediction from its best spans; `null` is `None` where every question has an answer."""
    entries = [
        (context[start:end], start, end, score)
        for score, start, end in zip(*(values.tolist() for values in spans), strict=True)
    ]
    text = entries[0][0] if entries else ""
    difference = None
    if null is not None:
        difference = null - entries[0][3] if entries else math.inf
        place = sum(entry[3] >= null for entry in entries)
        entries.insert(place, ("", 0, 0, null))
    candidates = tuple(
        AnswerCandidate(*entry, share)
        for entry, share in zip(entries, _softmax([entry[3] for entry in entries]), strict=True)
    )
    return SpanPrediction(row, text, candidates, null, difference)


def _softmax(scores: list[float]) -> list[float]:
    """Probabilities of scores that are sorted, best first."""
    weights = [math.exp(score - scores[0]) for score in scores]
    return [weight / sum(weights) for weight in weights]
