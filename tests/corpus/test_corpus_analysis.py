"""Terms: the same for running and for pre-split text, for one text and for many, in every process."""

import pickle

import numpy as np
import pytest
from datasets.fingerprint import Hasher

from hf_distill.corpus.analysis import Analyzer, _spaced_words, stop_words, words


@pytest.fixture(scope="module")
def analyzer():
    return Analyzer()


def test_words_are_lower_cased_without_stop_words_and_stemmed(analyzer):
    assert analyzer.tokens("The cats were running towards 3 Houses!") == ["cat", "run", "toward", "3", "hous"]


def test_stop_words_go_before_stemming(analyzer):
    # Stemmed first, they would be `becaus`, `dure`, `have` and stay.
    assert analyzer.tokens("because during having") == []


def test_pre_split_and_running_text_give_the_same_terms(analyzer):
    assert analyzer.tokens("it 's fun , do n't wait") == analyzer.tokens("It's fun, don't wait") == ["fun", "wait"]


def test_composed_and_decomposed_letters_are_one(analyzer):
    assert analyzer.tokens("cafe\u0301 na\u00efve") == analyzer.tokens("caf\u00e9 nai\u0308ve")
    assert words("\uff26ull \ufb01sh") == ["full", "fish"]


def test_underscores_separate():
    assert words("snake_case __x__") == ["snake", "case", "x"]


TEXTS = [
    "The red fox",
    "",
    "  ",
    "!!!",
    "of the and",
    "fox Fox FOXES",
    "caf\u00e9_bar \u4e2d\u6587",
    "x\u00a0y\u3000z",
    "red",
]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_streams_are_the_tokens_of_every_text_whatever_the_batches(analyzer, size):
    streams = analyzer.encode([TEXTS[start : start + size] for start in range(0, len(TEXTS), size)])
    assert list(streams.texts()) == [analyzer.tokens(text) for text in TEXTS]
    assert streams.num_texts == len(TEXTS)
    assert streams.checksum() == analyzer.encode([TEXTS]).checksum()


def test_no_row_that_arrow_splits_ends_in_a_blank():
    # At the end of a batch Arrow would read beyond its memory, and keep the blank in the word if it finds no text.
    assert [_spaced_words(text) for text in ("ancient Greece.", "!?", "caf\u00e9 ", "")] == [
        "ancient greece",
        "",
        "caf\u00e9",
        "",
    ]


def test_the_vocabulary_is_in_the_order_of_first_appearance(analyzer):
    assert analyzer.encode([["red fox", "blue red"]]).vocabulary == ["red", "fox", "blue"]


def test_no_text_at_all(analyzer):
    streams = analyzer.encode([[]])
    assert streams.num_texts == 0
    assert np.array_equal(streams.offsets, [0])


def test_other_text_has_another_checksum(analyzer):
    assert analyzer.encode([["red fox"]]).checksum() != analyzer.encode([["red", "fox"]]).checksum()


def test_an_analyzer_travels_as_its_settings(analyzer):
    used = Analyzer()
    used.tokens("many words that fill the cache")
    assert Hasher.hash(used) == Hasher.hash(Analyzer())
    assert Hasher.hash(used) != Hasher.hash(Analyzer(stem=False))
    assert pickle.loads(pickle.dumps(used)).tokens("running cats") == ["run", "cat"]


def test_settings_tell_analyzers_apart():
    assert Analyzer().settings() == Analyzer("english").settings()
    assert Analyzer(stem=False).settings() != Analyzer().settings()
    assert Analyzer(stopwords=["fox"]).settings() != Analyzer().settings()


def test_own_stop_words_replace_the_list():
    assert Analyzer(stopwords=["fox"], stem=False).tokens("the fox runs") == ["the", "runs"]


def test_language_none_keeps_every_word_as_it_is():
    assert Analyzer("none").tokens("The Cats running") == ["the", "cats", "running"]


def test_contractions_are_stop_words_in_their_parts_too():
    assert {"don't", "don", "t", "n", "s", "the"} <= stop_words("english")
    assert "fox" not in stop_words("english")


def test_an_unknown_language_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'klingon' \(--language\).*english.*none"):
        Analyzer("klingon")
