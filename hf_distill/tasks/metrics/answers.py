"""Scores of extractive answers, as the official scripts of SQuAD 1.1 and SQuAD 2.0 define them.

Predictions and gold answers are mappings from question ids. Scores are fractions; the official scripts print
percentages. Rajpurkar et al. 2016, section 6.1 (exact match and F1); Rajpurkar et al. 2018 (no-answer questions).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

AnswerScore = Callable[[str, str], float]
Predictions = Mapping[str, str]
References = Mapping[str, Sequence[str]]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower the case, then remove ASCII punctuation, English articles and superfluous white space, in this order.

    Punctuation is removed without a space, so `well-known` becomes one word, and `u.s.` becomes `us`.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1.0 if both are the same after normalisation, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def token_f1(prediction: str, answer: str) -> float:
    """F1 of the two bags of words after normalisation; 0.0 if one or both of them are empty."""
    return bag_f1(normalize_answer(prediction).split(), normalize_answer(answer).split())


def bag_f1(prediction: Sequence[str], answer: Sequence[str]) -> float:
    """F1 of two bags of tokens; 0.0 if they share none."""
    shared = (Counter(prediction) & Counter(answer)).total()
    return overlap_f1(shared, len(prediction), len(answer))


def overlap_f1(shared: int, predicted: int, gold: int) -> float:
    """Harmonic mean of `shared / predicted` and `shared / gold`; 0.0 if nothing is shared."""
    if not shared:
        return 0.0
    # The operations and their order are those of the official scripts: the threshold search compares running sums
    # exactly.
    precision, recall = shared / predicted, shared / gold
    return (2 * precision * recall) / (precision + recall)


def squad_scores(predictions: Predictions, references: References) -> dict[str, float]:
    """`exact_match` and `f1` of SQuAD 1.1.

    Args:
        predictions: Id -> answer. A question without a prediction scores 0; unknown ids are ignored.
        references: Id -> gold answers; the best match counts.

    Raises:
        ValueError: If there is no question, or a question has no gold answer.
    """
    return mean_of_best(predictions, references, {"exact_match": exact_match, "f1": token_f1})


def mean_of_best(
    predictions: Predictions, references: References, scores: Mapping[str, AnswerScore]
) -> dict[str, float]:
    """Mean of every score over all questions; for each question the best match among its gold answers counts.

    Raises:
        ValueError: If there is no question, or a question has no gold answer.
    """
    _check_questions(references)
    unanswerable = [question for question, answers in references.items() if not answers]
    if unanswerable:
        raise ValueError(
            f"{len(unanswerable)} questions have no gold answer, the first is {unanswerable[0]!r}; "
            "questions without an answer need the scores of SQuAD 2.0 (`squad_v2_scores`)."
        )
    answered = [(predictions[question], gold) for question, gold in references.items() if question in predictions]
    return {
        name: sum(max(score(prediction, answer) for answer in gold) for prediction, gold in answered) / len(references)
        for name, score in scores.items()
    }


def squad_v2_scores(
    predictions: Predictions,
    references: References,
    no_answer_probabilities: Mapping[str, float] | None = None,
    no_answer_threshold: float = 1.0,
) -> dict[str, float]:
    """Scores of SQuAD 2.0, with the names that its official script uses.

    A gold answer that is empty after normalisation is ignored. If none is left, the only correct prediction is one
    that is empty after normalisation too (exact match and F1 1.0). A question whose no-answer probability is above
    `no_answer_threshold` counts as answered with "no answer".

    Args:
        predictions: Id -> answer, empty for "no answer". Every question needs a prediction.
        references: Id -> gold answers; empty for a question without an answer.
        no_answer_probabilities: Id -> any number that grows with the model's belief that there is no answer. In the
            search for the best threshold, ties are broken by the order of this mapping.
        no_answer_threshold: On the scale of the probabilities.

    Returns:
        `exact`, `f1`, `total`; the same for the questions with (`HasAns_`) and without an answer (`NoAns_`), if there
        are any. With probabilities also `best_exact`, `best_exact_thresh`, `best_f1` and `best_f1_thresh`: the scores
        at the threshold that is best on these very questions.

    Raises:
        ValueError: If there is no question, a question lacks a prediction or a probability, or a probability is NaN.
    """
    _check_questions(references)
    _check_complete("prediction", references, predictions, 'predict "" for no answer')
    if no_answer_probabilities is not None:
        _check_complete("no-answer probability", references, no_answer_probabilities, "give all or none")
        if any(math.isnan(no_answer_probabilities[question]) for question in references):
            raise ValueError("A no-answer probability is NaN: the model's scores are not finite.")
    has_answer = {question: bool(answers) for question, answers in references.items()}
    raw = {name: _v2_raw(score, predictions, references) for name, score in _V2_SCORES.items()}
    final = raw
    if no_answer_probabilities is not None:
        refused = {question for question in references if no_answer_probabilities[question] > no_answer_threshold}
        final = {
            name: {key: float(not has_answer[key]) if key in refused else value for key, value in scores.items()}
            for name, scores in raw.items()
        }
    results = _v2_means(final, references)
    for prefix, kind in (("HasAns_", True), ("NoAns_", False)):
        chosen = [question for question in references if has_answer[question] is kind]
        if chosen:
            results |= {prefix + name: value for name, value in _v2_means(final, chosen).items()}
    if no_answer_probabilities is not None:
        for name, scores in raw.items():
            best, threshold = _best_threshold(scores, predictions, no_answer_probabilities, has_answer)
            results |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return results


def _v2_f1(prediction: str, answer: str) -> float:
    """Token F1, which is 1.0 if both are empty after normalisation."""
    return 1.0 if not normalize_answer(prediction) and not normalize_answer(answer) else token_f1(prediction, answer)


_V2_SCORES: dict[str, AnswerScore] = {"exact": exact_match, "f1": _v2_f1}


def _v2_raw(score: AnswerScore, predictions: Predictions, references: References) -> dict[str, float]:
    """Score of every question before any threshold; the best match among its gold answers counts."""
    best = {}
    for question, answers in references.items():
        golds = [answer for answer in answers if normalize_answer(answer)] or [""]
        best[question] = max(score(predictions[question], gold) for gold in golds)
    return best


def _v2_means(scores: Mapping[str, Mapping[str, float]], questions: Iterable[str]) -> dict[str, float]:
    """Mean of every score over a set of questions, and their number."""
    chosen = list(questions)
    means = {name: sum(values[key] for key in chosen) / len(chosen) for name, values in scores.items()}
    return means | {"total": len(chosen)}


def _best_threshold(
    scores: Mapping[str, float],
    predictions: Predictions,
    no_answer_probabilities: Mapping[str, float],
    has_answer: Mapping[str, bool],
) -> tuple[float, float]:
    """Best mean score over all thresholds, and its threshold (0.0 if answering "no answer" everywhere is best).

    The search starts with "no answer" for every question and accepts the predictions one by one in the order of their
    probabilities. As in the official script, the best point may lie between questions of equal probability; then no
    threshold reaches it.
    """
    current = best = float(sum(not known for known in has_answer.values()))
    threshold = 0.0
    for question in sorted(no_answer_probabilities, key=lambda key: no_answer_probabilities[key]):
        if question not in scores:
            continue
        if has_answer[question]:
            current += scores[question]
        elif predictions[question]:
            current -= 1.0
        if current > best:
            best, threshold = current, no_answer_probabilities[question]
    return best / len(scores), threshold


def _check_questions(references: References) -> None:
    """Refuse an empty evaluation."""
    if not references:
        raise ValueError("There is no question to score: the references are empty.")


def _check_complete(what: str, references: References, given: Mapping[str, object], advice: str) -> None:
    """Refuse questions without a prediction or probability, which the script of SQuAD 2.0 cannot score."""
    missing = [question for question in references if question not in given]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(references)} questions have no {what}, the first is {missing[0]!r}; {advice}."
        )
