"""One of equal texts."""

import numpy as np
import pytest

from hf_distill.corpus.build.duplicates import first_of_equal, hash_texts, normalize


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Fox, runs!", "the fox runs"),
        ("  the   fox\truns ", "the fox runs"),
        ("\uff34he fox-runs_", "the fox runs"),
        ("STRASSE", "strasse"),
        ("Stra\u00dfe", "strasse"),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940, \u092e\u0947\u0902",
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
        ),
        ("\u597d\uff0c\u7684\u3002", "\u597d \u7684"),
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
    stays = first_of_equal(hashes, priority)
    assert stays.tolist() == [2, 1, 2, 2, 4]
    order = np.random.default_rng(0).permutation(5)
    assert np.array_equal(order[first_of_equal(hashes[order], priority[order])], stays[order])


def test_nothing_in_nothing_out():
    assert first_of_equal(np.empty(0, np.uint64), np.empty(0, np.int64)).tolist() == []
