"""Weights of a frozen model are cast to autocast's arithmetic once, and only while the model runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hf_distill.cast_weights import CastWeights


class Counted(nn.Module):
    """Two linear layers, a normalisation between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.second = nn.Linear(16, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x)))


@pytest.fixture
def model() -> Counted:
    torch.manual_seed(0)
    return Counted().requires_grad_(False).eval()


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def run(model: nn.Module, rows: torch.Tensor, casts: CastWeights) -> torch.Tensor:
    with torch.no_grad(), autocast(), casts.in_place():
        return model(rows)


def test_outputs_are_those_of_autocast_to_the_last_bit(model: Counted, rows: torch.Tensor) -> None:
    with torch.no_grad(), autocast():
        expected = model(rows)
    casts = CastWeights(model)
    for _ in range(2):
        assert torch.equal(run(model, rows, casts), expected)


def test_while_the_model_runs_its_linear_layers_hold_casts_and_nothing_else_does(model: Counted) -> None:
    with autocast(), CastWeights(model).in_place():
        assert {model.first.weight.dtype, model.first.bias.dtype, model.second.weight.dtype} == {torch.bfloat16}
        assert model.norm.weight.dtype == torch.float32


def test_afterwards_the_model_has_its_own_weights_again(model: Counted, rows: torch.Tensor) -> None:
    own = dict(model.named_parameters())
    run(model, rows, CastWeights(model))
    assert {name: id(weight) for name, weight in model.named_parameters()} == {n: id(w) for n, w in own.items()}


def test_after_an_error_too(model: Counted) -> None:
    own = dict(model.named_parameters())
    casts = CastWeights(model)
    with pytest.raises(RuntimeError):
        run(model, torch.randn(5, 7), casts)
    assert all(weight is own[name] for name, weight in model.named_parameters())


def test_a_weight_is_cast_once(model: Counted) -> None:
    casts = CastWeights(model)
    with autocast(), casts.in_place():
        first = model.first.weight
    with autocast(), casts.in_place():
        assert model.first.weight is first


@pytest.mark.parametrize("change", ["in place", "replaced"])
def test_a_changed_weight_is_cast_again(model: Counted, rows: torch.Tensor, change: str) -> None:
    casts = CastWeights(model)
    before = run(model, rows, casts)
    if change == "in place":
        model.second.weight.mul_(2)
    else:
        model.second.weight = nn.Parameter(model.second.weight * 2, requires_grad=False)
    assert torch.equal(run(model, rows, casts), before * 2)


def test_another_arithmetic_is_cast_anew(model: Counted) -> None:
    casts = CastWeights(model)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype), casts.in_place():
            assert model.first.weight.dtype == dtype


def test_without_autocast_nothing_changes(model: Counted) -> None:
    with CastWeights(model).in_place():
        assert model.first.weight.dtype == torch.float32


def test_weights_of_a_class_of_their_own_are_left_alone(model: Counted) -> None:
    class Sharded(torch.Tensor):
        pass

    model.first.weight = nn.Parameter(model.first.weight.detach().as_subclass(Sharded), requires_grad=False)
    with autocast(), CastWeights(model).in_place():
        assert model.first.weight.dtype == torch.float32
        assert model.second.weight.dtype == torch.bfloat16
