"""Text analysis: from a text in any script to its words, and from words to the terms that every engine indexes.

All engines index the same streams of terms, so they can differ only in arithmetic, not in tokenization.

A word is a run of letters and digits with their combining marks. Scripts without spaces between words need more:
Chinese has a segmenter (`chinese_segmenter`); other runs are split into overlapping pairs of characters, as in
Lucene's CJK analysis, which needs neither a dictionary nor the name of the language. Nothing is downloaded.

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
# The underscore is a separator. Apostrophes are too, because some tasks (SST-2) are pre-split ("it 's", "do n't")
# while running text is not, and both must give the same words.
WORD = regex.compile(_LETTER)
# A word of a keyword phrase keeps inner hyphens and apostrophes (`non-rock`, `don't`); every other visible character
# is a token of its own.
_WORD_OR_MARK = regex.compile(rf"{_LETTER}(?:[-'’]{_LETTER})*|[^\p{{L}}\p{{N}}\p{{M}}\s]")

# A character of a script without spaces, with its combining marks.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]\p{M}*"
_CHARACTER = regex.compile(UNSPACED)
_RUN_OR_WORD = regex.compile(rf"(?P<run>(?:{UNSPACED})+)|(?:(?!{UNSPACED})[\p{{L}}\p{{N}}]\p{{M}}*)+")

# ASCII text needs no pattern: letters become lower case, digits stay, everything else becomes a blank.
_ASCII = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))


def fold(text: str) -> str:
    """Return the text in lower case, with compatibility forms (full width, ligatures) normalised."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()


def words(text: str) -> list[str]:
    """Return the folded words of a text; runs of a script without spaces become overlapping pairs of characters."""
    return _words(fold(text), lambda characters: list(map("".join, pairwise(characters))))


def units(text: str) -> list[str]:
    """Return folded words, or single characters in scripts without spaces: the units of lengths and n-grams."""
    return _words(fold(text), lambda characters: characters)


def count_words(text: str) -> int:
    """Return the number of words between blanks; for text with a script without spaces, the number of `units`."""
    return len(text.split()) if text.isascii() or _CHARACTER.search(text) is None else len(units(text))


def spaced_words(text: str) -> str:
    """Return the result of `words`, joined with blanks and without a trailing blank.

    Arrow's split reads one character too many after a blank at the end of a row; after the last row this is memory
    beyond the buffer, and sometimes the blank stayed in the word (pyarrow 26).
    """
    return text.translate(_ASCII).rstrip(" ") if text.isascii() else " ".join(words(text))


def words_and_marks(text: str) -> list[str]:
    """Return lower-cased words and the punctuation between them, from which keyword phrases are made."""
    found: list[str] = _WORD_OR_MARK.findall(text.lower())
    return found


def chinese_words(text: str) -> list[str]:
    """Return the folded words of Chinese text; words of other scripts in it as in `words`."""
    _, cut = chinese_segmenter()
    return [word for piece in cut(fold(text)) for word in WORD.findall(piece)]


def chinese_words_and_marks(text: str) -> list[str]:
    """Return the folded words of Chinese text and the punctuation between them."""
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
    """Return words; `of_run` splits each run of a script without spaces, given as a list of characters."""
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
    """A user's own function from a text to its terms, used instead of words, stop words and stemmer.

    Args:
        name: `package.module:function`, importable by Python (for your own file: its folder must be in `PYTHONPATH`).

    Raises:
        ValueError: If the function does not exist.
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
            raise ValueError(f"`{FLAG}` is {name!r}, which is not a function but {type(function).__name__}.")
        self.name = name
        self._function: Callable[[str], list[str]] = function

    def __call__(self, text: str) -> list[str]:
        """Return the terms of a text.

        Raises:
            TypeError: If the function does not return strings.
            ValueError: If a term is empty or contains a blank: engines join terms with blanks.
        """
        terms = list(self._function(text))
        for term in terms:
            if not isinstance(term, str):
                raise TypeError(
                    f"`{FLAG}` {self.name} must return strings, but one is {type(term).__name__}: {term!r}."
                )
            if not term or term.split() != [term]:
                raise ValueError(
                    f"`{FLAG}` {self.name} returned the term {term!r}; a term must not be empty or contain a blank."
                )
        return terms

    def settings(self) -> dict[str, Any]:
        """Return the name, and a checksum of the function's source: changed source makes another index."""
        try:
            source = inspect.getsource(self._function)
        except (OSError, TypeError):
            source = ""
        return {"token_analysis": self.name, "source": xxhash.xxh3_64_hexdigest(source.encode())}


# --- terms -----------------------------------------------------------------------------------------------------------

# The remainder of "n't" in text that was split in the style of the Penn Treebank.
_SPLIT_NEGATION = frozenset({"n"})

_NO_TERM = -1
# Characters whose words are looked up together: limits the memory of the analysis to about 200 MB.
_BATCH_CHARS = 20_000_000
_CHINESE = frozenset({"chinese", "zh"})


@cache
def stop_words(language: str) -> frozenset[str]:
    """Return the stop words of a language; contractions are included also in their parts (`don't` -> `don`, `t`).

    The lists are part of bm25s (NLTK's list for English, 179 words): nothing is downloaded.

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
    """The terms of N texts in flat arrays.

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
        """Yield the texts as lists of terms, for the engines' own indexing functions and for tests."""
        for start, stop in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield [self.vocabulary[term] for term in self.ids[start:stop].tolist()]


class Analyzer:
    """Lower-cases, splits into words, removes stop words, and stems.

    Stop words are removed before stemming, because a stemmed word may differ from its form in the list (`because` ->
    `becaus`). Every distinct word is stemmed once and cached.

    Args:
        language: Language of the stop words, the stemmer and the Chinese segmenter; `none` disables all of them.
        stem: Whether to stem. Ignored if Snowball has no stemmer for the language.
        stopwords: Your own stop words instead of the language's.
        token_analysis: Your own function from a text to its terms (`package.module:function`), instead of words, stop
            words and stemmer; keyword phrases still end at the language's stop words.

    Raises:
        ValueError: If there is no stop word list for the language, or the function does not exist.
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
        """Pickle only the settings: without the cache and the C stemmer, fingerprints are stable."""
        return _make_analyzer, (self.language, self.stem, self.own_stopwords, self.token_analysis)

    def settings(self) -> dict[str, Any]:
        """Return everything that affects the terms, as JSON values."""
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
        """Return the terms of words separated by blanks, such as keyword queries, without segmenting them again."""
        if self._segmenter is None or self._own is not None:
            return self.tokens(text)
        return [term for term in map(self._terms.__getitem__, WORD.findall(text)) if term]

    def words_and_marks(self, text: str) -> list[str]:
        """Return the words and the punctuation between them, for keyword phrases."""
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
            # Arrow splits and counts the words; only a batch's distinct words come back to Python.
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
    """Yield the same texts in larger batches: a word is looked up once in every batch that contains it."""
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
