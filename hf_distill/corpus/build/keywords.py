"""From an anchor sentence to a query: RAKE keywords (Rose et al. 2010), content words, or the text itself.

Anchors are searched by their keywords (Contextualized Corpus, section 2; TLM takes the 20 best phrases).
BM25 ignores order, so for most single sentences RAKE's phrases are the sentence without its stop words; the two
differ once a sentence has more than `max_phrases` phrases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Literal

from ..text.words import words_and_marks

QueryMode = Literal["rake", "content_words", "text"]
QUERY_MODES: tuple[str, ...] = ("rake", "content_words", "text")

Split = Callable[[str], list[str]]


def rake_phrases(
    text: str, stop_words: Collection[str], max_phrases: int | None = None, split: Split = words_and_marks
) -> list[str]:
    """Keyword phrases of a text, best first.

    A phrase is a maximal run of words without stop words and punctuation. A word scores degree / frequency, where its
    degree is the sum of the lengths of the phrases that hold it; a phrase scores the sum over its words. Equal scores
    are ordered by the phrase, descending; a phrase that occurs twice is listed twice.

    Args:
        text: Any text.
        stop_words: Lower-cased words that end a phrase.
        max_phrases: How many phrases to keep; all by default.
        split: Text to lower-cased words and the marks between them; Chinese needs a segmenter's.
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
    """Words of a text that are not stop words, in order, repeats kept."""
    return [token for token in split(text) if token[0].isalnum() and token not in stop_words]


def make_query(
    text: str,
    mode: QueryMode,
    stop_words: Collection[str],
    max_phrases: int = 20,
    split: Split = words_and_marks,
) -> str:
    """Query of an anchor; empty if the anchor has no keyword.

    Args:
        text: The anchor.
        mode: `rake` (the `max_phrases` best phrases), `content_words` (all words but stop words) or `text`.
        stop_words: Lower-cased stop words.
        max_phrases: Phrases to keep in mode `rake`.
        split: Text to lower-cased words and the marks between them.

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
