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
    max_corpus_rows: int | None = setting(
        None, "Read only this many rows of the general corpus, the first ones. Default: all."
    )
    max_anchors: int | None = setting(
        None, "Use only this many anchors (training sentences of the task), the first ones. Default: all."
    )
    unit: Literal["row", "sentence", "passage"] = setting(
        "row",
        "What is searched and kept: row (rows of the general corpus as they are), sentence (their "
        "sentences), or passage (runs of consecutive sentences).",
    )
    passage_words: int = setting(
        100, "Largest number of words in a passage; a longer sentence is a passage of its own."
    )
    corpus_dir: str = setting("outputs/corpus", "Folder for the corpus, its card and statistics.")
    work_dir: str | None = setting(
        None, "Folder for finished steps, from which an interrupted build continues. Default: `work` in --corpus_dir."
    )
    index_dir: str | None = setting(
        None, "Folder for indexes; several tasks can share one. Default: `indexes` in the work folder."
    )
    engine: str = setting(
        "auto",
        "BM25 engine: retriv, bm25s, blocks, tantivy, elasticsearch, or auto (chosen by size and by "
        "what is installed).",
    )
    elasticsearch_url: str | None = setting(
        None, "Address of an Elasticsearch or OpenSearch server, for --engine elasticsearch."
    )
    top_k: int | None = setting(
        None, "Rows retrieved per anchor. Default: the paper's for the task (its Table 1), else 100."
    )
    num_candidates: int = setting(
        16,
        "Rerankers, where --task is a folder with corpus.jsonl, queries.jsonl and qrels: number of "
        "candidates of each query. The relevant documents come first, then the best by BM25.",
    )
    top_share: float = setting(
        1.0,
        "Share of the hits to keep, the best ones: a row is kept if its rank for some anchor is below "
        "this share of top_k.",
    )
    query: Literal["rake", "content_words", "text"] = setting(
        "rake",
        "Query of an anchor: rake (RAKE keywords), content_words (all words but stop words), or text (all words).",
    )
    max_phrases: int = setting(20, "Largest number of RAKE phrases in a query.")
    language: str = setting(
        "english",
        "Language of the stop words, the stemmer and the sentence rules; chinese also has a segmenter. "
        "none: any other language, without stop words and stemmer.",
    )
    stem: bool = setting(True, "Stem words (Snowball) before indexing and searching.")
    token_analysis: str | None = setting(
        None,
        "Your own function from a text to its list of terms (package.module:function); it replaces "
        "word splitting, stop words and stemmer.",
    )
    bm25_k1: float = setting(1.2, "BM25's k1: the larger, the more do repetitions of a word in a row count.")
    bm25_b: float = setting(0.75, "BM25's b, from 0 to 1: the larger, the lower do long rows score.")
    max_chars: int = setting(4000, "Rows of the general corpus with more characters are left out and counted.")
    min_words: int = setting(1, "Rows of the general corpus with fewer words are left out and counted.")
    max_words: int | None = setting(None, "Rows of the general corpus with more words are left out and counted.")
    deduplicate: Literal["near", "normalized", "exact", "none"] = setting(
        "normalized",
        "Which duplicates are removed: near (nearly equal texts), normalized (equal without case, "
        "punctuation and spacing), exact (exactly equal), or none.",
    )
    near_duplicate_threshold: float = setting(
        0.7, "Two texts are nearly equal from this Jaccard similarity of their word trigrams on."
    )
    decontaminate: Literal["equal", "contains", "none"] = setting(
        "equal",
        "Which rows are removed because of the task's validation and test texts: equal (rows that "
        "equal one), contains (also rows that contain one of at least eight words), or none.",
    )
    decontaminate_ngram: int | None = setting(
        None,
        "Also remove rows that share this many consecutive words with a text of the task's validation "
        "or test set; 13 is usual.",
    )
    write_dropped: bool = setting(False, "Write the rows that were left out, with their reasons, to dropped.parquet.")
    num_proc: int | None = setting(
        None, "Number of processes for keywords and search. Default: one process that uses all cores."
    )
    search_batch_size: int = setting(1000, "Number of queries that are searched together.")

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
        "Number of shards into which the general corpus is split. Without --shard and --merge this "
        "command processes all shards and merges them. Default: one index.",
    )
    shard: int | None = setting(
        None,
        "Process only this shard, counted from 0: read it, or search it if all shards have been read. "
        "So run the command twice for every shard.",
    )
    merge: bool = setting(False, "Merge the shards, all of which must have been searched, into the corpus.")
    runner: Literal["processes", "ray"] = setting(
        "processes",
        "Without --shard and --merge: process the shards in processes of this machine, or as tasks of Ray.",
    )
    shard_workers: int | None = setting(
        None,
        "Number of processes at the same time; they share the cores, and each has one shard in memory. "
        "Default: one per core.",
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
