"""Soft targets and gold labels on every kind of head."""

import math

import pytest
import torch
from logits_cases import B, C, T, logits, mask, sides
from torch.nn import functional as F
from transformers import BertForQuestionAnswering

from hf_distill.objectives import LabelsObjective, LogitsObjective
from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.trainers.fine_tuning.heads import SpanHead


def run(objective, student, teacher, attention_mask=None, labels=None):
    s, t = sides(student, teacher, attention_mask)
    objective.check(s, t)
    return next(iter(objective(s, t, labels).values()))


def softmax(values):
    exps = [math.exp(v - max(values)) for v in values]
    return [e / sum(exps) for e in exps]


def plain(student, teacher, loss, temperature):
    """One distribution at a time, in plain Python."""
    p = softmax([v / temperature for v in teacher])
    q = softmax([v / temperature for v in student])
    if loss == "mse":
        return sum((s - t) ** 2 for s, t in zip(student, teacher, strict=True)) / len(student)
    cross_entropy = -sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    return cross_entropy + (sum(a * math.log(a) for a in p) if loss == "kl" else 0.0)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 8.0])
@pytest.mark.parametrize("loss", ["ce", "kl", "mse"])
def test_sequence_logits_equal_the_plain_formula(loss, temperature, squared):
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    rows = [plain(s, t, loss, temperature) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    factor = temperature**2 if squared and loss != "mse" else 1.0
    objective = LogitsObjective(loss, temperature, squared)
    assert run(objective, student, teacher).item() == pytest.approx(factor * sum(rows) / B, rel=1e-5)
    assert objective.unit == "rows"


@pytest.mark.parametrize("loss", ["ce", "kl", "mse"])
def test_token_logits_are_a_mean_over_real_tokens(loss):
    student, teacher = logits(B, T, C, seed=1), logits(B, T, C, seed=2)
    real = mask().bool()
    rows = [plain(s, t, loss, 2.0) for s, t in zip(student[real].tolist(), teacher[real].tolist(), strict=True)]
    objective = LogitsObjective(loss, 2.0, scale_by_squared_temperature=False)
    assert run(objective, student, teacher).item() == pytest.approx(sum(rows) / len(rows), rel=1e-5)
    assert objective.unit == "tokens"


@pytest.mark.parametrize("loss", ["ce", "kl", "mse"])
@pytest.mark.parametrize("head", ["tokens", "span"])
def test_padding_never_counts(loss, head):
    def pair(extra, fill):
        shape = (B, T, C) if head == "tokens" else (B, T)
        values = [logits(*shape, seed=i) for i in range(4)]
        padded = [torch.cat((v, torch.full((B, extra, *shape[2:]), fill)), 1) for v in values]
        if head == "tokens":
            return padded[0], padded[1]
        return tuple({"start_logits": padded[i], "end_logits": padded[i + 1]} for i in (0, 2))

    longer = torch.cat((mask(), torch.zeros(B, 3, dtype=torch.long)), 1)
    expected = run(LogitsObjective(loss), *pair(0, 0.0))
    torch.testing.assert_close(run(LogitsObjective(loss), *pair(3, 9.0), longer), expected)


def test_spans_are_distributions_over_real_positions():
    student = {"start_logits": logits(B, T, seed=1), "end_logits": logits(B, T, seed=2)}
    teacher = {"start_logits": logits(B, T, seed=3), "end_logits": logits(B, T, seed=4)}
    real = mask().bool()
    rows = [
        plain(student[name][i, real[i]].tolist(), teacher[name][i, real[i]].tolist(), "kl", 1.0)
        for name in student
        for i in range(B)
    ]
    assert run(LogitsObjective("kl"), student, teacher).item() == pytest.approx(sum(rows) / len(rows), rel=1e-5)


def test_regression_is_the_squared_error():
    student, teacher = logits(B, 1, seed=1), logits(B, 1, seed=2)
    torch.testing.assert_close(run(LogitsObjective("ce"), student, teacher), F.mse_loss(student, teacher))


@pytest.mark.parametrize("loss", ["ce", "kl"])
def test_multi_label_is_a_mean_of_yes_or_no_questions(loss):
    student, teacher = logits(B, C, seed=1), logits(B, C, seed=2)
    pairs = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    questions = [plain([s, 0.0], [t, 0.0], loss, 1.0) for s, t in pairs]
    objective = LogitsObjective(loss, problem_type="multi_label_classification")
    assert run(objective, student, teacher).item() == pytest.approx(sum(questions) / len(questions), rel=1e-5)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_is_zero_at_equality(loss):
    same = logits(B, C)
    assert run(LogitsObjective(loss), same, same).abs() < 1e-7


def test_the_gradient_of_cross_entropy_and_divergence_is_the_same():
    teacher = logits(B, C, seed=2)
    gradients = []
    for loss in ("ce", "kl"):
        student = logits(B, C, seed=1).requires_grad_()
        run(LogitsObjective(loss, 3.0), student, teacher).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logits_loss": "l1"}, "logits_loss.*'l1'.*'ce', 'kl' and 'mse'"),
        ({"temperature": 0}, "temperature.*above 0"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LogitsObjective(**options)


def test_different_heads_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"same head.*\(3,\).*\(2,\)"):
        run(LogitsObjective(), logits(B, 3), logits(B, 2))
    with pytest.raises(ValueError, match="student with a head"):
        run(LogitsObjective(), {}, logits(B, 2))


def test_gold_labels_are_the_tasks_own_loss():
    values, gold = logits(B, C), torch.tensor([0, 2, -100, 1])
    objective = LabelsObjective()
    loss = run(objective, values, values, labels={"labels": gold})
    torch.testing.assert_close(loss, F.cross_entropy(values, gold))
    assert objective.unit == "labels"
    tokens, tags = logits(B, T, C), torch.where(mask().bool(), 1, -100)
    torch.testing.assert_close(
        run(LabelsObjective(), tokens, tokens, labels={"labels": tags}),
        F.cross_entropy(tokens.flatten(0, 1), tags.flatten()),
    )


def test_labels_hidden_by_minus_one_do_not_count():
    values = logits(B, C)
    hidden, ignored = torch.tensor([0, 2, -1, 1]), torch.tensor([0, 2, -100, 1])
    torch.testing.assert_close(
        run(LabelsObjective(), values, values, labels={"labels": hidden}), F.cross_entropy(values, ignored)
    )


def test_gold_labels_of_spans_regression_and_multi_label():
    start, end = logits(B, T, seed=1), logits(B, T, seed=2)
    positions = {"start_positions": torch.tensor([1, 2, 3, 4]), "end_positions": torch.tensor([1, 3, 3, 5])}
    expected = (
        F.cross_entropy(start, positions["start_positions"]) + F.cross_entropy(end, positions["end_positions"])
    ) / 2
    heads = {"start_logits": start, "end_logits": end}
    everywhere = torch.ones(B, T, dtype=torch.long)
    torch.testing.assert_close(run(LabelsObjective(), heads, heads, everywhere, labels=positions), expected)
    scores, gold = logits(B, 1), torch.tensor([0.0, 1.5, 2.0, 5.0])
    torch.testing.assert_close(
        run(LabelsObjective(), scores, scores, labels={"labels": gold}), F.mse_loss(scores[:, 0], gold)
    )
    many, flags = logits(B, C), torch.tensor([[0, 1, 0]] * B)
    torch.testing.assert_close(
        run(LabelsObjective("multi_label_classification"), many, many, labels={"labels": flags}),
        F.binary_cross_entropy_with_logits(many, flags.float()),
    )


def test_padding_is_no_answer():
    positions = {"start_positions": torch.tensor([1, 2, 0, 1]), "end_positions": torch.tensor([1, 2, 2, 2])}
    heads = {"start_logits": logits(B, T, seed=1), "end_logits": logits(B, T, seed=2)}
    longer = {name: F.pad(values, (0, 3), value=9.0) for name, values in heads.items()}
    mask = torch.ones(B, T, dtype=torch.long)
    torch.testing.assert_close(
        run(LabelsObjective(), longer, longer, F.pad(mask, (0, 3)), labels=positions),
        run(LabelsObjective(), heads, heads, mask, labels=positions),
    )


def test_answers_in_a_padded_batch_cost_what_the_model_says_of_each_row_alone(tiny_bert_config):
    """A loss of transformers' own for the batch has padding among the places of an answer."""
    torch.manual_seed(0)
    model = BertForQuestionAnswering(tiny_bert_config()).eval()
    ids, lengths = torch.randint(5, 50, (B, T)), [T, T - 1, T - 2, T - 3]
    real = torch.arange(T) < torch.tensor(lengths)[:, None]
    positions = {"start_positions": torch.tensor([1, 2, 0, 1]), "end_positions": torch.tensor([3, 2, 2, 1])}
    head = SpanHead(get_task("squad"))

    def ours(attention_mask):
        out = model(ids, attention_mask=attention_mask)
        heads = {name: out[name] for name in ("start_logits", "end_logits")}
        loss = run(LabelsObjective(), heads, heads, attention_mask, labels=positions)
        total, count = head.loss(out, torch.stack(list(positions.values()), 1), 0.0, attention_mask)
        torch.testing.assert_close(total / count, loss)
        return loss

    with torch.no_grad():
        whole = torch.ones(B, T, dtype=torch.long)
        torch.testing.assert_close(ours(whole), model(ids, attention_mask=whole, **positions).loss)
        alone = [
            model(ids[row : row + 1, :length], **{k: v[row : row + 1] for k, v in positions.items()}).loss
            for row, length in enumerate(lengths)
        ]
        torch.testing.assert_close(ours(real.long()), torch.stack(alone).mean())
        padded = model(ids, attention_mask=real.long(), **positions).loss
        assert padded > torch.stack(alone).mean() + 1e-3


def test_a_batch_without_labels_is_refused():
    with pytest.raises(ValueError, match="needs the column 'labels'"):
        run(LabelsObjective(), logits(B, C), logits(B, C))
