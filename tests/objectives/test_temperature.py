"""Temperatures that change with training or from row to row, and shifted probabilities."""

import json
import math

import pytest
import torch
from logits_cases import B, C, T, logits, mask, sides

from hf_distill.objectives import LogitsObjective
from hf_distill.objectives.logits import shift_probability
from hf_distill.objectives.temperature import MINIMUM, Temperature

FLSW = {"name": "flsw", "beta": 1, "gamma": 2}


def parity(shape, start, scale):
    """The inputs of the parity table: `sin(start + 0.37 n)`, n counted row by row."""
    numbers = torch.arange(math.prod(shape), dtype=torch.float64)
    return scale * torch.sin(start + 0.37 * numbers).reshape(shape)


def run(objective, student, teacher, labels=None, attention_mask=None):
    both = sides(student, teacher, attention_mask)
    objective.check(*both)
    return objective(*both, labels)["soft"]


def plain_cross_entropy(student, teacher, temperature):
    p, q = ([math.exp(v / temperature) for v in row] for row in (teacher, student))
    return -sum(a / sum(p) * math.log(b / sum(q)) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize(("temperature", "expected"), [(1, 1.057621), (4, 1.095201), (8, 1.097735)])
def test_cross_entropy_without_the_square_is_textbrewers(temperature, expected):
    student, teacher = parity((2, 3), 0.5, 2), parity((2, 3), 1.1, 3)
    objective = LogitsObjective("ce", temperature, scale_by_squared_temperature=False)
    assert run(objective, student, teacher, attention_mask=torch.ones(2, 1)).item() == pytest.approx(
        expected, abs=2e-6
    )


@pytest.mark.parametrize(("real", "expected"), [([5, 5], 1.104229), ([5, 3], 1.102776)])
def test_cross_entropy_of_tokens_is_textbrewers(real, expected):
    student, teacher = parity((2, 5, 3), 0.4, 2), parity((2, 5, 3), 1.9, 3)
    rows = torch.tensor([[int(i < n) for i in range(5)] for n in real])
    objective = LogitsObjective("ce", 4, scale_by_squared_temperature=False)
    assert run(objective, student, teacher, attention_mask=rows).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [(FLSW, [4.001034, 3.998966]), ({"name": "cwsm", "beta": 1}, [4.160464, 3.839536])],
)
def test_temperatures_of_rows_are_those_of_textbrewer(schedule, expected):
    student, teacher = parity((2, 3), 0.5, 2), parity((2, 3), 1.1, 3)
    assert Temperature(4, schedule)(student, teacher).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_loss_with_a_temperature_per_row_is_textbrewers():
    student, teacher = parity((2, 3), 0.5, 2), parity((2, 3), 1.1, 3)
    objective = LogitsObjective("ce", 4, False, temperature_schedule=FLSW)
    loss = run(objective, student, teacher, attention_mask=torch.ones(2, 1))
    assert loss.item() == pytest.approx(1.095198, abs=2e-6)


def test_every_row_is_scaled_by_the_square_of_its_own_temperature():
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    temperatures = Temperature(3, {"name": "flsw", "beta": 2, "gamma": 1})(student, teacher).tolist()
    assert len(set(temperatures)) == B
    rows = [
        t**2 * plain_cross_entropy(s, p, t)
        for s, p, t in zip(student.tolist(), teacher.tolist(), temperatures, strict=True)
    ]
    objective = LogitsObjective("ce", 3, temperature_schedule={"name": "flsw", "beta": 2, "gamma": 1})
    assert run(objective, student, teacher).item() == pytest.approx(sum(rows) / B, rel=1e-5)


@pytest.mark.parametrize("name", ["flsw", "cwsm"])
def test_the_mean_temperature_of_real_tokens_is_the_base(name):
    student, teacher = logits(B, T, C, seed=1), logits(B, T, C, seed=2)
    real = mask()
    found = Temperature(9, name)(student, teacher, real)
    assert found.shape == (B, T)
    assert found[real.bool()].mean().item() == pytest.approx(9, rel=1e-5)


@pytest.mark.parametrize("name", ["flsw", "cwsm"])
@pytest.mark.parametrize("head", ["tokens", "span"])
def test_padding_does_not_change_the_temperature_of_what_is_real(name, head):
    shape = (B, T, C) if head == "tokens" else (B, T)

    def pair(extra, fill):
        values = [logits(*shape, seed=i) for i in range(4)]
        padded = [torch.cat((v, torch.full((B, extra, *shape[2:]), fill)), 1) for v in values]
        if head == "tokens":
            return padded[:2]
        return [{"start_logits": padded[i], "end_logits": padded[i + 1]} for i in (0, 2)]

    longer = torch.cat((mask(), torch.zeros(B, 3, dtype=torch.long)), 1)
    objective = LogitsObjective("kl", 4, temperature_schedule=name)
    expected = run(objective, *pair(0, 0.0))
    torch.testing.assert_close(run(objective, *pair(3, 9.0), attention_mask=longer), expected)


@pytest.mark.parametrize("name", ["flsw", "cwsm"])
def test_no_gradient_flows_through_the_temperature(name):
    student, teacher = logits(B, C, seed=1).requires_grad_(), logits(B, C, seed=2)
    run(LogitsObjective("ce", 4, temperature_schedule=name), student, teacher).backward()
    free = student.detach().clone().requires_grad_()
    fixed = Temperature(4, name)(student, teacher)[:, None]
    loss = -(torch.softmax(teacher / fixed, -1) * torch.log_softmax(free / fixed, -1)).sum(-1)
    (loss * fixed[:, 0] ** 2).mean().backward()
    torch.testing.assert_close(student.grad, free.grad)


@pytest.mark.parametrize("name", ["flsw", "cwsm"])
def test_a_temperature_never_falls_below_its_minimum(name):
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    assert Temperature(4, {"name": name, "beta": 1000})(student, teacher).min().item() == pytest.approx(MINIMUM)
    assert Temperature(4, {"name": name, "beta": 1000, "minimum": 2})(student, teacher).min().item() == 2


def test_multi_label_heads_have_one_temperature_per_row():
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    spread = LogitsObjective("kl", 4, True, "multi_label_classification", "flsw")
    assert run(spread, student, teacher).isfinite()
    none = LogitsObjective("kl", 4, True, "multi_label_classification", {"name": "flsw", "beta": 0})
    fixed = LogitsObjective("kl", 4, True, "multi_label_classification")
    torch.testing.assert_close(run(none, student, teacher), run(fixed, student, teacher))


def test_a_schedule_of_weights_leads_from_the_temperature_to_its_low_end():
    falling = Temperature(8, "linear_decay")
    assert [falling.at(p) for p in (0, 0.5, 1)] == [8, 4.5, 1]
    assert Temperature(8, {"name": "linear_growth", "low": 2}).at(0.5) == 5
    assert Temperature(8, "constant").at(0.7) == 8
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    objective = LogitsObjective("kl", 8, temperature_schedule="linear_decay")
    torch.testing.assert_close(run(objective, student, teacher), run(LogitsObjective("kl", 8), student, teacher))
    objective.set_progress(0.5)
    torch.testing.assert_close(run(objective, student, teacher), run(LogitsObjective("kl", 4.5), student, teacher))


def test_a_schedule_is_a_name_a_mapping_or_its_json():
    named = LogitsObjective(temperature=4, temperature_schedule=FLSW).describe()
    assert named["temperature_schedule"] == "flsw(beta=1, gamma=2)"
    assert LogitsObjective(temperature=4, temperature_schedule=json.dumps(FLSW)).describe() == named
    assert "temperature_schedule" not in LogitsObjective().describe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature_schedule": "flws"}, r"temperature_schedule.*'flws'; allowed are flsw, cwsm.*mean 'flsw'\?"),
        ({"temperature_schedule": {"name": "cwsm", "gamma": 1}}, r"cwsm has no options \['gamma'\]"),
        ({"temperature_schedule": {"name": "flsw", "minimum": 0}}, "`minimum` is 0.0; it must be above 0"),
        ({"temperature_schedule": {"name": "linear_decay", "low": 0}}, "`low` is 0.0; it must be above 0"),
        ({"temperature_schedule": {"name": "flsw", "beta": "much"}}, "`beta` is 'much'; it must be a number"),
        ({"temperature_schedule": {"beta": 1}}, "write a name, or a mapping"),
        ({"temperature_schedule": "{flsw}"}, "is not JSON"),
        ({"temperature_schedule": {"name": "constant", "beta": 1}}, r"constant has no options \['beta'\]"),
        ({"temperature_schedule": "flsw", "logits_loss": "mse"}, "no effect on `logits_loss` mse"),
        (
            {"temperature_schedule": "cwsm", "problem_type": "multi_label_classification"},
            "multi-label heads have many",
        ),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LogitsObjective(**options)


def test_the_largest_logit_changes_places_with_the_gold_one():
    teacher = torch.tensor([[2.6736, 2.9848, 2.8919], [2.4077, 1.5976, 0.5713]])
    before = teacher.clone()
    shifted = shift_probability(teacher, torch.tensor([0, 2]))
    assert shifted.tolist() == torch.tensor([[2.9848, 2.6736, 2.8919], [0.5713, 1.5976, 2.4077]]).tolist()
    assert torch.equal(teacher, before)


def test_hidden_labels_leave_the_teacher_as_it_is():
    teacher = logits(B, T, C)
    gold = torch.randint(0, C, (B, T), generator=torch.Generator().manual_seed(3))
    gold[0, 0], gold[1, 1], gold[2] = -100, -1, -100
    shifted = shift_probability(teacher, gold)
    assert torch.equal(shifted[gold < 0], teacher[gold < 0])
    assert torch.equal(shifted[gold >= 0].argmax(-1), gold[gold >= 0])
    torch.testing.assert_close(shifted.sort(-1).values, teacher.sort(-1).values)


@pytest.mark.parametrize("shape", [(B, C), (B, T, C)])
def test_the_objective_learns_from_shifted_targets(shape):
    student, teacher = logits(*shape, seed=1), logits(*shape, seed=2)
    gold = torch.zeros(shape[:-1], dtype=torch.long)
    if len(shape) == 3:
        gold[mask() == 0] = -100
    found = run(LogitsObjective("kl", 2, probability_shift=True), student, teacher, {"labels": gold})
    expected = run(LogitsObjective("kl", 2), student, shift_probability(teacher, gold))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, run(LogitsObjective("kl", 2), student, teacher))


def test_spans_are_shifted_among_real_positions_only():
    heads = [{f"{side}_logits": logits(B, T, seed=s + i) for i, side in enumerate(("start", "end"))} for s in (1, 3)]
    heads[1]["start_logits"][0, 5] = 50.0  # padding that looks like the best answer
    gold = {"start_positions": torch.tensor([1, 2, 99, 0]), "end_positions": torch.tensor([5, 3, -100, 5])}
    objective = LogitsObjective("kl", probability_shift=True)
    expected = [heads[1][name].clone() for name in heads[1]]
    for scores, column in zip(expected, gold.values(), strict=True):
        for row, place in enumerate(column.tolist()):
            if 0 <= place < T and mask()[row, place]:
                real = mask()[row].bool()
                best = torch.where(real, scores[row], -torch.inf).argmax()
                scores[row, [best, place]] = scores[row, [place, best]]
    target = dict(zip(heads[1], expected, strict=True))
    found = run(objective, heads[0], heads[1], gold)
    torch.testing.assert_close(found, run(LogitsObjective("kl"), heads[0], target))


@pytest.mark.parametrize(
    ("options", "shape", "labels", "message"),
    [
        ({"probability_shift": True}, (B, C), None, "needs the column 'labels'"),
        ({"probability_shift": True}, (B, 1), None, "one output only"),
        ({"positions": "labels"}, (B, T, C), None, "needs the column 'labels'"),
    ],
)
def test_what_needs_labels_says_so(options, shape, labels, message):
    with pytest.raises(ValueError, match=message):
        run(LogitsObjective(**options), logits(*shape), logits(*shape), labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability_shift": True, "problem_type": "regression"}, "regression has none"),
        ({"positions": "labels", "problem_type": "multi_label_classification"}, "has none"),
        ({"positions": "masked"}, "'masked'; allowed are 'tokens' and 'labels'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LogitsObjective(**options)


@pytest.mark.parametrize("loss", ["ce", "kl", "mse"])
def test_positions_with_labels_alone_can_be_asked_for(loss):
    student, teacher = logits(B, T, C, seed=1), logits(B, T, C, seed=2)
    gold = torch.full((B, T), -100)
    gold[0, 1], gold[2, 3], gold[3, 5] = 0, 2, 1
    objective = LogitsObjective(loss, 2, positions="labels")
    chosen = gold >= 0
    expected = run(LogitsObjective(loss, 2), student[chosen], teacher[chosen])
    torch.testing.assert_close(run(objective, student, teacher, {"labels": gold}), expected)
    assert objective.unit == "labels"
    assert run(objective, student, teacher, {"labels": torch.full((B, T), -100)}) == 0
