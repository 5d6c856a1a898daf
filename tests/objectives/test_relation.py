"""The relation objective: MiniLMv2 and, as a preset, MiniLM."""

import pytest
import torch

from hf_distill.capture.signals import Projections, Signals
from hf_distill.objectives import MiniLMObjective, RelationObjective, build_objective, relation
from hf_distill.objectives.relation import (
    choose_relation_heads,
    default_teacher_layer,
    legal_relation_heads,
    relation_loss,
)

B, T, D_STUDENT, D_TEACHER = 3, 7, 24, 48


def masks():
    """Mixed lengths, padded right, left and not at all."""
    mask = torch.ones(B, T, dtype=torch.long)
    mask[1, 5:] = 0
    mask[2, :3] = 0
    return mask


def projections(width, seed, length=T):
    return torch.randn(B, length, width, generator=torch.Generator().manual_seed(seed))


def plain_relation_loss(s_left, s_right, t_left, t_right, mask, heads):
    """The formula of the paper, row by row and head by head, in float64."""
    total = 0.0
    for row in range(len(mask)):
        real = mask[row].bool()
        n = int(real.sum())
        for head in range(heads):
            log_relations = []
            for left, right in ((t_left, t_right), (s_left, s_right)):
                width = left.shape[-1] // heads
                part = slice(head * width, (head + 1) * width)
                scores = left[row, real, part].double() @ right[row, real, part].double().T / width**0.5
                log_relations.append(scores.log_softmax(-1))
            log_t, log_s = log_relations
            total = total + (log_t.exp() * (log_t - log_s)).sum() / (heads * n)
    return total / len(mask)


@pytest.mark.parametrize("slice_bytes", [1, 400, 10**9], ids=["one head", "some heads", "whole batch"])
@pytest.mark.parametrize("heads", [4, 8, 12, 24])
@pytest.mark.parametrize("relation_of_one", [True, False], ids=["q-q", "q-k"])
def test_equals_the_plain_formula_in_value_and_gradient(monkeypatch, slice_bytes, heads, relation_of_one):
    monkeypatch.setitem(relation.SLICE_BYTES, "cpu", slice_bytes)
    s_left = projections(D_STUDENT, 1).requires_grad_()
    s_right = s_left if relation_of_one else projections(D_STUDENT, 2).requires_grad_()
    t_left = projections(D_TEACHER, 3)
    t_right = t_left if relation_of_one else projections(D_TEACHER, 4)
    leaves = [s_left] if relation_of_one else [s_left, s_right]

    loss = relation_loss(s_left, s_right, t_left, t_right, masks(), heads)
    expected = plain_relation_loss(s_left, s_right, t_left, t_right, masks(), heads)

    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-7)
    for got, want in zip(
        torch.autograd.grad(3 * loss, leaves), torch.autograd.grad(3 * expected, leaves), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_is_zero_when_the_student_is_the_teacher():
    x = projections(D_TEACHER, 1)
    assert relation_loss(x, x, x, x, masks(), 12).abs() < 1e-6


@pytest.mark.parametrize("side", ["left", "right"])
def test_more_padding_changes_nothing(side):
    student, teacher = projections(D_STUDENT, 1), projections(D_TEACHER, 2)
    mask = masks()

    def pad(x, value):
        filler = torch.full((B, 5, *x.shape[2:]), value, dtype=x.dtype)
        return torch.cat((filler, x) if side == "left" else (x, filler), dim=1)

    short = relation_loss(student, student, teacher, teacher, mask, 8)
    s, t = pad(student, 50.0), pad(teacher, -50.0)
    torch.testing.assert_close(relation_loss(s, s, t, t, pad(mask, 0), 8), short)


def test_rows_are_independent_of_their_order_and_the_mean_is_over_rows():
    student, teacher, mask = projections(D_STUDENT, 1), projections(D_TEACHER, 2), masks()
    whole = relation_loss(student, student, teacher, teacher, mask, 8)
    order = torch.tensor([2, 0, 1])
    s, t = student[order], teacher[order]
    torch.testing.assert_close(relation_loss(s, s, t, t, mask[order], 8), whole)
    rows = [
        relation_loss(
            student[i : i + 1], student[i : i + 1], teacher[i : i + 1], teacher[i : i + 1], mask[i : i + 1], 8
        )
        for i in range(B)
    ]
    torch.testing.assert_close(torch.stack(rows).mean(), whole)


def test_is_computed_in_float32_under_autocast():
    student, teacher = projections(D_STUDENT, 1), projections(D_TEACHER, 2)
    expected = relation_loss(student, student, teacher, teacher, masks(), 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(relation_loss(student, student, teacher, teacher, masks(), 8), expected)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "autocast"])
@pytest.mark.parametrize("heads", [8, 24])
def test_the_compiler_takes_it_into_one_graph(autocast, heads):
    states, teacher = projections(D_STUDENT, 1), projections(D_TEACHER, 2)
    weight = torch.eye(D_STUDENT, requires_grad=True)

    def compute(mask):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            student = states @ weight
            return 2 * relation_loss(student, student, teacher, teacher, mask, heads)

    compiled = torch.compile(compute, backend="aot_eager", fullgraph=True)
    for mask in (masks(), masks()[:2]):
        states, teacher = states[: len(mask)], teacher[: len(mask)]
        loss, expected = compiled(mask), compute(mask)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, weight), torch.autograd.grad(expected, weight))


@pytest.mark.parametrize("of_one", [True, False], ids=["q-q", "q-k"])
def test_small_gradients_in_half_precision_are_scaled_before_they_are_rounded(of_one):
    """At a small divergence most gradients are below fp16's smallest number until a loss scaler lifts them."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(2, 2, 64, 48, generator=generator)
    student = (teacher + 0.002 * torch.randn(2, 2, 64, 48, generator=generator)).half()
    mask, factor = torch.ones(2, 64), 2.0**16

    def gradients(dtype, scale):
        leaves = [side.to(dtype).requires_grad_() for side in (student[:1] if of_one else student)]
        sides = leaves * 2 if of_one else leaves
        others = [teacher[0], teacher[0] if of_one else teacher[1]]
        loss = relation_loss(*sides, *others, mask, 12)
        return torch.cat([x.flatten() for x in torch.autograd.grad(scale * loss, leaves)])

    exact = gradients(torch.float32, factor).double()
    half, brain = gradients(torch.float16, factor).double(), gradients(torch.bfloat16, factor).double()
    assert (half - exact).norm() / exact.norm() < 1e-3
    assert (half - exact).norm() <= (brain - exact).norm()
    assert (half == 0).sum() == (exact == 0).sum()
    unscaled = factor * gradients(torch.float16, 1.0).double()
    assert (unscaled - exact).norm() / exact.norm() > 1e-2, "nothing was small here"


def test_a_second_derivative_is_refused():
    student, teacher = projections(D_STUDENT, 1).requires_grad_(), projections(D_TEACHER, 2)
    loss = relation_loss(student, student, teacher, teacher, masks(), 8)
    (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


def test_an_empty_row_is_no_number_of_its_own():
    student, teacher = projections(D_STUDENT, 1).requires_grad_(), projections(D_TEACHER, 2)
    mask = masks()
    mask[0] = 0
    loss = relation_loss(student, student, teacher, teacher, mask, 8)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    assert not student.grad[0].any()


@pytest.mark.parametrize(
    ("teacher_width", "student_width", "expected"), [(768, 384, 48), (1024, 384, 64), (768, 312, 24), (1024, 312, 8)]
)
def test_auto_takes_the_largest_legal_number_of_heads_up_to_the_papers(teacher_width, student_width, expected):
    assert choose_relation_heads("auto", teacher_width, [teacher_width, student_width]) == expected


def test_an_illegal_number_of_heads_names_the_legal_ones():
    with pytest.raises(ValueError, match=r"relation_heads.*64.*\[8, 4, 2, 1\] or 'auto'"):
        choose_relation_heads(64, 1024, [1024, 312])
    assert legal_relation_heads(768, 312)[0] == 24


@pytest.mark.parametrize(
    ("depth", "model_type", "layer"),
    [(12, "bert", 12), (24, "roberta", 19), (24, "xlm-roberta", 19), (24, "bert", 21)],
)
def test_the_teacher_layer_is_the_papers(depth, model_type, layer):
    assert default_teacher_layer(depth, model_type) == layer


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_minilm_learns_from_the_last_layer_of_any_teacher(model_type):
    options = {"teacher_layer": "auto", "teacher_model_type": model_type}
    for name, layer in (("minilm", 24), ("relation", default_teacher_layer(24, model_type))):
        objective = build_objective(name, options)
        objective.bind(6, 24)
        assert objective.pairs == ((6, layer),)
    assert MiniLMObjective(teacher_layer="21").teacher_layer == "21"


def signals(width, heads, seed, layer):
    parts = [projections(width, seed + i) for i in range(3)]
    return Signals(attention_mask=masks(), projections={layer: Projections(*parts, num_heads=heads)})


def test_minilm_is_attention_transfer_plus_value_relation():
    objective = MiniLMObjective()
    objective.bind(2, 3)
    student, teacher = signals(D_STUDENT, 4, 10, layer=2), signals(D_TEACHER, 4, 20, layer=3)
    objective.check(student, teacher)
    terms = objective(student, teacher)
    s, t = student.projections[2], teacher.projections[3]
    attention = plain_relation_loss(s.query, s.key, t.query, t.key, masks(), 4)
    values = plain_relation_loss(s.value, s.value, t.value, t.value, masks(), 4)
    torch.testing.assert_close(terms["qk"].double(), attention, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(terms["vv"].double(), values, rtol=1e-5, atol=1e-7)


def test_minilm_needs_as_many_heads_on_both_sides():
    objective = MiniLMObjective()
    objective.bind(2, 3)
    with pytest.raises(ValueError, match=r"student \(3\).*teacher \(4\)"):
        objective.check(signals(D_STUDENT, 3, 10, layer=2), signals(D_TEACHER, 4, 20, layer=3))


def test_a_layer_map_sums_over_its_pairs():
    def loss(layer_map):
        objective = RelationObjective(["vv"], 8, layer_map=layer_map)
        objective.bind(2, 4)
        objective.check(student, teacher)
        return objective(student, teacher)["vv"]

    student, teacher = signals(D_STUDENT, 4, 1, 1), signals(D_TEACHER, 4, 2, 2)
    student.projections |= signals(D_STUDENT, 4, 3, 2).projections
    teacher.projections |= signals(D_TEACHER, 4, 5, 4).projections
    torch.testing.assert_close(loss("all"), loss("1:2") + loss("2:4"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relations": ["qx"]}, r"relations.*'qx'.*pairs of q, k and v"),
        ({"relations": ["qq:much"]}, "must be a number above 0"),
        ({"relations": ["qq:-1"]}, r"relations.*'qq:-1'.*must be a number above 0"),
        ({"relations": ["qq:nan"]}, "must be a number above 0"),
        ({"relations": ["qq:inf"]}, "must be a number above 0"),
        ({"relations": ["qq", "qq:2"]}, "relations.*'qq' twice"),
        ({"relations": []}, "relations.*empty"),
    ],
)
def test_unreadable_relations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RelationObjective(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_layer": 5}, r"student_layer.*no layer 5 in a model of 2 layers"),
        ({"teacher_layer": "13"}, r"teacher_layer.*no layer 13 in a model of 12"),
        ({"teacher_layer": "top"}, r"teacher_layer.*'top'.*'auto'"),
        ({"layer_map": "0:0"}, "embeddings"),
    ],
)
def test_layers_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RelationObjective(**options).bind(2, 12)


def test_grouped_queries_cannot_be_related_to_keys():
    def grouped(layer):
        return Signals(
            attention_mask=masks(),
            projections={layer: Projections(projections(48, 1), projections(24, 2), projections(24, 3), num_heads=4)},
        )

    objective = RelationObjective(["qk"])
    objective.bind(1, 1)
    with pytest.raises(ValueError, match="grouped-query"):
        objective.check(grouped(1), grouped(1))
    self_relations = RelationObjective()
    self_relations.bind(1, 1)
    self_relations.check(grouped(1), grouped(1))
    assert self_relations(grouped(1), grouped(1))["kk"] < 1e-6
