"""Scores of answers in seven languages, as the official script of MLQA defines them (Lewis et al. 2020, section 5).

SQuAD 1.1's scores with a normalisation per language: all Unicode punctuation, the language's own articles, and Chinese
counted by characters. The language is that of the answer. Scores are fractions; the script prints percentages.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata

from hf_distill.tasks.metrics.answers import Predictions, References, bag_f1, mean_of_best

# The Arabic article goes wherever its two letters stand, also inside a word: the script's anchored alternative never
# matches, the bare one always does.
_ARTICLES = {
    "en": re.compile(r"\b(?:a|an|the)\b"),
    "es": re.compile(r"\b(?:un|una|unos|unas|el|la|los|las)\b"),
    "hi": None,
    "vi": re.compile(r"\b(?:của|là|cái|chiếc|những)\b"),
    "de": re.compile(r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "ar": re.compile("ال"),
    "zh": None,
}
MLQA_LANGUAGES = tuple(_ARTICLES)
_CHINESE = re.compile("([\u4e00-\u9fa5])")


def mlqa_scores(predictions: Predictions, references: References, language: str) -> dict[str, float]:
    """`exact_match` and `f1` of MLQA for answers in one language.

    Args:
        predictions: Id -> answer. A question without one scores 0; ids that are not asked for do not count.
        references: Id -> gold answers; the best of them counts.
        language: One of `MLQA_LANGUAGES`.

    Raises:
        ValueError: If the language is none of them, or there is no question, or one without gold answers.
    """
    normalize = functools.partial(normalize_answer, language=check_language(language))
    return mean_of_best(
        predictions,
        references,
        {
            "exact_match": lambda prediction, answer: float(normalize(prediction) == normalize(answer)),
            "f1": lambda prediction, answer: bag_f1(normalize(prediction).split(), normalize(answer).split()),
        },
    )


def normalize_answer(text: str, language: str) -> str:
    """Lower case, without punctuation, articles of the language and superfluous white space, in this order.

    In Chinese a space stands around every character from U+4E00 to U+9FA5.
    """
    text = "".join(character for character in text.lower() if not _is_punctuation(character))
    articles = _ARTICLES[language]
    if articles is not None:
        text = articles.sub(" ", text)
    if language == "zh":
        text = _CHINESE.sub(r" \1 ", text)
    return " ".join(text.split())


def check_language(language: str) -> str:
    """The language, if MLQA has it.

    Raises:
        ValueError: If not.
    """
    if language not in _ARTICLES:
        raise ValueError(f"MLQA has no language {language!r}; allowed are {', '.join(MLQA_LANGUAGES)}.")
    return language


@functools.lru_cache(maxsize=65536)
def _is_punctuation(character: str) -> bool:
    """Whether a character is punctuation in ASCII's or in Unicode's sense."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")
