"""BERT-EMD: the cheapest flow between the layers of both sides."""

import itertools

import numpy as np
import pytest
import torch
from layer_cases import make, student_signals, teacher_signals
from scipy.optimize import linprog

from hf_distill.capture.signals import SignalRequest
from hf_distill.objectives import solve_transport
from hf_distill.objectives.attention import score_error
from hf_distill.objectives.features import squared_error


def equal(count):
    return np.full(count, 1 / count)


@pytest.fixture
def student():
    return student_signals()


@pytest.fixture
def teacher():
    return teacher_signals()


# --- the solver ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_students", "num_teachers"), [(4, 12), (6, 12), (5, 12), (3, 2), (1, 3), (1, 1)])
@pytest.mark.parametrize("masses", ["equal", "unequal"])
def test_no_flow_is_cheaper(num_students, num_teachers, masses):
    random = np.random.default_rng(0)
    costs = random.random((num_students, num_teachers))
    rows, columns = equal(num_students), equal(num_teachers)
    if masses == "unequal":
        rows, columns = (m / m.sum() for m in (random.random(num_students), random.random(num_teachers)))
    flow = solve_transport(costs, rows, columns)
    np.testing.assert_allclose(flow.sum(1), rows, atol=1e-9)
    np.testing.assert_allclose(flow.sum(0), columns, atol=1e-9)
    assert (flow >= 0).all()
    every_sum = [
        np.kron(np.eye(num_students), np.ones(num_teachers)),
        np.kron(np.ones(num_students), np.eye(num_teachers)),
    ]
    least = linprog(costs.ravel(), A_eq=np.vstack(every_sum), b_eq=np.concatenate((rows, columns))).fun
    assert (flow * costs).sum() == pytest.approx(least, abs=1e-9)


def test_as_many_layers_on_both_sides_are_paired_one_by_one():
    costs = np.random.default_rng(1).random((4, 4))
    flow = solve_transport(costs, equal(4), equal(4))
    best = min(sum(costs[i, p[i]] for i in range(4)) for p in itertools.permutations(range(4)))
    assert sorted(flow.ravel())[-4:] == pytest.approx([0.25] * 4)
    assert (flow * costs).sum() == pytest.approx(best / 4)


def test_equal_layers_cost_nothing_to_move():
    costs = 1.0 - np.eye(3)
    np.testing.assert_allclose(solve_transport(costs, equal(3), equal(3)), np.eye(3) / 3)


def test_costs_that_overflowed_do_not_stop_the_training():
    costs = np.array([[np.nan, np.inf], [1.0, 2.0]])
    assert solve_transport(costs, equal(2), equal(2)).sum() == pytest.approx(1)
    assert solve_transport(costs, np.array([0.3, 0.7]), equal(2)).sum() == pytest.approx(1)


# --- the objective ---------------------------------------------------------------------------------------------------


def test_is_the_cheapest_flow_of_all_layers_and_the_embeddings_one_to_one(student, teacher):
    objective = make("bert_emd", student, teacher, layer_weight=0.5)
    terms = objective(student, teacher)
    mask = student.attention_mask.bool()
    projected = [objective.projections(student.hidden_states[i], i).detach() for i in range(3)]
    hidden = [
        [squared_error(projected[i], teacher.hidden_states[j], mask).mean() for j in (1, 2, 3, 4)] for i in (1, 2)
    ]
    scores = [
        [score_error(student.attention_scores[i], teacher.attention_scores[j], mask).mean() for j in (1, 2, 3, 4)]
        for i in (1, 2)
    ]

    def cheapest(costs):
        # Two student layers of mass 1/2 and four of mass 1/4: each takes two of the four.
        return min(
            sum(float(costs[0 if j in first else 1][j]) / 4 for j in range(4))
            for first in itertools.combinations(range(4), 2)
        )

    expected = {
        "embeddings": squared_error(projected[0], teacher.hidden_states[0], mask).mean().item(),
        "hidden": 0.5 * cheapest(hidden),
        "attention": 0.5 * cheapest(scores),
    }
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_gradients_go_through_the_costs_of_the_pairs_that_carry(student, teacher):
    objective = make("bert_emd", student, teacher, attention=False)
    for states in student.hidden_states.values():
        states.requires_grad_()
    terms = objective(student, teacher)
    sum(terms.values()).backward()
    assert all(states.grad.any() for states in student.hidden_states.values())
    assert all(p.grad.any() for p in objective.parameters())
    assert "attention" not in terms
    assert objective.student_request == SignalRequest(hidden_states=frozenset({0, 1, 2}))


def test_is_zero_when_the_student_is_the_teacher(teacher):
    objective = make("bert_emd", teacher, teacher, depths=(4, 4), projection="identity")
    assert sum(objective(teacher, teacher).values()).abs() < 1e-6


def test_masses_stay_equal_unless_costs_decide(student, teacher):
    objective = make("bert_emd", student, teacher)
    objective(student, teacher)
    assert torch.equal(objective.student_masses, torch.full((2,), 0.5))
    assert torch.equal(objective.teacher_masses, torch.full((4,), 0.25))


def test_cheap_layers_get_more_mass_after_each_batch_of_training(student, teacher):
    student.hidden_states[1] *= 10
    objective = make("bert_emd", student, teacher, attention=False, cost_attention=True, projection="tanh")
    teacher.hidden_states[2] *= 10
    objective.eval()
    objective(student, teacher)
    assert torch.equal(objective.teacher_masses, torch.full((4,), 0.25))
    objective.train()
    before = objective(student, teacher)
    assert objective.teacher_masses.sum().item() == pytest.approx(1)
    assert objective.student_masses.sum().item() == pytest.approx(1)
    assert objective.teacher_masses.argmin() == 1
    assert objective(student, teacher)["hidden"] < before["hidden"]


def test_masses_are_in_inverse_proportion_to_the_costs_of_a_unit(student, teacher):
    objective = make("bert_emd", student, teacher, attention=False, cost_attention=True)
    objective._update_masses([torch.tensor([[0.1, 0.0, 0.2, 0.0], [0.0, 0.3, 0.0, 0.6]])])
    # Units cost 0.3 / 0.5 and 0.9 / 0.5 on the student's side, 0.4, 1.2, 0.8, 2.4 on the teacher's.
    torch.testing.assert_close(objective.student_masses, torch.tensor([0.75, 0.25]), rtol=1e-4, atol=1e-5)
    inverse = torch.tensor([1 / 0.4, 1 / 1.2, 1 / 0.8, 1 / 2.4])
    torch.testing.assert_close(objective.teacher_masses, inverse / inverse.sum(), rtol=1e-4, atol=1e-5)
    assert {"student_masses", "teacher_masses"} <= objective.state_dict().keys()


def test_costs_that_overflowed_leave_the_masses_alone(student, teacher):
    objective = make("bert_emd", student, teacher, attention=False, cost_attention=True)
    objective._update_masses([torch.full((2, 4), float("inf"))])
    assert torch.equal(objective.student_masses, torch.full((2,), 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_weight": 0}, "`layer_weight` of `bert_emd` is 0.0; it must be above 0"),
        ({"projection": "identity"}, "8 wide and the teacher's 12"),
    ],
)
def test_options_that_cannot_be_are_refused(student, teacher, options, message):
    with pytest.raises(ValueError, match=message):
        make("bert_emd", student, teacher, **options)


def test_scores_need_as_many_heads(student, teacher):
    student.attention_scores = {i: x[:, :2] for i, x in student.attention_scores.items()}
    with pytest.raises(ValueError, match=r"'bert_emd'.*student has 2.*teacher 4: set attention=false"):
        make("bert_emd", student, teacher)
