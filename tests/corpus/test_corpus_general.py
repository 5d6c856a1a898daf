"""A general corpus is drawn from several in the wanted shares, without repeats, and the same again."""

import random
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from hf_distill.corpus.build import general
from hf_distill.corpus.build.general import build_general_corpus, share_rows
from hf_distill.corpus.build.loading import named_corpora, split_config
from hf_distill.settings import GeneralCorpusArguments


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def texts(name, count):
    return [f"Text number {number} of {name}." for number in range(count)]


def corpora(**sizes):
    return {name: Dataset.from_dict({"text": texts(name, size)}) for name, size in sizes.items()}


def test_everything_is_taken_by_default_once_each():
    given = {
        "a": Dataset.from_dict({"text": ["One.", "Two!", None, " "]}),
        "b": Dataset.from_dict({"text": ["one", "3"]}),
    }
    result = build_general_corpus(given)
    assert result.dataset.column_names == ["text", "source"]
    assert sorted(zip(result.dataset["text"], result.dataset["source"], strict=True)) == [
        ("3", "b"), ("One.", "a"), ("Two!", "a"),
    ]  # fmt: skip
    found = result.statistics["corpora"]
    assert [found["a"][key] for key in ("documents", "rows", "none", "empty", "kept", "duplicates", "drawn")] == [
        4, 4, 1, 1, 2, 0, 2,
    ]  # fmt: skip
    assert [found["b"][key] for key in ("kept", "duplicates", "asked", "drawn")] == [2, 1, 1, 1]
    assert (result.statistics["rows"], result.statistics["sources"]) == (3, {"a": 2, "b": 1})


@pytest.mark.parametrize(("deduplicate", "rows"), [("none", 4), ("exact", 3), ("normalized", 2)])
def test_what_counts_as_a_repeat(deduplicate, rows):
    given = {"a": Dataset.from_dict({"text": ["One.", "one", "Two", "One."]})}
    assert len(build_general_corpus(given, deduplicate=deduplicate).dataset) == rows


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rows": [30]}, {"a": 10, "b": 20}),  # by size
        ({"rows": [30], "weights": [2, 1]}, {"a": 20, "b": 10}),
        ({"rows": [5, 7]}, {"a": 5, "b": 7}),
        ({"rows": [10], "weights": [0.333, 0.667]}, {"a": 3, "b": 7}),
    ],
)
def test_rows_are_drawn_in_the_wanted_shares(settings, expected):
    result = build_general_corpus(corpora(a=100, b=200), **settings)
    assert Counter(result.dataset["source"]) == expected
    assert len(set(result.dataset["text"])) == sum(expected.values())


def test_more_rows_than_there_are_gives_all_and_a_warning():
    with pytest.warns(UserWarning, match=r"1,000 rows of 'a' are asked for .* only 10 different ones"):
        result = build_general_corpus(corpora(a=10, b=100), rows=[1000, 5])
    assert Counter(result.dataset["source"]) == {"a": 10, "b": 5}
    assert result.statistics["corpora"]["a"]["asked"] == 1000
    assert result.statistics["corpora"]["a"]["drawn"] == 10


def test_the_order_of_the_rows_and_other_corpora_change_nothing():
    first = build_general_corpus(corpora(a=200), rows=[20]).dataset["text"]
    shuffled = {"a": Dataset.from_dict({"text": random.Random(0).sample(texts("a", 200), 200)})}
    assert build_general_corpus(shuffled, rows=[20]).dataset["text"] == first
    beside = build_general_corpus(corpora(a=200, b=50), rows=[20, 10]).dataset
    assert {text for text, source in zip(beside["text"], beside["source"], strict=True) if source == "a"} == set(first)


def test_of_nearly_equal_texts_the_order_does_not_decide_which_is_drawn():
    rows = ["It rained.", "it rained", "IT RAINED!", "He left.", "he left", "She laughed."]
    drawn = {
        tuple(build_general_corpus({"a": Dataset.from_dict({"text": order})}, rows=[2]).dataset["text"])
        for order in (rows, rows[::-1], sorted(rows))
    }
    assert len(drawn) == 1


def test_an_error_names_the_corpus():
    given = corpora(a=1) | {"b": Dataset.from_dict({"text": [1]})}
    with pytest.raises(ValueError, match=r"`--corpora`, 'b': The column 'text' .* holds Value\('int64'\), not text"):
        build_general_corpus(given)


def test_an_empty_source_is_none():
    given = {"a": Dataset.from_dict({"text": ["One.", "Two.", "Three."], "source": ["x", "", " "]})}
    assert build_general_corpus(given).statistics["sources"] == {"a": 2, "x": 1}


def test_splits_are_no_corpus():
    with pytest.raises(TypeError, match="'a' must be a `Dataset`, but it is a DatasetDict"):
        build_general_corpus({"a": DatasetDict(train=corpora(a=1)["a"])})


def test_a_larger_draw_holds_the_smaller_and_another_seed_is_another_draw():
    small, large = (set(build_general_corpus(corpora(a=300), rows=[rows]).dataset["text"]) for rows in (30, 90))
    assert small < large
    assert set(build_general_corpus(corpora(a=300), rows=[30], seed=1).dataset["text"]) != small


def test_the_first_rows_have_the_shares_of_the_whole():
    # Much of one corpus and little of the other: the draw and the order must not be the same.
    dataset = build_general_corpus(corpora(a=1000, b=10_000), rows=[1000, 1000]).dataset
    beginning = Counter(dataset["source"][:500])
    assert 200 < beginning["a"] < 300
    runs = np.diff([source == "a" for source in dataset["source"]]).sum()
    assert 850 < runs < 1150  # a fair shuffle changes the corpus a thousand times


def test_sources_of_a_corpus_stay():
    given = {"a": Dataset.from_dict({"text": ["x y", "z"], "source": ["wiki", None]}), **corpora(b=1)}
    result = build_general_corpus(given).dataset
    assert dict(zip(result["text"], result["source"], strict=True)) == {
        "x y": "wiki", "z": "a", "Text number 0 of b.": "b",
    }  # fmt: skip


def test_documents_are_split_into_sentences():
    pytest.importorskip("sentencex", reason="an extra that is not installed")
    given = {"a": Dataset.from_dict({"text": ["Tom came. He left.", "He left. It rained\nall day."]})}
    result = build_general_corpus(given, unit="sentence")
    assert set(result.dataset["text"]) == {"Tom came.", "He left.", "It rained", "all day."}
    assert result.statistics["corpora"]["a"]["documents"] == 2
    assert result.statistics["corpora"]["a"]["rows"] == 5


def test_texts_are_cleaned_and_short_rows_left_out():
    given = {"a": Dataset.from_dict({"text": ["a\tb c\x00", "one two", "one two three four"]})}
    result = build_general_corpus(given, min_words=3, max_words=3)
    assert result.dataset["text"] == ["a b c"]
    assert result.statistics["corpora"]["a"]["too_few_words"] == 1
    assert result.statistics["corpora"]["a"]["too_many_words"] == 1


def test_a_build_that_was_killed_continues_and_ends_in_the_same_corpus(tmp_path, monkeypatch):
    whole = build_general_corpus(corpora(a=50, b=50), rows=[40], work_dir=tmp_path / "whole").dataset["text"]
    write, seen = general._GeneralBuild._write, []

    def dies(self, folder):
        (folder / "rows.arrow").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(general._GeneralBuild, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        build_general_corpus(corpora(a=50, b=50), rows=[40], work_dir=tmp_path / "killed")
    monkeypatch.setattr(general._GeneralBuild, "_write", write)
    monkeypatch.setattr(general._GeneralBuild, "_draw", lambda *_: seen.append("again"))
    again = build_general_corpus(corpora(a=50, b=50), rows=[40], work_dir=tmp_path / "killed").dataset["text"]
    assert (again, seen) == (whole, [])


def test_a_work_folder_of_other_settings_is_refused(tmp_path):
    build_general_corpus(corpora(a=9), work_dir=tmp_path / "work")
    with pytest.raises(ValueError, match="seed: 42 there, 1 now"):
        build_general_corpus(corpora(a=9), seed=1, work_dir=tmp_path / "work")


@pytest.mark.parametrize(
    ("given", "settings", "reason"),
    [
        ({}, {}, "Name at least one general corpus"),
        ({"a": []}, {}, "is empty"),
        ({"a": [None, ""]}, {}, "No row of the general corpus can be used"),
        ({"a": ["x"], "b": ["y"]}, {"rows": [1, 2, 3]}, r"`--rows` has 3 numbers for 2 corpora \['a', 'b'\]"),
        ({"a": ["x"], "b": ["y"]}, {"rows": [2], "weights": [1]}, "`--weights` has 1 numbers for 2 corpora"),
    ],
)
def test_what_does_not_fit_is_refused(given, settings, reason):
    with pytest.raises(ValueError, match=reason):
        build_general_corpus({name: Dataset.from_dict({"text": rows}) for name, rows in given.items()}, **settings)


@pytest.mark.parametrize(
    "settings",
    [{"rows": [0]}, {"weights": [1.0, -1.0], "rows": [3]}, {"weights": [1.0]}, {"max_chars": 0}, {"unit": "word"},
     {"deduplicate": "near"}, {"max_words": 1, "min_words": 3}],
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f"`--{next(iter(settings))}"):
        GeneralCorpusArguments(**settings)


@pytest.mark.parametrize("total", [0, 1, 7, 100, 1_000_003])
@pytest.mark.parametrize("weights", [[1], [1, 1, 1], [0.2, 0.5, 0.3], [3, 1e-9, 5]])
def test_whole_numbers_sum_to_the_total_and_are_within_one_of_the_weights(total, weights):
    rows = share_rows(total, weights)
    assert sum(rows) == total
    for number, weight in zip(rows, weights, strict=True):
        assert abs(number - total * weight / sum(weights)) < 1


def test_corpora_are_named_by_the_user_or_by_their_place(tmp_path):
    file = tmp_path / "a=b.txt"
    file.write_text("x")
    named = named_corpora(["wiki=some/data:20231101.en", str(file), "me/books"], "--corpora")
    assert named == {"wiki": "some/data:20231101.en", "a=b.txt": str(file), "me/books": "me/books"}
    assert split_config("some/data:20231101.en") == ("some/data", "20231101.en")
    assert split_config("me/books") == ("me/books", None)
    (tmp_path / "a:b").mkdir()
    assert split_config(str(tmp_path / "a:b")) == (str(tmp_path / "a:b"), None)


def test_steps_of_other_sources_are_not_taken(tmp_path):
    rows = Dataset.from_dict({"text": ["a first text", "a second one"], "source": ["a", "b"]})
    build_general_corpus({"x": rows}, work_dir=tmp_path)
    with pytest.raises(ValueError, match=r"with other settings .sources: "):
        build_general_corpus({"x": rows.map(lambda row: {"source": "c"})}, work_dir=tmp_path)
