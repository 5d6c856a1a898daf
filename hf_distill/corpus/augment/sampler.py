"""Samples augmented rows: words are replaced at random by their candidates (TinyBERT, data augmentation).

The random numbers of a row depend only on the seed and its row number, so it does not matter which rows came before or
which process draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from .words import join_words


@dataclass(frozen=True)
class Replacements:
    """A text and the possible replacements of its words.

    Attributes:
        text: The original text.
        words: Its words.
        candidates: For each word its possible replacements; empty for a word that stays.
    """

    text: str
    words: Sequence[str]
    candidates: Sequence[Sequence[str]]


def random_of(seed: int, row: int) -> Random:
    """Return the random generator of a row; use only `random()`, which is stable between versions of Python."""
    return Random(f"{seed} {row}")


def draw_texts(source: Replacements, num_samples: int, probability: float, random: Random) -> list[str]:
    """Return the text and up to `num_samples` different variants.

    For each variant, every replaceable word draws one of its candidates uniformly and is replaced by it with
    `probability`. A variant that already exists is dropped.

    Args:
        source: The text with its candidates.
        num_samples: Number of variants that are drawn.
        probability: Probability of a replacement.
        random: The row's random generator.

    Returns:
        The original text first; the variants are their words joined with blanks.
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
    """Return a row of one or two texts, and the rows drawn from it.

    The texts are replaced one after the other. While the second is replaced, the first is the original. In TinyBERT's
    code, the first text keeps its last variant instead: that row occurs twice, and the original first text never
    occurs with a replaced second text. `keep_last` reproduces this.

    Args:
        columns: One text, or the two texts of a pair.
        num_samples: Variants of each text.
        probability: Probability of a replacement.
        random: The row's random generator.
        keep_last: Whether the first text keeps its last variant.

    Returns:
        Rows with as many texts as there are columns, the original row first.
    """
    first = draw_texts(columns[0], num_samples, probability, random)
    if len(columns) == 1:
        return [(text,) for text in first]
    second = draw_texts(columns[1], num_samples, probability, random)
    # The row of both original texts is already there.
    beside, others = (first[-1], second) if keep_last else (columns[0].text, second[1:])
    return [*((text, columns[1].text) for text in first), *((beside, text) for text in others)]
