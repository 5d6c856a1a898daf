"""Objectives on the scores of candidates, against slow references."""

import math

import pytest
import torch

from hf_distill.capture.signals import ABSENT, Signals
from hf_distill.objectives import build_objectives
from hf_distill.objectives.logits import LabelsObjective
from hf_distill.objectives.ranking import ListwiseObjective, MarginObjective

# Rows with four, two and one candidates.
COUNTS = (4, 2, 1)
REAL = torch.arange(4) < torch.tensor(COUNTS)[:, None]


def of(scores):
    return Signals(torch.ones(12, 3), {"logits": scores.masked_fill(~REAL, ABSENT)}, candidates=REAL)


@pytest.fixture
def sides():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(3, 4, generator=generator), 4 * torch.randn(3, 4, generator=generator)


def lists(scores):
    return [row[:count].tolist() for row, count in zip(scores.double(), COUNTS, strict=True)]


@pytest.mark.parametrize("pairs", ["first", "all"])
def test_margins_are_compared_pair_by_pair(sides, pairs):
    student, teacher = sides
    rows = []
    for ours, theirs in zip(lists(student), lists(teacher), strict=True):
        firsts = range(1) if pairs == "first" else range(len(ours))
        compared = [(i, j) for i in firsts for j in range(i + 1, len(ours))]
        errors = [((ours[i] - ours[j]) - (theirs[i] - theirs[j])) ** 2 for i, j in compared]
        rows.append(sum(errors) / len(errors) if errors else 0.0)
    found = MarginObjective(pairs)(of(student), of(teacher))
    assert float(found["mse"]) == pytest.approx(sum(rows) / 3, rel=1e-5)


def softmax(scores, tau):
    total = sum(math.exp(one / tau) for one in scores)
    return [math.exp(one / tau) / total for one in scores]


@pytest.mark.parametrize("loss", ["kl", "listnet"])
@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_a_list_is_one_distribution(sides, loss, tau):
    student, teacher = sides
    rows = []
    for ours, theirs in zip(lists(student), lists(teacher), strict=True):
        p, q = softmax(theirs, tau), softmax(ours, tau)
        entropy = sum(a * math.log(a) for a in p) if loss == "kl" else 0.0
        rows.append(entropy - sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    found = ListwiseObjective(loss, tau)(of(student), of(teacher))
    assert float(found[loss]) == pytest.approx(tau**2 * sum(rows) / 3, rel=1e-4)


@pytest.mark.parametrize("objective", [MarginObjective("all"), ListwiseObjective(), ListwiseObjective("listnet")])
def test_neither_order_nor_scale_nor_places_without_candidates_count(sides, objective):
    student, teacher = sides
    term = next(iter(objective(of(student), of(teacher)).values()))
    order = torch.tensor([2, 0, 3, 1])
    moved = [of(side[:1, order].expand(3, 4)) for side in sides]
    kept = [of(side[:1].expand(3, 4)) for side in sides]
    for one in (*moved, *kept):
        one.candidates = torch.ones(3, 4, dtype=torch.bool)
        one.logits = {"logits": one.logits["logits"][:1].expand(3, 4)}
    both = [next(iter(objective(*pair).values())) for pair in (moved, kept)]
    torch.testing.assert_close(*both)
    # A constant of each query's scores is nothing to learn.
    shifted = next(iter(objective(of(student + torch.tensor([[3.0], [-1.0], [8.0]])), of(teacher)).values()))
    torch.testing.assert_close(shifted, term)


@pytest.mark.parametrize("name", ["margin", "listwise"])
def test_gradients_reach_candidates_alone(sides, name):
    student, teacher = sides[0].requires_grad_(), sides[1]
    [item] = build_objectives([name])
    signals = Signals(torch.ones(12, 3), {"logits": student}, candidates=REAL)
    next(iter(item.objective(signals, of(teacher)).values())).backward()
    assert student.grad.isfinite().all()
    assert not student.grad[~REAL].any()


def test_labels_of_candidates_are_a_distribution_too(sides):
    student, _ = sides
    gains = torch.tensor([[2.0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    expected = 0.0
    for ours, gold in zip(lists(student), gains.tolist(), strict=True):
        q, total = softmax(ours, 1.0), sum(gold)
        expected -= sum(g / total * math.log(p) for g, p in zip(gold, q, strict=False)) if total else 0.0
    objective = LabelsObjective()
    found = objective(of(student), None, {"labels": gains})
    assert float(found["hard"]) == pytest.approx(expected / 3, rel=1e-5)


def test_wrong_settings_and_rows_are_named():
    with pytest.raises(ValueError, match=r"`pairs` of `margin` is 'last'; allowed are 'first' and 'all'"):
        MarginObjective("last")
    with pytest.raises(ValueError, match=r"`loss` of `listwise` is 'mse'; allowed are"):
        ListwiseObjective("mse")
    with pytest.raises(ValueError, match=r"`temperature` of `listwise` is 0"):
        ListwiseObjective(temperature=0)
    plain = Signals(torch.ones(2, 3), {"logits": torch.zeros(2, 1)})
    with pytest.raises(ValueError, match=r"`margin`.*give them a column `candidates`"):
        MarginObjective()(plain, plain)
