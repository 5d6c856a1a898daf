"""One rule for label names: exactly, by a declared alias, or but for their case where that leaves no doubt."""

import pytest
from datasets import ClassLabel, Value
from tiny_data import write_rows
from transformers import BertConfig

from hf_distill.tasks.label_names import (
    LabelNames,
    label_permutation,
    match_label_order,
    order_by_name,
    order_by_number,
)
from hf_distill.tasks.labels import LabelLookup
from hf_distill.tasks.loading import load_task
from hf_distill.tasks.spec import TaskSpec


def test_names_that_differ_by_case_only_are_two():
    names = LabelNames(["May", "may", "can"])
    assert [names.find(text) for text in ("May", "may", "CAN", "MAY", "must")] == [0, 1, 2, None, None]
    assert order_by_name(["may", "May"], ["May", "may"]) == [1, 0]
    assert order_by_name(["May", "may"], ["May", "may"]) == [0, 1]
    assert order_by_name(["MAY", "may"], ["May", "may"]) is None
    assert order_by_name(["May", "may"], ["May", "can"]) is None


def test_a_match_but_for_case_needs_no_doubt():
    assert order_by_name(["POSITIVE", "Negative"], ["negative", "positive"]) == [1, 0]
    with pytest.raises(ValueError, match=r"it has the labels \['Yes', 'YES'\]"):
        match_label_order(["Yes", "YES"], ["yes", "no"], where="it")


def test_declared_aliases_count_and_may_not_collide():
    aliases = {"contradiction": ("contradictory",)}
    assert order_by_name(["Contradictory", "neutral"], ["neutral", "contradiction"], aliases) == [1, 0]
    with pytest.raises(ValueError, match="'b' would mean 'a' and another label too"):
        LabelNames(["a", "b"], {"a": ("b",)})
    with pytest.raises(ValueError, match=r"`label_aliases` has 'c'; the labels are \['a', 'b'\]"):
        LabelNames(["a", "b"], {"c": ("d",)})


def test_numbers_count_the_names_whatever_their_order():
    wanted = ["no", "maybe", "yes"]
    assert order_by_number(["LABEL_0", "LABEL_1", "LABEL_2"], wanted) == [0, 1, 2]
    assert order_by_number(["LABEL_2", "LABEL_0", "LABEL_1"], wanted) == [1, 2, 0]
    assert order_by_number(["1", "2", "3"], wanted) == [0, 1, 2]
    assert order_by_number(wanted, ["2", "1", "0"]) == [2, 1, 0]
    assert order_by_number(["0", "LABEL_0", "1"], wanted) is None
    # Codes are names, which no others are counted by.
    assert order_by_number(["01", "02", "03"], wanted) is None
    assert order_by_number(["LABEL_0", "LABEL_1"], ["01", "02"]) == [0, 1]
    assert order_by_number(["a", "b", "c"], wanted) is None
    assert order_by_number(["0", "1"], wanted) is None


@pytest.mark.parametrize("feature", [Value("string"), ClassLabel(names=["May", "may", "can"])])
def test_values_of_a_column_keep_their_case(feature):
    spec = TaskSpec("t", ("text",), ("may", "May", "can"), metrics=("accuracy",))
    lookup = LabelLookup(feature, spec, "train")
    values = ("May", "may", " can ", "-1", None) if isinstance(feature, Value) else (0, 1, 2, -1, None)
    assert [lookup.find(value) for value in values] == [1, 0, 2, -1, -1]
    assert lookup.find("MAY") is None


def test_a_number_is_a_name_where_names_are_numbers():
    """Grades 1 to 3: a 0 is none of them, and 1 is not the second."""
    lookup = LabelLookup(Value("int64"), TaskSpec("t", ("text",), ("1", "2", "3"), metrics=("accuracy",)), "train")
    assert [lookup.find(value) for value in (1, 2.0, "3", 0)] == [0, 1, 2, None]


def test_rows_and_tags_of_classes_that_differ_by_case_stay_apart(tmp_path):
    for split in ("train", "validation"):
        rows = [{"text": "a", "label": label} for label in ("May", "may", "can")]
        write_rows(tmp_path / f"{split}.jsonl", rows)
    task = load_task(str(tmp_path), text_columns=["text"])
    assert [task.spec.label_names[label] for label in task.train["label"]] == ["May", "may", "can"]


@pytest.mark.parametrize(
    ("theirs", "ours", "order"),
    [
        (("May", "may"), ("May", "may"), None),
        (("May", "may"), ("may", "May"), [1, 0]),
        (("Yes", "no"), ("NO", "yes"), [1, 0]),
        (("LABEL_1", "LABEL_0"), ("no", "yes"), [1, 0]),
    ],
)
def test_a_teachers_outputs_follow_the_students_names(theirs, ours, order):
    configs = [BertConfig(num_labels=2, id2label=dict(enumerate(names))) for names in (theirs, ours)]
    assert label_permutation(*configs) == order


def test_a_teacher_whose_names_could_mean_two_is_refused():
    configs = [BertConfig(num_labels=2, id2label=dict(enumerate(names))) for names in (("MAY", "x"), ("May", "may"))]
    with pytest.raises(ValueError, match="different labels"):
        label_permutation(*configs)


@pytest.mark.parametrize("value", ["inf", float("-inf"), [1.0]])
def test_a_score_without_end_is_refused(value, tmp_path):
    rows = [{"text": "a", "label": 0.5}, {"text": "b", "label": str(value)}]
    write_rows(tmp_path / "train.jsonl", [row | {"label": str(row["label"])} for row in rows])
    with pytest.raises(ValueError, match="not a finite number"):
        load_task(
            str(tmp_path),
            text_columns=["text"],
            label_names=None,
            metrics=["pearson"],
            splits=["train"],
            spec=TaskSpec("r", ("text",), None, metrics=("pearson",)),
        )


def test_rows_that_lack_a_class_of_the_model_are_told_from_other_labels():
    with pytest.raises(
        ValueError, match=r"If rows of \['so so'\] only .* missing: `--class_names bad 'so so' good`\."
    ):
        match_label_order(["bad", "so so", "good"], ["bad", "good"], where="The model")
    with pytest.raises(ValueError, match=r"`--class_names`\)\.$"):
        match_label_order(["bad", "so so", "good"], ["bad", "fine"], where="The model")
