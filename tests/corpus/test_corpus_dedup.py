"""One of equal texts, and none of the evaluation texts."""

import numpy as np
import pytest

from hf_distill.corpus.dedup import EvaluationTexts, first_of_equal, hash_texts, normalize


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Fox, runs!", "the fox runs"),
        ("  the   fox\truns ", "the fox runs"),
        ("\uff34he fox-runs_", "the fox runs"),
        ("STRASSE", "strasse"),
        ("Stra\u00dfe", "strasse"),
        ("!!!", "!!!"),
        ("", ""),
    ],
)
def test_normalisation_keeps_the_words_only(text, normalized):
    assert normalize(text) == normalized


def test_texts_without_words_are_not_all_the_same():
    assert normalize("!!!") != normalize("???")


def test_hashes_are_those_of_the_bytes():
    hashes = hash_texts(["a", "b", "a", "\ud800"])
    assert hashes.dtype == np.uint64
    assert hashes[0] == hashes[2] != hashes[1]


def test_the_text_of_lowest_priority_stays_whatever_the_order():
    hashes = np.array([7, 8, 7, 7, 9], dtype=np.uint64)
    priority = np.array([5, 1, 2, 9, 0])
    kept = first_of_equal(hashes, priority)
    assert kept.tolist() == [False, True, True, False, True]
    order = np.random.default_rng(0).permutation(5)
    assert np.array_equal(first_of_equal(hashes[order], priority[order]), kept[order])


def test_nothing_in_nothing_out():
    assert first_of_equal(np.empty(0, np.uint64), np.empty(0, np.int64)).tolist() == []


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
