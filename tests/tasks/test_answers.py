"""Answer scores of SQuAD 1.1 and 2.0: what the official scripts define, case by case and against a plain reference."""

import random
import re

import pytest

from hf_distill.tasks.metrics.answers import exact_match, normalize_answer, squad_scores, squad_v2_scores, token_f1

WORDS = "the a an cat Cat, dog dog. U.S. us well-known wellknown 1976 théâtre".split()


def plain_words(text):
    """Normalised words, character by character."""
    kept = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return [word for word in re.split(r"\s+", re.sub(r"\b(a|an|the)\b", " ", kept)) if word]


def plain_f1(prediction, answer, both_empty):
    ours, theirs = plain_words(prediction), plain_words(answer)
    if not ours or not theirs:
        return both_empty if ours == theirs else 0.0
    left, shared = list(theirs), 0
    for word in ours:
        if word in left:
            left.remove(word)
            shared += 1
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def plain_v2(predictions, references, probabilities, threshold):
    """SQuAD 2.0 for every subset of questions, and every cut of the ranking in turn."""
    best = {}
    for score in ("exact", "f1"):
        best[score] = {}
        for question, golds in references.items():
            golds = [gold for gold in golds if plain_words(gold)] or [""]
            prediction = predictions[question]
            each = [
                float(plain_words(prediction) == plain_words(g)) if score == "exact" else plain_f1(prediction, g, 1.0)
                for g in golds
            ]
            best[score][question] = max(each)
    results = {}
    has_answer = {question: len(golds) > 0 for question, golds in references.items()}
    parts = {"": None, "HasAns_": True, "NoAns_": False}
    for prefix, kind in parts.items():
        chosen = [question for question in references if kind is None or has_answer[question] == kind]
        if not chosen:
            continue
        for score in best:
            values = [float(not has_answer[q]) if probabilities[q] > threshold else best[score][q] for q in chosen]
            results[prefix + score] = sum(values) / len(chosen)
        results[prefix + "total"] = len(chosen)
    ranking = sorted(probabilities, key=probabilities.get)
    for score in best:
        sums = [float(sum(not has for has in has_answer.values()))]
        for question in ranking:
            gain = best[score][question] if has_answer[question] else (-1.0 if predictions[question] else 0.0)
            sums.append(sums[-1] + gain)
        cut = sums.index(max(sums))
        results[f"best_{score}"] = sums[cut] / len(references)
        results[f"best_{score}_thresh"] = probabilities[ranking[cut - 1]] if cut else 0.0
    return results


def draw(seed):
    generator = random.Random(seed)

    def phrase():
        return " ".join(generator.choices(WORDS, k=generator.randint(0, 4)))

    references = {str(i): [phrase() for _ in range(generator.randint(0, 3))] for i in range(60)}
    predictions = {
        i: generator.choice(golds) if golds and generator.random() < 0.4 else phrase()
        for i, golds in references.items()
    }
    # Quarters, so that many are equal and sums are exact.
    probabilities = {i: generator.randint(0, 8) / 4 for i in generator.sample(sorted(references), 60)}
    return predictions, references, probabilities


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The  Cat, and\ta dog!", "cat and dog"),
        ("well-known U.S. firms", "wellknown us firms"),
        ("another theatre", "another theatre"),
        ("a", ""),
        ("...", ""),
        ("“Théâtre”", "“théâtre”"),
        ("a.n", ""),
        ("the_a", "thea"),
    ],
)
def test_normalisation(text, normalised):
    assert normalize_answer(text) == normalised


@pytest.mark.parametrize("seed", range(10))
def test_scores_of_squad_1_equal_the_plain_definition(seed):
    predictions, references, _ = draw(seed)
    references = {question: golds for question, golds in references.items() if golds}
    predictions = {question: text for question, text in predictions.items() if int(question) % 7}
    exact = f1 = 0.0
    for question, golds in references.items():
        if question in predictions:
            text = predictions[question]
            exact += max(plain_words(text) == plain_words(gold) for gold in golds)
            f1 += max(plain_f1(text, gold, 0.0) for gold in golds)
    expected = {"exact_match": exact / len(references), "f1": f1 / len(references)}
    assert squad_scores(predictions, references) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_scores_of_squad_2_equal_the_plain_definition(seed, threshold):
    predictions, references, probabilities = draw(seed)
    expected = plain_v2(predictions, references, probabilities, threshold)
    scores = squad_v2_scores(predictions, references, probabilities, threshold)
    assert scores.keys() == expected.keys()
    assert scores == pytest.approx(expected, abs=1e-12)


def test_the_best_gold_answer_counts_and_may_differ_between_scores():
    references = {"q": ["the big red fox", "fox"]}
    assert squad_scores({"q": "fox"}, references) == {"exact_match": 1.0, "f1": 1.0}
    assert squad_scores({"q": "red fox"}, references) == {"exact_match": 0.0, "f1": pytest.approx(0.8)}


def test_words_that_repeat_count_as_often_as_both_have_them():
    assert token_f1("dog dog dog", "dog cat") == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


def test_in_squad_1_two_empty_answers_match_but_have_no_f1():
    assert squad_scores({"q": "the"}, {"q": ["..."]}) == {"exact_match": 1.0, "f1": 0.0}


def test_in_squad_1_a_missing_prediction_scores_zero_and_an_extra_one_does_not_count():
    scores = squad_scores({"a": "cat", "extra": "dog"}, {"a": ["cat"], "b": ["dog"]})
    assert scores == {"exact_match": 0.5, "f1": 0.5}
    assert squad_scores({}, {"a": ["cat"]}) == {"exact_match": 0.0, "f1": 0.0}


def test_in_squad_2_nothing_is_right_only_where_there_is_no_answer():
    references = {"has": ["cat"], "has_not": []}
    assert squad_v2_scores({"has": "", "has_not": ""}, references) == {
        "exact": 0.5,
        "f1": 0.5,
        "total": 2,
        "HasAns_exact": 0.0,
        "HasAns_f1": 0.0,
        "HasAns_total": 1,
        "NoAns_exact": 1.0,
        "NoAns_f1": 1.0,
        "NoAns_total": 1,
    }
    assert squad_v2_scores({"has": "cat", "has_not": "cat"}, references)["NoAns_f1"] == 0.0
    assert squad_v2_scores({"has": "cat", "has_not": "the"}, references)["NoAns_exact"] == 1.0


def test_in_squad_2_golds_that_are_empty_after_normalisation_do_not_count():
    assert squad_v2_scores({"q": ""}, {"q": ["the", "cat"]})["exact"] == 0.0
    # With none left, nothing is right; yet the question still counts as one with an answer.
    scores = squad_v2_scores({"q": ""}, {"q": ["the"]})
    assert (scores["exact"], scores["f1"], scores["HasAns_total"]) == (1.0, 1.0, 1)


def test_the_threshold_is_passed_only_from_above():
    references, predictions = {"q": []}, {"q": "cat"}
    assert squad_v2_scores(predictions, references, {"q": 0.7}, 0.7)["exact"] == 0.0
    assert squad_v2_scores(predictions, references, {"q": 0.7}, 0.69)["exact"] == 1.0


def test_the_best_threshold_lets_the_right_questions_through():
    references = {"sure": ["cat"], "unsure": [], "wrong": ["dog"]}
    predictions = {"sure": "cat", "unsure": "cat", "wrong": "cat"}
    scores = squad_v2_scores(predictions, references, {"sure": 0.1, "unsure": 0.8, "wrong": 0.9})
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (pytest.approx(2 / 3), 0.1)
    at_best = squad_v2_scores(predictions, references, {"sure": 0.1, "unsure": 0.8, "wrong": 0.9}, 0.1)
    assert at_best["exact"] == scores["best_exact"]
    none = squad_v2_scores({"q": "cat"}, {"q": []}, {"q": 0.4})
    assert (none["best_f1"], none["best_f1_thresh"]) == (1.0, 0.0), "answering nothing is best"


def test_among_equal_probabilities_their_own_order_decides():
    references, predictions = {"has": ["cat"], "has_not": []}, {"has": "cat", "has_not": "cat"}
    first = squad_v2_scores(predictions, references, {"has": 0.5, "has_not": 0.5})
    last = squad_v2_scores(predictions, references, {"has_not": 0.5, "has": 0.5})
    assert (first["best_exact"], last["best_exact"]) == (1.0, 0.5)


def test_what_cannot_be_scored_is_an_error():
    with pytest.raises(ValueError, match="no question"):
        squad_scores({}, {})
    with pytest.raises(ValueError, match=r"1 questions have no gold answer.*'q'.*squad_v2_scores"):
        squad_scores({"q": "cat"}, {"q": []})
    with pytest.raises(ValueError, match="1 of 2 questions have no prediction, the first is 'b'"):
        squad_v2_scores({"a": ""}, {"a": [], "b": []})
    with pytest.raises(ValueError, match="have no no-answer probability"):
        squad_v2_scores({"a": ""}, {"a": []}, {})
    with pytest.raises(ValueError, match="NaN"):
        squad_v2_scores({"a": ""}, {"a": []}, {"a": float("nan")})


def test_every_text_matches_itself():
    for text in WORDS:
        assert exact_match(text, text) == 1.0
