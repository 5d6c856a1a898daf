"""Texts made of official columns: marked spans of CLUEWSC, joined keywords of CSL."""

import dataclasses

import pytest
from datasets import Dataset

from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.rows.preprocessing import (
    five_choices,
    join_keywords,
    lettered_options,
    mark_spans,
    mark_words,
    placed_answer,
    preprocess_rows,
    spans_of,
)

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
    with pytest.raises(ValueError, match=r"'reversed'; allowed are \[.*'join_keywords', .*'mark_spans'"):
        preprocess_rows(rows, spec, split="train")
    assert preprocess_rows(rows, get_task("clue/tnews"), split="train") is rows


# ---- Choices, spans and pairs that their data sets write in forms of their own ----


def test_words_are_marked_by_their_numbers():
    text = "Mark told Pete many lies about himself, which Pete included in his book."
    found = mark_words(text, 0, "Mark", 11, "his")
    assert found == "_Mark_ told Pete many lies about himself, which Pete included in [his] book."
    assert mark_words("the old man sat as he was", 0, "the old man", 5, "he") == "_the old man_ sat as [he] was"
    with pytest.raises(ValueError, match=r"has no words 9 to 9 \('his'\)"):
        mark_words("too short", 0, "too", 9, "his")


def test_choices_are_filled_up_to_five():
    assert five_choices({"text": ["a", "b", "c"], "label": ["1", "2", "3"]}) == ["a", "b", "c", "", ""]
    with pytest.raises(ValueError, match="there are 6 choices, of which 5 are read"):
        five_choices({"text": list("abcdef"), "label": []})
    options = "a ) rs . 38 , b ) 1 , 250 , c ) ( 3 ) , d ) none , e ) data inadequate"
    assert lettered_options(options) == ["rs . 38", "1 , 250", "( 3 )", "none", "data inadequate"]
    assert lettered_options("a ) 1 , b ) 2") == ["1", "2", "", "", ""]


def test_the_right_answer_of_sciq_has_a_place_of_its_own_for_each_question():
    places = set()
    for number in range(40):
        choices, place = placed_answer("right", "one", "two", "three", f"question {number}")
        assert sorted(choices) == ["one", "right", "three", "two"]
        assert choices[int(place)] == "right"
        places.add(place)
    assert places == set("0123")
    assert placed_answer("a", "b", "c", "d", "q") == placed_answer("a", "b", "c", "d", "q")


def test_answers_of_mrqa_are_those_of_squad():
    spans = [{"start": [4, 20], "end": [6, 22]}, {"start": [9], "end": [11]}]
    expected = {"text": ["sea", "sun"], "answer_start": [4, 9]}
    assert spans_of({"text": ["sea", "sun"], "char_spans": spans}) == expected
    listed = [[{"start": 4, "end": 6}, {"start": 20, "end": 22}], [{"start": 9, "end": 11}]]
    assert spans_of({"text": ["sea", "sun"], "char_spans": listed}) == expected
