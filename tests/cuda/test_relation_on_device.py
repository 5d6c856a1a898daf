"""The fused relation loss on a device, against the formula in float64."""

import pytest
import torch

from hf_distill.objectives import relation
from hf_distill.objectives.relation import relation_loss

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# A gradient is rounded to its dtype at the end: relative errors of its norm.
LIMITS = {"fp32": 2e-5, "fp16": 1e-3, "bf16": 5e-3}
WIDTHS = [(6, 16), (8, 16), (26, 39), (32, 64), (64, 64)]


@pytest.fixture(autouse=True)
def fused():
    """The kernel is what is tested here."""
    fused_relation = pytest.importorskip("hf_distill.kernels.fused_relation")
    if not fused_relation.device_can():
        pytest.skip("this device has no bf16 tensor cores")
    return fused_relation


def draw(rows, length, width, dtype, seed):
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(rows, length, width, generator=generator, device="cuda").to(DTYPES[dtype])


def padded_mask(rows, length):
    """Padding right, left and not at all, and a hole."""
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, length // 2 :] = 0
    mask[1, : length // 3] = 0
    mask[2, length // 4 : length // 4 + 2] = 0
    return mask.cuda()


def exact(sides, mask, heads, factor):
    """Loss and gradients of the formula in float64."""
    leaves = [x.detach().double().requires_grad_() for x in (sides[:1] if sides[0] is sides[1] else sides[:2])]

    def log_relation(left, right):
        left, right = (x.double().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (left, right))
        scores = left @ right.transpose(-1, -2) / left.shape[-1] ** 0.5
        return scores.masked_fill(mask[:, None, None] == 0, -1e9).log_softmax(-1)

    student, teacher = log_relation(leaves[0], leaves[-1]), log_relation(*sides[2:])
    divergence = (teacher.exp() * (teacher - student)).sum(-1) * mask[:, None]
    loss = (divergence.sum((1, 2)) / (heads * mask.sum(1))).mean()
    return loss, torch.autograd.grad(factor * loss, leaves)


def relative(got, wanted):
    got, wanted = (torch.cat([x.double().flatten() for x in part]) for part in (got, wanted))
    return ((got - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("same", [True, False], ids=["symmetric", "mixed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", WIDTHS, ids=lambda widths: f"{widths[0]}-{widths[1]}")
def test_equals_the_formula(widths, dtype, same):
    heads, length = 3, 130
    student = draw(4, length, heads * widths[0], dtype, 0).requires_grad_()
    teacher = draw(4, length, heads * widths[1], "bf16" if dtype == "fp16" else dtype, 1)
    others = [student, teacher]
    if not same:
        others = [
            draw(4, length, heads * widths[0], dtype, 2).requires_grad_(),
            draw(4, length, heads * widths[1], "bf16" if dtype == "fp16" else dtype, 3),
        ]
    sides, mask = [student, others[0], teacher, others[1]], padded_mask(4, length)
    loss = relation_loss(*sides, mask, heads)
    assert loss.grad_fn.name().lower().count("fused"), "the slices were taken"
    gradients = torch.autograd.grad(3 * loss, sides[: 1 if same else 2])
    wanted_loss, wanted = exact(sides, mask, heads, 3)
    assert abs(loss.double() - wanted_loss) / wanted_loss < 1e-5
    assert relative(gradients, wanted) < LIMITS[dtype]
    assert not gradients[0][mask == 0].any()
    again = relation_loss(*sides, mask, heads)
    assert torch.equal(again, loss)
    assert all(map(torch.equal, torch.autograd.grad(3 * again, sides[: 1 if same else 2]), gradients))


def test_views_of_one_tensor_are_read_where_they_are():
    both = draw(4, 70, 2 * 96, "bf16", 0)
    student, teacher = both[..., :96], both[..., 96:]
    mask = padded_mask(4, 70)
    packed = relation_loss(student.contiguous(), student, teacher, teacher, mask, 6)
    torch.testing.assert_close(relation_loss(student, student, teacher, teacher, mask, 6), packed)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_padding_may_hold_anything(dtype):
    student, teacher = draw(4, 70, 96, dtype, 0), draw(4, 70, 96, dtype, 1)
    mask = padded_mask(4, 70)
    clean = relation_loss(student, student, teacher, teacher, mask, 6)
    for side in (student, teacher):
        side[mask == 0] = float("nan")
    student.requires_grad_()
    loss = relation_loss(student, student, teacher, teacher, mask, 6)
    loss.backward()
    assert torch.equal(loss, clean)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("way", ["fused", "slices"])
def test_small_gradients_in_half_precision_survive(monkeypatch, way):
    """At a small divergence, under a loss scale, fp16 is no worse than bf16."""
    monkeypatch.setattr(relation, "TRITON_INSTALLED", way == "fused")
    teacher, noise = draw(4, 64, 96, "fp32", 0), draw(4, 64, 96, "fp32", 1)
    mask, errors = padded_mask(4, 64), {}
    for dtype in ("fp16", "bf16"):
        student = (teacher + 0.002 * noise).half().to(DTYPES[dtype]).requires_grad_()
        sides = [student, student, teacher, teacher]
        got = torch.autograd.grad(2.0**16 * relation_loss(*sides, mask, 12), student)
        errors[dtype] = relative(got, exact(sides, mask, 12, 2.0**16)[1])
    assert errors["fp16"] < 2e-3
    assert errors["fp16"] <= errors["bf16"]


@pytest.mark.parametrize("same", [True, False], ids=["symmetric", "mixed"])
def test_the_compiler_takes_it_into_one_graph(same):
    weight = torch.eye(48, device="cuda", requires_grad=True)
    states, teacher = draw(4, 33, 48, "bf16", 0), draw(4, 33, 96, "bf16", 1)

    def compute(states, teacher, mask):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            student = states @ weight
            other = student if same else states @ weight.T
            return 2 * relation_loss(student, other, teacher, teacher, mask, 6)

    compiled = torch.compile(compute, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows in (4, 3):
        given = states[:rows], teacher[:rows], padded_mask(4, 33)[:rows]
        loss, expected = compiled(*given), compute(*given)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, weight), torch.autograd.grad(expected, weight))
