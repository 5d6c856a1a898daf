"""Corpora beside each other: sizes, diversity, common words."""

from __future__ import annotations

import json
import random
from collections import Counter

import numpy as np
import pytest

from hf_distill.corpus.compare.comparison import (
    compare_corpora,
    frequent_words,
    measure_corpus,
    overlap_jaccard,
    overlap_share,
)
from hf_distill.corpus.compare.report import format_comparison, markdown_table
from hf_distill.corpus.text.analysis import Analyzer, stop_words
from hf_distill.settings.compare import ComparisonArguments

SETTINGS = ComparisonArguments([], language="english", top_words=60, top_shares=[0.5, 1.0], seed=1, num_draws=3)


def draw(seed, count, low, high):
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(low, high)}" for _ in range(rng.randrange(3, 12))) for _ in range(count)]


@pytest.fixture
def texts():
    return {"task": draw(0, 30, 0, 60), "cc": draw(1, 90, 0, 120), "general": draw(2, 300, 0, 300)}


@pytest.fixture
def ranks():
    return np.repeat(np.arange(10), 9)


def measured(texts, ranks, **orders):
    found = {}
    for name, rows in texts.items():
        order = orders.get(name, range(len(rows)))
        own = ranks[list(order)] if name == "cc" else None
        found[name] = measure_corpus(
            [rows[i] for i in order], "english", ranks=own, top_k=10 if name == "cc" else None
        )
    return found


def test_sizes_are_those_of_the_texts(texts, ranks):
    facts = compare_corpora(measured(texts, ranks), SETTINGS)
    for name, rows in texts.items():
        words = [word for text in rows for word in text.split()]
        assert facts["corpora"][name] == {
            "rows": len(rows),
            "bytes": sum(len(text.encode()) for text in rows),
            "top_k": 10 if name == "cc" else None,
            "texts": len(rows),
            "words": len(words),
            "different_words": len(set(words)),
            "mean_words": round(len(words) / len(rows), 2),
        }


def test_every_group_has_the_corpora_that_are_large_enough_in_samples_of_one_size(texts, ranks):
    facts = compare_corpora(measured(texts, ranks), SETTINGS)
    groups = facts["distinct"]["groups"]
    assert [group["size_of"] for group in groups] == ["task", "cc", "general"]
    assert [list(group["corpora"]) for group in groups] == [["task", "cc", "general"], ["cc", "general"], ["general"]]
    longest = 11
    for group in groups:
        assert group["words"] == facts["corpora"][group["size_of"]]["words"]
        for sample in group["corpora"].values():
            assert group["words"] <= sample["words"]["mean"] < group["words"] + longest
    diversity = [groups[0]["corpora"][name]["1"]["mean"] for name in ("task", "cc", "general")]
    assert diversity == sorted(diversity)


def test_a_retrieved_corpus_has_a_curve_over_its_top_shares(texts, ranks):
    corpora = measured(texts, ranks)
    facts = compare_corpora(corpora, SETTINGS)
    best = measure_corpus(texts["cc"][:45], "english")
    stopped = stop_words("english")
    own = frequent_words(corpora["task"].streams, 60, stopped)
    expected = overlap_share(own, frequent_words(best.streams, 60, stopped))
    assert facts["top_shares"]["cc"][0] == {
        "top_share": 0.5, "name": "cc 50 %", "rows": 45, "share": round(expected, 2),
        "jaccard": facts["top_shares"]["cc"][0]["jaccard"],
    }  # fmt: skip
    assert [point["rows"] for point in facts["top_shares"]["cc"]] == [45, 90]
    assert facts["overlap"]["names"] == ["task", "cc 50 %", "cc 100 %", "general"]


def test_k_is_one_more_than_the_last_rank_where_nobody_says_it(texts, ranks):
    assert measure_corpus(texts["cc"], "english", ranks=ranks).top_k == 10


def test_a_k_beyond_the_ranks_keeps_all_rows_of_the_whole_share(texts, ranks):
    corpora = measured(texts, ranks)
    corpora["cc"] = measure_corpus(texts["cc"], "english", ranks=ranks, top_k=1000)
    curve = compare_corpora(corpora, SETTINGS)["top_shares"]["cc"]
    assert [point["rows"] for point in curve] == [90, 90]


def test_the_matrices_are_symmetric_with_the_evaluation_texts_in_them(texts, ranks):
    evaluation = measure_corpus(draw(3, 20, 0, 60), "english")
    overlap = compare_corpora(measured(texts, ranks), SETTINGS, evaluation=evaluation)["overlap"]
    assert overlap["names"][-1] == "evaluation"
    for measure in ("share", "jaccard"):
        matrix = np.array(overlap[measure])
        assert (matrix == matrix.T).all()
        assert (np.diag(matrix) == 100).all()
    assert (np.array(overlap["jaccard"]) <= np.array(overlap["share"])).all()


def test_another_order_of_the_rows_gives_the_same_comparison(texts, ranks):
    rng = random.Random(4)
    orders = {name: rng.sample(range(len(rows)), len(rows)) for name, rows in texts.items()}
    assert compare_corpora(measured(texts, ranks), SETTINGS) == compare_corpora(
        measured(texts, ranks, **orders), SETTINGS
    )


def test_pairs_are_rows_of_two_texts_and_none_is_no_text(texts):
    corpus = measure_corpus(["one two", None, "three", ""], "english", num_rows=2)
    assert (corpus.num_rows, corpus.streams.num_texts, corpus.num_bytes) == (2, 4, 12)


def test_chinese_words_are_compared(texts):
    pytest.importorskip("rjieba", reason="an extra that is not installed")
    corpora = {name: measure_corpus(["我喜欢看电影", "电影很好"], "zh") for name in ("task", "other")}
    facts = compare_corpora(corpora, ComparisonArguments([], language="zh"))
    assert facts["corpora"]["task"]["different_words"] >= 3
    assert facts["overlap"]["share"][0][1] == 100


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["task"], "At least two corpora"),
        (["task", "empty"], "No word is in"),
        (["task", "evaluation"], "choose another"),
    ],
)
def test_what_cannot_be_compared_is_refused(names, reason, texts):
    corpora = {name: measure_corpus([] if name == "empty" else texts["task"], "english") for name in names}
    with pytest.raises(ValueError, match=reason):
        compare_corpora(corpora, SETTINGS)


def test_a_comparison_can_be_written_as_json_and_as_markdown(texts, ranks):
    facts = compare_corpora(measured(texts, ranks), SETTINGS)
    assert json.loads(json.dumps(facts)) == facts
    page = format_comparison(facts, {"words in common": "overlap.png"}, level=3)
    assert "### Diversity (Distinct-n)" in page
    assert "![words in common](overlap.png)" in page
    assert f"| cc | 90 | {facts['corpora']['cc']['bytes']:,} | 10 |" in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [2 + 3, 2 + 3, 2 + 4]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_a_name_cannot_break_a_table():
    assert markdown_table(["a", "b"], [["x|y", "1"]]).splitlines()[-1] == "| x\\|y | 1 |"


def encode(texts):
    return Analyzer("english", stem=False, stopwords=()).encode([texts])


def draw_texts(seed, words=50):
    draw = random.Random(seed)
    return [" ".join(f"w{min(draw.randrange(words), draw.randrange(words))}" for _ in range(6)) for _ in range(40)]


@pytest.mark.parametrize("top", [1, 7, 20, 1000])
def test_the_most_frequent_words_are_those_of_plain_counting(top):
    texts = draw_texts(0)
    counts = Counter(word for text in texts for word in text.split() if word not in {"w1", "w3"})
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:top]
    assert frequent_words(encode(texts), top, {"w1", "w3"}) == expected


def test_words_of_equal_counts_come_in_alphabetical_order_whatever_the_rows():
    assert frequent_words(encode(["d b", "c a"]), 3) == frequent_words(encode(["a c", "b d"]), 3) == ["a", "b", "c"]


def test_only_the_words_of_chosen_texts_count():
    streams = encode(["a a b", "", "c", "b d"])
    assert frequent_words(streams, 9, texts=np.array([False, True, True, True])) == ["b", "c", "d"]
    assert frequent_words(streams, 9, texts=np.zeros(4, dtype=bool)) == []


def test_words_are_lower_cased_and_not_stemmed():
    assert frequent_words(encode(["Films film FILM"]), 5) == ["film", "films"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_share_and_jaccard_are_their_definitions(seed):
    first, second = (frequent_words(encode(draw_texts(seed + shift)), 25) for shift in (0, 10))
    k = min(len(first), len(second))
    a, b = set(first[:k]), set(second[:k])
    assert overlap_share(first, second) == pytest.approx(100 * len(a & b) / k)
    assert overlap_jaccard(first, second) == pytest.approx(100 * len(a & b) / len(a | b))


@pytest.mark.parametrize("measure", [overlap_share, overlap_jaccard])
def test_a_corpus_has_all_words_in_common_with_itself_and_none_with_a_strange_one(measure):
    words = ["a", "b", "c"]
    assert measure(words, words) == 100
    assert measure(words, ["x", "y", "z"]) == 0
    assert measure(words, []) == measure([], []) == 0


@pytest.mark.parametrize("measure", [overlap_share, overlap_jaccard])
def test_it_is_the_same_both_ways(measure):
    first, second = ["a", "b", "c", "d", "e"], ["b", "x", "a"]
    assert measure(first, second) == measure(second, first)


def test_as_many_words_of_the_longer_list_are_compared():
    assert overlap_share(["a", "b", "c", "d"], ["a", "d"]) == 50
    assert overlap_jaccard(["a", "b", "c", "d"], ["a", "d"]) == pytest.approx(100 / 3)
