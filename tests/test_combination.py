"""The rules by which the predictions of several teachers become one, against plain Python."""

import math

import pytest
import torch

from hf_distill.teachers.combination import (
    combine_logits,
    confidence_weights,
    mean_binary_probabilities,
    mean_logits,
    mean_probabilities,
    row_uncertainty,
)

ROWS, LENGTH, CLASSES = 4, 5, 3
WEIGHTS = [0.5, 0.3, 0.2]
RULES = ["mean_logits", "mean_probabilities", "confidence"]


def softmax(values):
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def plain_mean_of_probabilities(teachers, weights, temperature):
    """Of one item: lists of logits -> probabilities."""
    each = [softmax([value / temperature for value in teacher]) for teacher in teachers]
    return [sum(w * p[c] for w, p in zip(weights, each, strict=True)) for c in range(len(teachers[0]))]


@pytest.fixture
def draw():
    """`draw(*shape)`: logits of three teachers."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: [3 * torch.randn(shape, generator=generator) for _ in WEIGHTS]


@pytest.fixture
def mask():
    return torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])


def heads(draw, kind):
    """Logits of three teachers with one kind of head."""
    if kind == "spans":
        starts, ends = draw(ROWS, LENGTH), draw(ROWS, LENGTH)
        return [{"start_logits": s, "end_logits": e} for s, e in zip(starts, ends, strict=True)]
    shape = (ROWS, CLASSES) if kind == "sequences" else (ROWS, LENGTH, CLASSES)
    return [{"logits": logits} for logits in draw(*shape)]


def labels_of(kind):
    if kind == "spans":
        return {"start_positions": torch.tensor([1, 0, 9, 1]), "end_positions": torch.tensor([2, 2, 9, 1])}
    if kind == "sequences":
        return {"labels": torch.tensor([0, 2, -100, 1])}
    return {
        "labels": torch.tensor([[-100, 1, 2, 0, -100], [-100, 2, -100, -100, -100], [-100] * 5, [0, -1, *[-100] * 3]])
    }


every_kind = pytest.mark.parametrize("kind", ["sequences", "tokens", "spans"])


def test_the_mean_of_logits_is_weighted(draw):
    one, two, three = draw(ROWS, LENGTH, CLASSES)
    expected = 0.5 * one + 0.3 * two + 0.2 * three
    torch.testing.assert_close(mean_logits([one, two, three], torch.tensor(WEIGHTS).unbind()), expected)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 8.0])
def test_the_softmax_at_the_temperature_is_the_mean_of_the_teachers_probabilities(draw, temperature):
    teachers = draw(ROWS, CLASSES)
    combined = mean_probabilities(teachers, torch.tensor(WEIGHTS).unbind(), temperature)
    for row in range(ROWS):
        expected = plain_mean_of_probabilities([t[row].tolist() for t in teachers], WEIGHTS, temperature)
        assert softmax([value / temperature for value in combined[row].tolist()]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_sigmoid_at_the_temperature_is_the_mean_of_the_teachers_answers(draw, temperature):
    teachers = draw(ROWS, CLASSES)
    combined = mean_binary_probabilities(teachers, torch.tensor(WEIGHTS).unbind(), temperature)
    expected = sum(w * torch.sigmoid(t / temperature) for w, t in zip(WEIGHTS, teachers, strict=True))
    torch.testing.assert_close(torch.sigmoid(combined / temperature), expected)


def test_probabilities_of_certain_teachers_stay_finite():
    certain = [torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])]
    half = torch.tensor([0.5, 0.5]).unbind()
    for rule in (mean_probabilities, mean_binary_probabilities):
        combined = rule(certain, half)
        assert combined.isfinite().all()
        torch.testing.assert_close(combined.softmax(-1), torch.tensor([[0.5, 0.5]]))


@every_kind
@pytest.mark.parametrize("rule", RULES)
def test_one_teacher_keeps_its_logits_and_equal_teachers_give_theirs(draw, mask, kind, rule):
    first, *_ = heads(draw, kind)
    weights = torch.tensor([0.2, 0.8])
    alone = combine_logits([first], rule, torch.ones(1), mask, temperature=3.0)
    assert all(alone[name] is value for name, value in first.items())
    same = combine_logits([first, first], rule, weights, mask, labels=labels_of(kind), temperature=3.0)
    real = mask.bool() if kind == "spans" else slice(None)
    for name, value in first.items():
        # A softmax over positions leaves padding out, and with it the level of what remains.
        torch.testing.assert_close(same[name][real], value[real], rtol=1e-4, atol=1e-5)


@every_kind
@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_the_teachers_does_not_matter(draw, mask, kind, rule):
    teachers, weights = heads(draw, kind), torch.tensor(WEIGHTS)
    order = [2, 0, 1]
    combined = combine_logits(teachers, rule, weights, mask, labels=labels_of(kind), temperature=2.0)
    permuted = combine_logits(
        [teachers[i] for i in order], rule, weights[order], mask, labels=labels_of(kind), temperature=2.0
    )
    for name, value in combined.items():
        torch.testing.assert_close(permuted[name], value)


@every_kind
@pytest.mark.parametrize("rule", RULES)
def test_padding_changes_nothing(draw, mask, kind, rule):
    teachers, weights, labels = heads(draw, kind), torch.tensor(WEIGHTS), labels_of(kind)
    whole = combine_logits(teachers, rule, weights, mask, labels=labels, temperature=2.0)
    row, length = 1, 3
    short = [{k: v[row : row + 1, :length] if v.dim() > 1 and kind != "sequences" else v[row : row + 1]
              for k, v in teacher.items()} for teacher in teachers]  # fmt: skip
    own = {k: v[row : row + 1, :length] if v.dim() > 1 else v[row : row + 1] for k, v in labels.items()}
    alone = combine_logits(short, rule, weights, mask[row : row + 1, :length], labels=own, temperature=2.0)
    for name, value in alone.items():
        expected = whole[name][row : row + 1] if kind == "sequences" else whole[name][row : row + 1, :length]
        torch.testing.assert_close(value, expected)
        assert whole[name].isfinite().all()


def test_the_weight_of_a_teacher_falls_with_its_uncertainty():
    uncertainty = torch.tensor([[0.1, 2.0], [0.5, 0.3], [1.5, 0.3]])
    weights = confidence_weights(uncertainty, torch.tensor(WEIGHTS))
    for row in range(2):
        raw = [w * math.exp(-u[row]) for w, u in zip(WEIGHTS, uncertainty.tolist(), strict=True)]
        assert weights[:, row].tolist() == pytest.approx([value / sum(raw) for value in raw])


def test_for_two_teachers_the_weights_are_those_of_ca_mkd():
    uncertainty = torch.tensor([[0.1, 2.0], [0.5, 0.3]])
    theirs = 1 - uncertainty.softmax(0)  # divided by N - 1 = 1
    torch.testing.assert_close(confidence_weights(uncertainty, torch.tensor([0.5, 0.5])), theirs)


def test_labels_measure_a_row_where_it_has_them_and_the_entropy_where_not(draw, mask):
    logits, *_ = draw(ROWS, CLASSES)
    labels = labels_of("sequences")
    measured = row_uncertainty({"logits": logits}, mask, labels).tolist()
    for row, label in enumerate(labels["labels"].tolist()):
        probabilities = softmax(logits[row].tolist())
        entropy = -sum(p * math.log(p) for p in probabilities)
        assert measured[row] == pytest.approx(-math.log(probabilities[label]) if label >= 0 else entropy, abs=1e-6)
    without = row_uncertainty({"logits": logits}, mask, {})
    torch.testing.assert_close(without, torch.distributions.Categorical(logits=logits).entropy())


def test_tokens_are_measured_by_their_labelled_or_real_ones(draw, mask):
    logits, *_ = draw(ROWS, LENGTH, CLASSES)
    labels = labels_of("tokens")["labels"]
    measured = row_uncertainty({"logits": logits}, mask, {"labels": labels}).tolist()
    for row in range(ROWS):
        each = [softmax(logits[row, t].tolist()) for t in range(LENGTH)]
        crosses = [-math.log(each[t][label]) for t, label in enumerate(labels[row].tolist()) if label >= 0]
        entropies = [-sum(p * math.log(p) for p in each[t]) for t in range(LENGTH) if mask[row, t]]
        values = crosses or entropies
        assert measured[row] == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_spans_are_measured_over_real_positions(draw, mask):
    (teacher, *_) = heads(draw, "spans")
    labels = labels_of("spans")
    measured = row_uncertainty(teacher, mask, labels).tolist()
    for row in range(ROWS):
        length = int(mask[row].sum())
        start, end = (softmax(teacher[name][row, :length].tolist()) for name in ("start_logits", "end_logits"))
        gold = int(labels["start_positions"][row]), int(labels["end_positions"][row])
        if gold[0] < LENGTH:
            expected = -(math.log(start[gold[0]]) + math.log(end[gold[1]])) / 2
        else:  # the answer was cut off
            expected = -sum(p * math.log(p) for side in (start, end) for p in side) / 2
        assert measured[row] == pytest.approx(expected, rel=1e-5)


def test_an_answer_on_padding_is_none_of_the_row(draw, mask):
    (teacher, *_) = heads(draw, "spans")
    row = next(row for row in range(ROWS) if mask[row].sum() < LENGTH)
    labels = {name: torch.zeros(ROWS, dtype=torch.long) for name in ("start_positions", "end_positions")}
    labels["end_positions"][row] = int((mask[row] == 0).nonzero()[0])
    measured = row_uncertainty(teacher, mask, labels)
    torch.testing.assert_close(measured[row], row_uncertainty(teacher, mask, {})[row])


def test_a_label_between_no_and_yes_is_a_share_of_both(draw, mask):
    logits, *_ = draw(ROWS, CLASSES)
    gold = torch.rand(ROWS, CLASSES)
    measured = row_uncertainty({"logits": logits}, mask, {"labels": gold}, multi_label=True)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, gold, reduction="none").mean(-1)
    torch.testing.assert_close(measured, expected)


def test_many_labels_are_measured_as_yes_or_no_questions(draw, mask):
    logits, *_ = draw(ROWS, CLASSES)
    gold = torch.tensor([[1.0, 0, 1], [0, 0, 0], [-100, -100, -100], [1, 1, 0]])
    measured = row_uncertainty({"logits": logits}, mask, {"labels": gold}, multi_label=True)
    yes = torch.sigmoid(logits)
    entropy = -(yes * yes.log() + (1 - yes) * (1 - yes).log()).mean(1)
    cross = torch.nn.functional.binary_cross_entropy_with_logits(logits, gold, reduction="none").mean(1)
    torch.testing.assert_close(measured, torch.where(gold[:, 0] < 0, entropy, cross))


def test_confident_teachers_are_averaged_by_probability(draw, mask):
    teachers, labels = heads(draw, "sequences"), labels_of("sequences")
    combined = combine_logits(teachers, "confidence", torch.tensor(WEIGHTS), mask, labels=labels, temperature=2.0)
    uncertainty = torch.stack([row_uncertainty(teacher, mask, labels) for teacher in teachers])
    weights = confidence_weights(uncertainty, torch.tensor(WEIGHTS))
    for row in range(ROWS):
        expected = plain_mean_of_probabilities(
            [t["logits"][row].tolist() for t in teachers], weights[:, row].tolist(), 2.0
        )
        assert (combined["logits"][row] / 2).softmax(-1).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("rule", ["mean_probabilities", "confidence"])
@pytest.mark.parametrize("problem_type", ["regression", None])
def test_a_regression_has_a_mean_only(mask, rule, problem_type):
    scores = [{"logits": torch.tensor([[value]])} for value in (1.0, 2.0)]
    half = torch.tensor([0.5, 0.5])
    assert combine_logits(scores, "mean_logits", half, mask[:1], problem_type=problem_type)["logits"].item() == 1.5
    with pytest.raises(ValueError, match=rf"`--combine` is '{rule}', but a regression.*'mean_logits'"):
        combine_logits(scores, rule, half, mask[:1], problem_type=problem_type)
