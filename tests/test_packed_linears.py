"""Weights of a frozen model are cast and packed once, and only the model's products change, not its numbers."""

from __future__ import annotations

import copy
import gc
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from capture_models import make_bert
from torch import nn

from hf_distill.capture.signals import SignalRequest
from hf_distill.kernels.cpu import PackedLinears, configure_fp32_matmul, packed_bytes
from hf_distill.teachers.base import LiveTeacher

pytestmark = pytest.mark.usefixtures("fast_path")


class Small(nn.Module):
    """Two linear layers, a normalisation between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.second = nn.Linear(16, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x)))


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small().requires_grad_(False).eval()


@pytest.fixture
def teacher(model: Small) -> PackedLinears:
    """Keeps what is packed of the model."""
    return PackedLinears(model)


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(1))


def arithmetic(name: str) -> AbstractContextManager[Any]:
    return nullcontext() if name == "float32" else torch.autocast("cpu", dtype=getattr(torch, name))


ARITHMETICS = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])


def run(model: nn.Module, rows: torch.Tensor, dtype: str = "bfloat16") -> torch.Tensor:
    with torch.no_grad(), arithmetic(dtype), PackedLinears(model).in_place():
        return model(rows)


def stands_in(layer: nn.Module) -> bool:
    return "forward" in vars(layer)


@ARITHMETICS
def test_outputs_are_those_of_the_model(model: Small, rows: torch.Tensor, dtype: str) -> None:
    with torch.no_grad(), arithmetic(dtype):
        expected = model(rows)
    # Products in bfloat16 are the same to the last bit; those in float32 may be added up in another order.
    tolerance = {"atol": 1e-6 if dtype == "float32" else 0, "rtol": 0}
    for _ in range(2):
        torch.testing.assert_close(run(model, rows, dtype), expected, **tolerance)


@ARITHMETICS
@pytest.mark.parametrize("shape", [(8,), (1, 8), (0, 8), (2, 3, 5, 8)], ids=str)
def test_any_shape_of_rows(model: Small, dtype: str, shape: tuple[int, ...]) -> None:
    rows = torch.randn(shape)
    with torch.no_grad(), arithmetic(dtype):
        expected = model(rows)
    torch.testing.assert_close(run(model, rows, dtype), expected, atol=1e-6, rtol=0)


def test_rows_that_lie_apart_in_memory(model: Small, rows: torch.Tensor) -> None:
    apart = rows[:, 0]
    assert not apart.is_contiguous()
    assert torch.equal(run(model, apart), run(model, apart.contiguous()))


@ARITHMETICS
def test_every_linear_layer_and_nothing_else_is_replaced_while_the_model_runs(model: Small, dtype: str) -> None:
    with torch.no_grad(), arithmetic(dtype), PackedLinears(model).in_place():
        assert [stands_in(layer) for layer in (model.first, model.norm, model.second)] == [True, False, True]


@pytest.mark.parametrize("length", [8, 7], ids=["afterwards", "after an error"])
def test_the_model_is_as_it_was(model: Small, length: int) -> None:
    state, own = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    with nullcontext() if length == 8 else pytest.raises(RuntimeError):
        run(model, torch.randn(5, length))
    assert not any(stands_in(layer) for layer in model.modules())
    assert all(weight is own[name] for name, weight in model.named_parameters())
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


def test_hooks_see_the_products(model: Small, teacher: PackedLinears, rows: torch.Tensor) -> None:
    seen = []
    model.first.register_forward_hook(lambda module, inputs, output: seen.append(output))
    run(model, rows)
    assert [output.dtype for output in seen] == [torch.bfloat16]
    assert packed_bytes([model.first]) > 0


@ARITHMETICS
def test_a_weight_is_packed_once_for_all_teachers_of_a_model(
    model: Small, teacher: PackedLinears, rows: torch.Tensor, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(model, rows, dtype)
    monkeypatch.setattr("hf_distill.kernels.cpu._PackedLinear", None)
    assert torch.equal(run(model, rows, dtype), expected)


@pytest.mark.parametrize("change", ["in place", "through data", "other data", "replaced"])
def test_a_changed_weight_is_packed_again(
    model: Small, teacher: PackedLinears, rows: torch.Tensor, change: str
) -> None:
    before = run(model, rows)
    if change == "in place":
        model.second.weight.mul_(2)
    elif change == "through data":
        model.second.weight.data.mul_(2)
    elif change == "other data":
        model.second.weight.data = model.second.weight.data * 2
    else:
        model.second.weight = nn.Parameter(model.second.weight * 2, requires_grad=False)
    assert torch.equal(run(model, rows), before * 2)


@pytest.mark.parametrize("through", ["bias", "bias.data"])
def test_a_changed_bias_too(model: Small, teacher: PackedLinears, rows: torch.Tensor, through: str) -> None:
    run(model.first, rows)
    bias = model.first.bias.data if through == "bias.data" else model.first.bias
    bias.add_(100)
    assert run(model.first, rows).min() > 50


@pytest.mark.parametrize("part", [(slice(None), slice(128, 192)), (slice(128, 192),)], ids=["columns", "rows"])
def test_a_head_that_is_cut_out_through_data_is_seen(part: tuple[slice, ...]) -> None:
    layer, row = nn.Linear(768, 768, bias=False).requires_grad_(False), torch.randn(1, 768)
    teacher = PackedLinears(layer)
    run(layer, row)
    layer.weight.data[part] = 0
    found = run(layer, row)
    del teacher
    assert torch.equal(found, run(layer, row))


def test_memory_is_two_bytes_a_weight_under_autocast_and_four_without(
    model: Small, teacher: PackedLinears, rows: torch.Tensor
) -> None:
    weights = 8 * 16 + 16 + 16 * 4
    assert packed_bytes([model]) == 0
    run(model, rows, "bfloat16")
    assert packed_bytes([model, model]) == 2 * weights
    run(model, rows, "float32")
    assert packed_bytes([model]) == (2 + 4) * weights


def test_a_layer_that_never_runs_takes_no_memory(model: Small, teacher: PackedLinears, rows: torch.Tensor) -> None:
    with torch.no_grad(), arithmetic("bfloat16"), teacher.in_place():
        model.first(rows)
    assert packed_bytes([model]) == packed_bytes([model.first]) > 0


def test_memory_ends_with_the_last_teacher_of_a_model(model: Small, rows: torch.Tensor) -> None:
    teachers = [PackedLinears(model), PackedLinears(model)]
    run(model, rows)
    before = packed_bytes([model])
    teachers.pop()
    assert packed_bytes([model]) == before > 0
    teachers.pop()
    gc.collect()
    assert packed_bytes([model]) == 0


def test_on_the_strict_path_float32_is_left_alone(model: Small) -> None:
    configure_fp32_matmul("strict")
    with torch.no_grad(), PackedLinears(model).in_place():
        assert not stands_in(model.first)


def test_a_part_that_leaves_autocast_is_computed_as_its_own_weights_say(model: Small, rows: torch.Tensor) -> None:
    outside = torch.autocast("cpu", enabled=False)
    with torch.no_grad(), arithmetic("bfloat16"), PackedLinears(model).in_place(), outside:
        found = model(rows)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model(rows), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rows", [torch.ones(2, 8, dtype=torch.bfloat16), torch.ones(2, 7)], ids=["type", "width"])
def test_what_does_not_fit_is_said_as_ever(model: Small, rows: torch.Tensor) -> None:
    with pytest.raises(RuntimeError) as expected:
        model(rows)
    with pytest.raises(RuntimeError) as found:
        run(model, rows, "float32")
    assert str(found.value) == str(expected.value)


def test_weights_that_were_made_in_inference_mode_are_left_alone(rows: torch.Tensor) -> None:
    with torch.inference_mode():
        model = Small()
        expected = model(rows)
    torch.testing.assert_close(run(model, rows, "float32"), expected)


def test_gradients_are_never_lost(model: Small, rows: torch.Tensor) -> None:
    rows.requires_grad_()
    with PackedLinears(model).in_place():
        assert not stands_in(model.first)
    with torch.no_grad(), PackedLinears(model).in_place(), torch.enable_grad():
        model(rows).sum().backward()
    assert rows.grad is not None


def test_what_has_a_product_of_its_own_is_left_alone(model: Small) -> None:
    class Sharded(torch.Tensor):
        pass

    class Own(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    model.first.weight = nn.Parameter(model.first.weight.detach().as_subclass(Sharded), requires_grad=False)
    model.second = Own(16, 4).requires_grad_(False)
    third = nn.Linear(4, 4).requires_grad_(False)
    third.forward = lambda x: x  # type: ignore[method-assign]
    with torch.no_grad(), PackedLinears(nn.ModuleList([model, third])).in_place():
        assert not stands_in(model.first)
        assert not stands_in(model.second)
    assert torch.equal(third(torch.ones(4)), torch.ones(4))


def test_a_compiled_model_has_its_own_products(model: Small, rows: torch.Tensor) -> None:
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(run(compiled, rows), run(model, rows), atol=1e-2, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_teacher_gives_the_signals_of_its_model(dtype: str) -> None:
    model = make_bert()
    ids = torch.randint(5, 40, (3, 6), generator=torch.Generator().manual_seed(0))
    request = SignalRequest(hidden_states=frozenset({1, 2}))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        expected = model(input_ids=ids, output_hidden_states=True).hidden_states
    teacher = LiveTeacher(model, dtype)
    teacher.request(request)
    found = teacher.signals({"input_ids": ids}).hidden_states
    assert packed_bytes([model]) > 0
    for layer in (1, 2):
        tolerance = 1e-5 if dtype == "float32" else 0.05
        torch.testing.assert_close(found[layer].float(), expected[layer].float(), atol=tolerance, rtol=0)
