"""From the teacher's predictions to the gold labels."""

import math

import pytest
import torch
from logits_cases import B, C, T, logits, mask, sides
from torch.nn import functional as F

from hf_distill.objectives import AnnealedObjective, LabelsObjective, LogitsObjective


def run(objective, student, teacher, labels, progress=0.0):
    both = sides(student, teacher)
    objective.check(*both)
    objective.set_progress(progress)
    return next(iter(objective(*both, labels).values()))


def plain(student, teacher, gold, share):
    """One distribution at a time: the cross-entropy with the mixed target."""
    p, q = ([math.exp(v) for v in row] for row in (teacher, student))
    share = share if gold >= 0 else 0.0
    target = [share * (c == gold) + (1 - share) * v / sum(p) for c, v in enumerate(p)]
    return -sum(t * math.log(v / sum(q)) for t, v in zip(target, q, strict=True))


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_the_target_is_a_mixture_of_one_hot_labels_and_probabilities(progress):
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    gold = [2, 0, -100, 1]
    rows = [plain(s, t, g, progress) for s, t, g in zip(student.tolist(), teacher.tolist(), gold, strict=True)]
    found = run(AnnealedObjective(), student, teacher, {"labels": torch.tensor(gold)}, progress)
    assert found.item() == pytest.approx(sum(rows) / B, rel=1e-5)


def test_tokens_are_a_mean_over_real_ones_with_the_teacher_where_labels_are_hidden():
    student, teacher = logits(B, T, C, seed=1), logits(B, T, C, seed=2)
    gold = torch.randint(0, C, (B, T), generator=torch.Generator().manual_seed(3))
    gold[:, 3] = -100
    real = mask().bool()
    rows = [
        plain(s, t, g, 0.4)
        for s, t, g in zip(student[real].tolist(), teacher[real].tolist(), gold[real].tolist(), strict=True)
    ]
    objective = AnnealedObjective()
    found = run(objective, student, teacher, {"labels": gold.masked_fill(~real, -100)}, 0.4)
    assert found.item() == pytest.approx(sum(rows) / len(rows), rel=1e-5)
    assert objective.unit == "tokens"


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_spans_mix_over_real_positions(progress):
    student = {"start_logits": logits(B, T, seed=1), "end_logits": logits(B, T, seed=2)}
    teacher = {"start_logits": logits(B, T, seed=3), "end_logits": logits(B, T, seed=4)}
    # Truncated away, outside of the row, on padding: the teacher alone.
    gold = {"start_positions": torch.tensor([1, 2, 99, 0]), "end_positions": torch.tensor([5, 3, -100, 5])}
    rows = []
    for name, column in zip(student, gold.values(), strict=True):
        for row, place in enumerate(column.tolist()):
            real = mask()[row].nonzero()[:, 0].tolist()
            index = real.index(place) if place in real else -100
            rows.append(plain(student[name][row, real].tolist(), teacher[name][row, real].tolist(), index, progress))
    found = run(AnnealedObjective(), student, teacher, gold, progress)
    assert found.item() == pytest.approx(sum(rows) / len(rows), rel=1e-5)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_regression_mixes_the_scores(progress):
    student, teacher, gold = logits(B, 1, seed=1), logits(B, 1, seed=2), torch.tensor([0.0, 1.5, 2.0, 5.0])
    target = progress * gold + (1 - progress) * teacher[:, 0]
    found = run(AnnealedObjective(), student, teacher, {"labels": gold}, progress)
    torch.testing.assert_close(found, F.mse_loss(student[:, 0], target))


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_multi_label_mixes_every_question(progress):
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    gold = torch.tensor([[0, 1, 0]] * B)
    target = progress * gold + (1 - progress) * teacher.sigmoid()
    found = run(AnnealedObjective(None, "multi_label_classification"), student, teacher, {"labels": gold}, progress)
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(student, target))


def test_it_begins_as_logits_and_ends_as_labels():
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    labels = {"labels": torch.tensor([2, 0, 1, 1])}
    begin, end = (run(AnnealedObjective(), student, teacher, labels, progress) for progress in (0.0, 1.0))
    torch.testing.assert_close(begin, run(LogitsObjective("ce"), student, teacher, labels))
    torch.testing.assert_close(end, run(LabelsObjective(), student, teacher, labels))


def test_a_fixed_share_does_not_move():
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    labels = {"labels": torch.tensor([2, 0, 1, 1])}
    fixed = [run(AnnealedObjective(0.5), student, teacher, labels, progress) for progress in (0.0, 1.0)]
    moving = run(AnnealedObjective(), student, teacher, labels, 0.5)
    assert fixed[0] == fixed[1]
    torch.testing.assert_close(fixed[0], moving)


def test_bad_settings_and_missing_labels_are_refused():
    with pytest.raises(ValueError, match=r"`gold_share` of `annealed` is 2; it must be within 0 and 1"):
        AnnealedObjective(2)
    with pytest.raises(ValueError, match="`annealed` needs the column 'labels'"):
        run(AnnealedObjective(), logits(B, C), logits(B, C), {})


def test_it_needs_labels_whatever_its_settings():
    assert AnnealedObjective().needs_labels
    assert AnnealedObjective(0.5, problem_type="regression").needs_labels
    assert not LogitsObjective().needs_labels
