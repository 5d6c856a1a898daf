"""What a predictor scores that looks at no text, and who is one."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.majority import constant_label, constant_remark, majority_line, majority_scores
from hf_distill.tasks.spec import TaskSpec


def task(spec, feature, **splits):
    rows = {
        name: Dataset.from_dict({spec.label_column: labels}, Features({spec.label_column: feature}))
        for name, labels in splits.items()
    }
    return LoadedTask(spec, DatasetDict(rows), "here")


def test_the_most_frequent_label_of_the_training_rows_is_scored_on_every_split():
    spec = TaskSpec(
        "t", ("text",), ("no", "yes"), metrics=("accuracy", "f1"), evaluation_splits=("validation", "other")
    )
    names = ClassLabel(names=["no", "yes"])
    found = majority_scores(task(spec, names, train=[0, 1, 1, -1, -1, -1], validation=[0, 0, 1, -1], other=[-1]))
    assert found["label"] == "yes"
    assert found["scores"] == {"validation": {"accuracy": pytest.approx(1 / 3), "f1": pytest.approx(0.5)}}
    assert found["score"] == pytest.approx(1 / 3)
    assert majority_scores(task(spec, names, validation=[0, 0, 1]))["label"] == "no"


def test_a_mean_is_correlated_with_nothing():
    spec = TaskSpec("t", ("text",), None, metrics=("pearson",))
    found = majority_scores(task(spec, Value("float32"), train=[1.0, 2.0, float("nan")], validation=[1.0, 3.0]))
    assert found == {"label": 1.5, "score": None, "scores": {"validation": {"pearson": None}}}
    assert majority_line(found) == "majority, 1.5 for every row: not defined"
    assert majority_line(None) is None


def test_of_several_labels_every_row_is_given_the_most_frequent_one_alone():
    metrics = ("f1_micro", "f1_macro", "exact_match", "ranking_average_precision")
    spec = TaskSpec("t", ("text",), ("a", "b", "c"), metrics=metrics, several_labels=True)
    rows = [[0, 1, 1], [0, 1, 0], [1, 0, 0], [-1, -1, -1]]
    found = majority_scores(task(spec, List(Value("float32")), train=rows, validation=rows))
    assert found["label"] == "b"
    # Two of three given are right, of four labels; the ranks of (b), (b, c) and (a) are 1, (1, 3) and 3.
    expected = [2 * 2 / (3 + 4), (4 / 5) / 3, 1 / 3, ((1 + 2 / 3) / 2 + 1 + 1 / 3) / 3]
    assert found["scores"]["validation"] == pytest.approx(dict(zip(metrics, expected, strict=True)))


def test_the_tag_of_most_words_finds_no_entity():
    spec = TaskSpec("t", ("tokens",), ("O", "B-A", "I-A"), metrics=("f1", "accuracy"), kind="token_classification")
    rows = [[0, 0, 1], [0, -1]]
    found = majority_scores(task(spec, List(ClassLabel(names=["O", "B-A", "I-A"])), train=rows, validation=rows))
    assert found == {"label": "O", "score": 0.0, "scores": {"validation": {"f1": 0.0, "accuracy": 0.75}}}
    # Short rows that are entities: whoever says so is often right.
    rows = [[1], [1], [0, 1]]
    found = majority_scores(task(spec, List(ClassLabel(names=["O", "B-A", "I-A"])), train=rows, validation=rows))
    assert found["label"] == "B-A"
    assert found["scores"]["validation"] == {"f1": pytest.approx(6 / 7), "accuracy": 0.75}


def test_a_constant_predictor_is_one_only_where_the_rows_differ():
    spec = TaskSpec("t", ("text",), ("no", "yes"), metrics=("accuracy",))
    ones, mixed = np.array([1, 1, 1]), np.array([0, 1, -1])
    assert constant_label(ones, mixed, spec) == "yes"
    assert constant_label(np.array([1, 0, 1]), mixed, spec) is None
    assert constant_remark("yes") == " (predicts only 'yes', whatever the text says)"
    assert constant_remark(None) == ""
    assert constant_label(ones, np.array([1, 1, -1]), spec) is None
    values = TaskSpec("t", ("text",), None, metrics=("pearson",))
    assert constant_label(np.array([0.2, 0.2]), np.array([0.0, 1.0]), values) == pytest.approx(0.2)
