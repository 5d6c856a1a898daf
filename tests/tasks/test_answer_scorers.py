"""From scores of tokens to the official scores of every kind of answer: no answer, Chinese, a language for a split."""

import numpy as np
import pytest
from datasets import Dataset

from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.metrics.compute import build_compute_metrics
from hf_distill.tasks.metrics.evaluate_modules import load_metric
from hf_distill.tasks.rows.predictions import score_answers

# Token 0 is [CLS], then a token for every character of the context.
CONTEXT = "abcd"


def rows_of(*golds, context=CONTEXT):
    return Dataset.from_list(
        [
            {"question": "q", "context": context, "answers": {"text": list(gold), "answer_start": [0] * len(gold)}}
            for gold in golds
        ]
    )


def windows_of(rows):
    lengths = [len(context) for context in rows["context"]]
    return Dataset.from_list(
        [
            {"row": row, "offset_starts": [-1, *range(n)], "offset_ends": [-1, *range(1, n + 1)]}
            for row, n in enumerate(lengths)
        ]
    )


def logits(rows, chosen):
    """Start and end scores: for each row the null score, the span and its score."""
    start = np.full((len(rows), 1 + max(map(len, rows["context"]))), -50.0)
    end = start.copy()
    for row, (null, first, last, score) in enumerate(chosen):
        start[row, 0] = end[row, 0] = null / 2
        start[row, 1 + first] = end[row, 1 + last] = score / 2
    return start, end


def score(name, rows, chosen, **fields):
    return score_answers(get_task(name), rows, windows_of(rows), *logits(rows, chosen), **fields)


def test_the_best_threshold_of_squad_2_lies_where_the_null_scores_say():
    rows = rows_of(["a"], [], ["c"], [])
    # Differences null - span: -4 (right), -3 (should be refused), +1 (right but refused at 0), +5 (rightly refused).
    scores = score("squad_v2", rows, [(0, 0, 0, 4), (1, 1, 1, 4), (3, 2, 2, 2), (8, 3, 3, 3)])
    assert scores["exact"] == scores["f1"] == pytest.approx(2 / 4)
    assert scores["HasAns_exact"] == scores["NoAns_exact"] == pytest.approx(1 / 2)
    assert scores["best_exact"] == scores["best_f1"] == pytest.approx(3 / 4)
    # The first threshold that reaches the best score: let only the surest answer through.
    assert scores["best_f1_thresh"] == pytest.approx(-4.0)
    assert set(scores) == set(get_task("squad_v2").metrics)


def test_a_threshold_above_zero_is_found_too():
    rows = rows_of(["a"], ["b"], [])
    scores = score("squad_v2", rows, [(5, 0, 0, 4), (6, 1, 1, 4), (9, 2, 2, 1)])
    assert scores["exact"] == pytest.approx(1 / 3), "at 0 every question counts as unanswerable"
    assert scores["best_exact"] == 1.0
    assert scores["best_exact_thresh"] == pytest.approx(2.0)


def test_without_unanswerable_questions_their_scores_are_left_out():
    scores = score("squad_v2", rows_of(["a"], ["c"]), [(-9, 0, 0, 4), (-9, 2, 2, 4)])
    assert scores["best_f1"] == scores["exact"] == scores["HasAns_f1"] == 1.0
    assert "NoAns_f1" not in scores
    nothing = score("squad_v2", rows_of([], []), [(9, 0, 0, 4), (9, 2, 2, 4)])
    assert nothing["best_f1"] == nothing["NoAns_exact"] == 1.0
    assert "HasAns_f1" not in nothing


def test_a_question_without_an_answer_is_an_error_where_there_always_is_one():
    with pytest.raises(ValueError, match=r"scores of SQuAD 2\.0"):
        score("squad", rows_of(["a"], []), [(0, 0, 0, 4), (0, 1, 1, 4)])


def test_cmrc_and_drcd_are_scored_by_the_longest_common_run():
    rows = rows_of(["北大学"], context="北京大学")
    spans = [(0, 0, 3, 4)]
    # "北京大学" and "北大学" share the run "大学": precision 2/4, recall 2/3.
    for name in ("clue/cmrc2018", "clue/drcd"):
        scores = score(name, rows, spans)
        assert scores == {"f1": pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3)), "exact_match": 0.0}
    assert score("squad", rows, spans)["f1"] == 0.0, "SQuAD's scorer takes the text for one word"


def test_answers_of_mlqa_are_normalised_in_the_language_of_their_split():
    spec = get_task("mlqa")
    rows = rows_of(["der Hund"], context="Hund")
    arguments = (rows, windows_of(rows), *logits(rows, [(0, 0, 3, 4)]))
    assert score_answers(spec.for_split("test_de"), *arguments)["exact_match"] == 1.0
    assert score_answers(spec.for_split("test_en"), *arguments)["exact_match"] == 0.0


def test_a_chinese_answer_may_be_longer_than_an_english_one():
    context = "".join(chr(0x4E00 + n) for n in range(45))
    rows = rows_of([context[:40]], context=context)
    assert score("clue/cmrc2018", rows, [(0, 0, 39, 9)])["exact_match"] == 1.0
    assert score("squad", rows, [(0, 0, 39, 9)])["exact_match"] == 0.0


def test_scores_that_are_not_finite_are_an_error():
    rows = rows_of(["a"])
    start, end = logits(rows, [(0, 0, 0, 4)])
    start[0, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        score_answers(get_task("squad_v2"), rows, windows_of(rows), start, end)


def test_the_metric_of_a_task_is_that_of_its_official_script():
    names = {"squad": "squad", "squad_v2": "squad_v2", "clue/drcd": "cmrc2018", "mlqa": "mlqa_en"}
    for name, score in (names | {"swag": "swag", "msra_ner": "seqeval"}).items():
        assert load_metric(get_task(name), keep_in_memory=True).score == score
    with pytest.raises(ValueError, match="needs the rows"):
        build_compute_metrics(get_task("squad_v2"))
