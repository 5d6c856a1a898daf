"""Draws augmented rows: words replaced at random by their candidates (TinyBERT, data augmentation).

Every row has random numbers of its own, from the seed and its number, so it does not matter which rows came before it
or which process draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from .words import join_words


@dataclass(frozen=True)
class Replacements:
    """A text and what may stand in place of its words.

    Attributes:
        text: The text as it is.
        words: Its words.
        candidates: Per word: what may replace it; empty for a word that stays.
    """

    text: str
    words: Sequence[str]
    candidates: Sequence[Sequence[str]]


def random_of(seed: int, row: int) -> Random:
    """Return the random numbers of a row: only `random()` never changes between versions of Python."""
    return Random(f"{seed} {row}")


def draw_texts(source: Replacements, num_samples: int, probability: float, random: Random) -> list[str]:
    """Return the text and up to `num_samples` others, all different.

    For each of them every word that may be replaced gets one of its candidates, drawn uniformly, and then takes its
    place with `probability`. Where a text comes out that is there already, there is one less.

    Args:
        source: The text with its candidates.
        num_samples: How many are drawn.
        probability: Of a replacement.
        random: The row's random numbers.

    Returns:
        The untouched text first; the others are their words with blanks between them.
    """
    drawn = {source.text: None}
    open_words = [(index, found) for index, found in enumerate(source.candidates) if found]
    for _ in range(num_samples):
        words = list(source.words)
        for index, found in open_words:
            chosen = found[int(random.random() * len(found))]
            if random.random() < probability:
                words[index] = chosen
        drawn[join_words(words)] = None
    return list(drawn)


def draw_row(
    columns: Sequence[Replacements], num_samples: int, probability: float, random: Random, *, keep_last: bool
) -> list[tuple[str, ...]]:
    """Return a row of one text or two, and what is drawn from it.

    One text after the other is replaced. While the second is, the first is what it was. In TinyBERT's code the first
    stays as it was drawn last, so that row comes twice, and the first text as it is never meets a drawn second one:
    `keep_last` does so too.

    Args:
        columns: One text, or the two of a pair.
        num_samples: Draws per text.
        probability: Of a replacement.
        random: The row's random numbers.
        keep_last: Whether the first text keeps what was drawn last.

    Returns:
        Rows of as many texts as there are columns, the untouched one first.
    """
    first = draw_texts(columns[0], num_samples, probability, random)
    if len(columns) == 1:
        return [(text,) for text in first]
    second = draw_texts(columns[1], num_samples, probability, random)
    # The untouched second text with the untouched first is there already.
    beside, others = (first[-1], second) if keep_last else (columns[0].text, second[1:])
    return [*((text, columns[1].text) for text in first), *((beside, text) for text in others)]
