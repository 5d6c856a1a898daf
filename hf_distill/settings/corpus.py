"""Settings of a contextualized corpus, in one index or in shards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from .values import check_choices, check_least, setting


@dataclass
class CorpusArguments:
    """A contextualized corpus: what a task's sentences find in general text (Contextualized Corpus, section 2)."""

    corpus: str | None = setting(
        None, "General corpus: a parquet, JSON lines, csv or text file (also compressed), a folder or a Hub id."
    )
    corpus_config: str | None = setting(None, "Configuration of a general corpus on the Hub.")
    corpus_split: str = setting("train", "Split of the general corpus.")
    corpus_licence: str | None = setting(None, "Licence of the general corpus, for the card (cc-by-sa-3.0).")
    text_column: str = setting("text", "Column of the general corpus with the text.")
    source_column: str = setting(
        "source", "Column of the general corpus that names where a row comes from, if it has one."
    )
    max_corpus_rows: int | None = setting(None, "Take only the first rows of the general corpus.")
    max_anchors: int | None = setting(None, "Take only the first anchors.")
    unit: Literal["row", "sentence", "passage"] = setting(
        "row",
        "What is searched and kept: rows of the general corpus as they are, their sentences, or passages "
        "of sentences in a row.",
    )
    passage_words: int = setting(100, "Words of a passage at most; a longer sentence is a passage of its own.")
    corpus_dir: str = setting("outputs/corpus", "Folder for the corpus, its card and statistics.")
    work_dir: str | None = setting(
        None, "Folder for finished steps, from which a killed build continues. Default: `work` in --corpus_dir."
    )
    index_dir: str | None = setting(
        None, "Folder for indexes, to share one between tasks; by default `indexes` in the work folder."
    )
    engine: str = setting(
        "auto",
        "BM25 engine: retriv, bm25s, blocks, tantivy, elasticsearch, or auto: by size and by what is installed.",
    )
    elasticsearch_url: str | None = setting(
        None, "Address of an Elasticsearch or OpenSearch server, for --engine elasticsearch."
    )
    top_k: int | None = setting(
        None, "Sentences retrieved per anchor; by default the paper's for the task (its Table 1), else 100."
    )
    num_candidates: int = setting(
        16,
        "Where --task is a folder with corpus.jsonl, queries.jsonl and qrels: candidates of each query, documents "
        "that answer it and then the best that BM25 finds.",
    )
    top_share: float = setting(1.0, "Share of the hits to keep, best first: ranks below share x top_k of any anchor.")
    query: Literal["rake", "content_words", "text"] = setting(
        "rake", "Query of an anchor: RAKE keywords, all words but stop words, or its text."
    )
    max_phrases: int = setting(20, "RAKE phrases per query.")
    language: str = setting(
        "english", "Language of stop words, stemmer and sentences, chinese also of a segmenter; none for any other."
    )
    stem: bool = setting(True, "Stem words (Snowball) before indexing and searching.")
    token_analysis: str | None = setting(
        None,
        "Own function from a text to its terms (package.module:function), in place of words, stop words and stemmer.",
    )
    bm25_k1: float = setting(1.2, "BM25: how fast repeats of a word saturate.")
    bm25_b: float = setting(0.75, "BM25: how much long rows are held back, 0 to 1.")
    max_chars: int = setting(4000, "Rows of the general corpus with more characters are left out and counted.")
    min_words: int = setting(1, "Rows of the general corpus with fewer words are left out and counted.")
    max_words: int | None = setting(None, "Rows of the general corpus with more words are left out and counted.")
    deduplicate: Literal["near", "normalized", "exact", "none"] = setting(
        "normalized",
        "Keep one of equal texts: nearly equal; equal without case, punctuation and spacing; exactly equal; or all.",
    )
    near_duplicate_threshold: float = setting(
        0.7, "Share of common runs of three words from which two texts are nearly equal (Jaccard)."
    )
    decontaminate: Literal["equal", "contains", "none"] = setting(
        "equal",
        "Leave out rows that equal a text of the task's validation or test set, or also those that "
        "contain one of at least eight words.",
    )
    decontaminate_ngram: int | None = setting(
        None,
        "Leave out rows that share this many words in a row with a text of the task's validation or test "
        "set; 13 is usual.",
    )
    write_dropped: bool = setting(False, "Write the rows that were left out, with their reasons, to dropped.parquet.")
    num_proc: int | None = setting(None, "Processes for keywords and search; by default one process with all cores.")
    search_batch_size: int = setting(1000, "Queries searched together.")

    def __post_init__(self) -> None:
        """Check what can be checked without the data."""
        positive = (
            *("max_corpus_rows", "max_anchors", "passage_words", "top_k", "max_phrases", "max_chars", "max_words"),
            *("decontaminate_ngram", "num_proc", "search_batch_size"),
        )
        if self.num_candidates < 2:
            raise ValueError(f"`--num_candidates` is {self.num_candidates}; a row compares at least 2.")
        # Here and not by `check_least` and `check_choices`, so that a build is read in few files.
        for name in positive:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`--{name}` is {value}; it must be at least 1.")
        for name in ("top_share", "near_duplicate_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"`--{name}` is {getattr(self, name)}; it must be above 0 and at most 1.")
        if not 0 <= self.bm25_k1 < math.inf or not 0 <= self.bm25_b <= 1:
            raise ValueError(
                f"`--bm25_k1` ({self.bm25_k1}) must be at least 0 and finite, `--bm25_b` ({self.bm25_b}) within 0 "
                "and 1."
            )
        hints = get_type_hints(type(self))
        for name in ("unit", "query", "deduplicate", "decontaminate"):
            value, allowed = getattr(self, name), get_args(hints[name])
            if value not in allowed:
                raise ValueError(f"`--{name}` is {value!r}; allowed are {', '.join(allowed)}.")
        self._check_together()

    def _check_together(self) -> None:
        """Check settings that need or exclude others."""
        if self.engine == "elasticsearch" and self.elasticsearch_url is None:
            raise ValueError("`--engine elasticsearch` needs the address of a server: `--elasticsearch_url`.")
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(f"`--max_words` ({self.max_words}) is below `--min_words` ({self.min_words}).")
        if self.decontaminate == "none" and self.decontaminate_ngram is not None:
            raise ValueError("`--decontaminate none` looks for no evaluation text, `--decontaminate_ngram` for parts.")


@dataclass
class ShardArguments:
    """A general corpus that is too large for one index or one machine, in shards: the same corpus comes out."""

    num_shards: int | None = setting(
        None,
        "Shards into which the general corpus is cut. Without --shard and --merge all are done from here, "
        "then merged. Default: one index.",
    )
    shard: int | None = setting(
        None,
        "Do what can be done for one shard, counted from 0: read it, and once all were read, search it. "
        "So it is run twice for every shard.",
    )
    merge: bool = setting(False, "Make the corpus of shards that were all searched.")
    runner: Literal["processes", "ray"] = setting(
        "processes", "Without --shard and --merge: shards by processes of this machine, or by tasks of Ray."
    )
    shard_workers: int | None = setting(
        None, "Processes at a time; they share the cores. Default: one per core. Each holds a shard."
    )

    def __post_init__(self) -> None:
        """Check the numbers, and what needs or excludes what."""
        check_least(self, 1, "num_shards", "shard_workers")
        check_choices(self, "runner")
        if self.num_shards is None:
            if self.shard is not None or self.merge:
                raise ValueError("`--shard` and `--merge` need `--num_shards`: of how many shards.")
        elif self.shard is not None and not 0 <= self.shard < self.num_shards:
            raise ValueError(
                f"`--shard` is {self.shard}; of `--num_shards {self.num_shards}` it must be 0 to "
                f"{self.num_shards - 1}: shards are counted from 0."
            )
        if self.shard is not None and self.merge:
            raise ValueError("`--shard` does one shard, `--merge` makes the corpus of all: give one of them.")
