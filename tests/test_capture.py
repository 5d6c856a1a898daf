"""Capture of signals on BERT: what comes back, what is left out, and what stays behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from hf_distill.capture import SignalCapture
from hf_distill.signals import SignalRequest

HEADS = [BertForMaskedLM, BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification]


def layers(*indices: int) -> frozenset[int]:
    return frozenset(indices)


def make_bert(model_class: type = BertModel, **overrides) -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=16,
        **overrides,
    )
    return model_class(config).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1, 40, (3, 8), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 5:] = 0
    attention_mask[2, :3] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_signals_hold_what_was_asked_for_and_nothing_else(batch):
    request = SignalRequest(hidden_states=layers(0, 2), projections=layers(1), attention_scores=layers(3))
    signals = SignalCapture(make_bert(), request)(**batch)
    assert set(signals.hidden_states) == {0, 2}
    assert set(signals.projections) == {1}
    assert set(signals.attention_scores) == {3}
    assert signals.logits == {}
    assert torch.equal(signals.attention_mask, batch["attention_mask"])
    assert signals.projections[1].query.shape == (3, 8, 24)
    assert signals.projections[1].num_heads == 4
    assert signals.attention_scores[3].shape == (3, 4, 8, 8)


@pytest.mark.parametrize("model_class", HEADS)
def test_logits_are_those_of_the_head_by_name(model_class, batch):
    model = make_bert(model_class)
    expected = model(**batch)
    signals, output = SignalCapture(model, SignalRequest(logits=True, projections=layers(2))).run(**batch)
    assert signals.logits.keys() == expected.keys()
    assert all(torch.equal(signals.logits[name], expected[name]) for name in expected)
    assert output is not None


def test_early_stop_returns_no_output_and_the_same_values(batch):
    model = make_bert(BertForMaskedLM)
    request = SignalRequest(hidden_states=layers(0, 1), projections=layers(2), attention_scores=layers(2))
    stopped, no_output = SignalCapture(model, request).run(**batch)
    full, output = SignalCapture(model, request, early_stop=False).run(**batch)
    assert no_output is None
    assert output.logits.shape == (3, 8, 40)
    for layer in (0, 1):
        assert torch.equal(stopped.hidden_states[layer], full.hidden_states[layer])
    assert torch.equal(stopped.projections[2].value, full.projections[2].value)
    assert torch.equal(stopped.attention_scores[2], full.attention_scores[2])
