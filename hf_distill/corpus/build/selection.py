"""Turns the hits of all anchors into the rows of the corpus: union, top share, decontamination, deduplication, order.

Every candidate row is either kept or dropped for a recorded reason; users can ask for the dropped rows.

Shape legend: N indexed rows, M candidate rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Value
from datasets.arrow_writer import ArrowWriter

from ...settings.corpus import CorpusArguments
from ..text.rows import UsableRows, judge, read_texts, table_of
from .duplicates import EvaluationTexts, find_near_duplicates, first_of_equal, hash_texts, normalize

_READ = 1_000_000

# Reasons why a retrieved row is not in the corpus, in the order in which they are checked.
REASONS = (
    "beyond_top_share",
    "equals_evaluation_text",
    "contains_evaluation_text",
    "shares_evaluation_ngram",
    "exact_duplicate",
    "normalized_duplicate",
    "near_duplicate",
)
_KEPT = -1


@dataclass(frozen=True)
class Candidates:
    """Retrieved rows, in ascending order.

    Attributes:
        rows: (M,) int64, rows of the index.
        ranks: (M,) int32, best rank over all anchors, 0 = first.
        scores: (M,) float32, best score over all anchors.
        anchors: (M,) int32, number of anchors that retrieved the row.
    """

    rows: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    anchors: np.ndarray

    def take(self, which: np.ndarray) -> Candidates:
        """Return some of the candidates, by mask or position."""
        return Candidates(self.rows[which], self.ranks[which], self.scores[which], self.anchors[which])


def merge_hits(hits: Dataset) -> Candidates:
    """Return the union of all anchors' hits; memory grows with the rows found, not with the rows of the corpus.

    Args:
        hits: Rows of `hf_distill.corpus.build.anchors.HIT_FEATURES`.
    """
    union = Candidates(*(np.empty(0, kind) for kind in (np.int64, np.int32, np.float32, np.int32)))
    waiting: list[Candidates] = []
    for batch in hits.with_format("arrow").iter(batch_size=_READ):
        rows, ranks, scores = (batch[name].to_numpy() for name in ("row", "rank", "score"))
        waiting.append(_united([Candidates(rows, ranks, scores, np.ones(len(rows), np.int32))]))
        # Merge only when there are as many new rows as old ones: every row is then sorted a few times, not once per
        # batch.
        if sum(len(part.rows) for part in waiting) >= len(union.rows):
            union, waiting = _united([union, *waiting]), []
    return _united([union, *waiting])


def _united(parts: Sequence[Candidates]) -> Candidates:
    """Merge candidates so that each row occurs once, in ascending order."""
    rows, ranks, scores, anchors = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "ranks", "scores", "anchors")
    )
    if not len(rows):
        return Candidates(rows, ranks, scores, anchors)
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
    return Candidates(
        rows[starts],
        np.minimum.reduceat(ranks[order], starts),
        np.maximum.reduceat(scores[order], starts),
        np.add.reduceat(anchors[order], starts, dtype=np.int32),
    )


def rank_limit(top_share: float, k: int) -> int:
    """Return the rank limit of the top share: the smallest integer that is at least share * k."""
    return math.ceil(Fraction(str(top_share)) * k)


@dataclass(frozen=True)
class Selection:
    """The decision about each of M candidates: kept, or dropped for a reason.

    Attributes:
        candidates: The candidates.
        fates: (M,) int8, index of the reason in `REASONS`, or -1 for a row that is kept.
        instead: (M,) int64, for a duplicate the row that is kept in its place; -1 for all others.
    """

    candidates: Candidates
    fates: np.ndarray
    instead: np.ndarray

    def chosen(self) -> Candidates:
        """Return the rows of the corpus, by rank, then score descending, then row."""
        left = self.candidates.take(np.flatnonzero(self.fates == _KEPT))
        return left.take(np.lexsort((left.rows, -left.scores, left.ranks)))

    def dropped(self) -> dict[str, int]:
        """Count the rows that were dropped, by reason."""
        return {reason: int((self.fates == place).sum()) for place, reason in enumerate(REASONS)}


def choose_rows(
    candidates: Candidates,
    texts_of: Callable[[np.ndarray], Iterable[list[str]]],
    evaluation: EvaluationTexts,
    *,
    limit: int,
    deduplicate: str,
    near_threshold: float = 1.0,
) -> Selection:
    """Drop rows beyond the top share, then evaluation texts, then all but one of equal and of similar texts.

    Among equal texts, the one with the best rank is kept, then the first row; the same holds for similar texts, one
    after the other. So a smaller top share is always a subset of a larger one.

    Args:
        candidates: M candidates.
        texts_of: Function from rows to their texts, in batches.
        evaluation: Texts to exclude.
        limit: Ranks below it belong to the top share.
        deduplicate: `near`, `normalized`, `exact` or `none`; each includes the ones after it.
        near_threshold: Minimum similarity of near-duplicates.
    """
    selection = Selection(
        candidates,
        fates=np.where(candidates.ranks < limit, _KEPT, REASONS.index("beyond_top_share")).astype(np.int8),
        instead=np.full(len(candidates.rows), -1, dtype=np.int64),
    )
    looked_at = np.flatnonzero(selection.fates == _KEPT)
    exact, normalized = _compare_with_evaluation(selection, looked_at, texts_of, evaluation)
    for reason, hashes, modes in (
        ("exact_duplicate", exact, ("exact", "normalized", "near")),
        ("normalized_duplicate", normalized, ("normalized", "near")),
    ):
        if deduplicate in modes:
            left = selection.fates[looked_at] == _KEPT
            places = looked_at[left]
            priority = candidates.ranks[places].astype(np.int64) * (int(candidates.rows[-1]) + 1)
            stays = first_of_equal(hashes[left], priority + candidates.rows[places])
            _drop(selection, places, stays, reason)
    if deduplicate == "near":
        places = np.flatnonzero(selection.fates == _KEPT)
        places = places[np.lexsort((candidates.rows[places], candidates.ranks[places]))]
        nearly = find_near_duplicates(
            len(places), lambda which: texts_of(candidates.rows[places[which]]), near_threshold
        )
        _drop(selection, places, np.where(nearly < 0, np.arange(len(places)), nearly), "near_duplicate")
    _follow(selection)
    return selection


def _compare_with_evaluation(
    selection: Selection,
    places: np.ndarray,
    texts_of: Callable[[np.ndarray], Iterable[list[str]]],
    evaluation: EvaluationTexts,
) -> tuple[np.ndarray, np.ndarray]:
    """Mark rows that match evaluation texts; return hashes of all texts, unchanged and normalised."""
    exact, normalized_hashes = np.empty(len(places), np.uint64), np.empty(len(places), np.uint64)
    done = 0
    for texts in texts_of(selection.candidates.rows[places]):
        here = slice(done, done + len(texts))
        normalized = [normalize(text) for text in texts]
        exact[here], normalized_hashes[here] = hash_texts(texts), hash_texts(normalized)
        # If several reasons apply, the last one is recorded: an equal text also contains the evaluation text.
        for reason, holds in (
            ("shares_evaluation_ngram", evaluation.shared(normalized)),
            ("contains_evaluation_text", evaluation.contained(normalized)),
            ("equals_evaluation_text", evaluation.equal(normalized_hashes[here])),
        ):
            selection.fates[places[here][holds]] = REASONS.index(reason)
        done += len(texts)
    return exact, normalized_hashes


def _drop(selection: Selection, places: np.ndarray, stays: np.ndarray, reason: str) -> None:
    """Mark the rows of `places` whose entry in `stays`, a position in `places`, is another row."""
    gone = stays != np.arange(len(places))
    selection.fates[places[gone]] = REASONS.index(reason)
    selection.instead[places[gone]] = selection.candidates.rows[places[stays[gone]]]


def _follow(selection: Selection) -> None:
    """Make `instead` point to rows of the corpus: the kept copy may itself be a near-duplicate of another row."""
    replaced = np.flatnonzero(selection.instead >= 0)
    while len(replaced):
        places = np.searchsorted(selection.candidates.rows, selection.instead[replaced])
        moved = selection.instead[places] >= 0
        replaced, places = replaced[moved], places[moved]
        selection.instead[replaced] = selection.instead[places]


# --- dropped rows ----------------------------------------------------------------------------------------------------

DROPPED_FEATURES = Features(
    {"row": Value("int64"), "text": Value("string"), "reason": Value("string"), "instead": Value("int64")}
)


def write_dropped(
    path: Path,
    corpus: Dataset,
    args: CorpusArguments,
    usable: UsableRows,
    selection: Selection,
) -> int:
    """Write an Arrow file with the columns `row` (of the general corpus), `text`, `reason` and `instead`.

    It contains the rows that were unusable, and the rows that an anchor found but that were dropped; `instead` is the
    row that is kept in place of a duplicate.

    Args:
        path: File to write.
        corpus: The general corpus.
        args: The text column, and the limits for usable rows.
        usable: The usable rows.
        selection: The decisions about the rows that were found.

    Returns:
        Number of rows written.
    """
    gone = np.flatnonzero(selection.fates >= 0)
    rows = usable.rows[selection.candidates.rows[gone]]
    reasons = [REASONS[fate] for fate in selection.fates[gone].tolist()]
    # A row number of -1 would index from the end.
    instead = [usable.rows[row].item() if row >= 0 else None for row in selection.instead[gone].tolist()]
    found = dict(zip(rows.tolist(), zip(reasons, instead, strict=True), strict=True))
    is_usable = np.zeros(len(corpus), dtype=bool)
    is_usable[usable.rows] = True
    num_rows, start = 0, 0
    with ArrowWriter(path=str(path), features=DROPPED_FEATURES) as writer:
        for texts in read_texts(corpus, args.text_column, "Writing dropped rows"):
            lines: list[tuple[int, str | None, str, int | None]] = []
            for row, text in enumerate(texts, start):
                if not is_usable[row]:
                    lines.append((row, text, judge(text, args)[0], None))
                elif row in found:
                    lines.append((row, text, *found[row]))
            if lines:
                columns = dict(zip(DROPPED_FEATURES, zip(*lines, strict=True), strict=True))
                writer.write_table(table_of(columns, DROPPED_FEATURES))
            num_rows += len(lines)
            start += len(texts)
        writer.finalize()
    return num_rows
