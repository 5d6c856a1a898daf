"""Losses between attention scores, and TinyBERT, which joins them with hidden states."""

import math

import pytest
import torch
from layer_cases import (
    D_STUDENT,
    D_TEACHER,
    B,
    H,
    T,
    make,
    masks,
    side,
    student_signals,
    teacher_signals,
    total,
)
from parity import MASK, NO_MASK, pooled_over_pairs, wave

from hf_distill.capture.signals import Projections, SignalRequest, Signals
from hf_distill.objectives.attention import LOSSES, score_error

PER_HEAD, JOINED = ["mse", "ce", "kl"], ["mse_sum", "ce_mean"]


def softmax(scores):
    weights = [math.exp(s - max(scores)) for s in scores]
    return [w / sum(weights) for w in weights]


def plain_attention(s, t, mask, loss):
    """The loss of one match, number by number."""
    rows = []
    for r in range(len(mask)):
        real = [i for i in range(mask.shape[1]) if mask[r, i]]
        heads = [(s[r].double(), t[r].double())]
        if loss == "mse_sum":
            heads = [(s[r].double().sum(0, keepdim=True), t[r].double().sum(0, keepdim=True))]
        if loss == "ce_mean":
            heads = [(s[r].double().mean(0, keepdim=True), t[r].double().mean(0, keepdim=True))]
        student, teacher = heads[0]
        values = []
        for h in range(len(student)):
            for i in real:
                x, y = ([float(scores[h, i, j]) for j in real] for scores in (student, teacher))
                if loss.startswith("mse"):
                    values += [(a - b) ** 2 for a, b in zip(x, y, strict=True)]
                    continue
                p, q = softmax(y), softmax(x)
                entropy = sum(a * math.log(a) for a in p) if loss == "kl" else 0.0
                values.append(entropy - sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
        rows.append(sum(values) / len(values))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("loss", LOSSES)
def test_equals_the_formula_written_out(loss):
    student, teacher = student_signals(heads=2 if loss in JOINED else H), teacher_signals()
    terms = make("attention", student, teacher, loss=loss, layers="1:2,2:4")(student, teacher)
    expected = {
        f"s{s}_t{t}": plain_attention(student.attention_scores[s], teacher.attention_scores[t], masks(), loss)
        for s, t in ((1, 2), (2, 4))
    }
    assert {key: value.item() for key, value in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_gives_the_numbers_of_textbrewer_where_it_drops_no_scores():
    student, teacher = wave((2, 3, 5, 5), 0.3), wave((2, 3, 5, 5), 2.1)
    joined = student.sum(1, keepdim=True), teacher.sum(1, keepdim=True)
    found = [
        score_error(student, teacher, NO_MASK).mean(),
        pooled_over_pairs(score_error(student, teacher, MASK), MASK),
        pooled_over_pairs(score_error(*joined, MASK), MASK),
        score_error(student.softmax(-1), teacher.softmax(-1), NO_MASK).mean(),
        pooled_over_pairs(score_error(student.softmax(-1), teacher.softmax(-1), MASK), MASK),
    ]
    assert [x.item() for x in found] == pytest.approx([1.216301, 1.186311, 1.113505, 0.011448, 0.011352], abs=1e-6)


def test_the_other_numbers_of_textbrewer_come_from_its_threshold():
    def drop(scores):
        return torch.where(scores <= -1e-3, 0.0, scores)

    student, teacher = wave((2, 3, 5, 5), 0.3), wave((2, 3, 5, 5), 2.1)
    assert score_error(drop(student), drop(teacher), NO_MASK).mean().item() == pytest.approx(0.385525, abs=1e-6)
    kept = (teacher.softmax(-1) * (teacher > -1e-3) * -student.log_softmax(-1)).sum(-1).mean()
    assert kept.item() == pytest.approx(0.934359, abs=1e-6)
    assert LOSSES["ce"](student, teacher, NO_MASK).mean() > kept + 0.1


def test_kl_on_the_last_layer_is_the_attention_transfer_of_minilm():
    generator = torch.Generator().manual_seed(0)

    def with_scores(width, layer):
        parts = [torch.randn(B, T, width, generator=generator) for _ in range(3)]
        query, key = (x.unflatten(-1, (H, -1)).transpose(1, 2) for x in parts[:2])
        scores = query @ key.transpose(-1, -2) / (width // H) ** 0.5
        return Signals(
            masks(), projections={layer: Projections(*parts, num_heads=H)}, attention_scores={layer: scores}
        )

    student, teacher = with_scores(D_STUDENT, 2), with_scores(D_TEACHER, 4)
    transfer = total(make("attention", student, teacher, loss="kl", layers="last"), student, teacher)
    torch.testing.assert_close(transfer, make("minilm", student, teacher)(student, teacher)["qk"])


@pytest.mark.parametrize("loss", [*LOSSES])
def test_is_least_when_the_student_is_the_teacher(loss):
    same, other = teacher_signals(), side(D_TEACHER, 5, 4)
    objective = make("attention", same, same, (4, 4), loss=loss, layers="uniform")
    at_equality = total(objective, same, same)
    if not loss.startswith("ce"):
        assert at_equality.abs() < 1e-6
    assert total(objective, other, same) > at_equality + 0.1


def test_only_the_scores_of_the_layers_are_asked_for():
    objective = make("attention", layers="-1:-1")
    assert objective.student_request == SignalRequest(attention_scores=frozenset({2}))
    assert objective.teacher_request == SignalRequest(attention_scores=frozenset({4}))
    assert objective.describe() == {"layers": [[2, 4]], "loss": "mse"}
    assert objective.unit == "rows"


@pytest.mark.parametrize("loss", PER_HEAD)
def test_heads_are_compared_one_by_one_only_if_there_are_as_many(loss):
    with pytest.raises(ValueError, match=r"student has 2 attention heads.*teacher 4: use loss=mse_sum or.*'SHAPE:4h'"):
        make("attention", student_signals(heads=2), loss=loss)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("attention", {"loss": "cosine"}, "`loss` of `attention` is 'cosine'; allowed are mse, mse_sum, ce"),
        ("attention", {"layers": "0:0"}, r"layers of attention.*no layer 0.*legal are 1\.\.2"),
        ("attention", {"layers": "uniform_with_embeddings"}, "embeddings.*cannot be used"),
        ("tinybert", {"layers": "0:0"}, r"layers of tinybert.*no layer 0"),
        ("tinybert", {"projection": "big"}, "`projection` is 'big'"),
    ],
)
def test_options_that_cannot_be_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, **options)


# --- TinyBERT --------------------------------------------------------------------------------------------------------


def test_tinybert_is_attention_hidden_states_and_embeddings_of_all_layers():
    student, teacher = student_signals(), teacher_signals()
    objective = make("tinybert")
    terms = objective(student, teacher)
    project = objective.projections

    def hidden(s, t):
        rows = []
        for r in range(B):
            real = masks()[r].bool()
            difference = project(student.hidden_states[s], 0)[r, real] - teacher.hidden_states[t][r, real]
            rows.append(difference.double().square().mean())
        return torch.stack(rows).mean().item()

    scores = [
        plain_attention(student.attention_scores[s], teacher.attention_scores[t], masks(), "mse")
        for s, t in ((1, 2), (2, 4))
    ]
    expected = {"attention": sum(scores), "hidden": hidden(1, 2) + hidden(2, 4), "embeddings": hidden(0, 0)}
    assert {key: value.item() for key, value in terms.items()} == pytest.approx(expected, rel=1e-5)
    assert objective.describe() == {
        "layers": [[0, 0], [1, 2], [2, 4]],
        "projection": "linear 8 -> 12, one for all",
        "tinybert_compat": False,
    }
    assert objective.unit == "rows"


def test_tinybert_has_no_loss_where_the_student_is_the_teacher():
    same = teacher_signals()
    assert total(make("tinybert", same, same, (4, 4), projection="identity"), same, same).abs() < 1e-6


def test_the_public_code_of_tinybert_counts_padding():
    student, teacher = student_signals(), teacher_signals()
    objective = make("tinybert", tinybert_compat=True)
    attention, hidden = 0.0, []
    for s, t in ((1, 2), (2, 4)):
        # The public code adds -10000 to the scores of padded keys, and sets what is below -100 to 0.
        masked = [
            x + (1 - masks()[:, None, None, :]) * -10000.0
            for x in (student.attention_scores[s], teacher.attention_scores[t])
        ]
        x, y = (torch.where(scores <= -100, 0.0, scores) for scores in masked)
        attention += torch.nn.functional.mse_loss(x, y).item()
    for s, t in ((0, 0), (1, 2), (2, 4)):
        projected = objective.projections(student.hidden_states[s], 0)
        hidden.append(torch.nn.functional.mse_loss(projected, teacher.hidden_states[t]).item())
    expected = {"attention": attention, "hidden": sum(hidden[1:]), "embeddings": hidden[0]}
    terms = {key: value.item() for key, value in objective(student, teacher).items()}
    assert terms == pytest.approx(expected, rel=1e-5)


def test_tinybert_needs_as_many_heads():
    with pytest.raises(ValueError, match=r"'tinybert'.*student has 2.*teacher 4: mix `hidden` with `attention`"):
        make("tinybert", student_signals(heads=2))


def head(logits):
    return Signals(attention_mask=torch.ones(len(logits), 4, dtype=torch.long), logits={"logits": logits})


def test_predictions_of_tinybert_are_soft_cross_entropy_without_the_square_of_the_temperature():
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    plain, compat = (
        make("tinybert_prediction", head(student), head(teacher), temperature=2.0, tinybert_compat=compat)
        for compat in (False, True)
    )
    expected = -((teacher / 2).softmax(-1) * (student / 2).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(plain(head(student), head(teacher))["soft"], expected)
    torch.testing.assert_close(compat(head(student), head(teacher))["soft"], expected / 3)


def test_regression_of_tinybert_learns_from_the_teacher_or_as_its_code_from_the_labels():
    student, teacher, gold = torch.randn(5, 1), torch.randn(5, 1), torch.randn(5)
    plain, compat = (
        make("tinybert_prediction", head(student), head(teacher), problem_type="regression", tinybert_compat=compat)
        for compat in (False, True)
    )
    labels = {"labels": gold}
    torch.testing.assert_close(
        plain(head(student), head(teacher), labels)["soft"], (student - teacher).square().mean()
    )
    torch.testing.assert_close(
        compat(head(student), head(teacher), labels)["soft"], (student[:, 0] - gold).square().mean()
    )
    with pytest.raises(ValueError, match="`tinybert_prediction` needs the column 'labels'"):
        compat(head(student), head(teacher))


def test_answers_have_no_number_of_classes_for_tinybert():
    spans = {name: torch.randn(2, 4) for name in ("start_logits", "end_logits")}
    side = Signals(attention_mask=torch.ones(2, 4, dtype=torch.long), logits=spans)
    make("tinybert_prediction", side, side)
    with pytest.raises(ValueError, match=r"`tinybert_compat` divides by the number of classes.*head for answers"):
        make("tinybert_prediction", side, side, tinybert_compat=True)
