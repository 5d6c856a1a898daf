"""Scores of answers in seven languages, as the official script of MLQA defines them (Lewis et al. 2020, section 5).

These are SQuAD 1.1's scores with a normalisation for each language: all Unicode punctuation is removed, the language's
own articles are removed, and Chinese is split into characters. The language is that of the answer. Scores are
fractions; the script prints percentages.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata

from hf_distill.tasks.metrics.answers import Predictions, References, bag_f1, mean_of_best

# The Arabic article is removed wherever its two letters stand, even inside a word: the script's anchored alternative
# never matches, and the bare one always does.
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
        predictions: Id -> answer. A question without a prediction scores 0; unknown ids are ignored.
        references: Id -> gold answers; the best match counts.
        language: One of `MLQA_LANGUAGES`.

    Raises:
        ValueError: If the language is not one of them, there is no question, or a question has no gold answer.
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
    """Lower the case, then remove punctuation, the language's articles and superfluous white space, in this order.

    In Chinese, every character from U+4E00 to U+9FA5 is surrounded by spaces.
    """
    text = "".join(character for character in text.lower() if not _is_punctuation(character))
    articles = _ARTICLES[language]
    if articles is not None:
        text = articles.sub(" ", text)
    if language == "zh":
        text = _CHINESE.sub(r" \1 ", text)
    return " ".join(text.split())


def check_language(language: str) -> str:
    """Return the language if MLQA has it.

    Raises:
        ValueError: If it does not.
    """
    if language not in _ARTICLES:
        raise ValueError(f"MLQA has no language {language!r}; allowed are {', '.join(MLQA_LANGUAGES)}.")
    return language


@functools.lru_cache(maxsize=65536)
def _is_punctuation(character: str) -> bool:
    """Whether a character is punctuation in ASCII or in Unicode."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")
