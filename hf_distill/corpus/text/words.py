"""From a text to words, in any script, without downloads.

A word is a run of letters and digits with their marks. Scripts that put no space between words need more. Chinese has
a segmenter (`segment_chinese`). Otherwise such a run is taken as overlapping pairs of characters, as Lucene's CJK
analysis does: that needs neither a dictionary nor the name of the language.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise

import regex

from hf_distill._optional import require

_LETTER = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*"
# The underscore separates. Apostrophes separate too, because some tasks (SST-2) come pre-split ("it 's", "do n't")
# while running text does not: both must end as the same words.
WORD = regex.compile(_LETTER)
# A word of a keyword phrase keeps inner hyphens and apostrophes (`non-rock`, `don't`); other visible characters stand
# alone.
_WORD_OR_MARK = regex.compile(rf"{_LETTER}(?:[-'’]{_LETTER})*|[^\p{{L}}\p{{N}}\p{{M}}\s]")

# A character, with its marks, of a script without spaces.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]\p{M}*"
_CHARACTER = regex.compile(_UNSPACED)
_RUN_OR_WORD = regex.compile(rf"(?P<run>(?:{_UNSPACED})+)|(?:(?!{_UNSPACED})[\p{{L}}\p{{N}}]\p{{M}}*)+")

# ASCII text needs no pattern: letters to lower case, digits as they are, everything else a blank.
_ASCII = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))


def fold(text: str) -> str:
    """Lower case, compatibility forms (full width, ligatures) made one."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()


def words(text: str) -> list[str]:
    """Folded words; a run of a script without spaces as its pairs of characters."""
    return _words(fold(text), lambda characters: list(map("".join, pairwise(characters))))


def units(text: str) -> list[str]:
    """Folded words; in scripts without spaces single characters: what lengths and n-grams are counted in."""
    return _words(fold(text), lambda characters: characters)


def spaced_words(text: str) -> str:
    """The words of `words` with blanks between them, and none after the last.

    Arrow's splitting decodes one character more after a blank at the end of a row: after the last row that is memory
    beyond the buffer, and now and then the blank stayed in the word (pyarrow 26).
    """
    return text.translate(_ASCII).rstrip(" ") if text.isascii() else " ".join(words(text))


def words_and_marks(text: str) -> list[str]:
    """Lower-cased words as they stand and the marks between them: what keyword phrases are made of."""
    found: list[str] = _WORD_OR_MARK.findall(text.lower())
    return found


def chinese_words(text: str) -> list[str]:
    """Folded words of Chinese text; words of other scripts in it as in `words`."""
    _, cut = chinese_segmenter()
    return [word for piece in cut(fold(text)) for word in WORD.findall(piece)]


def chinese_words_and_marks(text: str) -> list[str]:
    """Folded words of Chinese text and the marks between them."""
    _, cut = chinese_segmenter()
    return [piece for piece in cut(fold(text)) if not piece.isspace()]


@cache
def chinese_segmenter() -> tuple[str, Callable[[str], list[str]]]:
    """Name with version, and the function of the segmenter: rjieba, or jieba where that is what is installed.

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
    """Words, with every run of a script without spaces, given by its characters, as `of_run` has it."""
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
