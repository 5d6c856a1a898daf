"""Anchors: every sentence of the task once, nothing lost without being counted."""

import pytest
from datasets import Dataset

from hf_distill.corpus.anchors import collect_anchors, task_texts


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
