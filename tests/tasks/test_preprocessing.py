"""Texts made of official columns: marked spans of CLUEWSC, joined keywords of CSL."""

import dataclasses

import pytest
from datasets import Dataset

from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.rows.preprocessing import join_keywords, mark_spans, preprocess_rows

TEXT = "树叶飘入了树林，他走了"


def target(first, second, text=TEXT):
    return {
        "span1_text": first,
        "span1_index": text.index(first),
        "span2_text": second,
        "span2_index": text.index(second),
    }


def test_the_noun_and_the_pronoun_are_marked_whichever_comes_first():
    assert mark_spans(TEXT, target("树叶", "他")) == "_树叶_飘入了树林，[他]走了"
    assert mark_spans(TEXT, target("他", "树叶")) == "[树叶]飘入了树林，_他_走了"


def test_spans_that_touch_or_lie_in_each_other_are_marked_too():
    assert mark_spans("他他走", {**target("他", "他", "他他走"), "span2_index": 1}) == "_他_[他]走"
    assert mark_spans("他他走", {**target("他", "他", "他他走"), "span1_index": 1}) == "[他]_他_走"
    assert mark_spans("他们走", target("他们", "们", "他们走")) == "_他[们]_走"


def test_a_span_behind_the_end_is_an_error_with_its_row():
    rows = Dataset.from_list(
        [
            {"text": TEXT, "target": target("树叶", "他")},
            {"text": TEXT, "target": target("树叶", "他") | {"span2_index": 99}},
        ]
    )
    with pytest.raises(ValueError, match=r"row 1: the text .* has no characters 99 to 100 \(span2"):
        preprocess_rows(rows, get_task("clue/cluewsc2020"), split="train")


def test_keywords_are_joined_by_spaces_and_text_stays():
    assert join_keywords(["近似 查询", "物联网"]) == "近似 查询 物联网"
    assert join_keywords("近似查询") == "近似查询"
    assert join_keywords([]) == ""


def test_columns_that_a_form_reads_must_be_there_and_the_form_known():
    rows = Dataset.from_list([{"text": TEXT}])
    with pytest.raises(ValueError, match=r"lacks columns \['target'\]"):
        preprocess_rows(rows, get_task("clue/cluewsc2020"), split="train")
    spec = dataclasses.replace(get_task("clue/csl"), preprocessing="reversed")
    with pytest.raises(ValueError, match=r"'reversed'; allowed are \['join_keywords', 'mark_spans'\]"):
        preprocess_rows(rows, spec, split="train")
    assert preprocess_rows(rows, get_task("clue/tnews"), split="train") is rows
