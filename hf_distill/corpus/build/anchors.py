"""Anchors: the texts of a task's rows, for which similar sentences are retrieved from general text.

Every text column of a pair gives its own anchors, and duplicates count once (Contextualized Corpus, section 2). The
query of an anchor is its keywords: RAKE's phrases (Rose et al. 2010; TLM takes the 20 best), its content words, or its
whole text. BM25 ignores the order of words, so for most single sentences RAKE's phrases are equivalent to the sentence
without its stop words; the two differ if a sentence has more than `max_phrases` phrases.

`Dataset.map` makes the queries and searches them. Its two functions are classes with a small pickled state, so that
fingerprints are cheap, stable and the same for any number of processes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash
from datasets import Dataset, Features, List, Value
from datasets.utils.logging import get_logger

from ...storage.plain_values import did_you_mean
from ..search.retrieval import IndexHandle
from ..text.analysis import Analyzer, words_and_marks
from ..text.rows import clean

logger = get_logger(__name__)

STRING_TYPES = ("string", "large_string", "string_view")
_NAMES = (
    "label labels class classes category tag tags id ids idx index uid uuid guid split url lang language annotator"
)
NAMES_OF_LABELS = frozenset(_NAMES.split(" "))
# Rows to look at, the share of distinct values below which they are labels, and the letters of a short text.
LOOKED_AT = 1000
FEW_VALUES = 0.1
SHORT_TEXT = 5


@dataclass(frozen=True)
class Anchors:
    """Deduplicated anchors in order of first appearance, and counts of what was dropped.

    Attributes:
        texts: The anchors.
        counts: `texts` (all cells read), `none`, `empty`, `duplicates`, `beyond_max_anchors`, `anchors`.
    """

    texts: list[str]
    counts: dict[str, int]

    def checksum(self) -> str:
        """Return a checksum of the anchors; their order matters."""
        encoded = (text.encode("utf-8", "surrogatepass") for text in self.texts)
        return xxhash.xxh3_128_hexdigest(b"".join(b"%d:%b" % (len(text), text) for text in encoded))


def find_text_columns(rows: Dataset) -> list[str]:
    """Find the text columns of a data set: its string columns except labels and ids.

    Labels and ids are recognised by their names, and by their values: single words, or few distinct values. One
    warning names the columns that are left out.

    Raises:
        ValueError: If the data set has no column of strings.
    """
    strings = [name for name, feature in rows.features.items() if getattr(feature, "dtype", None) in STRING_TYPES]
    if not strings:
        raise ValueError(f"The anchors' data set has no text column; it has {rows.column_names}.")
    named = [name for name in strings if not _is_name_of_label(name)] or strings
    chosen = [name for name in named if len(named) == 1 or _looks_like_text(rows, name)] or named
    left_out = [name for name in strings if name not in chosen]
    if left_out:
        logger.warning(
            f"Anchors are the texts of the columns {chosen}; {left_out} look like labels or ids and are left out. "
            "Name the columns with `anchor_columns` to decide otherwise."
        )
    return chosen


def _is_name_of_label(name: str) -> bool:
    """Whether a column has a typical name of labels or ids: `label`, `gold_label`, `doc_id`, `pairID`."""
    parts = [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return any(part in NAMES_OF_LABELS for part in parts)


def _looks_like_text(rows: Dataset, name: str) -> bool:
    """Whether most values have several words, or letters of a script without spaces, and few values repeat."""
    values = [text.strip() for text in rows.select_columns([name])[:LOOKED_AT][name] if text and text.strip()]
    several = sum(" " in text or (len(text) >= SHORT_TEXT and not text.isascii()) for text in values)
    return 2 * several >= len(values) and len(set(values)) > len(values) * FEW_VALUES


def task_texts(rows: Dataset, text_columns: Sequence[str]) -> Iterable[str | None]:
    """Yield the texts of some columns, column after column; lists of words are joined with spaces.

    Raises:
        ValueError: If a column is missing.
    """
    missing = [column for column in text_columns if column not in rows.column_names]
    if missing:
        hint = did_you_mean(missing, rows.column_names)
        raise ValueError(f"The task's rows have no column {missing}; they have {rows.column_names}.{hint}")
    for column in text_columns:
        for batch in rows.select_columns([column]).with_format("arrow").iter(batch_size=10_000):
            for text in batch[column].to_pylist():
                yield " ".join(text) if isinstance(text, list) else text


def collect_anchors(texts: Iterable[str | None], max_anchors: int | None = None) -> Anchors:
    """Clean and deduplicate anchors (exact match after stripping).

    Args:
        texts: Sentences; None and empty ones are counted and dropped.
        max_anchors: Keep only this many, from the beginning.

    Raises:
        ValueError: If no anchor is left.
        TypeError: If a text is not a string.
    """
    seen: dict[str, None] = {}
    counts = dict.fromkeys(("texts", "none", "empty", "duplicates", "beyond_max_anchors", "anchors"), 0)
    for text in texts:
        counts["texts"] += 1
        if text is None:
            counts["none"] += 1
            continue
        cleaned = clean(text)
        if not cleaned:
            counts["empty"] += 1
        elif cleaned in seen:
            counts["duplicates"] += 1
        else:
            seen[cleaned] = None
    anchors = list(seen)
    if max_anchors is not None and len(anchors) > max_anchors:
        counts["beyond_max_anchors"] = len(anchors) - max_anchors
        anchors = anchors[:max_anchors]
    counts["anchors"] = len(anchors)
    if not anchors:
        raise ValueError(
            f"There are no anchors: of {counts['texts']} texts {counts['none']} are None, the rest empty."
        )
    return Anchors(anchors, counts)


# --- keywords --------------------------------------------------------------------------------------------------------

QueryMode = Literal["rake", "content_words", "text"]
QUERY_MODES: tuple[str, ...] = ("rake", "content_words", "text")

Split = Callable[[str], list[str]]


def rake_phrases(
    text: str, stop_words: Collection[str], max_phrases: int | None = None, split: Split = words_and_marks
) -> list[str]:
    """Return keyword phrases of a text, best first.

    A phrase is a maximal run of words without stop words and punctuation. The score of a word is degree / frequency,
    where its degree is the sum of the lengths of the phrases that contain it; the score of a phrase is the sum over
    its words. Ties are ordered by the phrase, descending; a phrase that occurs twice is listed twice.

    Args:
        text: Any text.
        stop_words: Lower-cased words that end a phrase.
        max_phrases: Number of phrases to keep; all by default.
        split: Function from a text to its lower-cased words and the punctuation between them; Chinese needs a
            segmenter.
    """
    phrases: list[list[str]] = [[]]
    for token in split(text):
        if token in stop_words or not token[0].isalnum():
            phrases.append([])
        else:
            phrases[-1].append(token)
    phrases = [phrase for phrase in phrases if phrase]
    degree: dict[str, int] = defaultdict(int)
    frequency: dict[str, int] = defaultdict(int)
    for phrase in phrases:
        for word in phrase:
            degree[word] += len(phrase)
            frequency[word] += 1
    scored = ((sum(degree[word] / frequency[word] for word in phrase), " ".join(phrase)) for phrase in phrases)
    return [phrase for _, phrase in sorted(scored, reverse=True)[:max_phrases]]


def content_words(text: str, stop_words: Collection[str], split: Split = words_and_marks) -> list[str]:
    """Return the words of a text that are not stop words, in order, with repetitions."""
    return [token for token in split(text) if token[0].isalnum() and token not in stop_words]


def make_query(
    text: str,
    mode: QueryMode,
    stop_words: Collection[str],
    max_phrases: int = 20,
    split: Split = words_and_marks,
) -> str:
    """Return the query of an anchor; empty if the anchor has no keywords.

    Args:
        text: The anchor.
        mode: `rake` (the `max_phrases` best phrases), `content_words` (all words but stop words) or `text`.
        stop_words: Lower-cased stop words.
        max_phrases: Phrases to keep in mode `rake`.
        split: Function from a text to its lower-cased words and the punctuation between them.

    Raises:
        ValueError: If the mode is unknown.
    """
    if mode == "rake":
        return " ".join(rake_phrases(text, stop_words, max_phrases, split))
    if mode == "content_words":
        return " ".join(content_words(text, stop_words, split))
    if mode == "text":
        return text
    raise ValueError(f"`--query` is {mode!r}; allowed are {list(QUERY_MODES)}.")


# --- queries and hits ------------------------------------------------------------------------------------------------

QUERY_FEATURES = Features(
    {"anchor": Value("string"), "terms": List(Value("string")), "fallback": Value("bool")},
)
HIT_FEATURES = Features(
    {"anchor": Value("int32"), "row": Value("int64"), "rank": Value("int32"), "score": Value("float32")}
)


class MakeQueries:
    """Turns a batch of anchors into terms to search for.

    An anchor without keywords is searched by its whole text. If that has no terms either (only stop words and
    punctuation), its terms are empty and it finds nothing; the builder counts such anchors.

    Args:
        mode: How queries are made (`hf_distill.corpus.build.anchors.make_query`).
        max_phrases: Maximum number of RAKE phrases in a query.
        analyzer: The analyzer of the corpus.
    """

    def __init__(self, mode: QueryMode, max_phrases: int, analyzer: Analyzer) -> None:
        self.mode, self.max_phrases, self.analyzer = mode, max_phrases, analyzer

    def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        """Add the columns `terms` and `fallback`."""
        analyzer = self.analyzer
        terms: list[list[str]] = []
        fallback: list[bool] = []
        for anchor in batch["anchor"]:
            query = make_query(anchor, self.mode, analyzer.stop_words, self.max_phrases, analyzer.words_and_marks)
            found = analyzer.tokens(query) if self.mode == "text" else analyzer.tokens_of_words(query)
            fallback.append(not found)
            terms.append(found or analyzer.tokens(anchor))
        return {"terms": terms, "fallback": fallback}


class SearchHits:
    """Turns a batch of queries into their hits, one row for each hit.

    Args:
        handle: The index.
        k: Hits per query.
        num_threads: Threads per search; all cores by default. Must be 1 in forked workers.
        first_row: Row number of the index's first row in the whole corpus, if the index is a shard.
    """

    def __init__(self, handle: IndexHandle, k: int, num_threads: int | None, first_row: int = 0) -> None:
        self.handle, self.k, self.num_threads, self.first_row = handle, k, num_threads, first_row

    def __call__(self, batch: dict[str, list[Any]], indices: list[int]) -> dict[str, Any]:
        """Return columns of `HIT_FEATURES`: `row` counts rows from `first_row`, `anchor` counts queries."""
        hits = self.handle.open().search(batch["terms"], self.k, num_threads=self.num_threads)
        anchors = np.repeat(np.asarray(indices, dtype=np.int32), np.diff(hits.offsets))
        return {"anchor": anchors, "row": hits.rows + self.first_row, "rank": hits.ranks(), "score": hits.scores}


def make_queries(
    anchors: Sequence[str], mode: QueryMode, max_phrases: int, analyzer: Analyzer, file: Path, *, num_proc: int | None
) -> Dataset:
    """Turn anchors into terms.

    Args:
        anchors: The anchors.
        mode: How queries are made.
        max_phrases: Maximum number of RAKE phrases in a query.
        analyzer: The analyzer of the corpus.
        file: File for the queries (`QUERY_FEATURES`), in the order of the anchors.
        num_proc: Number of processes; by default only this one.
    """
    return Dataset.from_dict({"anchor": anchors}).map(
        MakeQueries(mode, max_phrases, analyzer),
        batched=True,
        num_proc=num_proc,
        features=QUERY_FEATURES,
        cache_file_name=str(file),
        desc="Making queries",
    )


def search_queries(
    queries: Dataset,
    handle: IndexHandle,
    k: int,
    file: Path,
    *,
    num_proc: int | None,
    batch_size: int,
    num_threads: int | None = None,
    first_row: int = 0,
) -> Dataset:
    """Search the terms of all queries on all cores: with threads of one process, or one thread in each process.

    Args:
        queries: Rows with the column `terms`.
        handle: The index.
        k: Hits per query.
        file: File for the hits (`HIT_FEATURES`), in the order of the queries.
        num_proc: Number of processes; by default only this one.
        batch_size: Number of queries that are searched together.
        num_threads: Threads of this process; all cores by default.
        first_row: Row number of the index's first row in the whole corpus, if the index is a shard.
    """
    queries = queries.select_columns(["terms"])
    if num_proc is not None:
        # Compile once here instead of once in every worker.
        handle.open().search([queries[0]["terms"]], 1, num_threads=1)
    return queries.map(
        SearchHits(handle, k, num_threads if num_proc is None else 1, first_row),
        batched=True,
        batch_size=batch_size,
        with_indices=True,
        remove_columns=queries.column_names,
        num_proc=num_proc,
        features=HIT_FEATURES,
        cache_file_name=str(file),
        desc=f"Searching ({handle.settings['engine']})",
    )


def describe_queries(queries: Dataset) -> dict[str, Any]:
    """Count the queries, those that fell back to the anchor's text and those without terms; average their terms."""
    fallback = np.asarray(queries.with_format("arrow")["fallback"][:].to_numpy(zero_copy_only=False))
    lengths = np.asarray(queries.with_format("arrow")["terms"][:].combine_chunks().value_lengths().to_numpy())
    return {
        "queries": len(queries),
        "searched_by_text": int((fallback & (lengths > 0)).sum()),
        "without_terms": int((lengths == 0).sum()),
        "mean_terms": round(float(lengths.mean()), 2) if len(lengths) else 0.0,
    }
