"""The relation loss alone, fused and in slices (for `gpu.py`): errors, milliseconds, memory; and the models measured.

Shape legend: B rows, T padded length, R relation heads.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from hf_distill.objectives import relation
from hf_distill.objectives.relation import relation_loss

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Workload:
    """Both models of a step, and what is learnt.

    Attributes:
        teacher: Layers, width, heads of the teacher.
        layer: The teacher's layer that relations are learnt from; the whole model for TextBrewer's recipe.
        student: Shape of the student.
        heads: Relation heads; 0 for TextBrewer's recipe.
    """

    teacher: tuple[int, int, int]
    layer: int
    student: tuple[int, int]
    heads: int

    def operations(self, length: int) -> float:
        """Operations a token of both models' products, the losses left out."""

        def forward(layers: int, width: int, cut: bool) -> float:
            whole = 24 * width**2 + 4 * length * width
            return (layers - 1) * whole + 6 * width**2 if cut else layers * whole

        return forward(self.layer, self.teacher[1], self.heads > 0) + 3 * forward(*self.student, self.heads > 0)


WORKLOADS = {
    "w1_base": Workload((12, 768, 12), 12, (6, 384), 48),
    "w1_large": Workload((24, 1024, 16), 19, (6, 384), 64),
    "t4_tiny": Workload((12, 768, 12), 12, (4, 312), 0),
}
SMALL = {
    "w1_base": Workload((3, 24, 4), 3, (2, 12), 4),
    "w1_large": Workload((4, 32, 4), 3, (2, 24), 8),
}


@dataclass
class Settings:
    """What the command line says; see there."""

    small: bool
    peak: float
    repeats: int
    warm: int
    timed: int
    watched: int
    curve: int

    def workload(self, name: str) -> Workload:
        """The models by their name, tiny ones with `--small`."""
        return (SMALL if self.small else WORKLOADS)[name]

    def shape(self, rows: int, length: int) -> tuple[int, int]:
        """Rows and tokens of a batch."""
        return (3, max(8, length // 16)) if self.small else (rows, length)


@contextlib.contextmanager
def path(name: str) -> Iterator[None]:
    """Let the relation loss take the slices, or choose for itself (`fused`)."""
    with mock.patch.object(relation, "TRITON_INSTALLED", relation.TRITON_INSTALLED and name == "fused"):
        yield


def fused_here() -> bool:
    """Whether the fused kernel can run."""
    if not (ON_GPU and relation.TRITON_INSTALLED):
        return False
    from hf_distill.kernels import fused_relation

    return fused_relation.device_can()


def draw_sides(workload: Workload, rows: int, length: int, dtype: torch.dtype, mixed: bool) -> list[Tensor]:
    """Student and teacher, rows and columns of the relation; a student that is not far from its teacher."""
    generator = torch.Generator(DEVICE).manual_seed(0)

    def draw(width: int) -> Tensor:
        return torch.randn(rows, length, width, generator=generator, device=DEVICE).to(dtype)

    widths = workload.student[1], workload.teacher[1]
    left = [draw(width) for width in widths]
    right = [draw(width) for width in widths] if mixed else left
    sides = [left[0], right[0], left[1], right[1]]
    for side in sides[:2]:
        side.requires_grad_()
    return sides


def ragged_mask(rows: int, length: int) -> Tensor:
    """Lengths between half and the whole, every other row padded on the left."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(length // 2, length + 1, (rows, 1), generator=generator)
    positions = torch.arange(length).expand(rows, length)
    mask = torch.where(torch.arange(rows)[:, None] % 2 == 0, positions < lengths, positions >= length - lengths)
    return mask.to(DEVICE)


def loss_and_gradients(sides: list[Tensor], mask: Tensor, heads: int, factor: float = 1.0) -> list[Tensor]:
    """The loss and its gradients by the student's tensors, in float64."""
    leaves = sides[:1] if sides[0] is sides[1] else sides[:2]
    loss = relation_loss(*sides, mask, heads)
    return [x.detach().double() for x in (loss, *torch.autograd.grad(factor * loss, leaves))]


def exact_loss_and_gradients(sides: list[Tensor], mask: Tensor, heads: int, factor: float = 1.0) -> list[Tensor]:
    """The formula in float64, all at once."""
    same = sides[0] is sides[1]
    leaves = [x.detach().double().requires_grad_() for x in sides[: 1 if same else 2]]
    pairs = [(leaves[0], leaves[-1]), (sides[2].double(), sides[3].double())]

    def log_relation(left: Tensor, right: Tensor) -> Tensor:
        left, right = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (left, right))
        scores = left @ right.transpose(-1, -2) / left.shape[-1] ** 0.5
        return scores.masked_fill(~mask[:, None, None], -1e9).log_softmax(-1)

    student, teacher = (log_relation(*pair) for pair in pairs)
    divergence = (teacher.exp() * (teacher - student)).sum(-1) * mask[:, None]
    loss = (divergence.sum((1, 2)) / (heads * mask.sum(1))).mean()
    return [loss.detach(), *torch.autograd.grad(factor * loss, leaves)]


def relative_errors(got: list[Tensor], exact: list[Tensor]) -> dict[str, float]:
    """Of the loss, and of the gradients together."""
    gradients, wanted = (torch.cat([x.flatten() for x in part[1:]]) for part in (got, exact))
    return {
        "loss": abs(got[0] - exact[0]).item() / exact[0].item(),
        "gradient": ((gradients - wanted).norm() / wanted.norm()).item(),
    }


def milliseconds(step: Callable[[], Any], repeats: int) -> float:
    """Median time of a call, after two that warm up; on a GPU that of the device, the calls one behind the other."""
    step()
    step()
    wait()
    if not ON_GPU:
        return round(statistics.median(_clocked(step) for _ in range(repeats)), 4)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for begin, end in events:
        begin.record()
        step()
        end.record()
    wait()
    return round(statistics.median(begin.elapsed_time(end) for begin, end in events), 4)


def _clocked(step: Callable[[], Any]) -> float:
    started = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - started)


def wait() -> None:
    """Let the device finish what it was given."""
    if ON_GPU:
        torch.cuda.synchronize()


def peak_megabytes(step: Callable[[], Any]) -> float | None:
    """Memory of a call beyond what was held before."""
    if not ON_GPU:
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    wait()
    return round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)


def measure_relation(settings: Settings, name: str, rows: int, length: int, dtype: str, mixed: bool) -> dict[str, Any]:
    """Fused kernel and slices: errors on four padded rows, time and memory on the whole batch."""
    workload = settings.workload(name)
    rows, length = settings.shape(rows, length)
    found: dict[str, Any] = {"workload": name, "rows": rows, "length": length, "dtype": dtype, "mixed": mixed}
    few = draw_sides(workload, min(4, rows), length, DTYPES[dtype], mixed)
    few_mask = ragged_mask(min(4, rows), length)
    exact = exact_loss_and_gradients(few, few_mask, workload.heads)
    sides = draw_sides(workload, rows, length, DTYPES[dtype], mixed)
    masks = {"full": torch.ones(rows, length, dtype=torch.bool, device=DEVICE), "ragged": ragged_mask(rows, length)}
    for way in ("fused", "slices") if fused_here() else ("slices",):
        with path(way):
            found[way] = {"errors": relative_errors(loss_and_gradients(few, few_mask, workload.heads), exact)}
            for kind, mask in masks.items():
                leaves = sides[: 2 if mixed else 1]

                def step(mask: Tensor = mask, leaves: list[Tensor] = leaves) -> None:
                    torch.autograd.grad(relation_loss(*sides, mask, workload.heads), leaves)

                found[way][f"ms_{kind}"] = milliseconds(step, settings.repeats)
            found[way]["peak_mb"] = peak_megabytes(step)
    if "fused" in found:
        found["slices_to_fused"] = round(found["slices"]["ms_full"] / found["fused"]["ms_full"], 2)
    return found


def measure_small_divergence(settings: Settings) -> dict[str, Any]:
    """Gradients in fp16 and bf16 at a small divergence, under a loss scale, against float64."""
    workload = settings.workload("w1_base")
    rows, length = settings.shape(4, 128)
    found: dict[str, Any] = {}
    teacher = torch.randn(rows, length, workload.student[1], device=DEVICE)
    noise = torch.randn(rows, length, workload.student[1], device=DEVICE)
    for dtype in DTYPES:
        student = (teacher + 0.002 * noise).half().to(DTYPES[dtype]).requires_grad_()
        sides, mask = [student, student, teacher, teacher], ragged_mask(rows, length)
        exact = exact_loss_and_gradients(sides, mask, workload.heads, 2.0**16)
        for way in ("fused", "slices") if fused_here() else ("slices",):
            with path(way):
                got = loss_and_gradients(sides, mask, workload.heads, 2.0**16)
                found[f"{dtype}_{way}"] = relative_errors(got, exact)
        found[f"{dtype}_divergence"] = exact[0].item()
    return found


def measure_tiles(settings: Settings) -> dict[str, Any]:
    """Milliseconds of the kernel by rows, columns, warps and stages, at heads of W1 and at wider ones."""
    if not fused_here():
        return {"skipped": "no fused kernel here"}
    from hf_distill.kernels import fused_relation

    found: dict[str, Any] = {}
    narrow = [(64, 64, 4, 2), (64, 64, 4, 1), (64, 32, 4, 2), (128, 64, 8, 2), (64, 128, 4, 2), (32, 64, 4, 2)]
    cases = (
        ("bf16, 6/16", "w1_large", 64, [*narrow, (128, 32, 4, 2), (64, 64, 8, 2)]),
        ("bf16, 32/64", "w1_base", 12, [(32, 64, 4, 2), (32, 32, 4, 2), (64, 64, 8, 2), (64, 32, 4, 2)]),
    )
    for label, name, heads, tiles in cases:
        sides = draw_sides(WORKLOADS[name], 64, 128, torch.bfloat16, False)
        mask = torch.ones(64, 128, dtype=torch.bool, device=DEVICE)
        for rows, columns, num_warps, num_stages in tiles:
            chosen = {"rows": rows, "columns": columns, "num_warps": num_warps, "num_stages": num_stages}

            def forward(sides: list[Tensor] = sides, mask: Tensor = mask, heads: int = heads) -> Tensor:
                return relation_loss(*sides, mask, heads)

            def both(sides: list[Tensor] = sides, forward: Callable[[], Tensor] = forward) -> None:
                torch.autograd.grad(forward(), sides[:1])

            key = f"{label}: {rows}x{columns}, {num_warps} warps, {num_stages} stages"
            with mock.patch.object(fused_relation, "_tiles", lambda *widths, chosen=chosen: chosen):
                try:
                    found[key] = [milliseconds(forward, 8), milliseconds(both, 8)]
                except Exception as error:  # too much shared memory, say: the next one may fit
                    found[key] = f"{type(error).__name__}: {str(error)[:80]}"
    return found


def measure_ceilings(settings: Settings) -> dict[str, Any]:
    """TB/s of a copy, counting reads and writes; TFLOP/s of square products."""
    size, elements = (64, 2**16) if settings.small else (8192, 2**30)
    source, target = (torch.ones(elements, dtype=torch.int32, device=DEVICE) for _ in range(2))
    found = {"copy_tb_s": 8 * elements / milliseconds(lambda: target.copy_(source), settings.repeats) / 1e9}
    for dtype in ("bf16", "fp16", "fp32"):
        left, right = (torch.randn(size, size, device=DEVICE).to(DTYPES[dtype]) for _ in range(2))

        def product(left: Tensor = left, right: Tensor = right) -> Tensor:
            return left @ right

        found[f"{dtype}_tflop_s"] = 2 * size**3 / milliseconds(product, settings.repeats) / 1e9
    return {name: round(value, 3) for name, value in found.items()}
