"""The rows of a general corpus that are searched: documents are split into units, cleaned, and filtered by length.

The paper's corpora have 400 to 530 bytes per row (Contextualized Corpus, Table 1): passages of a few sentences, not
single sentences. Sentence boundaries come from sentencex, which knows the abbreviations of many languages and has
general rules for the others, and from line breaks. No character between a unit's first and last is changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex
import xxhash
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets
from datasets.utils import tqdm

from hf_distill._optional import require
from hf_distill.storage.plain_values import did_you_mean

from ...settings.corpus import CorpusArguments
from ...settings.general import GeneralCorpusArguments
from .analysis import count_words, units

# Both have the same fields for columns, limits on lengths and units.
Settings = CorpusArguments | GeneralCorpusArguments

# --- rows that can be used -------------------------------------------------------------------------------------------

# C0 and C1 control characters, line and paragraph separators, the byte order mark, and lone surrogates.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]+")

READ_BATCH = 10_000
_DESCRIBED_BATCH = 100_000
# Arrow types of a text column; a column with only missing values is `null`.
TEXT_TYPES = ("string", "large_string", "string_view", "null")

DROP_REASONS = ("none", "empty", "too_long", "too_few_words", "too_many_words")


def clean(text: str) -> str:
    """Replace every run of control characters (including line breaks and tabs) by one space, and strip the text.

    Raises:
        TypeError: If it is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"A text must be a string, but one is {type(text).__name__}: {str(text)[:80]!r}.")
    # Every control character is unprintable, and this check is several times faster than the pattern.
    return text.strip() if text.isprintable() else _CONTROL.sub(" ", text).strip()


def several_texts(texts: Iterable[str | None], name: str) -> Iterable[str | None]:
    """Return texts, but refuse a single text or named splits: its characters or their names would be taken for texts.

    Args:
        texts: The texts.
        name: The argument, for error messages.

    Raises:
        TypeError: If it is a string or a mapping, such as a `DatasetDict`.
    """
    if isinstance(texts, (str, Mapping)):
        raise TypeError(
            f"`{name}` must be several texts, but it is a {type(texts).__name__}: give a list, or a column of a data "
            "set, such as rows['text']."
        )
    return texts


@dataclass(frozen=True)
class UsableRows:
    """The rows of a corpus that can be indexed.

    Attributes:
        rows: (N,) int64, ascending row numbers of the corpus.
        counts: Rows by fate: `rows` (all), `kept`, one entry for each reason of `DROP_REASONS`, and
            `control_characters` (kept rows whose control characters were replaced).
        bytes: UTF-8 bytes of the kept, cleaned texts.
        checksum: Identifies the kept rows and their texts.
    """

    rows: np.ndarray
    counts: dict[str, int]
    bytes: int
    checksum: str


def check_corpus(corpus: Dataset, text_column: str) -> None:
    """Raise an error that shows the available columns if the corpus is empty or lacks its text column.

    Raises:
        ValueError: If it is empty, or the column is missing or holds no text.
    """
    if text_column not in corpus.column_names:
        raise ValueError(
            f"The general corpus has no column {text_column!r} (--text_column); it has {corpus.column_names}."
            + did_you_mean(text_column, corpus.column_names)
        )
    kind = corpus.features[text_column]
    if getattr(kind, "dtype", None) not in TEXT_TYPES:
        raise ValueError(f"The column {text_column!r} (--text_column) of the general corpus holds {kind}, not text.")
    if len(corpus) == 0:
        raise ValueError("The general corpus is empty (--corpus).")


def read_texts(corpus: Dataset, text_column: str, description: str | None) -> Iterator[list[str | None]]:
    """Yield the texts of a corpus in batches, with a progress bar if a description is given."""
    column = corpus.select_columns([text_column]).with_format("arrow")
    with tqdm(total=len(corpus), desc=description, unit=" rows", unit_scale=True, disable=description is None) as bar:
        for batch in column.iter(batch_size=READ_BATCH):
            texts = batch[text_column].to_pylist()
            yield texts
            bar.update(len(texts))


def checksum_of_column(rows: Dataset, column: str) -> str | None:
    """Return a checksum of the values of a column, as text and in order; `None` if the column does not exist."""
    if column not in rows.column_names:
        return None
    digest, kind = xxhash.xxh3_128(), rows.features[column]
    if isinstance(kind, ClassLabel):
        digest.update(repr(kind.names).encode())
    for batch in rows.select_columns([column]).with_format("arrow").iter(batch_size=READ_BATCH):
        values = batch[column].cast(pa.large_string())
        lengths = pc.binary_length(values).fill_null(-1)
        digest.update(lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        for chunk in pc.fill_null(values, "").chunks:
            offsets = np.frombuffer(chunk.buffers()[1], dtype="<i8")[chunk.offset : chunk.offset + len(chunk) + 1]
            if len(chunk) and chunk.buffers()[2] is not None:
                digest.update(memoryview(chunk.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
    return digest.hexdigest()


def check_source(corpus: Dataset, column: str) -> None:
    """Raise an error if the column with the sources of rows exists but does not hold single values.

    Raises:
        ValueError: If it holds lists, mappings or bytes.
    """
    kind = corpus.features.get(column)
    if kind is not None and _holds_no_names(pa.schema(Features({column: kind}).arrow_schema).field(0).type):
        raise ValueError(
            f"The column {column!r} (--source_column) of the general corpus holds {kind}, not names: name another "
            "column, or one that is not there."
        )


def _holds_no_names(kind: pa.DataType) -> bool:
    return pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def source_names(values: pa.ChunkedArray, kind: Any, default: str) -> list[str]:
    """Return the names of sources as text: the class name of a class label, otherwise the value as text.

    Args:
        values: The column, or a part of it.
        kind: Its `datasets` feature.
        default: Replaces missing values and empty names.
    """
    if isinstance(kind, ClassLabel):
        # -1 is an unknown class.
        return [default if place is None or place < 0 else kind.names[place] for place in values.to_pylist()]
    return [default if name is None or not name.strip() else name for name in values.cast(pa.string()).to_pylist()]


def find_usable_rows(corpus: Dataset, args: Settings, *, may_be_none: bool = False) -> UsableRows:
    """Find the usable rows of a corpus, in one pass over it.

    Args:
        corpus: The corpus.
        args: Settings with the text column and the limits on the length of a row; rows outside the limits are dropped.
        may_be_none: Whether the result may be empty, as for a shard.

    Raises:
        ValueError: If the corpus is empty, lacks the column, or no row can be used.
    """
    if len(corpus) or not may_be_none:
        check_corpus(corpus, args.text_column)
    check_source(corpus, args.source_column)
    counts: Counter[str] = Counter()
    kept = [np.empty(0, dtype=np.int64)]
    digest, num_bytes, start = xxhash.xxh3_128(), 0, 0
    for texts in read_texts(corpus, args.text_column, "Reading the general corpus"):
        usable = []
        for row, text in enumerate(texts, start):
            reason, cleaned = judge(text, args)
            if reason:
                counts[reason] += 1
                continue
            counts["control_characters"] += _has_control(text)
            encoded = cleaned.encode()
            num_bytes += len(encoded)
            digest.update(b"%d:" % len(encoded) + encoded)
            usable.append(row)
        kept.append(np.array(usable, dtype=np.int64))
        start += len(texts)
    rows = np.concatenate(kept)
    digest.update(rows.astype("<i8").tobytes())
    total = {"rows": len(corpus), "kept": len(rows), **{reason: counts[reason] for reason in DROP_REASONS}}
    total["control_characters"] = counts["control_characters"]
    if len(rows) == 0 and not may_be_none:
        raise ValueError(f"No row of the general corpus can be used: {total}.")
    return UsableRows(rows, total, num_bytes, digest.hexdigest())


def _has_control(text: str | None) -> bool:
    return text is not None and not text.isprintable() and _CONTROL.search(text) is not None


def judge(text: str | None, limits: Settings) -> tuple[str, str]:
    """Return the reason why a row is dropped (empty if it is kept), and its cleaned text.

    In scripts without spaces every character counts as a word.
    """
    if text is None:
        return "none", ""
    cleaned = clean(text)
    if not cleaned:
        return "empty", ""
    if len(cleaned) > limits.max_chars:
        return "too_long", cleaned
    if limits.min_words > 1 or limits.max_words is not None:
        num_words = len(units(cleaned))
        if limits.min_words > 1 and num_words < limits.min_words:
            return "too_few_words", cleaned
        if limits.max_words is not None and num_words > limits.max_words:
            return "too_many_words", cleaned
    return "", cleaned


def usable_texts(
    corpus: Dataset, text_column: str, rows: np.ndarray, description: str | None = None
) -> Iterator[list[str]]:
    """Yield cleaned texts of ascending rows that are most of a corpus: reads sequentially, not row by row."""
    start = 0
    for texts in read_texts(corpus, text_column, description):
        here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(texts))] - start
        yield [clean(texts[row]) for row in here.tolist()]
        start += len(texts)


@dataclass(frozen=True)
class UsableTexts:
    """Cleaned texts of ranges of the usable rows of a corpus.

    Attributes:
        corpus: The corpus.
        text_column: Its text column.
        rows: (N,) int64, its usable rows, ascending.
    """

    corpus: Dataset
    text_column: str
    rows: np.ndarray

    def __call__(self, start: int, stop: int) -> Iterator[list[str]]:
        """Return the texts of `rows[start:stop]` in batches, read sequentially."""
        rows = self.rows[start:stop]
        span = self.corpus.select(range(int(rows[0]), int(rows[-1]) + 1))
        return usable_texts(span, self.text_column, rows - rows[0])


def fetch_texts(corpus: Dataset, text_column: str, rows: np.ndarray, description: str) -> Iterator[list[str]]:
    """Yield cleaned texts of some rows in batches, in the order of `rows`."""
    chosen: Sequence[int] = rows.tolist()
    column = corpus.select_columns([text_column]).select(chosen).with_format("arrow")
    with tqdm(total=len(rows), desc=description, unit=" rows", unit_scale=True) as bar:
        for batch in column.iter(batch_size=READ_BATCH):
            texts = [clean(text) for text in batch[text_column].to_pylist()]
            yield texts
            bar.update(len(texts))


def read_arrow(folder: Path) -> Dataset:
    """Return the rows that `Dataset.map` wrote into a folder; files of several processes in order."""
    return concatenate_datasets([Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))])


def describe_rows(corpus: Dataset) -> dict[str, Any]:
    """Count rows, UTF-8 bytes and rows per source; average the length, and the rank if rows have ranks.

    Args:
        corpus: A built corpus (columns `text`, `source`, and for a retrieved corpus `rank`).
    """
    num_bytes, num_words, ranks = 0, 0, 0
    ranked = "rank" in corpus.column_names
    sources: Counter[str] = Counter()
    columns = ["text", "source", *(["rank"] if ranked else [])]
    for batch in corpus.select_columns(columns).with_format("arrow").iter(batch_size=_DESCRIBED_BATCH):
        for text in batch["text"].to_pylist():
            num_bytes += len(text.encode())
            num_words += count_words(text)
        if ranked:
            ranks += int(batch["rank"].to_numpy().sum())
        sources.update(batch["source"].to_pylist())
    rows = max(1, len(corpus))
    return {
        "rows": len(corpus),
        "bytes": num_bytes,
        "mean_words": round(num_words / rows, 2),
        **({"mean_rank": round(ranks / rows, 2)} if ranked else {}),
        "sources": dict(sorted(sources.items(), key=lambda item: (-item[1], item[0]))),
    }


# --- sentences and passages ------------------------------------------------------------------------------------------

Unit = Literal["row", "sentence", "passage"]

# Names of languages as in the stop word lists -> ISO codes.
_CODES = {
    "chinese": "zh",
    "danish": "da",
    "dutch": "nl",
    "english": "en",
    "french": "fr",
    "german": "de",
    "italian": "it",
    "korean": "ko",
    "norwegian": "no",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
    "swedish": "sv",
    "turkish": "tr",
    # Not the code of a language: selects the general rules.
    "none": "xx",
}
# sentencex takes every full stop before a digit for a decimal point; an ideographic full stop never is one.
_MISSED_END = regex.compile(r"(?<=[。！？])(?=\p{N})")
# A multi-byte blank (no-break or full-width) between a capital letter and a full stop crashes the process: sentencex
# counts it as one byte.
_WIDE_BLANK = regex.compile(r"[^\S\x00-\x7f](?=\.)")


def units_of(documents: Dataset, args: Settings, *, file: Path | None = None) -> Dataset:
    """Return the rows that are searched or sampled, as the arguments request them (see `split_documents`).

    Args:
        documents: A general corpus.
        args: Settings with columns, unit, language and processes.
        file: File for the units; without it they are cached like every `Dataset.map`, by as many processes as the
            arguments allow.
    """
    return split_documents(
        documents,
        args.text_column,
        unit=args.unit,
        passage_words=args.passage_words,
        language=args.language,
        source_column=args.source_column,
        num_proc=args.num_proc,
        file=file,
    )


def split_documents(
    corpus: Dataset,
    text_column: str,
    *,
    unit: Unit,
    passage_words: int,
    language: str,
    source_column: str | None = None,
    num_proc: int | None = None,
    file: Path | None = None,
) -> Dataset:
    """Return a corpus with one row per sentence or passage, cached like every `Dataset.map`.

    Args:
        corpus: Documents.
        text_column: Their text column.
        unit: `sentence`, `passage`, or `row`, which leaves the corpus unchanged.
        passage_words: Maximum words of a passage (see `SplitDocuments`).
        language: Name or ISO code of the language; `none` selects the general rules.
        source_column: A column to keep if it exists; it is the same for all units of a document.
        num_proc: Number of processes.
        file: File for the units; by default in the cache of `datasets`.

    Raises:
        ValueError: If the corpus is empty or lacks its text column.
        ImportError: If sentencex is not installed.
    """
    if unit == "row":
        return corpus
    check_corpus(corpus, text_column)
    kept = [name for name in (source_column,) if name in corpus.column_names and name != text_column]
    features = Features({text_column: Value("string"), **{name: corpus.features[name] for name in kept}})
    return corpus.select_columns([text_column, *kept]).map(
        SplitDocuments(text_column, unit, passage_words, language),
        batched=True,
        features=features,
        num_proc=processes_for(num_proc, len(corpus)),
        cache_file_name=None if file is None else str(file),
        desc=f"Splitting into {unit}s",
    )


class SplitDocuments:
    """Turns a batch of documents into their sentences or passages; None and empty documents are unchanged.

    A passage is a maximal run of consecutive sentences with at most `passage_words` words; a longer sentence is a
    passage by itself. In scripts without spaces every character counts as a word.

    Args:
        text_column: Column of the text.
        unit: `sentence` or `passage`.
        passage_words: Maximum words of a passage.
        language: Name or ISO code of the language.

    Raises:
        ImportError: If sentencex is not installed.
        ValueError: If the language is neither a known name nor a code.
    """

    # Increase it when the units change: otherwise units of older code would be taken from the cache.
    VERSION = 1

    def __init__(self, text_column: str, unit: Unit, passage_words: int, language: str) -> None:
        require("sentencex", extra="documents", needed_by=f"`--unit {unit}`")
        # sentencex accepts any word as a language, and uses the general rules for unknown ones.
        if language not in _CODES and regex.fullmatch(r"[a-z]{2,3}(-\w+)?", language) is None:
            raise ValueError(
                f"`--language` is {language!r}; sentences end by the rules of {', '.join(_CODES)}, or of a language "
                "that is given by its code (fi)."
            )
        self.text_column, self.unit, self.passage_words, self.language = text_column, unit, passage_words, language
        # The cache of `datasets` hashes the attributes of an object, not the code of an installed class.
        self.version = self.VERSION

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Return the columns with one row for each unit."""
        texts: list[str | None] = []
        documents: list[int] = []
        for document, text in enumerate(batch[self.text_column]):
            split = list(self.split(text)) if text is not None and text.strip() else [text]
            texts += split
            documents += [document] * len(split)
        others = {name: column for name, column in batch.items() if name != self.text_column}
        return {
            self.text_column: texts,
            **{name: [column[document] for document in documents] for name, column in others.items()},
        }

    def split(self, text: str) -> Iterator[str]:
        """Return the sentences or passages of a document."""
        sentences = sentences_of(text, self.language)
        return map(str.strip, sentences) if self.unit == "sentence" else self._passages(sentences)

    def _passages(self, sentences: list[str]) -> Iterator[str]:
        passage, length = "", 0
        for sentence in sentences:
            words = len(units(sentence))
            if passage and length + words > self.passage_words:
                yield passage.strip()
                passage, length = "", 0
            passage, length = passage + sentence, length + words
        yield passage.strip()


def sentences_of(text: str, language: str) -> list[str]:
    """Return the sentences of a text, each with the blanks after it, so that joining them gives the text.

    Args:
        text: A text that is not blank.
        language: Name or ISO code of its language.
    """
    import sentencex

    code = _CODES.get(language, language)
    found: list[str] = []
    for line in text.strip().splitlines(keepends=True):
        end = 0
        for sentence in sentencex.segment(code, _WIDE_BLANK.sub(" ", line)):
            begin, end = end, end + len(sentence)
            for part in _MISSED_END.split(line[begin:end]):
                if part.strip():
                    found.append(part)
                else:
                    found[-1] += part
    return found


# --- writing rows ----------------------------------------------------------------------------------------------------


def table_of(columns: Mapping[str, Any], features: Features) -> pa.Table:
    """Make a table from columns by name with the types of `features`, for `ArrowWriter.write_table`."""
    arrays = [pa.array(columns[name], type=feature.pa_type) for name, feature in features.items()]
    return pa.Table.from_arrays(arrays, names=list(features))


def processes_for(num_proc: int | None, num_rows: int) -> int | None:
    """Return the number of processes of a `Dataset.map`: the requested number, limited by the number of rows."""
    return None if num_proc is None else max(1, min(num_proc, num_rows))
