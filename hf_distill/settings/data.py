"""Settings of tasks, textbooks and corpora."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class TaskArguments:
    """The task, and the place of its rows."""

    task: str = field(
        metadata={
            "help": "A registered task (glue/sst2, see `hf-distill info tasks`), or a folder of your own with "
            "train and validation files (parquet, jsonl, tsv, csv), described by its task.yaml or by the flags below."
        }
    )
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Local files of the task: its own folder, or a parent with a folder of its name. "
            "Default: the task's data set on the Hub."
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest row in tokens; the rest is cut off. Default: the task's (GLUE: 128)."}
    )
    doc_stride: int | None = field(
        default=None,
        metadata={
            "help": "Question answering: tokens that two windows of one context share. Default: the task's (128), as "
            "far as a window has room for it."
        },
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on so many rows, drawn with the seed. Default: all."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on so many rows per split, drawn with the seed. Default: all."}
    )
    text_columns: list[str] | None = field(
        default=None, metadata={"help": "One column of text, or two for pairs. Default: the task's."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels. Default: the task's."})
    class_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the classes in order. Default: the task's; of your own folder: those in its rows."
        },
    )
    evaluation_splits: list[str] | None = field(
        default=None, metadata={"help": "Splits to evaluate on, the main one first. Default: the task's (validation)."}
    )
    metrics: list[str] | None = field(
        default=None,
        metadata={
            "help": "Scores, the main one first: accuracy, f1, f1_macro, matthews_correlation; regression: pearson, "
            "spearman. Default: the task's."
        },
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("max_length", "max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`--{name}` is {value}; it must be at least 1.")

    def spec_fields(self) -> dict[str, Any]:
        """Fields of `TaskSpec` that were given; they go to `load_task`."""
        given: dict[str, Any] = {
            "text_columns": self.text_columns,
            "label_column": self.label_column,
            # `--label_names` is taken: `TrainingArguments` means columns by it.
            "label_names": self.class_names,
            "evaluation_splits": self.evaluation_splits,
        }
        # The first metric named is the main one, whatever the task's own was.
        scores = {} if self.metrics is None else {"metrics": self.metrics, "headline_metric": self.metrics[0]}
        return {name: value for name, value in given.items() if value is not None} | scores


@dataclass
class TextbookArguments:
    """The text that the student learns from; a contextualized corpus, or any other."""

    textbook: list[str] | None = field(
        default=None,
        metadata={
            "help": "Text to distil on: a corpus built by `hf-distill corpus`, a file, a folder, a Hub id, or the "
            "name of a task for the text of its own training rows. Several are joined. A stored teacher has its own."
        },
    )
    data_dir: str | None = field(
        default=None,
        metadata={"help": "Local files of a task named by --textbook, or a parent with a folder of its name."},
    )
    max_textbook_rows: int | None = field(
        default=None,
        metadata={"help": "Distil on the first so many rows of each text (of a built corpus: the most relevant)."},
    )
    with_labels: bool = field(
        default=False,
        metadata={
            "help": "Give the labels of the tasks that --textbook names to objectives that read them (labels, "
            "annealed, pkd, ...). Tasks about words and answers always bring theirs."
        },
    )
    textbook_eval_rows: int = field(
        default=0, metadata={"help": "Hold back so many random rows and report the loss on them at the end."}
    )

    def __post_init__(self) -> None:
        """Check the numbers; a single text may be given as a string."""
        if isinstance(self.textbook, str):
            self.textbook = [self.textbook]
        if self.max_textbook_rows is not None and self.max_textbook_rows < 1:
            raise ValueError(f"`--max_textbook_rows` is {self.max_textbook_rows}; it must be at least 1.")
        if self.textbook_eval_rows < 0:
            raise ValueError(f"`--textbook_eval_rows` is {self.textbook_eval_rows}; it must be at least 0.")


@dataclass
class CorpusArguments:
    """A contextualized corpus: what a task's sentences find in general text (Contextualized Corpus, section 2)."""

    corpus: str | None = field(
        default=None,
        metadata={
            "help": "General corpus: a parquet, JSON lines, csv or text file (also compressed), a folder or a Hub id."
        },
    )
    corpus_config: str | None = field(default=None, metadata={"help": "Configuration of a general corpus on the Hub."})
    corpus_split: str = field(default="train", metadata={"help": "Split of the general corpus."})
    corpus_licence: str | None = field(
        default=None, metadata={"help": "Licence of the general corpus, for the card (cc-by-sa-3.0)."}
    )
    text_column: str = field(default="text", metadata={"help": "Column of the general corpus with the text."})
    source_column: str = field(
        default="source",
        metadata={"help": "Column of the general corpus that names where a row comes from, if it has one."},
    )
    max_corpus_rows: int | None = field(
        default=None, metadata={"help": "Take only the first rows of the general corpus."}
    )
    max_anchors: int | None = field(default=None, metadata={"help": "Take only the first anchors."})
    unit: Literal["row", "sentence", "passage"] = field(
        default="row",
        metadata={
            "help": "What is searched and kept: rows of the general corpus as they are, their sentences, or passages "
            "of sentences in a row."
        },
    )
    passage_words: int = field(
        default=100, metadata={"help": "Words of a passage at most; a longer sentence is a passage of its own."}
    )
    corpus_dir: str = field(
        default="outputs/corpus", metadata={"help": "Folder for the corpus, its card and statistics."}
    )
    work_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder for finished steps, from which a killed build continues. Default: `work` in --corpus_dir."
        },
    )
    index_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for indexes, to share one between tasks; by default `indexes` in the work folder."},
    )
    engine: str = field(
        default="auto",
        metadata={
            "help": "BM25 engine: retriv, bm25s, blocks, tantivy, elasticsearch, or auto: by size and by what is "
            "installed."
        },
    )
    elasticsearch_url: str | None = field(
        default=None,
        metadata={"help": "Address of an Elasticsearch or OpenSearch server, for --engine elasticsearch."},
    )
    top_k: int | None = field(
        default=None,
        metadata={
            "help": "Sentences retrieved per anchor; by default the paper's for the task (its Table 1), else 100."
        },
    )
    top_share: float = field(
        default=1.0,
        metadata={"help": "Share of the hits to keep, best first: ranks below share x top_k of any anchor."},
    )
    query: Literal["rake", "content_words", "text"] = field(
        default="rake", metadata={"help": "Query of an anchor: RAKE keywords, all words but stop words, or its text."}
    )
    max_phrases: int = field(default=20, metadata={"help": "RAKE phrases per query."})
    language: str = field(
        default="english",
        metadata={
            "help": "Language of stop words, stemmer and sentences, chinese also of a segmenter; none for any other."
        },
    )
    stem: bool = field(default=True, metadata={"help": "Stem words (Snowball) before indexing and searching."})
    token_analysis: str | None = field(
        default=None,
        metadata={
            "help": "Own function from a text to its terms (package.module:function), in place of words, stop words "
            "and stemmer."
        },
    )
    bm25_k1: float = field(default=1.2, metadata={"help": "BM25: how fast repeats of a word saturate."})
    bm25_b: float = field(default=0.75, metadata={"help": "BM25: how much long rows are held back, 0 to 1."})
    max_chars: int = field(
        default=4000, metadata={"help": "Rows of the general corpus with more characters are left out and counted."}
    )
    min_words: int = field(
        default=1, metadata={"help": "Rows of the general corpus with fewer words are left out and counted."}
    )
    max_words: int | None = field(
        default=None, metadata={"help": "Rows of the general corpus with more words are left out and counted."}
    )
    deduplicate: Literal["near", "normalized", "exact", "none"] = field(
        default="normalized",
        metadata={
            "help": "Keep one of equal texts: nearly equal; equal without case, punctuation and spacing; exactly "
            "equal; or all."
        },
    )
    near_duplicate_threshold: float = field(
        default=0.7,
        metadata={"help": "Share of common runs of three words from which two texts are nearly equal (Jaccard)."},
    )
    decontaminate: Literal["equal", "contains", "none"] = field(
        default="equal",
        metadata={
            "help": "Leave out rows that equal a text of the task's validation or test set, or also those that "
            "contain one of at least eight words."
        },
    )
    decontaminate_ngram: int | None = field(
        default=None,
        metadata={
            "help": "Leave out rows that share so many words in a row with a text of the task's validation or test "
            "set; 13 is usual."
        },
    )
    write_dropped: bool = field(
        default=False, metadata={"help": "Write the rows that were left out, with their reasons, to dropped.parquet."}
    )
    num_proc: int | None = field(
        default=None, metadata={"help": "Processes for keywords and search; by default one process with all cores."}
    )
    search_batch_size: int = field(default=1000, metadata={"help": "Queries searched together."})

    def __post_init__(self) -> None:
        """Check what can be checked without the data."""
        positive = (
            "max_corpus_rows max_anchors passage_words top_k max_phrases max_chars max_words "
            "decontaminate_ngram num_proc search_batch_size"
        )
        for name in positive.split():
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
        choices = {
            "unit": ("row", "sentence", "passage"),
            "query": ("rake", "content_words", "text"),
            "deduplicate": ("near", "normalized", "exact", "none"),
            "decontaminate": ("equal", "contains", "none"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`--{name}` is {getattr(self, name)!r}; allowed are {list(allowed)}.")
        self._check_together()

    def _check_together(self) -> None:
        """Check settings that need or exclude others."""
        if self.engine == "elasticsearch" and self.elasticsearch_url is None:
            raise ValueError("`--engine elasticsearch` needs the address of a server: `--elasticsearch_url`.")
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(f"`--max_words` ({self.max_words}) is below `--min_words` ({self.min_words}).")
        if self.decontaminate == "none" and self.decontaminate_ngram is not None:
            raise ValueError("`--decontaminate none` looks for no evaluation text, `--decontaminate_ngram` for parts.")
