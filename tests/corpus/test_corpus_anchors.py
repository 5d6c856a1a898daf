"""Anchors: which texts of a task they are, their keywords, and their queries."""

from __future__ import annotations

import importlib.util

import pytest
from datasets import Dataset

from hf_distill.corpus.build.anchors import (
    collect_anchors,
    content_words,
    find_text_columns,
    make_query,
    rake_phrases,
    task_texts,
)
from hf_distill.corpus.text.analysis import Analyzer, stop_words


def test_sentences_of_a_pair_are_taken_apart():
    rows = Dataset.from_dict({"premise": ["a b", "c d"], "hypothesis": ["e f", "a b"], "label": [0, 1]})
    anchors = collect_anchors(task_texts(rows, ("premise", "hypothesis")))
    assert anchors.texts == ["a b", "c d", "e f"]
    assert anchors.counts["duplicates"] == 1


def test_none_empty_and_repeated_texts_are_counted():
    anchors = collect_anchors(["fox ", None, "", " \t", "fox", "dog", "fox"])
    assert anchors.texts == ["fox", "dog"]
    assert anchors.counts == {
        "texts": 7,
        "none": 1,
        "empty": 2,
        "duplicates": 2,
        "beyond_max_anchors": 0,
        "anchors": 2,
    }


def test_a_limit_keeps_the_first_and_counts_the_rest():
    anchors = collect_anchors(["a", "b", "c"], max_anchors=2)
    assert anchors.texts == ["a", "b"]
    assert anchors.counts["beyond_max_anchors"] == 1


def test_a_missing_column_is_an_error_that_lists_the_columns():
    with pytest.raises(ValueError, match=r"no column \['text'\].*\['sentence'\]"):
        list(task_texts(Dataset.from_dict({"sentence": ["a"]}), ("text",)))


def test_no_anchor_at_all_is_an_error():
    with pytest.raises(ValueError, match="no anchors: of 2 texts 1 are None"):
        collect_anchors([None, " "])


def test_a_text_that_is_no_string_is_an_error():
    with pytest.raises(TypeError, match="must be a string, but one is int: '3'"):
        collect_anchors(["a", 3])


SENTENCES = ["a red cat", "a blue dog", "the river", "one more time"]


def test_labels_and_ids_of_a_data_set_are_no_anchors(caplog):
    rows = Dataset.from_dict(
        {
            "pairID": ["x 1", "x 2", "x 3", "x 4"],
            "premise": SENTENCES,
            "hypothesis": ["红色的小猫坐着", "蓝色的小狗", "河流很长很长", "再来一次吧"],
            "label": ["very good", "bad", "bad", "bad"],
            "mood": ["joy", "anger", "fear", "joy"],
            "score": [1.0, 2.0, 3.0, 4.0],
        }
    )
    assert find_text_columns(rows) == ["premise", "hypothesis"]
    assert "['pairID', 'label', 'mood'] look like labels or ids" in caplog.text


def test_few_values_again_and_again_are_labels():
    rows = Dataset.from_dict({"news": [f"text number {i}" for i in range(60)], "topic": ["world news", "sport"] * 30})
    assert find_text_columns(rows) == ["news"]


def test_one_column_of_strings_is_the_text_whatever_it_holds(caplog):
    assert find_text_columns(Dataset.from_dict({"word": ["cat", "dog"]})) == ["word"]
    assert find_text_columns(Dataset.from_dict({"premise": SENTENCES, "hypothesis": SENTENCES})) == [
        "premise",
        "hypothesis",
    ]
    assert not caplog.records
    with pytest.raises(ValueError, match=r"no text column; it has \['label'\]"):
        find_text_columns(Dataset.from_dict({"label": [1]}))


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
