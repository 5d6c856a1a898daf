"""Hits of all anchors -> the rows of the corpus: merge, top share, decontamination, one of equal texts, order.

Shape legend: N indexed rows, M candidate rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from datasets import Dataset

from .dedup import EvaluationTexts, first_of_equal, hash_texts, normalize

_READ = 1_000_000
_NEVER = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Candidates:
    """Retrieved rows, ascending.

    Attributes:
        rows: (M,) int64, rows of the index.
        ranks: (M,) int32, best rank over all anchors, 0 = first.
        scores: (M,) float32, best score over all anchors.
        anchors: (M,) int32, anchors that retrieved the row.
    """

    rows: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    anchors: np.ndarray

    def take(self, which: np.ndarray) -> Candidates:
        """Some of them, by mask or position."""
        return Candidates(self.rows[which], self.ranks[which], self.scores[which], self.anchors[which])


def merge_hits(hits: Dataset, num_rows: int) -> Candidates:
    """The union of all anchors' hits.

    Args:
        hits: Rows of `hf_distill.corpus.queries.HIT_FEATURES`.
        num_rows: N.
    """
    ranks = np.full(num_rows, _NEVER, dtype=np.int32)
    scores = np.zeros(num_rows, dtype=np.float32)
    anchors = np.zeros(num_rows, dtype=np.int32)
    for batch in hits.with_format("arrow").iter(batch_size=_READ):
        rows = batch["row"].to_numpy()
        np.minimum.at(ranks, rows, batch["rank"].to_numpy())
        np.maximum.at(scores, rows, batch["score"].to_numpy())
        np.add.at(anchors, rows, 1)
    found = np.flatnonzero(anchors)
    return Candidates(found, ranks[found], scores[found], anchors[found])


def rank_limit(top_share: float, k: int) -> int:
    """Ranks below this number belong to the top share: the smallest integer not below share * k."""
    return math.ceil(Fraction(str(top_share)) * k)


def choose_rows(
    candidates: Candidates,
    batches: Iterable[list[str]],
    evaluation: EvaluationTexts,
    *,
    deduplicate: str,
    decontaminate: str,
) -> tuple[Candidates, dict[str, int]]:
    """Drops evaluation texts, then all but one of equal texts, and puts the rest in order.

    Of equal texts the one with the best rank stays, then the first row, so that a smaller top share is always part
    of a larger one.

    Args:
        candidates: M candidates.
        batches: Their texts, in the order of `candidates.rows`.
        evaluation: Texts to keep out.
        deduplicate: `normalized`, `exact` or `none`.
        decontaminate: `equal`, `contains` or `none`.

    Returns:
        The rows that stay, by rank, then score descending, then row; and how many were dropped for each reason.
    """
    exact_parts, normalized_parts, held_out_parts = [], [], []
    for texts in batches:
        normalized = [normalize(text) for text in texts]
        exact_parts.append(hash_texts(texts))
        normalized_parts.append(hash_texts(normalized))
        if decontaminate == "contains":
            held_out_parts.append(evaluation.contained(normalized))
    exact, normalized_hashes = np.concatenate(exact_parts), np.concatenate(normalized_parts)
    nothing = np.zeros(len(exact), dtype=bool)
    equal = nothing if decontaminate == "none" else evaluation.equal(normalized_hashes)
    contained = np.concatenate(held_out_parts) & ~equal if held_out_parts else nothing
    kept = np.flatnonzero(~equal & ~contained)
    dropped = {"equals_evaluation_text": int(equal.sum()), "contains_evaluation_text": int(contained.sum())}
    for name, hashes, modes in (
        ("exact_duplicate", exact, ("exact", "normalized")),
        ("normalized_duplicate", normalized_hashes, ("normalized",)),
    ):
        dropped[name] = 0
        if deduplicate in modes:
            priority = candidates.ranks[kept].astype(np.int64) * (int(candidates.rows[-1]) + 1) + candidates.rows[kept]
            first = first_of_equal(hashes[kept], priority)
            dropped[name] = int((~first).sum())
            kept = kept[first]
    left = candidates.take(kept)
    return left.take(np.lexsort((left.rows, -left.scores, left.ranks))), dropped
