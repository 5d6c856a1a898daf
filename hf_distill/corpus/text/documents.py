"""Documents -> the sentences or passages that are searched.

The paper's corpora have 400 to 530 bytes per row (Contextualized Corpus, Table 1): passages of a few sentences, not
single ones. Sentences end where sentencex says, which knows the abbreviations of many languages and has rules for the
others, and at line breaks. No character between a unit's first and last is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import regex
from datasets import Dataset, Features, Value

from hf_distill._optional import require

from .cleaning import check_corpus
from .words import units

if TYPE_CHECKING:
    from hf_distill.settings import CorpusArguments, GeneralCorpusArguments

Unit = Literal["row", "sentence", "passage"]
UNITS: tuple[str, ...] = ("row", "sentence", "passage")

# Names of languages as the stop word lists have them -> ISO codes.
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
    # A code of no language: the rules that hold for all.
    "none": "xx",
}
# sentencex takes every full stop before a digit for a decimal point; the ideographic one never is.
_MISSED_END = regex.compile(r"(?<=[。！？])(?=\p{N})")


def units_of(
    documents: Dataset, args: CorpusArguments | GeneralCorpusArguments, *, file: Path | None = None
) -> Dataset:
    """The rows that are searched or drawn, as the arguments ask for them (see `split_documents`).

    Args:
        documents: A general corpus.
        args: Columns, unit, language and processes.
        file: Where the units are written; without it they are cached like every `Dataset.map`, by as many processes
            as the arguments allow.
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
    """A corpus with one row per sentence or passage, cached like every `Dataset.map`.

    Args:
        corpus: Documents.
        text_column: Their text.
        unit: `sentence`, `passage`, or `row` for the corpus as it is.
        passage_words: Words of a passage at most (see `SplitDocuments`).
        language: Name or ISO code of the language; `none` for rules that hold for all.
        source_column: A column to keep where it is there, the same for all units of a document.
        num_proc: Processes.
        file: Where the units are written; by default in the cache of `datasets`.

    Raises:
        ValueError: If the corpus is empty or lacks its text column.
        ImportError: If sentencex is not installed.
    """
    if unit == "row":
        return corpus
    check_corpus(corpus, text_column)
    kept = [name for name in (source_column,) if name in corpus.column_names]
    features = Features({text_column: Value("string"), **{name: corpus.features[name] for name in kept}})
    return corpus.select_columns([text_column, *kept]).map(
        SplitDocuments(text_column, unit, passage_words, language),
        batched=True,
        features=features,
        num_proc=None if num_proc is None else max(1, min(num_proc, len(corpus))),
        cache_file_name=None if file is None else str(file),
        desc=f"Splitting into {unit}s",
    )


class SplitDocuments:
    """Batch of documents -> batch of their sentences or passages; None and empty documents stay as they are.

    A passage is as many sentences in a row as have at most `passage_words` words together; a longer sentence is a
    passage of its own. In scripts without spaces every character counts as a word.

    Args:
        text_column: Column of the text.
        unit: `sentence` or `passage`.
        passage_words: Words of a passage at most.
        language: Name or ISO code of the language.

    Raises:
        ImportError: If sentencex is not installed.
    """

    # A change of the units must change it: units of older code would be taken from the cache.
    VERSION = 1

    def __init__(self, text_column: str, unit: Unit, passage_words: int, language: str) -> None:
        require("sentencex", extra="documents", needed_by=f"`--unit {unit}`")
        self.text_column, self.unit, self.passage_words, self.language = text_column, unit, passage_words, language
        # The cache of `datasets` hashes what an object holds, not the code of an installed class.
        self.version = self.VERSION

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The columns with a row per unit."""
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
        """The sentences or passages of a document."""
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
    """The sentences of a text without the blanks around it; each keeps those after it, so that they can be joined.

    Args:
        text: A text that is not blank.
        language: Name or ISO code of its language.
    """
    import sentencex

    code = _CODES.get(language, language)
    found: list[str] = []
    for line in text.strip().splitlines(keepends=True):
        for sentence in sentencex.segment(code, line):
            for part in _MISSED_END.split(sentence):
                if part.strip():
                    found.append(part)
                else:
                    found[-1] += part
    return found
