"""Union of hits, top share, and which of equal rows stays."""

import numpy as np
import pytest
from datasets import Dataset

from hf_distill.corpus.build.duplicates import EvaluationTexts
from hf_distill.corpus.build.selection import REASONS, Candidates, choose_rows, merge_hits, rank_limit


def test_a_row_keeps_its_best_rank_its_best_score_and_the_number_of_its_anchors():
    hits = Dataset.from_dict(
        {
            "anchor": [0, 0, 1, 1, 2],
            "row": [4, 2, 2, 4, 2],
            "rank": [0, 1, 0, 1, 2],
            "score": [3.0, 2.0, 5.0, 4.0, 1.0],
        }
    )
    merged = merge_hits(hits)
    assert merged.rows.tolist() == [2, 4]
    assert merged.ranks.tolist() == [0, 0]
    assert merged.scores.tolist() == [5.0, 4.0]
    assert merged.anchors.tolist() == [3, 2]


def test_the_union_is_the_same_however_the_hits_are_read(monkeypatch):
    random = np.random.default_rng(0)
    columns = {
        "anchor": np.arange(500),
        "row": random.integers(0, 60, 500),
        "rank": random.integers(0, 9, 500).astype(np.int32),
        "score": random.random(500).astype(np.float32),
    }
    hits = Dataset.from_dict(columns)
    for batch in (3, 100, 1000):
        monkeypatch.setattr("hf_distill.corpus.build.selection._READ", batch)
        merged = merge_hits(hits)
        for place, row in enumerate(merged.rows):
            here = columns["row"] == row
            assert merged.ranks[place] == columns["rank"][here].min()
            assert merged.scores[place] == columns["score"][here].max()
            assert merged.anchors[place] == here.sum()
        assert set(merged.rows) == set(columns["row"])


@pytest.mark.parametrize(
    ("share", "k", "limit"), [(1.0, 10, 10), (0.2, 10, 2), (0.07, 100, 7), (0.01, 10, 1), (0.25, 10, 3), (1.0, 1, 1)]
)
def test_the_rank_limit_is_the_smallest_integer_not_below_the_share(share, k, limit):
    # 0.07 * 100 is 7.000000000000001 in floating point.
    assert rank_limit(share, k) == limit


TEXTS = ["Red fox.", "red fox", "dull film", "Red fox.", "blue dog"]


def select(texts, ranks=None, deduplicate="normalized", evaluation=None, limit=100, scores=None, threshold=0.7):
    """Selection of rows 0, 1, ... with these texts."""
    count = len(texts)
    candidates = Candidates(
        np.arange(count),
        np.zeros(count, np.int32) if ranks is None else np.array(ranks, np.int32),
        np.ones(count, np.float32) if scores is None else np.array(scores, np.float32),
        np.ones(count, np.int32),
    )

    def texts_of(rows):
        for start in range(0, len(rows), 2):
            yield [texts[row] for row in rows[start : start + 2].tolist()]

    return choose_rows(
        candidates,
        texts_of,
        evaluation or EvaluationTexts([]),
        limit=limit,
        deduplicate=deduplicate,
        near_threshold=threshold,
    )


def choose(deduplicate="normalized", evaluation=("Dull film!",), ranks=(3, 1, 0, 0, 0)):
    selection = select(TEXTS, ranks, deduplicate, EvaluationTexts(evaluation), scores=[9, 8, 7, 6, 7])
    return selection.chosen().rows.tolist(), {reason: count for reason, count in selection.dropped().items() if count}


def test_the_copy_with_the_best_rank_stays_and_the_order_is_rank_then_score():
    assert choose() == ([4, 3], {"equals_evaluation_text": 1, "exact_duplicate": 1, "normalized_duplicate": 1})


def test_of_equal_ranks_the_first_row_stays():
    assert choose(ranks=(0, 0, 0, 0, 0))[0] == [0, 4]


def test_only_exact_copies_are_dropped_when_asked():
    assert choose("exact") == ([4, 3, 1], {"equals_evaluation_text": 1, "exact_duplicate": 1})


def test_nothing_is_dropped_when_asked():
    assert choose("none", ()) == ([2, 4, 3, 1, 0], {})


def test_rows_beyond_the_top_share_are_counted_apart():
    selection = select(TEXTS, ranks=(3, 1, 0, 0, 0), limit=1)
    assert selection.dropped()["beyond_top_share"] == 2
    assert selection.chosen().rows.tolist() == [2, 3, 4]


def test_equal_ranks_and_scores_are_ordered_by_row():
    candidates = Candidates(np.array([3, 5, 8]), np.zeros(3, int), np.ones(3, np.float32), np.ones(3, int))
    selection = choose_rows(
        candidates, lambda rows: [["a", "b", "c"]], EvaluationTexts([]), limit=1, deduplicate="exact"
    )
    assert selection.chosen().rows.tolist() == [3, 5, 8]


LONG = "one two three four five six seven eight"


def test_of_several_reasons_the_strictest_comparison_is_named():
    evaluation = EvaluationTexts([LONG], contains=True, ngram=4)
    selection = select([LONG, f"so {LONG} it is", "zero two three four five six", "fox"], evaluation=evaluation)
    assert [REASONS[fate] if fate >= 0 else "" for fate in selection.fates] == [
        "equals_evaluation_text",
        "contains_evaluation_text",
        "shares_evaluation_ngram",
        "",
    ]


NEAR = [
    "the quick brown fox jumps over the lazy dog near the old river bank today",
    "The quick brown fox jumps over the lazy dog near the old river bank, today!",
    "the quick brown fox jumps over the lazy dog near the old river bank yesterday",
    "a text about something else altogether with many other words in it",
]


def test_near_duplicates_are_dropped_only_when_asked():
    assert select(NEAR).dropped()["near_duplicate"] == 0
    selection = select(NEAR, deduplicate="near")
    assert selection.dropped()["normalized_duplicate"] == 1
    assert selection.dropped()["near_duplicate"] == 1
    assert selection.chosen().rows.tolist() == [0, 3]


def test_of_similar_texts_the_one_with_the_best_rank_stays():
    assert select(NEAR, [5, 4, 0, 1], "near").chosen().rows.tolist() == [2, 3]


def test_a_duplicate_names_a_row_of_the_corpus_that_stays_for_it():
    # 0 is a copy of 1, which differs from 2 in case only, which is nearly 3.
    texts = [NEAR[1], NEAR[1], NEAR[0], NEAR[2], "fox"]
    selection = select(texts, [3, 2, 1, 0, 0], "near")
    assert selection.instead.tolist() == [3, 3, 3, -1, -1]
    assert [REASONS[fate] for fate in selection.fates[:3]] == [
        "exact_duplicate",
        "normalized_duplicate",
        "near_duplicate",
    ]


@pytest.mark.parametrize("deduplicate", ["exact", "normalized", "near"])
def test_a_smaller_top_share_gives_a_part_of_what_a_larger_one_gives(deduplicate):
    random = np.random.default_rng(3)
    texts = [" ".join(random.choice("red fox blue dog old cat".split(), 6)) for _ in range(150)]
    ranks = random.integers(0, 10, 150)
    before = set()
    for limit in (2, 5, 8, 10):
        now = set(select(texts, ranks, deduplicate, limit=limit).chosen().rows.tolist())
        assert before < now
        before = now
