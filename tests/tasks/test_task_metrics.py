"""Bundled metrics agree with scikit-learn and scipy, need no network, and never count a hidden label."""

import sys

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics
from transformers import EvalPrediction

from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.metrics.compute import build_compute_metrics, compute_scores, predictions_of
from hf_distill.tasks.metrics.evaluate_modules import load_metric
from hf_distill.tasks.metrics.scores import SCORES
from hf_distill.tasks.spec import TaskSpec

PEERS = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": lambda y, p: sklearn_metrics.f1_score(y, p, zero_division=0.0),
    "f1_macro": lambda y, p: sklearn_metrics.f1_score(y, p, average="macro", zero_division=0.0),
    "matthews_correlation": sklearn_metrics.matthews_corrcoef,
    "pearson": lambda y, p: stats.pearsonr(p, y).statistic,
    "spearman": lambda y, p: stats.spearmanr(p, y).statistic,
}


def draw(name, seed):
    generator = np.random.default_rng(seed)
    if name in ("pearson", "spearman"):
        values = generator.normal(size=60)
        # Rounded values have ties, which Spearman must share ranks over.
        return np.round(values + generator.normal(size=60), 1), np.round(values, 1)
    classes = 2 if name == "f1" else 3 + seed % 3
    return generator.integers(classes, size=60), generator.integers(classes, size=60)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", sorted(PEERS))
def test_scores_agree_with_scikit_learn_and_scipy(name, seed):
    predictions, references = draw(name, seed)
    expected = PEERS[name](references, predictions)
    assert SCORES[name](predictions, references) == pytest.approx(expected, abs=1e-12)
    module = load_metric(name, keep_in_memory=True, experiment_id=f"{name}-{seed}")
    assert module.compute(predictions=predictions, references=references) == {name: pytest.approx(expected, abs=1e-12)}


@pytest.mark.parametrize(
    ("predictions", "references"),
    [([1, 1, 1], [0, 1, 1]), ([0, 1, 1], [1, 1, 1]), ([1, 1], [1, 1]), ([0, 0], [0, 0]), ([0, 0], [1, 1])],
)
@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews_correlation"])
def test_one_class_only_scores_as_in_scikit_learn(name, predictions, references):
    predictions, references = np.array(predictions), np.array(references)
    # scikit-learn's Matthews correlation is 0 throughout here, with a warning where both sides are constant.
    expected = 0.0 if name == "matthews_correlation" else PEERS[name](references, predictions)
    assert SCORES[name](predictions, references) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_constant_correlates_with_nothing(name):
    values = np.array([0.1, 0.4, 0.2])
    assert SCORES[name](np.full(3, 0.1), values) == 0.0
    assert SCORES[name](values, np.full(3, 2.0)) == 0.0
    assert SCORES[name](values[:1], values[:1]) == 0.0
    assert SCORES[name](np.full(3, 1e9) + np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(1.0)


def test_hidden_labels_do_not_count():
    rte = get_task("rte")
    predictions, references = np.array([0, 1, 1, 0]), np.array([0, 1, 0, -1])
    assert compute_scores(rte, predictions, references) == {"accuracy": pytest.approx(2 / 3)}
    assert load_metric("accuracy", keep_in_memory=True).compute(predictions=predictions, references=references) == {
        "accuracy": pytest.approx(2 / 3)
    }
    stsb = compute_scores(get_task("stsb"), np.array([1.0, 2.0, 9.0]), np.array([2.0, 4.0, -1.0]))
    assert stsb == {"pearson": pytest.approx(1.0), "spearman": pytest.approx(1.0)}
    with pytest.raises(ValueError, match=r"all 4 labels are hidden.*\['validation'\]"):
        compute_scores(rte, predictions, np.full(4, -1))


@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "mnli"])
def test_the_hook_of_a_task_gives_the_tasks_scores_from_logits(name):
    spec = get_task(name)
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(40, spec.num_labels))
    labels = generator.uniform(0, 5, 40) if spec.label_names is None else generator.integers(spec.num_labels, size=40)
    predictions = logits[:, 0] if spec.label_names is None else logits.argmax(1)
    expected = {score: pytest.approx(PEERS[score](labels, predictions)) for score in spec.metrics}
    hook = build_compute_metrics(spec)
    assert hook(EvalPrediction(predictions=logits, label_ids=labels)) == expected
    with_extras = EvalPrediction(predictions=(logits, np.zeros((40, 3, 2))), label_ids=labels)
    assert hook(with_extras) == expected, "logits come first among several outputs"


def test_a_metric_module_of_a_task_gives_what_the_hook_gives():
    spec = get_task("mrpc")
    predictions, references = draw("f1", 0)
    module = load_metric("glue/mrpc", keep_in_memory=True)
    module.add_batch(predictions=predictions[:30], references=references[:30])
    module.add_batch(predictions=predictions[30:], references=references[30:])
    assert module.compute() == compute_scores(spec, predictions, references)


def test_outputs_that_do_not_fit_or_are_not_finite_are_errors():
    spec = get_task("sst2")
    with pytest.raises(ValueError, match="needs 2 outputs"):
        predictions_of(spec, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="diverged"):
        predictions_of(spec, np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match="do not fit"):
        compute_scores(spec, np.zeros(3), np.zeros(4))
    assert predictions_of(TaskSpec("t", ("text",), None, metrics=("pearson",)), np.zeros(3)).shape == (3,)


def test_an_unknown_metric_is_an_error_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no metric 'bleurt'.*accuracy"):
        load_metric("bleurt")


def test_the_hook_does_not_import_evaluate():
    import subprocess

    code = (
        "import sys; from hf_distill.tasks import build_compute_metrics, get_task;"
        "build_compute_metrics(get_task('sst2'));"
        "sys.exit('evaluate' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scripts_for_entities_and_answers_are_metrics_by_name_and_by_task():
    tags = {"predictions": [["B-X", "O"]], "references": [["B-X", "O"]]}
    for name in ("seqeval", "conll2003"):
        assert load_metric(name, keep_in_memory=True).compute(**tags)["overall_f1"] == 1.0
    answers = {
        "predictions": [{"id": "1", "prediction_text": "The cat"}],
        "references": [{"id": "1", "answers": {"text": ["a cat"], "answer_start": [0]}}],
    }
    for name, options in {"squad": {}, "cmrc2018": {}, "mlqa": {"language": "en"}}.items():
        assert 0 < load_metric(name, keep_in_memory=True, **options).compute(**answers)["f1"] <= 1
