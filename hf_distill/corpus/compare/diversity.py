"""Diversity of a corpus by Distinct-n, on samples of equal size (Contextualized Corpus, section 4 and Table 3).

Distinct-n is the number of distinct n-grams divided by the number of all n-grams. It decreases as text is added, so
corpora must be compared at the same size: whole texts are drawn until they have as many words as the smaller corpus.

Shape legend: N texts, T words over all texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..text.analysis import TokenStreams

# Constants of splitmix64, a bijective hash of 64-bit numbers.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def distinct(ids: np.ndarray, lengths: np.ndarray, n: int) -> float:
    """Return distinct-n in percent: 100 x distinct n-grams / n-grams; 0 if no text has n words.

    Args:
        ids: (T,) word ids, text after text.
        lengths: (N,) words of each text; n-grams do not cross the end of a text.
        n: Words of an n-gram.

    Raises:
        ValueError: If n is below 1.
    """
    if n < 1:
        raise ValueError(f"Distinct-n needs n of at least 1, but it is {n}.")
    if len(ids) < n:
        return 0.0
    until_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))
    grams = _ngrams(ids, n)[until_end[: len(ids) - n + 1] >= n]
    return 100 * len(np.unique(grams)) / len(grams) if len(grams) else 0.0


def _ngrams(ids: np.ndarray, n: int) -> np.ndarray:
    """Return (T - n + 1,) int64 ids that are equal for equal n-grams, whatever texts they are from."""
    width = int(ids.max()) + 1
    grams = ids.astype(np.int64)
    for step in range(1, n):
        if step > 1:
            # Renumber below T, so that no product overflows.
            grams = np.unique(grams, return_inverse=True)[1]
        grams = grams[:-1] * width + ids[step:]
    return grams


def sample_order(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Return (N,) int64: the texts in a pseudo-random order.

    The order depends only on the texts and the seed: if the rows are permuted, the texts still come in the same order.
    Equal texts get distinct positions.

    Args:
        hashes: (N,) uint64, hashes of the texts.
        seed: A different seed gives a different order.
    """
    by_text = np.argsort(hashes, kind="stable")
    ordered = hashes[by_text]
    begins = np.ones(len(hashes), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    places = np.arange(len(hashes))
    occurrence = places - np.maximum.accumulate(np.where(begins, places, 0))
    with np.errstate(over="ignore"):
        keys = _mixed(
            ordered ^ _mixed(occurrence.astype(np.uint64) + _mixed(np.array([seed % 2**64], dtype=np.uint64)))
        )
    return by_text[np.argsort(keys, kind="stable")]


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Apply the bijective 64-bit hash splitmix64."""
    mixed = numbers + np.uint64(_GOLDEN)
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def take_words(order: np.ndarray, lengths: np.ndarray, num_words: int) -> np.ndarray:
    """Return the first texts of an order that together have at least `num_words` words; all if they have fewer.

    Args:
        order: (N,) texts.
        lengths: (N,) words of each text.
        num_words: Number of words to reach.
    """
    reached = np.cumsum(lengths[order])
    return order[: int(np.searchsorted(reached, num_words)) + 1]


def words_of(streams: TokenStreams, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the words of some texts, one after the other, and the number of words of each."""
    lengths = np.diff(streams.offsets)[texts]
    starts = np.repeat(streams.offsets[texts] - (np.cumsum(lengths) - lengths), lengths)
    return streams.ids[starts + np.arange(len(starts))], lengths


def sampled_distinct(
    streams: TokenStreams, hashes: np.ndarray, num_words: int, *, orders: Sequence[int], seeds: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Return distinct-n of samples of a corpus.

    Args:
        streams: The words of its texts, including stop words.
        hashes: (N,) uint64, hashes of its texts.
        num_words: Words of a sample; a corpus that is not larger is used as a whole.
        orders: The values of n.
        seeds: Seeds, one for each sample.

    Returns:
        n -> `mean` and `spread` (standard deviation) over the samples in percent; under `words` those of the word
        counts.
    """
    lengths = np.diff(streams.offsets)
    whole = num_words >= len(streams.ids)
    found: dict[str, list[float]] = {name: [] for name in ("words", *map(str, orders))}
    for seed in seeds[:1] if whole else seeds:
        sample = np.arange(len(lengths)) if whole else take_words(sample_order(hashes, seed), lengths, num_words)
        ids, of_text = words_of(streams, sample)
        found["words"].append(len(ids))
        for n in orders:
            found[str(n)].append(distinct(ids, of_text, n))
    return {
        name: {"mean": round(float(np.mean(values)), 3), "spread": round(float(np.std(values)), 3)}
        for name, values in found.items()
    }
