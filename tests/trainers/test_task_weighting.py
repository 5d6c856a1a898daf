"""Weights of tasks: by their number of choices, learnt variances, gradient norms."""

import math

import pytest
import torch
from torch import nn

from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.multi_task.weighting import GradientNormWeights, UncertaintyWeights, log_classes


def spec(labels, **fields):
    return TaskSpec("t", ("text",), labels, metrics=("pearson",) if labels is None else ("accuracy",), **fields)


def test_classes_count_by_the_logarithm_of_their_number():
    assert log_classes(spec(("a", "b", "c")), 64) == pytest.approx(math.log(3))


def test_regression_stays_as_it_is():
    assert log_classes(spec(None), 64) == 1.0


def test_answers_count_by_the_logarithm_of_the_places():
    squad = TaskSpec(
        "q", ("question", "context"), None, kind="question_answering", metrics=("f1",), label_column="answers"
    )
    assert log_classes(squad, 384) == pytest.approx(math.log(384))


def test_learnt_variances_begin_without_effect():
    weights = UncertaintyWeights(["a", "b"])
    assert weights("a", torch.tensor(3.0)).item() == 3.0
    assert weights.weights() == {"a": 1.0, "b": 1.0}


def test_a_learnt_variance_ends_where_it_equals_twice_the_loss():
    # d/ds of exp(-s) L + s / 2 is zero at exp(s) = 2 L.
    weights = UncertaintyWeights(["a"])
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        weights("a", torch.tensor(3.0)).backward()
        optimizer.step()
    assert weights.log_variances.exp().item() == pytest.approx(6.0, rel=1e-3)


def observed(factors, alpha, losses=None, turns=1):
    """Weights after tasks whose gradients differ by known factors."""
    shared = [nn.Parameter(torch.tensor([1.0, 2.0]))]
    names = list(factors)
    weights = GradientNormWeights(names, alpha)
    for turn in range(turns):
        for name in names:
            loss = factors[name] * shared[0].sum()
            if losses:
                loss = loss - loss.detach() + losses[name][turn]
            weights.observe(name, loss, shared)
    return weights


def test_gradient_norms_become_equal_when_all_tasks_learn_alike():
    found = observed({"a": 1.0, "b": 4.0}, alpha=0.0).weights()
    assert found["a"] * 1.0 == pytest.approx(found["b"] * 4.0)
    assert sum(found.values()) == pytest.approx(2.0)


def test_a_task_that_learns_slowly_pulls_more():
    losses = {"a": [1.0] + [1.0] * 60, "b": [1.0] + [0.25] * 60}
    found = observed({"a": 1.0, "b": 1.0}, alpha=1.0, losses=losses, turns=61).weights()
    assert found["a"] / found["b"] == pytest.approx(4.0, rel=0.02)


def test_until_every_task_was_seen_all_weigh_alike():
    weights = GradientNormWeights(["a", "b"], 1.5)
    parameter = nn.Parameter(torch.tensor([1.0]))
    weights.observe("a", 7 * parameter.sum(), [parameter])
    assert weights.weights() == {"a": 1.0, "b": 1.0}


def test_observing_leaves_no_gradient_and_the_graph_for_the_step():
    weights = GradientNormWeights(["a"], 1.0)
    parameter = nn.Parameter(torch.tensor([1.0]))
    loss = 3 * parameter.sum()
    weights.observe("a", loss, [parameter])
    assert parameter.grad is None
    loss.backward()
    assert parameter.grad.item() == 3.0


def test_weights_are_part_of_a_checkpoint():
    weights = observed({"a": 1.0, "b": 4.0}, alpha=0.0)
    other = GradientNormWeights(["a", "b"], 0.0)
    other.load_state_dict(weights.state_dict())
    assert other.weights() == weights.weights()
