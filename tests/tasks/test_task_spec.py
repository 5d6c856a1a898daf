"""Task specs are data: the nine GLUE tasks as the papers and the Hub have them, and the rules every spec obeys."""

import subprocess
import sys

import numpy as np
import pytest

from hf_distill import tasks
from hf_distill.tasks.catalogue.registry import get_task, list_tasks, register_task
from hf_distill.tasks.spec import FineTuningDefaults, TaskSpec

# columns, labels in the Hub's order, metrics with the headline first (GLUE paper; Contextualized Corpus, section 3)
GLUE = {
    "cola": (("sentence",), ("unacceptable", "acceptable"), "matthews_correlation"),
    "sst2": (("sentence",), ("negative", "positive"), "accuracy"),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent"), "accuracy"),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate"), "accuracy"),
    "stsb": (("sentence1", "sentence2"), None, "pearson"),
    "mnli": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), "accuracy"),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment"), "accuracy"),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment"), "accuracy"),
    "wnli": (("sentence1", "sentence2"), ("not_entailment", "entailment"), "accuracy"),
}
LARGE = {"mnli", "qqp", "qnli", "sst2"}


@pytest.mark.parametrize("name", sorted(GLUE))
def test_glue_task_has_the_columns_labels_and_metric_of_the_papers(name):
    columns, labels, metric = GLUE[name]
    spec = get_task(f"glue/{name}")
    assert (spec.text_columns, spec.label_names, spec.headline) == (columns, labels, metric)
    assert spec.hub_config == name
    assert spec.num_labels == (1 if labels is None else len(labels))
    assert spec.problem_type == ("regression" if labels is None else "single_label_classification")


@pytest.mark.parametrize("name", sorted(GLUE))
def test_fine_tuning_defaults_are_those_of_the_contextualized_corpus_paper(name):
    defaults = get_task(name).fine_tuning
    assert (defaults.epochs, defaults.warmup, defaults.weight_decay, defaults.max_length) == (10, 0.06, 0.01, 128)
    assert (defaults.batch_size, defaults.learning_rate) == ((32, 1e-5) if name in LARGE else (16, 2e-5))
    assert "Contextualized Corpus" in defaults.source


def test_mnli_reports_both_validation_sets_matched_first():
    spec = get_task("glue/mnli")
    assert spec.evaluation_splits == ("validation_matched", "validation_mismatched")
    assert spec.headline_split == "validation_matched"


def test_mrpc_and_qqp_report_accuracy_and_f1_and_stsb_both_correlations():
    assert get_task("mrpc").metrics == get_task("qqp").metrics == ("accuracy", "f1")
    assert get_task("stsb").metrics == ("pearson", "spearman")


@pytest.mark.parametrize("name", ["sst2", "SST-2", "glue/SST2", "glue/sst-2"])
def test_common_spellings_mean_the_same_task(name):
    assert get_task(name).name == "glue/sst2"


def test_an_unknown_task_is_an_error_with_close_matches_and_all_names():
    with pytest.raises(ValueError, match=r"'glue/mnly'.*Did you mean 'glue/mnli'.*glue/wnli.*task.yaml"):
        get_task("glue/mnly")


def test_a_task_of_ones_own_can_be_registered_once():
    spec = TaskSpec("mine/spec-test", ("text",), ("no", "yes"))
    assert register_task(spec) is spec
    assert get_task("mine/spec-test") is spec
    assert "mine/spec-test" in list_tasks()
    assert register_task(spec) is spec
    other = TaskSpec("mine/spec-test", ("text",), ("yes", "no"))
    with pytest.raises(ValueError, match="already a task 'mine/spec-test'"):
        register_task(other)
    assert register_task(other, replace=True) is get_task("mine/spec-test")


@pytest.mark.parametrize("name", sorted(GLUE))
def test_a_spec_survives_the_way_through_plain_values(name):
    assert TaskSpec.from_dict(get_task(name).to_dict()) == get_task(name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text_columns": []}, "one column"),
        ({"text_columns": ["a", "b", "c"]}, "one column"),
        ({"label_names": ["a", "a"]}, "duplicates"),
        ({"label_names": ["a"]}, "two label names"),
        ({"metrics": ["pearson"]}, r"\['pearson'\].*matthews_correlation"),
        ({"metrics": []}, "no entry"),
        ({"label_names": ["a", "b", "c"], "metrics": ["f1"]}, "f1_macro"),
        ({"headline_metric": "f1"}, "not in `metrics`"),
        ({"labels": ["a"]}, r"no fields \['labels'\].*label_names"),
        ({"text_columns": 3}, "list of names"),
        ({"label_names": [True, False]}, "between quotes"),
        ({"fine_tuning": {"lr": 1}}, r"no fields \['lr'\]"),
        ({"fine_tuning": {"epochs": "nan"}}, "not finite"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(fields, message):
    base = {"name": "t", "text_columns": ["text"], "label_names": ["a", "b"]}
    with pytest.raises(ValueError, match=message):
        TaskSpec.from_dict(base | fields)


def test_missing_fields_are_named():
    with pytest.raises(ValueError, match=r"\['text_columns', 'label_names'\]"):
        TaskSpec.from_dict({"name": "t"})


def test_fine_tuning_settings_are_read_as_numbers_even_where_yaml_gives_text():
    values = {"name": "t", "text_columns": "text", "label_names": ["a", "b"]}
    spec = TaskSpec.from_dict(values | {"fine_tuning": {"learning_rate": "1e-4", "batch_size": 8}})
    assert spec.fine_tuning == FineTuningDefaults(learning_rate=1e-4, batch_size=8, source="the user's task file")
    assert spec.text_columns == ("text",)


def test_hidden_labels_are_not_visible():
    assert get_task("rte").visible(np.array([0, -1, 1, -100])).tolist() == [True, False, True, False]
    assert get_task("stsb").visible(np.array([0.0, -1.0, 5.0, np.nan])).tolist() == [True, False, True, False]
    free = TaskSpec("t", ("text",), None, metrics=("pearson",))
    assert free.visible(np.array([-1.0, np.nan])).tolist() == [True, False], "without a range, -1 is a value"


def test_specs_load_neither_torch_nor_transformers():
    heavy = "any(m in sys.modules for m in ('torch', 'transformers', 'datasets'))"
    code = f"import sys; from hf_distill.tasks import spec; sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_of_the_package_can_be_used():
    assert sorted(tasks.__all__) == sorted(tasks._MODULE_OF)
    assert all(getattr(tasks, name) is not None for name in dir(tasks))
    assert tasks.get_task is get_task
    with pytest.raises(AttributeError, match=r"no attribute 'load'; it has .*load_task"):
        _ = tasks.load
