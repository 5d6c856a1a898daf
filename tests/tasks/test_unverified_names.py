"""Names of classes that nobody has compared with the data: the rows' own count, and numbers stay numbers."""

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import BertForSequenceClassification, set_seed

from hf_distill.tasks import loading
from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.loading import load_task
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning import task_models
from hf_distill.trainers.fine_tuning.task_models import fit_head, label_order

UNVERIFIED = ("acl_arc", "chemprot", "helpful", "hyperpartisan", "scierc")


@pytest.fixture
def said(warnings_of):
    return warnings_of(loading)


def folder(place, feature, labels):
    for split in ("train", "validation"):
        features = Features({"text": Value("string"), "label": feature})
        rows = Dataset.from_dict(
            {"text": [f"row {n}" for n in range(len(labels))], "label": labels}, features=features
        )
        rows.to_parquet(str(place / f"{split}.parquet"))
    return place


def named(task):
    return [task.spec.label_names[label] for label in task.train["label"]]


@pytest.mark.parametrize("name", UNVERIFIED)
def test_copies_whose_order_is_unknown_are_marked(name):
    spec = get_task(name)
    assert spec.names_unverified
    assert TaskSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("feature", "labels"),
    [
        (ClassLabel(names=["helpful", "unhelpful"]), [0, 1, 0]),
        (ClassLabel(names=["unhelpful", "helpful"]), [1, 0, 1]),
        (Value("string"), ["helpful", "unhelpful", "Helpful"]),
    ],
)
def test_rows_that_name_their_classes_decide(tmp_path, said, feature, labels):
    task = load_task("helpful", folder(tmp_path, feature, labels))
    assert named(task) == ["helpful", "unhelpful", "helpful"]
    assert not task.spec.names_unverified
    assert task.spec.metrics == ("accuracy", "f1_macro", "f1")
    assert said == []


def test_other_names_of_the_rows_are_taken(tmp_path, said):
    task = load_task("helpful", folder(tmp_path, ClassLabel(names=["useless", "useful"]), [1, 0]))
    assert task.spec.label_names == ("useless", "useful")
    assert named(task) == ["useful", "useless"]
    assert "are named as in the rows" in said[0]
    task = load_task("helpful", folder(tmp_path, Value("string"), ["yes", "no"]))
    assert task.spec.label_names == ("no", "yes")
    assert named(task) == ["yes", "no"]


@pytest.mark.parametrize("feature", [Value("int64"), Value("string"), ClassLabel(names=["0", "1"])])
def test_numbers_are_no_names_and_what_depends_on_names_is_refused(tmp_path, said, feature):
    labels = ["1", "0"] if feature == Value("string") else [1, 0]
    place = folder(tmp_path, feature, labels)
    task = load_task("helpful", place)
    assert task.spec.label_names == ("0", "1")
    assert task.train["label"] == [1, 0]
    assert task.spec.metrics == ("accuracy", "f1_macro")
    assert task.spec.names_unverified
    assert len(said) == 1
    assert "f1 is left out. `--class_names`" in said[0]
    with pytest.raises(ValueError, match=r"the metrics \['f1'\] cannot tell.*--class_names") as raised:
        load_task("helpful", place, metrics=["accuracy", "f1"], headline_metric="accuracy")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="--class_names"):
        load_task("helpful", place, metrics=["f1"], headline_metric="f1")


def test_names_of_a_model_are_not_matched_with_unverified_numbers(tmp_path, said, tiny_bert_config, monkeypatch):
    spec = load_task("helpful", folder(tmp_path, Value("int64"), [1, 0])).spec
    named_model = tiny_bert_config(id2label={0: "unhelpful", 1: "helpful"}, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"numbers without names.*`--class_names`"):
        label_order(named_model, spec, where="The teacher")
    assert label_order(tiny_bert_config(), spec, where="The teacher") == [0, 1]
    # A head that is trained on them begins anew, and is called by the numbers.
    set_seed(0)
    model = BertForSequenceClassification(named_model)
    before, lines = model.classifier.weight.detach().clone(), []
    monkeypatch.setattr(task_models.logger, "warning", lines.append)
    fit_head(model, ["unhelpful", "helpful"], spec, where="the model")
    assert not torch.equal(model.classifier.weight, before)
    assert "a new one is trained" in lines[0]


def test_names_of_the_user_count(tmp_path, said):
    place = folder(tmp_path, Value("int64"), [1, 0])
    task = load_task("helpful", place, label_names=["helpful", "unhelpful"], metrics=["f1"], headline_metric="f1")
    assert named(task) == ["unhelpful", "helpful"]
    assert not task.spec.names_unverified
    assert said == []


def test_truth_values_name_themselves(tmp_path, said):
    task = load_task("hyperpartisan", folder(tmp_path, Value("bool"), [True, False]))
    assert named(task) == ["true", "false"]
    assert not task.spec.names_unverified


def test_verified_names_stay_as_they_were(tmp_path):
    place = folder(tmp_path, ClassLabel(names=["helpful", "useless"]), [1, 0])
    with pytest.raises(ValueError, match=r"helpful.*useless"):
        load_task("helpful", place, names_unverified=False)


def test_the_hubs_own_names_decide(hub_data):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["COMPARE", "USED-FOR", "PART-OF"])})
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 2]}, features=features)
    hub_data.add_data_set("yxchar/sciie-tlm", {"default": {"train": rows, "validation": rows}})
    task = load_task("scierc")
    assert named(task) == ["USED-FOR", "PART-OF"]
