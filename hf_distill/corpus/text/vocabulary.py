"""The share of its vocabulary that a corpus has in common with another (Contextualized Corpus, section 4, Figure 3).

Compared are the most frequent words without stop words, as Gururangan et al. (2020) do: by the share of them that both
have, and by Jaccard, common words over all words of both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from .analysis import TokenStreams


def frequent_words(
    streams: TokenStreams, top: int, stop_words: Collection[str] = (), texts: np.ndarray | None = None
) -> list[str]:
    """The most frequent words of a corpus, most frequent first, words of equal counts in alphabetical order.

    Args:
        streams: Words of its texts.
        top: How many; all if there are fewer.
        stop_words: Words that do not count.
        texts: Only these texts, by a boolean for each.
    """
    ids = streams.ids if texts is None else streams.ids[np.repeat(texts, np.diff(streams.offsets))]
    counts = np.bincount(ids, minlength=len(streams.vocabulary))
    stopped = set(stop_words)
    found = [
        (-count, word)
        for count, word in zip(counts.tolist(), streams.vocabulary, strict=True)
        if count and word not in stopped
    ]
    return [word for _, word in sorted(found)[:top]]


def overlap_share(first: Sequence[str], second: Sequence[str]) -> float:
    """Common words in percent of the words compared: 100 for a corpus and itself, and the same both ways.

    Where one list is longer, its less frequent words are left out, so that as many words of both are compared.

    Args:
        first: Words, most frequent first.
        second: Words, most frequent first.
    """
    compared = min(len(first), len(second))
    return 100 * _common(first, second) / compared if compared else 0.0


def overlap_jaccard(first: Sequence[str], second: Sequence[str]) -> float:
    """Common words in percent of all words of both lists, cut as in `overlap_share`."""
    compared, common = min(len(first), len(second)), _common(first, second)
    return 100 * common / (2 * compared - common) if compared else 0.0


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    compared = min(len(first), len(second))
    return len(set(first[:compared]) & set(second[:compared]))
