"""Every score of a task has a value where there is little to score, and none where there is nothing."""

import math

import numpy as np
import pytest

from hf_distill.tasks.catalogue.registry import get_task, list_tasks
from hf_distill.tasks.metrics.compute import compute_scores, predictions_of
from hf_distill.tasks.metrics.entities import entity_scores
from hf_distill.tasks.metrics.evaluate_modules import load_metric
from hf_distill.tasks.metrics.scores import SCORES
from hf_distill.tasks.spec import CLASSIFICATION_METRICS, REGRESSION_METRICS

OF_ROWS = [name for name in list_tasks() if get_task(name).is_of_rows and not name.startswith("mine/")]


@pytest.mark.parametrize("name", CLASSIFICATION_METRICS)
def test_one_row_and_one_class_have_finite_scores(name):
    for predictions, references in (([0], [0]), ([1], [1]), ([0], [1]), ([1, 1, 1], [1, 1, 1]), ([0, 0], [1, 1])):
        value = SCORES[name](np.array(predictions), np.array(references))
        assert math.isfinite(value)
        assert value <= 1.0


@pytest.mark.parametrize("name", CLASSIFICATION_METRICS)
def test_a_class_that_is_predicted_but_never_right_does_not_raise_a_score(name):
    references = np.array([0, 1, 0, 1])
    right, unseen = references.copy(), np.array([0, 1, 0, 2])
    assert SCORES[name](unseen, references) < SCORES[name](right, references)


def test_a_class_that_is_only_predicted_counts_in_the_macro_mean():
    # F1 of class 0 is 1, of class 1 is 2/3, of class 2 (never there) is 0.
    assert SCORES["f1_macro"](np.array([0, 1, 2]), np.array([0, 1, 1])) == pytest.approx((1 + 2 / 3) / 3)


@pytest.mark.parametrize("name", REGRESSION_METRICS)
def test_ties_and_constants_have_finite_scores(name):
    assert SCORES[name](np.array([1.0, 1.0, 2.0]), np.array([3.0, 3.0, 9.0])) == pytest.approx(1.0)
    assert SCORES[name](np.array([1.0, 1.0]), np.array([1.0, 2.0])) == 0.0


@pytest.mark.parametrize("name", sorted(SCORES))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_score_ranks_or_counts_what_is_not_finite(name, value):
    right = np.array([0.0, 1.0, 0.0, 1.0])
    broken = np.array([0.0, 1.0, value, 1.0])
    with pytest.raises(ValueError, match=rf"{name}: the prediction of row 2 is -?(nan|inf) \(1 of 4 are not finite\)"):
        SCORES[name](broken, right)
    with pytest.raises(ValueError, match=f"{name}: the label of row 2"):
        SCORES[name](right, broken)


@pytest.mark.parametrize("name", sorted(SCORES))
@pytest.mark.parametrize(("predictions", "references"), [([], []), ([1], [1, 0]), ([[1, 0]], [[1, 0]])])
def test_no_rows_or_other_rows_have_no_score(name, predictions, references):
    with pytest.raises(ValueError, match="both must be one number a row, of at least one row"):
        SCORES[name](np.array(predictions), np.array(references))


@pytest.mark.parametrize("name", REGRESSION_METRICS)
def test_a_loaded_metric_refuses_predictions_that_are_no_numbers(name):
    metric = load_metric(name)
    with pytest.raises(ValueError, match="the prediction of row 1 is nan"):
        metric.compute(predictions=[1.0, math.nan, 3.0], references=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("size", [1e-200, 1e-9, 1.0, 1e200])
def test_a_correlation_does_not_depend_on_the_size_of_the_values(size):
    values, references = np.array([1.0, 3.0, 2.0, 5.0]), np.array([2.0, 3.0, 1.0, 4.0])
    assert SCORES["pearson"](size * values, references) == pytest.approx(SCORES["pearson"](values, references))


def test_equal_logits_choose_the_first_class():
    assert predictions_of(get_task("clue/ocnli"), np.zeros((2, 3))).tolist() == [0, 0]


@pytest.mark.parametrize("name", OF_ROWS)
def test_a_task_is_scored_on_the_labels_that_are_known_and_on_no_other(name):
    spec = get_task(name)
    hidden = np.nan if spec.label_names is None else -1
    references = np.array([0.0, 1.0, 0.0, 1.0, hidden])
    references = references if spec.label_names is None else references.astype(int)
    predictions = np.array([0, 1, 1, 1, 0]).astype(references.dtype)
    scores = compute_scores(spec, predictions, references)
    assert scores == compute_scores(spec, predictions[:4], references[:4])
    assert set(scores) == set(spec.metrics)
    perfect = compute_scores(spec, references[:4], references[:4])
    assert all(value == pytest.approx(1.0) for value in perfect.values())
    with pytest.raises(ValueError, match="hidden"):
        compute_scores(spec, predictions[4:], references[4:])


@pytest.mark.parametrize("name", OF_ROWS)
def test_logits_that_are_not_finite_or_too_few_are_errors(name):
    spec = get_task(name)
    logits = np.zeros((3, spec.num_labels))
    logits[1, 0] = np.nan
    with pytest.raises(ValueError, match="diverged"):
        predictions_of(spec, logits)
    with pytest.raises(ValueError, match="outputs per row"):
        predictions_of(spec, np.zeros((3, spec.num_labels + 1)))


def test_entities_that_nobody_finds_or_that_are_not_there_score_zero():
    nothing = [["O", "O"]]
    some = [["B-PER", "I-PER"]]
    for predictions, references in ((nothing, some), (some, nothing), (nothing, nothing)):
        scores = entity_scores(predictions, references)
        assert scores["f1"] == scores["precision"] == scores["recall"] == 0.0
    assert entity_scores(nothing, nothing)["accuracy"] == 1.0
    assert entity_scores([["B-LOC", "I-LOC"]], some)["f1"] == 0.0, "another type is another entity"
