"""Union of hits, top share, and which of equal rows stays."""

import numpy as np
import pytest
from datasets import Dataset

from hf_distill.corpus.dedup import EvaluationTexts
from hf_distill.corpus.selection import Candidates, choose_rows, merge_hits, rank_limit


def test_a_row_keeps_its_best_rank_its_best_score_and_the_number_of_its_anchors():
    hits = Dataset.from_dict(
        {
            "anchor": [0, 0, 1, 1, 2],
            "row": [4, 2, 2, 4, 2],
            "rank": [0, 1, 0, 1, 2],
            "score": [3.0, 2.0, 5.0, 4.0, 1.0],
        }
    )
    merged = merge_hits(hits, 6)
    assert merged.rows.tolist() == [2, 4]
    assert merged.ranks.tolist() == [0, 0]
    assert merged.scores.tolist() == [5.0, 4.0]
    assert merged.anchors.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("share", "k", "limit"), [(1.0, 10, 10), (0.2, 10, 2), (0.07, 100, 7), (0.01, 10, 1), (0.25, 10, 3), (1.0, 1, 1)]
)
def test_the_rank_limit_is_the_smallest_integer_not_below_the_share(share, k, limit):
    # 0.07 * 100 is 7.000000000000001 in floating point.
    assert rank_limit(share, k) == limit


TEXTS = ["Red fox.", "red fox", "dull film", "Red fox.", "blue dog"]


def choose(deduplicate="normalized", decontaminate="equal", evaluation=("Dull film!",), ranks=(3, 1, 0, 0, 0)):
    candidates = Candidates(
        np.arange(5), np.array(ranks), np.array([9, 8, 7, 6, 7], dtype=np.float32), np.ones(5, np.int32)
    )
    texts = EvaluationTexts(evaluation, contains=decontaminate == "contains")
    chosen, dropped = choose_rows(
        candidates, [TEXTS[:2], TEXTS[2:]], texts, deduplicate=deduplicate, decontaminate=decontaminate
    )
    return chosen.rows.tolist(), {reason: count for reason, count in dropped.items() if count}


def test_the_copy_with_the_best_rank_stays_and_the_order_is_rank_then_score():
    assert choose() == ([4, 3], {"equals_evaluation_text": 1, "exact_duplicate": 1, "normalized_duplicate": 1})


def test_of_equal_ranks_the_first_row_stays():
    assert choose(ranks=(0, 0, 0, 0, 0))[0] == [0, 4]


def test_only_exact_copies_are_dropped_when_asked():
    assert choose("exact") == ([4, 3, 1], {"equals_evaluation_text": 1, "exact_duplicate": 1})


def test_nothing_is_dropped_when_asked():
    assert choose("none", "none") == ([2, 4, 3, 1, 0], {})


def test_equal_ranks_and_scores_are_ordered_by_row():
    candidates = Candidates(np.array([8, 3, 5]), np.zeros(3, int), np.ones(3, np.float32), np.ones(3, int))
    chosen, _ = choose_rows(
        candidates.take(np.array([1, 2, 0])),
        [["a", "b", "c"]],
        EvaluationTexts([]),
        deduplicate="exact",
        decontaminate="equal",
    )
    assert chosen.rows.tolist() == [3, 5, 8]


def test_rows_that_contain_an_evaluation_text_are_counted_apart():
    long = "one two three four five six seven eight"
    candidates = Candidates(np.arange(3), np.zeros(3, int), np.ones(3, np.float32), np.ones(3, int))
    chosen, dropped = choose_rows(
        candidates,
        [[long, f"so {long} it is", "fox"]],
        EvaluationTexts([long], contains=True),
        deduplicate="none",
        decontaminate="contains",
    )
    assert chosen.rows.tolist() == [2]
    assert (dropped["equals_evaluation_text"], dropped["contains_evaluation_text"]) == (1, 1)
