"""Anchors: every sentence of the task once, nothing lost without being counted."""

import pytest
from datasets import Dataset

from hf_distill.corpus.build.anchors import collect_anchors, find_text_columns, task_texts


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
