"""Nothing of validation and test sets: no equal row, none that holds such a text, none that shares an n-gram."""

import numpy as np
import pytest

from hf_distill.corpus.build.duplicates import EvaluationTexts, hash_texts, ngram_hashes, normalize


def equal(evaluation, texts):
    return evaluation.equal(hash_texts(normalize(text) for text in texts)).tolist()


def test_evaluation_texts_are_found_without_case_and_punctuation():
    evaluation = EvaluationTexts(["A fine film .", None, "", "dull"])
    assert evaluation.num_texts == 2
    assert equal(evaluation, ["a FINE film", "fine film", "Dull!"]) == [True, False, True]


def test_without_evaluation_texts_nothing_is_found():
    assert equal(EvaluationTexts([]), ["a", "b"]) == [False, False]


def test_the_checksum_does_not_depend_on_order_and_repeats():
    assert EvaluationTexts(["a b", "c"]).checksum == EvaluationTexts(["C", "a b", "a, b"]).checksum
    assert EvaluationTexts(["a b"]).checksum != EvaluationTexts(["c"]).checksum


LONG = "one two three four five six seven eight nine"


def test_long_evaluation_texts_are_found_inside_longer_rows():
    evaluation = EvaluationTexts([LONG, "a short one"], contains=True)
    texts = [f"He said: {LONG}, twice.", f"{LONG}teen and more", "this is a short one too", LONG.upper(), "x"]
    assert evaluation.contained([normalize(text) for text in texts]).tolist() == [True, False, False, True, False]


def test_containment_is_not_looked_for_unless_asked():
    assert EvaluationTexts([LONG]).contained([f"x {LONG} y"]).tolist() == [False]


def test_in_scripts_without_spaces_characters_are_the_words():
    evaluation = EvaluationTexts(
        ["\u6211\u975e\u5e38\u559c\u6b22\u8fd9\u90e8\u7535\u5f71\u3002", "\u7535\u5f71"], contains=True
    )
    texts = [
        "\u4ed6\u8bf4\u6211\u975e\u5e38\u559c\u6b22\u8fd9\u90e8\u7535\u5f71\u4e86",
        "\u7535\u5f71\u597d",
        "\u6211\u559c\u6b22",
    ]
    assert evaluation.contained([normalize(text) for text in texts]).tolist() == [True, False, False]


def plain_ngrams(text, n):
    words = normalize(text).split()
    return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}


@pytest.mark.parametrize("n", [1, 3, 5, 13])
def test_shared_ngrams_are_those_of_a_plain_loop(n):
    random = np.random.default_rng(n)
    evaluation = [" ".join(random.choice(list("abcdef"), random.integers(1, 20))) for _ in range(30)]
    texts = [" ".join(random.choice(list("ABCDEF"), random.integers(0, 25))) for _ in range(200)]
    known = set().union(*(plain_ngrams(text, n) for text in evaluation))
    expected = [bool(plain_ngrams(text, n) & known) for text in texts]
    found = EvaluationTexts(evaluation, ngram=n).shared([normalize(text) for text in texts])
    assert found.tolist() == expected
    assert n == 13 or any(expected)


def test_an_ngram_never_reaches_into_the_next_text():
    evaluation = EvaluationTexts(["a b c d"], ngram=3)
    assert evaluation.shared(["x a b", "c d x", "", "b c d"]).tolist() == [False, False, False, True]


def test_evaluation_texts_shorter_than_an_ngram_are_only_compared_as_a_whole():
    evaluation = EvaluationTexts(["a fine film"], ngram=5)
    assert evaluation.shared(["it is a fine film indeed"]).tolist() == [False]
    assert equal(evaluation, ["A fine film!"]) == [True]


def test_ngrams_are_not_looked_for_unless_asked():
    assert EvaluationTexts([LONG]).shared([LONG]).tolist() == [False]
    assert EvaluationTexts([], ngram=3).shared([LONG]).tolist() == [False]


def test_the_order_of_the_words_counts():
    hashes, owners = ngram_hashes(["a b", "b a", "a b c"], 2)
    assert owners.tolist() == [0, 1, 2, 2]
    assert hashes[0] == hashes[2] != hashes[1]
