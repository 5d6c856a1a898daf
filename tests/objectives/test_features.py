"""Losses between hidden states."""

import math

import pytest
import torch
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

B, T, D_STUDENT, D_TEACHER = 3, 6, 8, 12
NAMES = ["hidden", "cosine", "pkd", "fsp", "nst"]
PAIRS = {"hidden": "0:0,2:4", "cosine": "0:0,2:4", "pkd": "0:0,2:4", "fsp": "0+1:0+3,2:4", "nst": "0+1:0+3,2:4"}


def masks():
    """Rows of six, four (padded right) and three tokens (padded left)."""
    mask = torch.ones(B, T, dtype=torch.long)
    mask[1, 4:] = 0
    mask[2, :3] = 0
    return mask


def side(width, seed, layers, mask=None):
    mask = masks() if mask is None else mask
    generator = torch.Generator().manual_seed(seed)
    states = {layer: torch.randn(*mask.shape, width, generator=generator) for layer in layers}
    return Signals(attention_mask=mask, hidden_states=states)


def student_signals(mask=None, width=D_STUDENT):
    return side(width, 1, (0, 1, 2), mask)


def teacher_signals(mask=None):
    return side(D_TEACHER, 2, (0, 1, 2, 3, 4), mask)


def make(name, student=None, teacher=None, **options):
    """An objective that has seen both sides of depths 2 and 4."""
    torch.manual_seed(3)
    (item,) = build_objectives([{"objective": name, "layers": PAIRS[name], **options}])
    item.objective.bind(2, 4)
    item.objective.check(student or student_signals(), teacher or teacher_signals())
    return item.objective


def total(objective, student, teacher):
    return sum(objective(student, teacher).values())


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


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("where", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_more_padding_changes_nothing(name, where):
    def pad(x, value):
        filler = torch.full((len(x), 3, *x.shape[2:]), value, dtype=x.dtype)
        return torch.cat((filler, x) if where == "left" else (x, filler), dim=1)

    def padded(signals, value):
        states = {layer: pad(x, value) for layer, x in signals.hidden_states.items()}
        return Signals(attention_mask=pad(signals.attention_mask, 0), hidden_states=states)

    objective, student, teacher = make(name), student_signals(), teacher_signals()
    before, after = objective(student, teacher), objective(padded(student, 50.0), padded(teacher, -50.0))
    for term, value in before.items():
        torch.testing.assert_close(after[term], value)


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_at_padding_does_not_matter(name):
    objective, student, teacher = make(name), student_signals(), teacher_signals()
    before = total(objective, student, teacher)
    for signals in (student, teacher):
        for states in signals.hidden_states.values():
            states[masks() == 0] = 1e4
    torch.testing.assert_close(total(objective, student, teacher), before)


@pytest.mark.parametrize("name", NAMES)
def test_is_zero_when_the_student_is_the_teacher(name):
    same = teacher_signals()
    (item,) = build_objectives([{"objective": name, "layers": "0:0,2:2,4:4"}])
    item.objective.bind(4, 4)
    item.objective.check(same, same)
    assert not list(item.objective.parameters())
    assert total(item.objective, same, same).abs() < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_batch_by_their_share_give_the_whole_batch(name):
    objective, student, teacher = make(name), student_signals(), teacher_signals()

    def part(signals, rows):
        states = {layer: x[rows] for layer, x in signals.hidden_states.items()}
        return Signals(attention_mask=signals.attention_mask[rows], hidden_states=states)

    counts = masks().sum(1).float() if objective.unit == "tokens" else torch.ones(B)
    parts = [[2], [0, 1]]
    shares = [counts[rows].sum() / counts.sum() for rows in parts]
    pieces = [total(objective, part(student, rows), part(teacher, rows)) for rows in parts]
    whole = total(objective, student, teacher)
    torch.testing.assert_close(sum(p * share for p, share in zip(pieces, shares, strict=True)), whole)
    order = [2, 0, 1]
    torch.testing.assert_close(total(objective, part(student, order), part(teacher, order)), whole)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_student_and_its_projections_only(name):
    student, teacher = student_signals(), teacher_signals()
    for signals in (student, teacher):
        for states in signals.hidden_states.values():
            states.requires_grad_()
    objective = make(name, projection="tanh")
    for states in teacher.hidden_states.values():
        states.requires_grad_(False)
    total(objective, student, teacher).backward()
    asked = objective.student_request.hidden_states
    assert all(student.hidden_states[layer].grad.any() for layer in asked)
    assert all(student.hidden_states[layer].grad[masks() == 0].abs().sum() == 0 for layer in asked)
    assert list(objective.parameters())
    assert all(p.grad.any() for p in objective.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_tokens_is_no_number_of_its_own(name):
    mask = masks()
    mask[0] = 0
    student, teacher = student_signals(mask), teacher_signals(mask)
    for states in student.hidden_states.values():
        states.requires_grad_()
    loss = total(make(name), student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    for layer in make(name).student_request.hidden_states:
        assert torch.isfinite(student.hidden_states[layer].grad).all()


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
