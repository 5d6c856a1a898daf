"""Losses between hidden states."""

import math

import pytest
import torch
from layer_cases import D_STUDENT, D_TEACHER, PAIRS, B, T, make, masks, student_signals, teacher_signals, total
from parity import MASK, NO_MASK, pooled_over_pairs, pooled_over_tokens, wave

from hf_distill.capture.signals import SignalRequest, Signals
from hf_distill.objectives import build_objectives
from hf_distill.objectives.features import (
    HiddenObjective,
    cosine_distance,
    feature_gram,
    first_token_distance,
    squared_error,
    token_gram,
    unit_vectors,
)
from hf_distill.objectives.matching import joint_mask, pool_rows


def vectors(states, row, mask):
    """The real tokens of a row as lists of float64 vectors."""
    return [states[row, t].double() for t in range(mask.shape[1]) if mask[row, t]]


# --- formulas, written out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["right", "left"])
def test_the_first_token_alone_may_be_compared(padding):
    objective = HiddenObjective("1:1", "identity", tokens="first")
    objective.bind(1, 1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    mask = mask if padding == "right" else mask.flip(1)
    student, teacher = (torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    sides = [Signals(attention_mask=mask, hidden_states={1: x}) for x in (student, teacher)]
    objective.check(*sides)
    first = mask.argmax(1)
    rows = torch.arange(2)
    expected = (student[rows, first] - teacher[rows, first]).square().mean()
    torch.testing.assert_close(objective(*sides)["s1_t1"], expected)
    assert objective.unit == "rows"
    assert objective.describe()["tokens"] == "first"


def test_other_choices_of_tokens_are_refused():
    with pytest.raises(ValueError, match="`tokens` of `hidden` is 'last'; allowed are 'all' and 'first'"):
        HiddenObjective(tokens="last")


def plain_hidden(s, t, mask):
    errors = []
    for r in range(len(mask)):
        for x, y in zip(vectors(s, r, mask), vectors(t, r, mask), strict=True):
            errors += [(a - b) ** 2 for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return sum(errors) / len(errors)


def plain_cosine(s, t, mask):
    distances = [
        1 - float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))
        for r in range(len(mask))
        for x, y in zip(vectors(s, r, mask), vectors(t, r, mask), strict=True)
    ]
    return sum(distances) / len(distances)


def plain_pkd(s, t, mask):
    distances = []
    for r in range(len(mask)):
        x, y = vectors(s, r, mask)[0], vectors(t, r, mask)[0]
        distances.append(float((x / x.norm() - y / y.norm()).square().sum()))
    return sum(distances) / len(distances)


def plain_fsp(s, t, mask):
    rows = []
    for r in range(len(mask)):
        grams = []
        for first, second in (s, t):
            x, y = vectors(first, r, mask), vectors(second, r, mask)
            grams.append(sum(torch.outer(a, b) for a, b in zip(x, y, strict=True)) / len(x))
        rows.append(float((grams[0] - grams[1]).square().mean()))
    return sum(rows) / len(rows)


def plain_nst(s, t, mask):
    rows = []
    for r in range(len(mask)):
        (x0, x1), (y0, y1) = ([vectors(part, r, mask) for part in pair] for pair in (s, t))
        n = len(x0)
        errors = [
            (float(x0[i] @ x1[j]) / len(x0[i]) - float(y0[i] @ y1[j]) / len(y0[i])) ** 2
            for i in range(n)
            for j in range(n)
        ]
        rows.append(sum(errors) / n**2)
    return sum(rows) / len(rows)


@pytest.mark.parametrize("name", PAIRS)
def test_equals_the_formula_written_out(name):
    student, teacher = student_signals(), teacher_signals()
    objective = make(name)
    plain = globals()[f"plain_{name}"]
    terms = objective(student, teacher)
    s, t = student.hidden_states, teacher.hidden_states

    def project(layer, match):
        return s[layer] if name == "nst" else objective.projections(s[layer], match).detach()

    if name in ("fsp", "nst"):
        expected = {
            "s0-1_t0-3": plain((project(0, 0), project(1, 0)), (t[0], t[3]), masks()),
            "s2_t4": plain((project(2, 1), project(2, 1)), (t[4], t[4]), masks()),
        }
    else:
        expected = {
            "s0_t0": plain(project(0, 0), t[0], masks()),
            "s2_t4": plain(project(2, 1), t[4], masks()),
        }
    assert {key: value.item() for key, value in terms.items()} == pytest.approx(expected, rel=1e-5)


# --- numbers of TextBrewer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (NO_MASK, {"hidden": 0.639628, "cosine": 0.652765, "pkd": 1.341653, "fsp": 0.293944, "nst": 0.277510}),
        (MASK, {"hidden": 0.605137, "cosine": 0.606463, "pkd": 1.341653, "fsp": 0.291124, "nst": 0.223719}),
    ],
    ids=["no mask", "mask"],
)
def test_gives_the_numbers_of_textbrewer(mask, expected):
    s, t = wave((2, 5, 6), 0.1), wave((2, 5, 6), 1.3)
    narrow = wave((2, 5, 4), 0.2), wave((2, 5, 4), 0.9)
    wide = wave((2, 5, 6), 1.7), wave((2, 5, 6), 2.9)
    student_fsp, teacher_fsp = feature_gram(s, t, mask), feature_gram(t, s.flip(1), mask)
    tokens = token_gram(*narrow, mask) - token_gram(*wide, mask)
    per_row = tokens.square().sum((1, 2)) / mask.sum(1).square()
    found = {
        "hidden": pooled_over_tokens(squared_error(s, t, mask), mask),
        "cosine": pooled_over_tokens(cosine_distance(s, t, mask), mask),
        "pkd": first_token_distance(s, t, mask).mean(),
        "fsp": (student_fsp - teacher_fsp).square().mean(),
        "nst": pooled_over_pairs(per_row, mask),
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, abs=1e-6)


# --- invariants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_is_zero_when_the_student_is_the_teacher(name):
    same = teacher_signals()
    objective = make(name, same, same, (4, 4), layers="0:0,2:2,4:4")
    assert not list(objective.parameters())
    assert total(objective, same, same).abs() < 1e-6


@pytest.mark.parametrize("name", ["cosine", "pkd"])
def test_zero_vectors_have_no_direction_and_no_gradient(name):
    student, teacher = student_signals(width=D_TEACHER), teacher_signals()
    for layer, states in student.hidden_states.items():
        student.hidden_states[layer] = torch.zeros_like(states).requires_grad_()
    loss = total(make(name, student), student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(2.0)
    assert all(not student.hidden_states[layer].grad.any() for layer in (0, 2))
    assert torch.equal(unit_vectors(torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize("name", ["nst", "fsp", "hidden"])
def test_is_computed_in_float32_under_autocast(name):
    objective = make(name, student_signals(width=D_TEACHER))
    student, teacher = student_signals(width=D_TEACHER), teacher_signals()
    expected = total(objective, student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(total(objective, student, teacher), expected)


def test_only_tokens_that_are_real_on_both_sides_count():
    student_mask, teacher_mask = masks(), masks()
    teacher_mask[0, 5] = 0
    objective = make("hidden")
    student, teacher = student_signals(student_mask), teacher_signals(teacher_mask)
    both = teacher_signals(teacher_mask)
    expected = total(objective, Signals(teacher_mask, hidden_states=student.hidden_states), both)
    torch.testing.assert_close(total(objective, student, teacher), expected)
    assert joint_mask(student, teacher).sum() == masks().sum() - 1


def test_rows_are_pooled_equally_or_by_their_length():
    values = torch.tensor([1.0, 2.0, 4.0])
    assert pool_rows(values, masks().bool(), "rows") == pytest.approx(7 / 3)
    assert pool_rows(values, masks().bool(), "tokens") == pytest.approx((6 * 1 + 4 * 2 + 3 * 4) / 13)


# --- options ---------------------------------------------------------------------------------------------------------


def test_layers_are_named_maps_or_pairs_and_only_those_are_asked_for():
    objective = make("hidden", layers="uniform_with_embeddings")
    assert objective.student_request == SignalRequest(hidden_states=frozenset({0, 1, 2}))
    assert objective.teacher_request == SignalRequest(hidden_states=frozenset({0, 2, 4}))
    assert list(objective(student_signals(), teacher_signals())) == ["s0_t0", "s1_t2", "s2_t4"]
    assert make("hidden", layers="-1:-1").describe()["layers"] == [[2, 4]]
    related = make("nst", layers="0+1:0+3")
    assert related.teacher_request == SignalRequest(hidden_states=frozenset({0, 3}))
    assert related.describe() == {"layers": [[[0, 1], [0, 3]]], "projection": "identity"}


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("hidden", [[0, 0], [1, 2], [2, 4]]),
        ("cosine", [[2, 4]]),
        ("pkd", [[1, 2]]),
        ("fsp", [[0, 0], [1, 2], [2, 4]]),
        ("nst", [[0, 0], [1, 2], [2, 4]]),
    ],
)
def test_layers_by_default_are_those_of_the_papers(name, matches):
    (item,) = build_objectives([name])
    item.objective.bind(2, 4)
    assert item.objective.describe()["layers"] == matches


def test_projections_are_described_and_made_anew_for_another_student():
    objective = make("hidden", shared_projection=True)
    assert objective.describe()["projection"] == f"fitted {D_STUDENT} -> {D_TEACHER}, one for all"
    assert len(list(objective.parameters())) == 2
    objective.check(student_signals(width=D_TEACHER), teacher_signals())
    assert objective.describe()["projection"] == "none, widths are equal"
    assert not list(objective.parameters())


def test_nst_needs_no_projection_but_may_have_one():
    assert not list(make("nst").parameters())
    assert list(make("nst", projection="linear").parameters())


def test_pkd_on_the_scale_of_the_authors_code():
    student, teacher = student_signals(), teacher_signals()
    paper, code = (total(make("pkd", pkd_compat=compat), student, teacher) for compat in (False, True))
    torch.testing.assert_close(code, paper / (D_TEACHER * 2))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hidden", {"layers": "0+1:0+3"}, "layers of hidden.*compares single layers"),
        ("hidden", {"layers": "3:4"}, r"layers of hidden \(student side\).*no layer 3"),
        ("hidden", {"layers": "top"}, "layers of hidden.*cannot read 'top'"),
        ("hidden", {"layers": "1:2,1:2"}, "has the match s1_t2 more than once"),
        ("hidden", {"layers": 64}, "in quotes in YAML"),
        ("hidden", {"projection": "gelu"}, "`projection` is 'gelu'; allowed are"),
        ("hidden", {"projection": "identity"}, "8 wide and the teacher's 12"),
        ("nst", {"layers": "0+1:2"}, r"write 0\+1:0\+3"),
        ("cosine", {"projections": "linear"}, r"'cosine' has no settings \['projections'\]; it has .*projection"),
    ],
)
def test_options_that_cannot_be_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, **options)


def test_a_teacher_is_needed():
    (item,) = build_objectives(["hidden"])
    with pytest.raises(ValueError, match="'hidden' needs a teacher"):
        item.objective.bind(2, None)


def test_sides_of_other_lengths_cannot_be_compared():
    objective = make("hidden")
    with pytest.raises(ValueError, match=r"student has \(3, 6\).*teacher \(3, 7\)"):
        objective(student_signals(), teacher_signals(torch.ones(B, T + 1, dtype=torch.long)))


def test_layers_that_are_related_need_one_width():
    student = student_signals()
    student.hidden_states[1] = torch.randn(B, T, 10)
    with pytest.raises(ValueError, match=r"layers of fsp.*\[8, 10\] wide"):
        make("fsp", student)
