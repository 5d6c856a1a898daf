"""Converts start and end scores of overlapping windows into answers cut from their contexts.

Shape legend: N windows, T tokens of the padded batch, t context tokens of one window, L `max_answer_length`. A long
context is read in several windows; the best span of all windows answers the question (Devlin et al. 2019, section 4.2;
unanswerable questions, section 4.3: the null score is that of the span at the first token, `[CLS]`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Span(NamedTuple):
    """A span of a context: start score plus end score, its first character, and the character after its last."""

    score: float
    start: int
    end: int


@dataclass(frozen=True)
class SpanPrediction:
    """The model's answer to one question.

    Attributes:
        row: Index of the question in `contexts`.
        text: The best span, even if "no answer" has a higher score; empty if no window contains a token of the
            context.
        span: The position of the text; `None` in the same case.
        null_score_difference: The lowest `[CLS]` score of the windows minus the score of the best span; infinite if
            there is no span; `None` if "no answer" is not allowed.
    """

    row: int
    text: str
    span: Span | None
    null_score_difference: float | None = None


def decode_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    features: Iterable[Mapping[str, Any]],
    contexts: Sequence[str],
    *,
    max_answer_length: int = 30,
    with_null: bool = False,
) -> list[SpanPrediction]:
    """Find the best span of every question over its windows.

    A span starts and ends at tokens of the context, does not end before it starts, and has at most `max_answer_length`
    tokens. All such spans of a window are compared, not only the top few. Ties are broken in favour of the earlier
    window, then the earlier start, then the shorter span.

    Args:
        start_logits: Start scores, (N, T).
        end_logits: End scores, (N, T).
        features: One for each window: `row`, the index of the question; `offset_starts` and `offset_ends`, the
            characters of every token in the context, -1 for tokens outside it. Scores beyond their length are padding.
        contexts: One text for each question.
        max_answer_length: Maximum tokens of a span.
        with_null: Whether questions may have no answer: then token 0 of every window is `[CLS]`.

    Returns:
        One prediction for each context, in order.

    Raises:
        ValueError: If shapes or lengths do not match, a score is not finite, a window has no context, a context has no
            window, or `max_answer_length` is below 1.
    """
    if max_answer_length < 1:
        raise ValueError(f"`max_answer_length` must be at least 1, got {max_answer_length}.")
    start_logits, end_logits = np.asarray(start_logits), np.asarray(end_logits)
    windows, contexts = list(features), list(contexts)
    if start_logits.ndim != 2 or start_logits.shape != end_logits.shape or len(start_logits) != len(windows):
        raise ValueError(
            f"Start scores {start_logits.shape} and end scores {end_logits.shape} must be (windows, tokens) "
            f"for {len(windows)} windows."
        )
    found: list[list[Span | None]] = [[] for _ in contexts]
    nulls = [math.inf] * len(contexts)
    for number, window in enumerate(windows):
        row = int(window["row"])
        if not 0 <= row < len(contexts):
            raise ValueError(f"Window {number} belongs to row {row}, but there are {len(contexts)} contexts.")
        offsets = np.asarray(window["offset_starts"]), np.asarray(window["offset_ends"])
        start, end = _own_scores(start_logits[number], end_logits[number], offsets, number)
        found[row].append(_best_span(start, end, *offsets, max_answer_length))
        nulls[row] = min(nulls[row], float(start[0] + end[0]))
    empty = [row for row, spans in enumerate(found) if not spans]
    if empty:
        raise ValueError(f"{len(empty)} of {len(contexts)} contexts have no window, the first is row {empty[0]}.")
    return [
        _prediction(row, contexts[row], spans, nulls[row] if with_null else None) for row, spans in enumerate(found)
    ]


def _own_scores(
    start: np.ndarray, end: np.ndarray, offsets: tuple[np.ndarray, np.ndarray], number: int
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a window without padding, in double precision."""
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


def _best_span(
    start: np.ndarray, end: np.ndarray, offset_starts: np.ndarray, offset_ends: np.ndarray, longest: int
) -> Span | None:
    """The best span of one window; `None` if the window contains no token of the context."""
    allowed = (offset_starts >= 0) & (offset_ends > offset_starts)
    positions = np.flatnonzero(allowed)
    if not len(positions):
        return None
    first, after = positions[0], positions[-1] + 1
    longest = min(longest, after - first)
    start = np.where(allowed, start, -np.inf)[first:after]
    end = np.pad(np.where(allowed, end, -np.inf)[first:after], (0, longest - 1), constant_values=-np.inf)
    # (t, L): entry (i, j) is the span that starts at token i and has j more tokens, so argmax order breaks ties.
    scores = start[:, None] + np.lib.stride_tricks.sliding_window_view(end, longest)
    begin, extra = np.unravel_index(scores.argmax(), scores.shape)
    last = first + begin + extra
    return Span(float(scores[begin, extra]), int(offset_starts[first + begin]), int(offset_ends[last]))


def _prediction(row: int, context: str, spans: Sequence[Span | None], null: float | None) -> SpanPrediction:
    """A question's prediction from the best spans of its windows; `null` is `None` if every question has an answer."""
    # `max` returns the first of equal spans.
    best = max((span for span in spans if span is not None), key=lambda span: span.score, default=None)
    if best is None:
        return SpanPrediction(row, "", None, None if null is None else math.inf)
    return SpanPrediction(row, context[best.start : best.end], best, None if null is None else null - best.score)
