"""Text analysis: from a text in any script to its words, and from words to the terms that every engine indexes.

All engines are fed the same streams of terms, so that they can only differ in arithmetic, never in what a word is.

A word is a run of letters and digits with their marks. Scripts that put no space between words need more. Chinese has
a segmenter (`chinese_segmenter`). Otherwise such a run is taken as overlapping pairs of characters, as Lucene's CJK
analysis does: that needs neither a dictionary nor the name of the language. Nothing is downloaded.

Shape legend: N texts, T terms over all texts, V distinct terms.
"""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import regex
import xxhash

from hf_distill._optional import require

# --- words -----------------------------------------------------------------------------------------------------------

_LETTER = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*"
# The underscore separates. Apostrophes separate too, because some tasks (SST-2) come pre-split ("it 's", "do n't")
# while running text does not: both must end as the same words.
WORD = regex.compile(_LETTER)
# A word of a keyword phrase keeps inner hyphens and apostrophes (`non-rock`, `don't`); other visible characters stand
# alone.
_WORD_OR_MARK = regex.compile(rf"{_LETTER}(?:[-'’]{_LETTER})*|[^\p{{L}}\p{{N}}\p{{M}}\s]")

# A character, with its marks, of a script without spaces.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]\p{M}*"
_CHARACTER = regex.compile(UNSPACED)
_RUN_OR_WORD = regex.compile(rf"(?P<run>(?:{UNSPACED})+)|(?:(?!{UNSPACED})[\p{{L}}\p{{N}}]\p{{M}}*)+")

# ASCII text needs no pattern: letters to lower case, digits as they are, everything else a blank.
_ASCII = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))


def fold(text: str) -> str:
    """Return the text in lower case, with compatibility forms (full width, ligatures) made one."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()


def words(text: str) -> list[str]:
    """Return folded words; a run of a script without spaces as its pairs of characters."""
    return _words(fold(text), lambda characters: list(map("".join, pairwise(characters))))


def units(text: str) -> list[str]:
    """Return folded words; in scripts without spaces single characters: what lengths and n-grams are counted in."""
    return _words(fold(text), lambda characters: characters)


def count_words(text: str) -> int:
    """Return how many words stand between blanks; in a text with a script without spaces, how many `units`."""
    return len(text.split()) if text.isascii() or _CHARACTER.search(text) is None else len(units(text))


def spaced_words(text: str) -> str:
    """Return the words of `words` with blanks between them, and none after the last.

    Arrow's splitting decodes one character more after a blank at the end of a row: after the last row that is memory
    beyond the buffer, and now and then the blank stayed in the word (pyarrow 26).
    """
    return text.translate(_ASCII).rstrip(" ") if text.isascii() else " ".join(words(text))


def words_and_marks(text: str) -> list[str]:
    """Return lower-cased words as they stand and the marks between them: what keyword phrases are made of."""
    found: list[str] = _WORD_OR_MARK.findall(text.lower())
    return found


def chinese_words(text: str) -> list[str]:
    """Return folded words of Chinese text; words of other scripts in it as in `words`."""
    _, cut = chinese_segmenter()
    return [word for piece in cut(fold(text)) for word in WORD.findall(piece)]


def chinese_words_and_marks(text: str) -> list[str]:
    """Return folded words of Chinese text and the marks between them."""
    _, cut = chinese_segmenter()
    return [piece for piece in cut(fold(text)) if not piece.isspace()]


@cache
def chinese_segmenter() -> tuple[str, Callable[[str], list[str]]]:
    """Return name with version, and the function of the segmenter: rjieba, or jieba if only that is installed.

    Raises:
        ImportError: If neither is installed.
    """
    if find_spec("rjieba") is None and find_spec("jieba") is not None:
        import logging

        jieba = require("jieba", extra="chinese", needed_by="`--language chinese`")
        jieba.setLogLevel(logging.WARNING)
        return f"jieba {version('jieba')}", jieba.lcut
    rjieba = require("rjieba", extra="chinese", needed_by="`--language chinese`")
    return f"rjieba {version('rjieba')}", rjieba.cut


def _words(folded: str, of_run: Callable[[list[str]], list[str]]) -> list[str]:
    """Return words, with every run of a script without spaces, given by its characters, as `of_run` has it."""
    found: list[str]
    if folded.isascii() or _CHARACTER.search(folded) is None:
        found = WORD.findall(folded)
        return found
    found = []
    for match in _RUN_OR_WORD.finditer(folded):
        run = match.group("run")
        characters = _CHARACTER.findall(run) if run else []
        found += of_run(characters) if len(characters) > 1 else [match.group()]
    return found


# --- an analysis of a user's own -------------------------------------------------------------------------------------

FLAG = "--token_analysis"


class OwnAnalysis:
    """A function from a text to its terms, which takes the place of words, stop words and stemmer.

    Args:
        name: `package.module:function`, where Python finds the module (a file of one's own: in the folder that
            `PYTHONPATH` names).

    Raises:
        ValueError: If there is no such function.
    """

    def __init__(self, name: str) -> None:
        module, _, attribute = name.partition(":")
        if not module or not attribute:
            raise ValueError(f"`{FLAG}` is {name!r}; it must look like package.module:function.")
        try:
            function = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"`{FLAG}` is {name!r}, which cannot be imported: {error}. A file of your own must be where "
                "PYTHONPATH says."
            ) from error
        if not callable(function):
            raise ValueError(f"`{FLAG}` is {name!r}, which is no function but {type(function).__name__}.")
        self.name = name
        self._function: Callable[[str], list[str]] = function

    def __call__(self, text: str) -> list[str]:
        """Return the terms of a text.

        Raises:
            TypeError: If the function does not return strings.
            ValueError: If a term is empty or has a blank in it: engines join terms with blanks.
        """
        terms = list(self._function(text))
        for term in terms:
            if not isinstance(term, str):
                raise TypeError(
                    f"`{FLAG}` {self.name} must return strings, but one is {type(term).__name__}: {term!r}."
                )
            if not term or term.split() != [term]:
                raise ValueError(
                    f"`{FLAG}` {self.name} returned the term {term!r}; terms are not empty, without blanks."
                )
        return terms

    def settings(self) -> dict[str, Any]:
        """Return the name, and a checksum of the function's source: with another one it is another index."""
        try:
            source = inspect.getsource(self._function)
        except (OSError, TypeError):
            source = ""
        return {"token_analysis": self.name, "source": xxhash.xxh3_64_hexdigest(source.encode())}


# --- terms -----------------------------------------------------------------------------------------------------------

# What is left of "n't" in text that was split in the Penn Treebank manner.
_SPLIT_NEGATION = frozenset({"n"})

_NO_TERM = -1
# Characters whose words are looked up together: bounds the memory of the analysis to some 200 MB.
_BATCH_CHARS = 20_000_000
_CHINESE = frozenset({"chinese", "zh"})


@cache
def stop_words(language: str) -> frozenset[str]:
    """Return the stop words of a language, contractions also in their parts (`don't` -> `don`, `t`).

    The lists ship with bm25s (NLTK's list for English, 179 words): nothing is downloaded.

    Args:
        language: English name (`english`) or ISO code (`en`) of the language, or `none` for no stop words.

    Raises:
        ValueError: If there is no list for the language.
    """
    if language in {"none", ""}:
        return frozenset()
    from bm25s.tokenization import _infer_stopwords

    asked = {"english": "english_plus", "en": "english_plus"}.get(language, language)
    try:
        words = _infer_stopwords(asked)
    except ValueError as error:
        raise ValueError(
            f"There is no stop word list for language {language!r} (--language). Known: english, german, dutch, "
            "french, spanish, portuguese, italian, russian, swedish, norwegian, chinese, turkish, korean, danish, "
            "none."
        ) from error
    parts = {part for word in words for part in WORD.findall(word)}
    return frozenset({*words, *parts} | (_SPLIT_NEGATION if asked == "english_plus" else frozenset()))


def _stemmer(language: str) -> Callable[[str], str] | None:
    """Return Snowball's stemming function, or None where Snowball has none for the language."""
    import Stemmer

    try:
        return Stemmer.Stemmer(language).stemWord
    except KeyError:
        return None


@dataclass(frozen=True)
class TokenStreams:
    """The terms of N texts, flat.

    Attributes:
        ids: (T,) int32, ids of the terms, text after text.
        offsets: (N + 1,) int64; text i is `ids[offsets[i]:offsets[i + 1]]`.
        vocabulary: V terms, in the order of their first appearance.
    """

    ids: np.ndarray
    offsets: np.ndarray
    vocabulary: list[str]

    @property
    def num_texts(self) -> int:
        """Return N."""
        return len(self.offsets) - 1

    def checksum(self) -> str:
        """Return a checksum of the streams, which is the same on every machine."""
        digest = xxhash.xxh3_128()
        digest.update(np.ascontiguousarray(self.ids, dtype="<i4").data)
        digest.update(np.ascontiguousarray(self.offsets, dtype="<i8").data)
        digest.update("\n".join(self.vocabulary).encode())
        return digest.hexdigest()

    def texts(self) -> Iterable[list[str]]:
        """Yield the texts as lists of terms, for engines' own indexing functions and for tests."""
        for start, stop in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield [self.vocabulary[term] for term in self.ids[start:stop].tolist()]


class Analyzer:
    """Lower-cases, splits into words, removes stop words, stems.

    Stop words are removed before stemming: a stemmed word never equals the list's own form (`because` -> `becaus`).
    Every distinct word is stemmed once and remembered.

    Args:
        language: Language of stop words and stemmer, and of the segmenter for Chinese; `none` leaves all of them out.
        stem: Whether to stem. Ignored where Snowball has no stemmer for the language.
        stopwords: Own stop words instead of the language's.
        token_analysis: A function of one's own from a text to its terms (`package.module:function`), instead of words,
            stop words and stemmer; keyword phrases still end at the language's stop words.

    Raises:
        ValueError: If there is no stop word list for the language, or no such function.
        ImportError: If the language is Chinese and no segmenter is installed.
    """

    VERSION = 2

    def __init__(
        self,
        language: str = "english",
        *,
        stem: bool = True,
        stopwords: Sequence[str] | None = None,
        token_analysis: str | None = None,
    ) -> None:
        self.language = language
        self.stem = stem
        self.own_stopwords = None if stopwords is None else tuple(sorted(stopwords))
        self.token_analysis = token_analysis
        self.stop_words = stop_words(language) if stopwords is None else frozenset(stopwords)
        self._segmenter = chinese_segmenter()[0] if language in _CHINESE else None
        self._own = None if token_analysis is None else OwnAnalysis(token_analysis)
        self._stem = _stemmer(language) if stem and language != "none" and self._own is None else None
        self._terms = _Terms(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings alone: without the cache and the C stemmer, fingerprints are stable."""
        return _make_analyzer, (self.language, self.stem, self.own_stopwords, self.token_analysis)

    def settings(self) -> dict[str, Any]:
        """Return everything that changes the terms, JSON-able."""
        return {
            "version": self.VERSION,
            "language": self.language,
            "stemmed": self._stem is not None,
            "stop_words": xxhash.xxh3_64_hexdigest("\n".join(sorted(self.stop_words)).encode()),
            **({} if self._segmenter is None else {"segmenter": self._segmenter}),
            **({} if self._own is None else self._own.settings()),
        }

    def term(self, word: str) -> str:
        """Return the term of a folded word; empty for a stop word."""
        if self._own is not None:
            return word
        if word in self.stop_words:
            return ""
        return self._stem(word) if self._stem is not None else word

    def tokens(self, text: str) -> list[str]:
        """Return the terms of a text."""
        return [term for term in map(self._terms.__getitem__, self._words(text)) if term]

    def tokens_of_words(self, text: str) -> list[str]:
        """Return the terms of words with blanks between them, as keyword queries are: they are not segmented again."""
        if self._segmenter is None or self._own is not None:
            return self.tokens(text)
        return [term for term in map(self._terms.__getitem__, WORD.findall(text)) if term]

    def words_and_marks(self, text: str) -> list[str]:
        """Return words as they stand and the marks between them, for keyword phrases."""
        return chinese_words_and_marks(text) if self._segmenter is not None else words_and_marks(text)

    def _words(self, text: str) -> list[str]:
        if self._own is not None:
            return self._own(text)
        return chinese_words(text) if self._segmenter is not None else words(text)

    def encode(self, batches: Iterable[Sequence[str]]) -> TokenStreams:
        """Return the terms of many texts as ids.

        Args:
            batches: Texts in batches of any size; the result does not depend on the size.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        known = _TermIds(self)
        ids, lengths = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for batch in _larger(batches):
            # Splitting and counting of words run in Arrow; only a batch's distinct words come back to Python.
            if self._own is None and self._segmenter is None:
                split = pc.utf8_split_whitespace(pa.array(map(spaced_words, batch), type=pa.large_string()))
            else:
                split = pa.array(map(self._words, batch), type=pa.large_list(pa.large_string()))
            distinct = split.flatten().dictionary_encode()
            of_word = np.fromiter(map(known.__getitem__, distinct.dictionary.to_pylist()), dtype=np.int32)
            terms = of_word[distinct.indices.to_numpy()]
            kept = terms != _NO_TERM
            before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
            lengths.append(np.diff(before[split.offsets.to_numpy()]))
            ids.append(terms[kept])
        return TokenStreams(np.concatenate(ids), np.cumsum(np.concatenate(lengths)), known.vocabulary)


def _larger(batches: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Yield the same texts in larger batches: a word is looked up once in each in which it occurs."""
    together: list[str] = []
    size = 0
    for batch in batches:
        together += batch
        size += sum(map(len, batch))
        if size >= _BATCH_CHARS:
            yield together
            together, size = [], 0
    yield together


def _make_analyzer(
    language: str, stem: bool, stopwords: tuple[str, ...] | None, token_analysis: str | None
) -> Analyzer:
    return Analyzer(language, stem=stem, stopwords=stopwords, token_analysis=token_analysis)


class _Terms(dict[str, str]):
    """A mapping from a word to its term, filled on demand."""

    def __init__(self, analyzer: Analyzer) -> None:
        super().__init__()
        self._analyzer = analyzer

    def __missing__(self, word: str) -> str:
        term = self[word] = self._analyzer.term(word)
        return term


class _TermIds(dict[str, int]):
    """A mapping from a word to the id of its term, filled on demand; stop words have the id -1."""

    def __init__(self, analyzer: Analyzer) -> None:
        super().__init__()
        self._analyzer = analyzer
        self._ids: dict[str, int] = {}
        self.vocabulary: list[str] = []

    def __missing__(self, word: str) -> int:
        term = self._analyzer.term(word) if word else ""
        if not term:
            self[word] = _NO_TERM
            return _NO_TERM
        known = self[word] = self._ids.setdefault(term, len(self._ids))
        if known == len(self.vocabulary):
            self.vocabulary.append(term)
        return known
