"""RAKE against examples worked by hand."""

import importlib.util

import pytest

from hf_distill.corpus.build.anchors import content_words, make_query, rake_phrases
from hf_distill.corpus.text.analysis import Analyzer, stop_words

STOP = {"of", "the", "and", "is", "a", "over", "it", "to", "s"}


def test_phrases_are_runs_without_stop_words_and_punctuation():
    # Frequencies: all 1. Degrees: deep, convolutional, networks 3; compatibility, systems 2; linear 1.
    text = "Compatibility systems of linear, deep convolutional networks"
    assert rake_phrases(text, STOP) == ["deep convolutional networks", "compatibility systems", "linear"]


def test_a_word_scores_degree_over_frequency():
    # Phrases: "red fox", "red", "fox jumps high".
    # red: degree 2 + 1 = 3, frequency 2 -> 1.5; fox: 2 + 3 = 5, 2 -> 2.5; jumps, high: 3 / 1 = 3.
    # "red fox" 4.0, "red" 1.5, "fox jumps high" 8.5.
    text = "red fox is red and the fox jumps high"
    assert rake_phrases(text, STOP) == ["fox jumps high", "red fox", "red"]


def test_a_repeated_phrase_is_listed_as_often_as_it_occurs():
    # red: degree 2, frequency 2 -> 1 per phrase.
    assert rake_phrases("red, red and blue", STOP) == ["red", "red", "blue"]


def test_equal_scores_are_ordered_by_the_phrase_descending():
    assert rake_phrases("apple, pear, fig", STOP) == ["pear", "fig", "apple"]


def test_only_the_best_phrases_are_kept():
    text = "red fox is red and the fox jumps high"
    assert rake_phrases(text, STOP, 2) == ["fox jumps high", "red fox"]


def test_hyphens_and_apostrophes_stay_inside_words_and_end_phrases_at_their_rim():
    assert rake_phrases("non-rock ca'daan - it's -end-", STOP | {"it's"}) == ["non-rock ca'daan", "end"]


def test_punctuation_is_never_a_keyword():
    assert rake_phrases("(1980), ... --- _ !!", STOP) == ["1980"]


@pytest.mark.parametrize("text", ["", "   ", "it is of the", "!?"])
def test_a_text_without_keywords_gives_an_empty_query(text):
    assert make_query(text, "rake", STOP) == ""
    assert make_query(text, "content_words", STOP) == ""


def test_the_three_query_modes():
    text = "The red fox is red over it"
    assert make_query(text, "rake", STOP) == "red fox red"
    assert make_query(text, "content_words", STOP) == "red fox red"
    assert content_words(text, STOP) == ["red", "fox", "red"]
    assert make_query(text, "text", STOP) == text


def test_max_phrases_cuts_the_query_of_rake_only():
    text = "one, two, three"
    assert make_query(text, "rake", STOP, max_phrases=1) == "two"
    assert make_query(text, "content_words", STOP, max_phrases=1) == "one two three"


def test_an_unknown_mode_is_an_error_that_names_the_flag():
    with pytest.raises(ValueError, match=r"`--query` is 'tfidf'; allowed are .*rake"):
        make_query("red fox", "tfidf", STOP)


def test_unicode_words_are_keywords():
    assert rake_phrases("Der Übermut, naïve Ideen; 中文 文本", {"der"}) == ["中文 文本", "naïve ideen", "übermut"]


def test_with_the_package_s_english_stop_words():
    text = "it 's a charming and often affecting journey ."
    assert rake_phrases(text, stop_words("english")) == ["often affecting journey", "charming"]


@pytest.mark.skipif(importlib.util.find_spec("rjieba") is None, reason="pip install 'hf_distill[chinese]'")
def test_chinese_phrases_are_runs_of_words_without_stop_words():
    analyzer = Analyzer("chinese")
    text = "我喜欢这部电影，它的音响效果很好。"
    phrases = rake_phrases(text, analyzer.stop_words, None, analyzer.words_and_marks)
    assert phrases == ["音响效果 很 好", "喜欢 这部 电影"]
    assert make_query(text, "rake", analyzer.stop_words, 1, analyzer.words_and_marks) == "音响效果 很 好"
    assert content_words(text, analyzer.stop_words, analyzer.words_and_marks)[:3] == ["喜欢", "这部", "电影"]
