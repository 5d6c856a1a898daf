"""Scores of Chinese answers as the official script of CMRC 2018 defines them; DRCD is scored by it too.

They differ from SQuAD's scores: F1 is computed from the longest common contiguous *run* of tokens, not from bags of
words, and a token is one Chinese character or one word of the text between. Cui et al. 2019, section 4.1. Scores are
fractions; the script prints percentages. The script splits words with NLTK; `words` here follows the same conventions
(Penn Treebank) without NLTK.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hf_distill.tasks.metrics.answers import Predictions, References, mean_of_best, overlap_f1

# The script's list. Its `……` is two characters and never equals a single one, so the ellipsis is kept.
_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_SEGMENTS = re.compile("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+")

_CLITIC_AHEAD = r"(?:re|ve|ll|m|t|s|d|n)\b"
# Applied in this order. Double quotes become `` where they open and '' where they close.
_WORD_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([«‘„])", r" \1 "),
        (r'^"', " `` "),
        (r"(?<=[ (\[{<])(?:\"|'')", " `` "),
        # An apostrophe before a word, unless it belongs to a clitic.
        (rf"(?<!\w)'(?!{_CLITIC_AHEAD})(?=\w)", "' "),
        # The final full stop; full stops inside stay with their words (`s.k. ito`).
        (r"(?<=[^.])\.(?=[\])}>\"'» ]*\s*$)", " . "),
        # A comma inside a number stays.
        (r",(\D|$)", r" , \1"),
        (r"(\.{2,}|[;@#$%&?!\u2012-\u2015])", r" \1 "),
        (r"(?<=[^'])'(?= )", " '"),
        (r"([()\[\]{}<>])", r" \1 "),
        (r"»", " » "),
        (r"\"|''", " '' "),
        (r"(?<=[^'\s])('[smd]|')(?!\S)", r" \1"),
        (r"(?<=[^'\s])('ll|'re|'ve|n't)(?!\S)", r" \1"),
        (r"\b(can)(not)\b", r" \1 \2 "),
        (r"\b(gim|lem)(me)\b", r" \1 \2 "),
        (r"\b(gon)(na)\b", r" \1 \2 "),
        (r"\b(got)(ta)\b", r" \1 \2 "),
        (r"\b(d)('ye)\b", r" \1 \2 "),
        (r"\b(more)('n)\b", r" \1 \2 "),
        (r"\b(wan)(na)(?!\S)", r" \1 \2 "),
    )
)


def cmrc_scores(predictions: Predictions, references: References) -> dict[str, float]:
    """`exact_match` and `f1` of CMRC 2018 and DRCD.

    Args:
        predictions: Id -> answer. A question without a prediction scores 0; unknown ids are ignored.
        references: Id -> gold answers; the best match counts.

    Raises:
        ValueError: If there is no question, or a question has no gold answer.
    """
    return mean_of_best(predictions, references, {"exact_match": exact_match, "f1": substring_f1})


def exact_match(prediction: str, answer: str) -> float:
    """1.0 if both are equal in lower case without punctuation, else 0.0."""
    return float(remove_punctuation(prediction) == remove_punctuation(answer))


def substring_f1(prediction: str, answer: str) -> float:
    """F1 from the length of the longest common run of tokens; 0.0 if one or both are empty."""
    predicted, gold = mixed_segmentation(prediction), mixed_segmentation(answer)
    return overlap_f1(longest_common_run(predicted, gold), len(predicted), len(gold))


def remove_punctuation(text: str) -> str:
    """Lower the case, strip, and remove the script's list of punctuation marks (ASCII commas and full stops stay)."""
    return text.lower().strip().translate(_PUNCTUATION)


def mixed_segmentation(text: str) -> list[str]:
    """Tokens without punctuation: every Chinese character (U+4E00 to U+9FA5), and every word of the text between.

    Punctuation is removed first, which joins its two sides (`3-4` becomes the token `34`).
    """
    segments: list[str] = []
    for piece in _SEGMENTS.findall(remove_punctuation(text)):
        if "\u4e00" <= piece[0] <= "\u9fa5":
            segments.append(piece)
        else:
            segments.extend(words(piece))
    return segments


def words(text: str) -> list[str]:
    """Words and punctuation of lower-case text, by the conventions of the Penn Treebank.

    The text is treated as one sentence: only its final full stop is a separate token.
    """
    for pattern, replacement in _WORD_RULES:
        text = pattern.sub(replacement, text)
    return text.split()


def longest_common_run(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest contiguous sequence of tokens that occurs in both."""
    longest = 0
    before = [0] * (len(right) + 1)
    for token in left:
        # runs[j + 1]: length of the common run that ends at this token and at right[j].
        runs = [0, *(before[j] + 1 if token == other else 0 for j, other in enumerate(right))]
        longest = max(longest, *runs)
        before = runs
    return longest
