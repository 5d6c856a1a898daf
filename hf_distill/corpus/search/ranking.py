"""The one order of hits: score descending, then row ascending, and only scores above zero.

Libraries leave ties in any order, and at the cut drop any of them. Whatever an engine computes, its hits pass
through here, so that a build is reproducible and a sharded search can equal a whole one.

Shape legend: Q queries, H hits over all queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hits:
    """Hits of Q queries, flat, in the total order within each query.

    Attributes:
        offsets: (Q + 1,) int64; query i owns `rows[offsets[i]:offsets[i + 1]]`.
        rows: (H,) int64, row numbers.
        scores: (H,) float32, above zero.
    """

    offsets: np.ndarray
    rows: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start, stop in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield self.rows[start:stop], self.scores[start:stop]

    def ranks(self) -> np.ndarray:
        """(H,) int32, 0 for the best hit of a query."""
        return (np.arange(len(self.rows)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))).astype(np.int32)

    @classmethod
    def from_lists(cls, rows: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> Hits:
        """From the ordered hits of every query."""
        lengths = np.fromiter((len(part) for part in rows), dtype=np.int64, count=len(rows))
        return cls(
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            rows=np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64, copy=False),
            scores=np.concatenate([np.empty(0, np.float32), *scores]).astype(np.float32, copy=False),
        )


def top_hits(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k hits in the total order.

    Args:
        rows: Candidate rows, each once, in any order. Must hold every row whose score is at least the k-th best.
        scores: Their scores.
        k: How many to keep.
    """
    positive = scores > 0
    if not positive.all():
        rows, scores = rows[positive], scores[positive]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
