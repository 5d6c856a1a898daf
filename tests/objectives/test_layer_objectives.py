"""What holds for every objective between layers: padding, order and parts of a batch, gradients."""

import pytest
import torch
from layer_cases import PAIRS, B, make, masks, student_signals, teacher_signals, total

from hf_distill.capture.signals import Signals
from hf_distill.objectives.attention import LOSSES

ALL = [
    *({"name": name} for name in PAIRS),
    *({"name": "attention", "loss": loss} for loss in LOSSES),
    {"name": "tinybert"},
    {"name": "bert_emd"},
]
every_objective = pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.get("loss", spec["name"]))


def changed(signals, mask, states, scores):
    """Signals with a function for each kind of tensors."""
    return Signals(
        attention_mask=mask(signals.attention_mask),
        hidden_states={i: states(x) for i, x in signals.hidden_states.items()},
        attention_scores={i: scores(x) for i, x in signals.attention_scores.items()},
    )


def part(signals, rows):
    return changed(signals, *[lambda x: x[rows]] * 3)


def asked_of(objective, student):
    """The student's tensors that an objective asks for, as leaves of a graph."""
    asked = objective.student_request
    states = [student.hidden_states[layer].requires_grad_() for layer in asked.hidden_states]
    return states, [student.attention_scores[layer].requires_grad_() for layer in asked.attention_scores]


@pytest.mark.parametrize("where", ["left", "right"])
@every_objective
def test_more_padding_changes_nothing(spec, where):
    def pad(x, value, *dims):
        for dim in dims:
            filler = torch.full([3 if i == dim else n for i, n in enumerate(x.shape)], value, dtype=x.dtype)
            x = torch.cat((filler, x) if where == "left" else (x, filler), dim=dim)
        return x

    def padded(signals, value):
        return changed(signals, lambda x: pad(x, 0, 1), lambda x: pad(x, value, 1), lambda x: pad(x, value, 2, 3))

    objective, student, teacher = make(**spec), student_signals(), teacher_signals()
    before, after = objective(student, teacher), objective(padded(student, 50.0), padded(teacher, -50.0))
    for term, value in before.items():
        torch.testing.assert_close(after[term], value)


@every_objective
def test_what_stands_at_padding_does_not_matter(spec):
    objective, student, teacher = make(**spec), student_signals(), teacher_signals()
    before = total(objective, student, teacher)
    padding = masks() == 0
    for signals in (student, teacher):
        for states in signals.hidden_states.values():
            states[padding] = 1e4
        for scores in signals.attention_scores.values():
            scores.masked_fill_(padding[:, None, None, :] | padding[:, None, :, None], 1e4)
    torch.testing.assert_close(total(objective, student, teacher), before)


# The flow of BERT-EMD belongs to its batch.
@pytest.mark.parametrize("spec", [spec for spec in ALL if spec["name"] != "bert_emd"], ids=str)
def test_rows_may_come_in_any_order_and_parts_by_their_share(spec):
    objective, student, teacher = make(**spec), student_signals(), teacher_signals()
    counts = masks().sum(1).float() if objective.unit == "tokens" else torch.ones(B)
    parts = [[2], [0, 1]]
    shares = [counts[rows].sum() / counts.sum() for rows in parts]
    pieces = [total(objective, part(student, rows), part(teacher, rows)) for rows in parts]
    whole = total(objective, student, teacher)
    torch.testing.assert_close(sum(p * share for p, share in zip(pieces, shares, strict=True)), whole)
    order = [2, 0, 1]
    torch.testing.assert_close(total(objective, part(student, order), part(teacher, order)), whole)


@every_objective
def test_gradients_reach_the_student_and_its_projections_only(spec):
    student, teacher = student_signals(), teacher_signals()
    objective = make(**spec, **({"projection": "tanh"} if spec["name"] in PAIRS else {}))
    states, scores = asked_of(objective, student)
    total(objective, student, teacher).backward()
    assert all(x.grad.any() for x in (*states, *scores))
    assert not any(x.grad[masks() == 0].any() for x in states)
    assert all(p.grad.any() for p in objective.parameters())
    assert bool(list(objective.parameters())) == (spec["name"] != "attention")


@every_objective
def test_a_row_without_tokens_is_no_number_of_its_own(spec):
    mask = masks()
    mask[0] = 0
    student, teacher = student_signals(mask), teacher_signals(mask)
    objective = make(**spec)
    states, scores = asked_of(objective, student)
    loss = total(objective, student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(x.grad).all() for x in (*states, *scores))
