"""Attention by products in slices is SDPA's attention, and runs only where it may."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from capture_models import make_bert
from torch import Tensor, nn

from hf_distill.capture.signals import SignalRequest
from hf_distill.kernels import cpu
from hf_distill.kernels.cpu import attention_by_products, configure_fp32_matmul, fast_products_in_force, products_apply
from hf_distill.teachers.base import LiveTeacher

B, A, T, D = 5, 3, 7, 4


def draw(seed: int, length: int = T, heads: int = A) -> Tensor:
    """(B, heads, length, D), a view of (B, length, heads, D) as a projection gives it."""
    return torch.randn(B, length, heads, D, generator=torch.Generator().manual_seed(seed)).transpose(1, 2)


def exact(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float) -> Tensor:
    """(B, T, A, D) in float64, one row and head after the other."""
    result = torch.zeros(B, query.shape[2], A, D, dtype=torch.float64)
    for row in range(B):
        for head in range(A):
            scores = query[row, head].double() @ key[row, head].double().T * scaling
            if bias is not None:
                scores = scores + bias[row, 0]
            result[row, :, head] = torch.softmax(scores, -1) @ value[row, head].double()
    return result


def padding() -> Tensor:
    """(B, 1, T, T) mask of rows of different lengths."""
    lengths = torch.tensor([7, 3, 1, 5, 7])
    return (torch.arange(T) < lengths[:, None])[:, None, None].expand(B, 1, T, T)


MASKS = {
    "none": None,
    "padding": padding(),
    "one mask for all rows": padding()[1:2],
    "numbers": torch.randn(B, 1, T, T, generator=torch.Generator().manual_seed(9)),
}


@pytest.mark.parametrize("slice_scores", [1, 2 * A * T * T, 2**20], ids=["rows alone", "two rows", "all rows"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_is_the_attention_of_the_formula(
    mask: Tensor | None, scaling: float | None, slice_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "SLICE_SCORES", slice_scores)
    query, key, value = draw(0), draw(1), draw(2)
    bias = mask
    if mask is not None:
        bias = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask
        bias = bias.expand(B, 1, T, T)
    found = attention_by_products(query, key, value, mask, scaling)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), exact(query, key, value, bias, scaling or D**-0.5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_scores_and_weights_of_narrow_numbers_are_float32(dtype: torch.dtype, autocast: bool) -> None:
    query, key, value = (draw(seed).to(dtype) for seed in range(3))
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        found = attention_by_products(query, key, value, MASKS["numbers"].to(dtype), None)
    assert found.dtype == dtype
    expected = exact(query, key, value, MASKS["numbers"].to(dtype).double(), D**-0.5)
    # Only the result is rounded: by half a unit of its last place at most.
    torch.testing.assert_close(found.double(), expected, rtol=0.51 * torch.finfo(dtype).eps, atol=1e-6)


def test_keys_may_be_more_than_queries() -> None:
    query, key, value = draw(0, length=2), draw(1), draw(2)
    found = attention_by_products(query, key, value, None, None)
    torch.testing.assert_close(found.double(), exact(query, key, value, None, D**-0.5), atol=1e-6, rtol=0)


def test_padding_never_reaches_a_row() -> None:
    query, key, value = draw(0), draw(1), draw(2)
    alone = attention_by_products(query[1:2, :, :3], key[1:2, :, :3], value[1:2, :, :3], None, None)
    beside = attention_by_products(query, key, value, padding(), None)[1:2, :3]
    torch.testing.assert_close(beside, alone, atol=1e-6, rtol=0)


def applies(mask: Tensor | None = None, heads: int = A, dtype: torch.dtype = torch.float32, **options: Any) -> bool:
    module = nn.Module()
    module.is_causal = False
    with torch.no_grad():
        return products_apply(module, draw(0).to(dtype), draw(1, heads=heads).to(dtype), mask, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_taken_without_gradient(dtype: torch.dtype, fast_path: str) -> None:
    assert applies(padding(), dtype=dtype, dropout=0.0, scaling=0.5, sliding_window=None)
    assert not products_apply(nn.Module(), draw(0), draw(1), padding(), {})


def test_a_model_in_training_keeps_sdpa_without_gradient_too(fast_path: str) -> None:
    module = nn.Linear(D, D)
    with torch.no_grad():
        assert not products_apply(module, draw(0), draw(1), padding(), {})
        assert products_apply(module.requires_grad_(False), draw(0), draw(1), padding(), {})


@pytest.mark.parametrize(
    "other",
    [
        {"dtype": torch.float64},
        {"heads": 1},
        {"is_causal": True},
        {"dropout": 0.1},
        {"position_bias": torch.zeros(1, A, T, T)},
        {"softcap": 30.0},
    ],
    ids=str,
)
def test_everything_else_is_left_to_sdpa(other: dict[str, Any], fast_path: str) -> None:
    assert not applies(**other)


def test_a_mask_makes_causal_attention_one_like_any_other(fast_path: str) -> None:
    assert applies(padding(), is_causal=True)


def test_the_strict_path_keeps_sdpa(fast_path: str) -> None:
    configure_fp32_matmul("strict")
    assert not fast_products_in_force()
    assert not applies(padding())


def test_a_teacher_gives_what_its_model_gives_with_sdpa(fast_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = attention_by_products
    monkeypatch.setattr(
        "hf_distill.capture.transformer.attention_by_products", lambda *args: calls.append(args) or original(*args)
    )
    model = make_bert()
    batch = {"input_ids": torch.randint(5, 40, (4, 9)), "attention_mask": torch.ones(4, 9, dtype=torch.long)}
    batch["attention_mask"][1, 4:] = 0
    with torch.no_grad():
        expected = model(**batch, output_hidden_states=True).hidden_states
    teacher = LiveTeacher(model)
    teacher.request(SignalRequest(hidden_states=frozenset({0, 2, 3})))
    found = teacher.signals(batch).hidden_states
    assert calls
    seen = batch["attention_mask"].bool()
    for layer, state in found.items():
        torch.testing.assert_close(state[seen], expected[layer][seen], atol=1e-5, rtol=0)
    # The model is the user's: with gradients it runs SDPA as before.
    calls.clear()
    model(**batch)
    assert not calls


def test_another_attention_of_a_teacher_stays() -> None:
    model = make_bert()
    model.set_attn_implementation("eager")
    LiveTeacher(model)
    assert model.config._attn_implementation == "eager"
