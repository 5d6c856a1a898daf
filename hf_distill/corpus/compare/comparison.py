"""Compares corpora with each other and with a task: size, diversity, and words in common with the task.

The measures are those of the Contextualized Corpus paper: its Table 1 (cases, bytes, k), Table 3 (Distinct-n at equal
sizes) and Figure 3 (vocabulary overlap, also for the top shares of a retrieved corpus).

Shape legend: N texts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ...settings.compare import ComparisonArguments
from ..build.duplicates import hash_texts
from ..build.selection import rank_limit
from ..text.analysis import Analyzer, TokenStreams, stop_words
from .diversity import sampled_distinct

ORDERS = (1, 2)
# The name of the task's validation and test texts in the comparison.
EVALUATION = "evaluation"
_BATCH = 10_000


@dataclass(frozen=True)
class MeasuredCorpus:
    """A corpus as words.

    Attributes:
        streams: Words of its N texts, including stop words.
        hashes: (N,) uint64, hashes of the texts.
        num_rows: Number of rows; a pair is one row with two texts.
        num_bytes: UTF-8 bytes of the texts.
        ranks: (N,) best rank of each text over all anchors, for a retrieved corpus.
        top_k: Number of rows retrieved for each anchor, for a retrieved corpus.
    """

    streams: TokenStreams
    hashes: np.ndarray
    num_rows: int
    num_bytes: int
    ranks: np.ndarray | None = None
    top_k: int | None = None

    def describe(self) -> dict[str, Any]:
        """Return the values of the paper's Table 1, and counts of words."""
        words, texts = len(self.streams.ids), self.streams.num_texts
        return {
            "rows": self.num_rows,
            "bytes": self.num_bytes,
            "top_k": self.top_k,
            "texts": texts,
            "words": words,
            "different_words": len(self.streams.vocabulary),
            "mean_words": round(words / texts, 2) if texts else 0.0,
        }


def measure_corpus(
    texts: Iterable[str | None],
    language: str,
    *,
    num_rows: int | None = None,
    ranks: np.ndarray | None = None,
    top_k: int | None = None,
) -> MeasuredCorpus:
    """Measure a corpus in one pass over its texts.

    Args:
        texts: Its texts; None counts as an empty text.
        language: Name or ISO code; determines the segmenter for Chinese.
        num_rows: Number of rows of these texts; by default the number of texts.
        ranks: (N,) ranks, for a retrieved corpus.
        top_k: Number of rows retrieved for each anchor; by default the largest rank plus one.
    """
    hashes, num_bytes = [np.empty(0, np.uint64)], 0

    def noted() -> Iterator[list[str]]:
        nonlocal num_bytes
        given = iter(texts)
        while filled := [text or "" for text in islice(given, _BATCH)]:
            hashes.append(hash_texts(filled))
            num_bytes += sum(len(text.encode("utf-8", "surrogatepass")) for text in filled)
            yield filled

    streams = Analyzer(language, stem=False, stopwords=()).encode(noted())
    if ranks is not None and top_k is None and len(ranks):
        top_k = int(ranks.max()) + 1
    rows = streams.num_texts if num_rows is None else num_rows
    return MeasuredCorpus(streams, np.concatenate(hashes), rows, num_bytes, ranks, top_k)


def compare_corpora(
    corpora: Mapping[str, MeasuredCorpus],
    settings: ComparisonArguments | None = None,
    *,
    evaluation: MeasuredCorpus | None = None,
) -> dict[str, Any]:
    """Compare corpora; the first one, the task's own text, is the reference for the others.

    Args:
        corpora: Name -> corpus, in the order in which they are shown.
        settings: Settings of the comparison; by default those of `ComparisonArguments`, in English.
        evaluation: The task's validation and test texts, for the common words.

    Returns:
        `reference`, `corpora` (sizes), `distinct` (`groups`, one for each size), `overlap` (`names` and the matrices
        `share` and `jaccard` in percent), `top_shares` (corpus -> curve), `settings`.

    Raises:
        ValueError: If there are fewer than two corpora, or one has no words.
    """
    settings = settings or ComparisonArguments(list(corpora), language="english")
    if len(corpora) < 2:
        raise ValueError(f"At least two corpora are compared, but there is {list(corpora)} (--corpora NAME=WHERE).")
    empty = [name for name, corpus in corpora.items() if len(corpus.streams.ids) == 0]
    if empty:
        raise ValueError(f"No word is in {empty} (--corpora): there is nothing to compare.")
    if EVALUATION in corpora:
        raise ValueError(f"{EVALUATION!r} stands for the task's validation and test texts: choose another name.")
    reference = next(iter(corpora))
    seeds = list(range(settings.seed, settings.seed + settings.num_draws))
    overlap, curves = _overlap(corpora, evaluation, settings, reference)
    return {
        "reference": reference,
        "corpora": {name: corpus.describe() for name, corpus in corpora.items()},
        "distinct": {"orders": list(ORDERS), "groups": _distinct(corpora, seeds)},
        "overlap": overlap,
        "top_shares": curves,
        "settings": {
            "language": settings.language,
            "top_words": settings.top_words,
            "top_shares": list(settings.top_shares),
            "seeds": seeds,
        },
    }


def _distinct(corpora: Mapping[str, MeasuredCorpus], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """For every corpus, from small to large, compare all corpora of at least its size, in samples of its size."""
    sizes = {name: len(corpus.streams.ids) for name, corpus in corpora.items()}
    return [
        {
            "size_of": smallest,
            "words": sizes[smallest],
            "corpora": {
                name: sampled_distinct(corpus.streams, corpus.hashes, sizes[smallest], orders=ORDERS, seeds=seeds)
                for name, corpus in corpora.items()
                if sizes[name] >= sizes[smallest]
            },
        }
        for smallest in sorted(sizes, key=lambda name: sizes[name])
    ]


def _overlap(
    corpora: Mapping[str, MeasuredCorpus],
    evaluation: MeasuredCorpus | None,
    settings: ComparisonArguments,
    reference: str,
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Return the common words of corpora, top shares and evaluation texts, and the curves over the shares."""
    words: dict[str, list[str]] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    stopped = stop_words(settings.language or "none")
    everything = {**corpora, **({} if evaluation is None else {EVALUATION: evaluation})}
    for name, corpus in everything.items():
        if corpus.ranks is None or corpus.top_k is None:
            words[name] = frequent_words(corpus.streams, settings.top_words, stopped)
            continue
        curves[name] = []
        for share in settings.top_shares:
            kept = corpus.ranks < rank_limit(share, corpus.top_k)
            shown = f"{name} {100 * share:g} %"
            words[shown] = frequent_words(corpus.streams, settings.top_words, stopped, kept)
            curves[name].append({"top_share": share, "name": shown, "rows": int(kept.sum())})
    of_reference = frequent_words(corpora[reference].streams, settings.top_words, stopped)
    for curve in curves.values():
        for point in curve:
            pair = of_reference, words[point["name"]]
            point |= {"share": round(overlap_share(*pair), 2), "jaccard": round(overlap_jaccard(*pair), 2)}
    matrices = {
        measure.__name__.removeprefix("overlap_"): [
            [round(measure(row, column), 2) for column in words.values()] for row in words.values()
        ]
        for measure in (overlap_share, overlap_jaccard)
    }
    return {"names": list(words), "words": {name: len(found) for name, found in words.items()}, **matrices}, curves


# --- common words ----------------------------------------------------------------------------------------------------


def frequent_words(
    streams: TokenStreams, top: int, stop_words: Collection[str] = (), texts: np.ndarray | None = None
) -> list[str]:
    """Return the most frequent words of a corpus, in descending order; ties in alphabetical order.

    Args:
        streams: Words of its texts.
        top: Number of words; all if there are fewer.
        stop_words: Words that are ignored.
        texts: Boolean mask of the texts to use.
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
    """Return the common words in percent of the words compared; symmetric, and 100 for a corpus and itself.

    The longer list is truncated to the length of the shorter one, so its least frequent words are ignored.

    Args:
        first: Words, most frequent first.
        second: Words, most frequent first.
    """
    compared = min(len(first), len(second))
    return 100 * _common(first, second) / compared if compared else 0.0


def overlap_jaccard(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the common words in percent of all words of both lists, truncated as in `overlap_share`."""
    compared, common = min(len(first), len(second)), _common(first, second)
    return 100 * common / (2 * compared - common) if compared else 0.0


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    compared = min(len(first), len(second))
    return len(set(first[:compared]) & set(second[:compared]))
