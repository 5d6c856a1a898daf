"""The fused relation loss in Triton's interpreter: errors against the formula in float64, as one line of JSON.

A process of its own, because Triton decides at its import whether it compiles or interprets.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent / "objectives"))

import numpy as np
import torch
import triton.language as tl
from test_relation import plain_relation_loss
from triton.runtime import interpreter

from hf_distill.kernels.fused_relation import fused_relation_kl, takes
from hf_distill.objectives import relation

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Heads, widths of a student's and a teacher's head, length, dtypes of both, one projection or two.
CASES = {
    "narrow": (2, 6, 16, 40, "fp32", "fp32", True),
    "narrow mixed": (2, 6, 16, 40, "fp32", "fp32", False),
    "odd widths": (1, 26, 39, 70, "fp32", "fp32", True),
    "odd widths mixed": (1, 39, 26, 35, "fp32", "bf16", False),
    "widest": (1, 64, 128, 35, "fp32", "bf16", True),
    "half": (1, 8, 16, 70, "fp16", "fp16", True),
    "half mixed": (2, 8, 64, 40, "fp16", "fp32", False),
    "brain": (2, 8, 16, 40, "bf16", "bf16", True),
    "brain mixed": (1, 32, 32, 70, "bf16", "fp16", False),
    "one token": (2, 8, 16, 1, "fp32", "fp32", True),
}
multiply = interpreter.InterpreterBuilder.create_dot


def multiply_brain(builder, left, right, *others):
    """The interpreter holds bf16 as integers and would multiply these."""
    sides = []
    for side in (left, right):
        if side.dtype.scalar == tl.bfloat16:
            side = interpreter.TensorHandle((side.data.astype(np.uint32) << 16).view(np.float32), tl.float32)
        sides.append(side)
    return multiply(builder, *sides, *others)


interpreter.InterpreterBuilder.create_dot = multiply_brain


def draw(length, width, dtype, seed):
    return torch.randn(3, length, width, generator=torch.Generator().manual_seed(seed)).to(DTYPES[dtype])


def padded_mask(length):
    """Padded right; on the left; with a hole."""
    mask = torch.ones(3, length, dtype=torch.bool)
    if length > 1:
        mask[0, length // 2 :] = False
        mask[1, : length - 2] = False
        mask[2, 1 : length // 3] = False
    return mask


def sides_of(heads, student, teacher, length, s_dtype, t_dtype, same):
    left = draw(length, heads * student, s_dtype, 0).requires_grad_()
    right = left if same else draw(length, heads * student, s_dtype, 1).requires_grad_()
    t_left = draw(length, heads * teacher, t_dtype, 2)
    return left, right, t_left, t_left if same else draw(length, heads * teacher, t_dtype, 3)


def gradients(loss, sides, factor=3.0):
    leaves = sides[:1] if sides[0] is sides[1] else sides[:2]
    return torch.cat([x.flatten() for x in torch.autograd.grad(factor * loss, leaves)])


def exact(sides, mask, heads, factor=3.0):
    leaves = [x.detach().double().requires_grad_() for x in (sides[:1] if sides[0] is sides[1] else sides[:2])]
    loss = plain_relation_loss(leaves[0], leaves[-1], *sides[2:], mask, heads)
    return loss.detach(), gradients(loss, [leaves[0], leaves[-1]], factor)


def relative(got, wanted):
    return ((got.double() - wanted).norm() / wanted.norm()).item()


def errors(name):
    """Relative errors of loss and gradient, and the gradient of what is padded."""
    heads, *_, length, _, _, same = CASES[name]
    sides, mask = sides_of(*CASES[name]), padded_mask(length)
    with torch.no_grad():
        for side in sides:  # nothing of a padded token may be read
            side[~mask] = float("nan")
    loss = fused_relation_kl(*sides, mask, heads, same)
    got = gradients(loss, sides)
    wanted_loss, wanted = exact(sides, mask, heads)
    parts = got.view(1 if same else 2, 3, length, -1)
    return {
        "loss": abs(loss.double() - wanted_loss).item() / max(wanted_loss.item(), 0.01),
        "gradient": relative(got, wanted) if length > 1 else got.abs().max().item(),
        "padding": parts[:, ~mask].abs().sum().item(),
    }


def small_divergence():
    """Errors of gradients under a loss scale at a small divergence, and how many are lost to 0."""
    teacher, noise = draw(40, 48, "fp32", 0), draw(40, 48, "fp32", 1)
    mask, factor, found = padded_mask(40), 2.0**16, {}
    for dtype in ("fp32", "fp16", "bf16"):
        student = (teacher + 0.002 * noise).half().to(DTYPES[dtype]).requires_grad_()
        sides = [student, student, teacher, teacher]
        got = gradients(fused_relation_kl(*sides, mask, 6, True), sides, factor)
        found[dtype] = relative(got, exact(sides, mask, 6, factor)[1])
    return found


def as_an_operator():
    """Views are read in place, the compiler takes it whole, and there is no second derivative."""
    weight, both = torch.eye(24, requires_grad=True), draw(20, 72, "fp32", 0)
    states, teacher = both[..., :24], both[..., 24:]
    mask = padded_mask(20)

    def loss(states, teacher, mask):
        student = states @ weight
        assert not takes(
            student, student, teacher, teacher, 4
        )  # no device is here; the question must not break a graph
        return fused_relation_kl(student, student, teacher, teacher, mask, 4, True)

    plain = relation.relation_loss(states, states, teacher, teacher, mask, 4)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    found, expected = compiled(states, teacher, mask), loss(states, teacher, mask)
    fused = fused_relation_kl(states, states, teacher, teacher, mask, 4, True)
    (gradient,), (wanted,) = (torch.autograd.grad(x, weight) for x in (found, expected))
    return {
        "views": abs(fused - plain).item(),
        "compiled": abs(found - expected).item() + (gradient - wanted).abs().max().item(),
        "refused": second_derivative(states, teacher, mask),
    }


def second_derivative(states, teacher, mask):
    leaf = states.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        fused_relation_kl(leaf, leaf, teacher, teacher, mask, 4, True), leaf, create_graph=True
    )
    try:
        gradient.sum().backward()
    except RuntimeError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = {name: errors(name) for name in CASES}
    sys.stdout.write(
        json.dumps(results | {"small divergence": small_divergence(), "operator": as_an_operator()}) + "\n"
    )
