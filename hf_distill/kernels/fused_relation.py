"""The relation loss of MiniLMv2 on CUDA devices, in Triton: no T x T tensor is ever written.

The forward pass reads both sides tile by tile and, as FlashAttention does, keeps running softmax statistics: the
logarithm of the denominator for every query of every relation head, on both sides. The KL divergence of a query comes
from the same pass. The backward pass computes the tiles again, turns them into probabilities with those statistics,
and multiplies by the incoming gradient before rounding to the student's dtype.

Scores are fp32 sums of products of the inputs in their own dtype; statistics, divergences and gradients are fp32. The
order of every sum is fixed (no atomics), so equal inputs give bitwise equal results.

Shape legend: B batch, T padded length, R relation heads, d width of one relation head, D = R * d.
"""

from __future__ import annotations

import functools
import math
import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Since version 3.9 Triton asks whether to fuse a product and a sum; the measurements in docs/gpu.md are with fusion.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
# Compute capability from which tensor cores multiply bf16 and tf32.
MIN_CAPABILITY = 80
# Maximum width of a relation head: wider ones need too many registers, and are computed in slices instead.
MAX_HEAD_WIDTHS = {torch.float32: 64, torch.float16: 128, torch.bfloat16: 128}
LOG2_E = math.log2(math.e)
# Arguments that change from batch to batch must not be specialised at compile time.
VARYING = ["length", "s_row", "t_row"]


@functools.cache
def device_capability() -> int:
    """Compute capability of the CUDA device that Triton compiles for, such as 90; 0 if there is none."""
    try:
        target = triton.runtime.driver.active.get_current_target()
    except RuntimeError:  # no driver
        return 0
    return int(target.arch) if target.backend == "cuda" else 0


@torch.compiler.assume_constant_result
def device_can() -> bool:
    """Whether the kernels run on the current device."""
    return device_capability() >= MIN_CAPABILITY


def takes(
    student_left: Tensor, student_right: Tensor, teacher_left: Tensor, teacher_right: Tensor, heads: int
) -> bool:
    """Whether the kernels support a relation: the device, the same dtype within a side, and the width of the heads."""
    return device_can() and all(
        left.dtype == right.dtype and left.shape[-1] // heads <= MAX_HEAD_WIDTHS.get(left.dtype, 0)
        for left, right in ((student_left, student_right), (teacher_left, teacher_right))
    )


@triton.jit
def _load_tile(
    start: tl.tensor, tokens: tl.tensor, real: tl.tensor, stride: tl.tensor, width: tl.constexpr, padded: tl.constexpr
) -> tl.tensor:
    """(tokens, padded): one head of some tokens, 0 for tokens that are padding and beyond the head's width."""
    columns = tl.arange(0, padded)
    where = start + tokens[:, None] * stride + columns[None, :]
    return tl.load(where, mask=real[:, None] & (columns[None, :] < width), other=0.0)


@triton.jit(do_not_specialize=["length"])
def _bounds_kernel(mask: tl.tensor, bounds: tl.tensor, length: tl.tensor, block: tl.constexpr) -> None:
    """For one row of the mask: the first real token, one after the last, and the number of real tokens."""
    row = tl.program_id(0).to(tl.int64)
    count = tl.zeros((block,), tl.int32)
    first = tl.full((block,), 0, tl.int32) + length
    stop = tl.zeros((block,), tl.int32)
    for begin in range(0, length, block):
        tokens = begin + tl.arange(0, block)
        real = tl.load(mask + row * length + tokens, mask=tokens < length, other=0) != 0
        count += real.to(tl.int32)
        first = tl.minimum(first, tl.where(real, tokens, length))
        stop = tl.maximum(stop, tl.where(real, tokens + 1, 0))
    tl.store(bounds + row * 3, tl.min(first, 0))
    tl.store(bounds + row * 3 + 1, tl.max(stop, 0))
    tl.store(bounds + row * 3 + 2, tl.sum(count, 0))


@triton.jit(do_not_specialize=VARYING)
def _divergence_kernel(
    s_left: tl.tensor,
    s_right: tl.tensor,
    t_left: tl.tensor,
    t_right: tl.tensor,
    mask: tl.tensor,
    bounds: tl.tensor,
    s_log: tl.tensor,
    t_log: tl.tensor,
    sums: tl.tensor,
    length: tl.tensor,
    heads: tl.tensor,
    factor: tl.tensor,
    s_scale: tl.tensor,
    t_scale: tl.tensor,
    s_row: tl.tensor,
    s_token: tl.tensor,
    t_row: tl.tensor,
    t_token: tl.tensor,
    s_width: tl.constexpr,
    s_padded: tl.constexpr,
    t_width: tl.constexpr,
    t_padded: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    s_precision: tl.constexpr,
    t_precision: tl.constexpr,
) -> None:
    """Softmax statistics of `rows` queries of one head, and the sum of their divergences.

    All logarithms are to base 2. `factor` is log(2) / (R * B).
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(length, rows)
    head = (program % heads).to(tl.int64)
    block = (program // heads) % blocks
    batch = (program // (heads * blocks)).to(tl.int64)
    first = tl.load(bounds + batch * 3)
    stop = tl.load(bounds + batch * 3 + 1)
    begin = first + block * rows
    if begin < stop:
        mask += batch * length
        s_right += batch * s_row + head * s_width
        t_right += batch * t_row + head * t_width
        queries = begin + tl.arange(0, rows)
        real = tl.load(mask + queries, mask=queries < stop, other=0) != 0
        s_queries = _load_tile(s_left + batch * s_row + head * s_width, queries, real, s_token, s_width, s_padded)
        t_queries = _load_tile(t_left + batch * t_row + head * t_width, queries, real, t_token, t_width, t_padded)
        s_max = tl.full((rows,), -1.0e30, tl.float32)
        t_max = tl.full((rows,), -1.0e30, tl.float32)
        s_sum = tl.zeros((rows,), tl.float32)
        t_sum = tl.zeros((rows,), tl.float32)
        gap = tl.zeros((rows,), tl.float32)
        for position in range(first, stop, columns):
            keys = position + tl.arange(0, columns)
            real_keys = tl.load(mask + keys, mask=keys < stop, other=0) != 0
            hidden = tl.where(real_keys, 0.0, -1.0e30)[None, :]
            s_keys = _load_tile(s_right, keys, real_keys, s_token, s_width, s_padded)
            t_keys = _load_tile(t_right, keys, real_keys, t_token, t_width, t_padded)
            s_scores = tl.dot(s_queries, tl.trans(s_keys), input_precision=s_precision) * s_scale + hidden
            t_scores = tl.dot(t_queries, tl.trans(t_keys), input_precision=t_precision) * t_scale + hidden
            s_next = tl.maximum(s_max, tl.max(s_scores, 1))
            t_next = tl.maximum(t_max, tl.max(t_scores, 1))
            s_rise = s_next - s_max
            t_rise = t_next - t_max
            s_scores -= s_next[:, None]
            t_scores -= t_next[:, None]
            t_exp = tl.exp2(t_scores)
            # Subtract each side's maximum first: a peaked relation then loses no precision to a large score.
            gap = (gap + t_sum * (s_rise - t_rise)) * tl.exp2(-t_rise) + tl.sum(t_exp * (t_scores - s_scores), 1)
            t_sum = t_sum * tl.exp2(-t_rise) + tl.sum(t_exp, 1)
            s_sum = s_sum * tl.exp2(-s_rise) + tl.sum(tl.exp2(s_scores), 1)
            s_max = s_next
            t_max = t_next
        s_log_sum = tl.log2(s_sum)
        t_log_sum = tl.log2(t_sum)
        inside = queries < stop
        at = (batch * heads + head) * length + queries
        tl.store(s_log + at, s_max + s_log_sum, mask=inside)
        tl.store(t_log + at, t_max + t_log_sum, mask=inside)
        divergence = tl.where(real, gap / t_sum - t_log_sum + s_log_sum, 0.0)
        count = tl.load(bounds + batch * 3 + 2).to(tl.float32)
        tl.store(sums + program, tl.sum(divergence, 0) * factor / count)


@triton.jit(do_not_specialize=VARYING)
def _gradient_kernel(
    s_left: tl.tensor,
    s_right: tl.tensor,
    t_left: tl.tensor,
    t_right: tl.tensor,
    mask: tl.tensor,
    bounds: tl.tensor,
    s_log: tl.tensor,
    t_log: tl.tensor,
    incoming: tl.tensor,
    gradient: tl.tensor,
    length: tl.tensor,
    heads: tl.tensor,
    factor: tl.tensor,
    s_scale: tl.tensor,
    t_scale: tl.tensor,
    s_row: tl.tensor,
    s_token: tl.tensor,
    t_row: tl.tensor,
    t_token: tl.tensor,
    s_width: tl.constexpr,
    s_padded: tl.constexpr,
    t_width: tl.constexpr,
    t_padded: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    s_precision: tl.constexpr,
    t_precision: tl.constexpr,
    as_queries: tl.constexpr,
    as_keys: tl.constexpr,
) -> None:
    """Gradient of `rows` tokens of one head.

    `s_left` and `t_left` hold these tokens, `s_right` and `t_right` the tokens they are compared with. With
    `as_queries` the tokens are the queries of the relation, with `as_keys` its keys; a symmetric relation needs both,
    and its scores are symmetric too. `factor` is 1 / (R * B * sqrt(d)).
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(length, rows)
    head = (program % heads).to(tl.int64)
    block = (program // heads) % blocks
    batch = (program // (heads * blocks)).to(tl.int64)
    first = tl.load(bounds + batch * 3)
    stop = tl.load(bounds + batch * 3 + 1)
    count = tl.load(bounds + batch * 3 + 2)
    begin = first + block * rows
    if begin < stop:
        mask += batch * length
        s_log += (batch * heads + head) * length
        t_log += (batch * heads + head) * length
        s_right += batch * s_row + head * s_width
        t_right += batch * t_row + head * t_width
        own = begin + tl.arange(0, rows)
        real = tl.load(mask + own, mask=own < stop, other=0) != 0
        s_own = _load_tile(s_left + batch * s_row + head * s_width, own, real, s_token, s_width, s_padded)
        t_own = _load_tile(t_left + batch * t_row + head * t_width, own, real, t_token, t_width, t_padded)
        if as_queries:
            s_lse_own = tl.load(s_log + own, mask=real, other=0.0)[:, None]
            t_lse_own = tl.load(t_log + own, mask=real, other=0.0)[:, None]
        total = tl.zeros((rows, s_padded), tl.float32)
        for position in range(first, stop, columns):
            others = position + tl.arange(0, columns)
            real_others = tl.load(mask + others, mask=others < stop, other=0) != 0
            s_others = _load_tile(s_right, others, real_others, s_token, s_width, s_padded)
            t_others = _load_tile(t_right, others, real_others, t_token, t_width, t_padded)
            s_scores = tl.dot(s_own, tl.trans(s_others), input_precision=s_precision) * s_scale
            t_scores = tl.dot(t_own, tl.trans(t_others), input_precision=t_precision) * t_scale
            change = tl.zeros((rows, columns), tl.float32)
            if as_queries:
                change += tl.exp2(s_scores - s_lse_own) - tl.exp2(t_scores - t_lse_own)
            if as_keys:
                s_lse = tl.load(s_log + others, mask=real_others, other=0.0)[None, :]
                t_lse = tl.load(t_log + others, mask=real_others, other=0.0)[None, :]
                change += tl.exp2(s_scores - s_lse) - tl.exp2(t_scores - t_lse)
            change = tl.where(real_others[None, :], change, 0.0)
            # tf32 has the range of fp32 and represents 16-bit inputs exactly, so small gradients survive.
            if s_right.dtype.element_ty == tl.float32:
                total += tl.dot(change, s_others, input_precision=s_precision)
            else:
                total += tl.dot(change, s_others.to(tl.float32), input_precision="tf32")
        total *= tl.load(incoming) * factor / count.to(tl.float32)
        inner = tl.arange(0, s_padded)
        where = gradient + ((batch * length + own[:, None]) * heads + head) * s_width + inner[None, :]
        tl.store(where, total.to(gradient.dtype.element_ty), mask=real[:, None] & (inner[None, :] < s_width))


def _tiles(widest: int, exact: bool, capability: int) -> dict[str, int]:
    """Tile sizes and warps of a program: the largest without register spills (above 64, sm_80 spills one register).

    Args:
        widest: Padded width of the wider heads.
        exact: Whether a side is in fp32, which is multiplied without tensor cores.
        capability: Compute capability of the device.
    """
    stages = 2
    if exact:
        rows, columns = (32, 32) if widest <= 32 else (16, 16)
    elif widest <= 32:
        rows, columns = 64, 64 if capability < 100 else 32
    elif widest <= 64:
        rows, columns, stages = 32, 32, 1
    else:
        rows, columns, stages = 16, 16, 1
    return {"rows": rows, "columns": columns, "num_warps": 4, "num_stages": stages}


def _precision(side: Tensor) -> str:
    """The precision of a side's products: for fp32, the user's setting for CUDA products."""
    if side.dtype != torch.float32:
        return "tf32"  # no effect: 16-bit inputs are multiplied exactly
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def _alike(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors of a side with the same strides, the last one 1; copies are made only if needed."""
    if left.stride() != right.stride() or left.stride(-1) != 1:
        return left.contiguous(), right.contiguous()
    return left, right


def _settings(student: Tensor, teacher: Tensor, heads: int) -> dict[str, Any]:
    """The compile-time settings of both kernels, and the scales of the scores (for base-2 exponentials)."""
    widths = [side.shape[-1] // heads for side in (student, teacher)]
    padded = [max(16, triton.next_power_of_2(width)) for width in widths]
    return {
        "s_row": student.stride(0),
        "s_token": student.stride(1),
        "t_row": teacher.stride(0),
        "t_token": teacher.stride(1),
        "s_scale": LOG2_E * widths[0] ** -0.5,
        "t_scale": LOG2_E * widths[1] ** -0.5,
        "s_width": widths[0],
        "s_padded": padded[0],
        "t_width": widths[1],
        "t_padded": padded[1],
        "s_precision": _precision(student),
        "t_precision": _precision(teacher),
        **_tiles(max(padded), torch.float32 in (student.dtype, teacher.dtype), device_capability()),
    }


@torch.library.custom_op("hf_distill::fused_relation_kl", mutates_args=())
def _fused_kl(
    student_left: Tensor,
    student_right: Tensor,
    teacher_left: Tensor,
    teacher_right: Tensor,
    mask: Tensor,
    heads: int,
    symmetric: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and inputs of its gradient: log denominators of student and teacher (2, B, R, T), bounds (B, 3)."""
    batch, length, _ = student_left.shape
    student_left, student_right = _alike(student_left, student_right)
    teacher_left, teacher_right = _alike(teacher_left, teacher_right)
    settings = _settings(student_left, teacher_left, heads)
    programs = batch * heads * triton.cdiv(length, settings["rows"])
    bounds = mask.new_empty(batch, 3, dtype=torch.int32)
    log_sums = mask.new_empty(2, batch, heads, length, dtype=torch.float32)
    divergences = mask.new_zeros(programs, dtype=torch.float32)
    flags = mask.view(torch.uint8)
    sides = student_left, student_right, teacher_left, teacher_right
    factor = math.log(2) / (heads * batch)
    with torch.cuda.device_of(mask):  # Triton launches kernels on the current device
        _bounds_kernel[(batch,)](flags, bounds, length, block=256, num_warps=1)
        _divergence_kernel[(programs,)](
            *sides, flags, bounds, *log_sums.unbind(), divergences, length, heads, factor, **settings
        )
    return divergences.sum(), log_sums, bounds


@torch.library.custom_op("hf_distill::fused_relation_gradient", mutates_args=())
def _fused_gradient(
    incoming: Tensor,
    student: Tensor,
    student_others: Tensor,
    teacher: Tensor,
    teacher_others: Tensor,
    mask: Tensor,
    log_sums: Tensor,
    bounds: Tensor,
    heads: int,
    as_queries: bool,
    as_keys: bool,
) -> Tensor:
    """Gradient (B, T, D) with respect to `student`, times `incoming`; `..._others` are the tensors compared with."""
    batch, length, width = student.shape
    student, student_others = _alike(student, student_others)
    teacher, teacher_others = _alike(teacher, teacher_others)
    settings = _settings(student, teacher, heads)
    programs = batch * heads * triton.cdiv(length, settings["rows"])
    gradient = student.new_zeros(student.shape)
    factor = (width // heads) ** -0.5 / (heads * batch)
    with torch.cuda.device_of(mask):
        _gradient_kernel[(programs,)](
            *(student, student_others, teacher, teacher_others, mask.view(torch.uint8), bounds, *log_sums.unbind()),
            *(incoming.float(), gradient, length, heads, factor),
            **settings,
            as_queries=as_queries,
            as_keys=as_keys,
        )
    return gradient


@_fused_kl.register_fake
def _shapes_of_kl(
    student_left: Tensor,
    student_right: Tensor,
    teacher_left: Tensor,
    teacher_right: Tensor,
    mask: Tensor,
    heads: int,
    symmetric: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Tell the compiler the shapes of the outputs of `_fused_kl`."""
    batch, length, _ = student_left.shape
    log_sums = mask.new_empty(2, batch, heads, length, dtype=torch.float32)
    return log_sums.new_empty(()), log_sums, mask.new_empty(batch, 3, dtype=torch.int32)


@_fused_gradient.register_fake
def _shape_of_gradient(incoming: Tensor, student: Tensor, *others: Any) -> Tensor:
    """Tell the compiler the shape of the output of `_fused_gradient`."""
    return student.new_empty(student.shape)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:5], *output[1:])
    ctx.heads, ctx.symmetric = inputs[5:]


def _gradients(ctx: Any, incoming: Tensor, *of_statistics: Tensor | None) -> tuple[Tensor | None, ...]:
    """For a symmetric relation a single gradient, which covers both inputs, else one for each input."""
    left, right, t_left, t_right, mask, log_sums, bounds = ctx.saved_tensors
    found: list[Tensor | None] = [None, None]
    common = mask, log_sums, bounds, ctx.heads
    if ctx.needs_input_grad[0]:
        found[0] = _fused_gradient(incoming, left, right, t_left, t_right, *common, True, ctx.symmetric)
    if ctx.needs_input_grad[1] and not ctx.symmetric:
        found[1] = _fused_gradient(incoming, right, left, t_right, t_left, *common, False, True)
    return *found, *[None] * 5


def _refuse(ctx: Any, *gradients: Any) -> None:
    raise RuntimeError("A relation loss has no second derivative.")


_fused_kl.register_autograd(_gradients, setup_context=_keep_inputs)
_fused_gradient.register_autograd(_refuse)


def fused_relation_kl(
    student_left: Tensor,
    student_right: Tensor,
    teacher_left: Tensor,
    teacher_right: Tensor,
    mask: Tensor,
    heads: int,
    symmetric: bool,
) -> Tensor:
    """Mean over rows of the KL divergence between two relations (`hf_distill.objectives.relation_loss`).

    Args:
        student_left: (B, T, D), the rows of the relation; fp32, fp16 or bf16 (see `takes`).
        student_right: (B, T, D), its columns.
        teacher_left: (B, T, D), with its own D and dtype.
        teacher_right: (B, T, D).
        mask: (B, T) bool.
        heads: R, which divides both widths.
        symmetric: Whether the rows and columns of the relation are the same tensor, on both sides; the gradient of
            `student_left` is then the whole gradient. whole gradient.
    """
    sides = student_left, student_right, teacher_left, teacher_right
    return _fused_kl(*sides, mask.contiguous(), heads, symmetric)[0]
