"""Capture of signals on BERT: what comes back, what is not computed, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from capture_cases import SIZES
from capture_models import layers, make_batch, make_bert
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertPreTrainedModel,
    DebertaConfig,
    DebertaModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    RemBertConfig,
    RemBertModel,
    RoFormerConfig,
    RoFormerModel,
    T5Config,
    T5Model,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_distill.capture import transformer
from hf_distill.capture.architecture_table import ARCHITECTURES, register_architecture
from hf_distill.capture.architectures import UnsupportedArchitectureError, describe_architecture
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture

TWO_LAYERS = {**SIZES, "num_hidden_layers": 2}
HEADS = [BertForMaskedLM, BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification]


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return make_batch()


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


# --- early stop ---


def module_calls(model: nn.Module, names: list[str]) -> list[str]:
    """Records which of the named modules run from now on."""
    calls: list[str] = []
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(lambda module, args, name=name: calls.append(name))
    return calls


@pytest.mark.parametrize(
    ("request_", "runs"),
    [
        (SignalRequest(hidden_states=layers(0)), []),
        (SignalRequest(projections=layers(1)), ["query 1"]),
        (SignalRequest(hidden_states=layers(1)), ["query 1", "output 1", "feed-forward 1"]),
        (SignalRequest(attention_scores=layers(2)), ["query 1", "output 1", "feed-forward 1", "query 2"]),
        (SignalRequest(hidden_states=layers(1), projections=layers(1)), ["query 1", "output 1", "feed-forward 1"]),
    ],
    ids=["embeddings", "projections", "hidden state", "scores", "both"],
)
def test_nothing_after_the_last_signal_is_computed(request_, runs, batch):
    model = make_bert(BertForMaskedLM)
    parts = {"query": "attention.self.query", "output": "attention.output", "feed-forward": "output"}
    names = {f"bert.encoder.layer.{i}.{path}": f"{part} {i + 1}" for i in range(3) for part, path in parts.items()}
    calls = module_calls(model, [*names, "cls"])
    SignalCapture(model, request_)(**batch)
    assert [names.get(call, call) for call in calls] == runs


def test_attention_itself_is_not_computed_after_the_last_projections(batch, monkeypatch):
    calls = []
    original = nn.functional.scaled_dot_product_attention

    def counting(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    capture = SignalCapture(make_bert(), SignalRequest(projections=layers(2)))
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counting)
    capture(**batch)
    assert len(calls) == 1


def test_parameters_after_the_last_signal_get_no_gradient(batch):
    model = make_bert().train()
    signals = SignalCapture(model, SignalRequest(projections=layers(2)))(**batch)
    projections = signals.projections[2]
    (projections.query.sum() + projections.key.sum() + projections.value.sum()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert {name.split(".")[2] for name in without if name.startswith("encoder")} == {"1", "2"}
    assert not any("self" in name for name in without if ".1." in name)


def test_model_is_usable_and_unchanged_after_an_early_stop(batch):
    model = make_bert(BertForMaskedLM)
    before = model(**batch).logits
    SignalCapture(model, SignalRequest(projections=layers(1)))(**batch)
    assert torch.equal(model(**batch).logits, before)
    assert model(**batch, output_hidden_states=True).hidden_states[3] is not None


# --- the padding mask ---


def test_padding_mask_reaches_the_attention(batch):
    """Other tokens under the padding change nothing that real tokens see."""
    model = make_bert()
    capture = SignalCapture(model, SignalRequest(hidden_states=layers(3), projections=layers(3)))
    real = batch["attention_mask"].bool()
    other = {**batch, "input_ids": torch.where(real, batch["input_ids"], 7)}
    first, second = capture(**batch), capture(**other)
    assert torch.equal(first.hidden_states[3][real], second.hidden_states[3][real])
    assert torch.equal(first.projections[3].query[real], second.projections[3].query[real])


def test_without_a_mask_every_token_is_real(batch):
    model = make_bert()
    capture = SignalCapture(model, SignalRequest(hidden_states=layers(3)))
    signals = capture(input_ids=batch["input_ids"])
    assert torch.equal(signals.attention_mask, torch.ones(3, 8, dtype=torch.long))
    embedded = model.get_input_embeddings()(batch["input_ids"])
    from_embeddings = capture(inputs_embeds=embedded)
    assert torch.equal(from_embeddings.hidden_states[3], signals.hidden_states[3])
    assert torch.equal(from_embeddings.attention_mask, signals.attention_mask)


# --- decoders ---


def test_a_causal_model_keeps_no_cache(batch):
    torch.manual_seed(0)
    config = Qwen2Config(**TWO_LAYERS, num_key_value_heads=2)
    model = Qwen2ForCausalLM(config).eval()
    expected = model(**batch).logits
    signals, output = SignalCapture(model, SignalRequest(logits=True, projections=layers(2))).run(**batch)
    assert output.past_key_values is None
    assert torch.equal(signals.logits["logits"], expected)
    assert signals.projections[2].query.shape == (3, 8, 24)
    assert signals.projections[2].key.shape == (3, 8, 12)


# --- errors ---


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SignalRequest(hidden_states=layers(4)), r"hidden_states: layers \[4\].*BertModel has layers 0 to 3"),
        (SignalRequest(hidden_states=layers(-1)), r"hidden_states: layers \[-1\].*resolve negative"),
        (SignalRequest(projections=layers(0, 2)), r"projections: layers \[0\].*layers 1 to 3"),
        (SignalRequest(attention_scores=layers(9)), r"attention_scores: layers \[9\].*layers 1 to 3"),
        (SignalRequest(logits=True), "BertModel is a base model without a head"),
    ],
)
def test_impossible_requests_name_what_is_possible(request_, message):
    with pytest.raises(ValueError, match=message):
        SignalCapture(make_bert(), request_)


def test_an_unknown_architecture_names_candidates_and_the_way_out():
    with pytest.raises(UnsupportedArchitectureError) as error:
        describe_architecture(RoFormerModel(RoFormerConfig(**TWO_LAYERS)))
    assert "model_type 'roformer' is unknown" in str(error.value)
    assert "encoder.layer.0.attention.self.query" in str(error.value)
    assert "register_architecture('roformer'" in str(error.value)
    assert "deberta-v2" in str(error.value)


def test_a_module_that_is_no_transformers_model_is_refused():
    with pytest.raises(UnsupportedArchitectureError, match="not from Linear"):
        describe_architecture(nn.Linear(2, 2))


class Own(BertPreTrainedModel):
    """A classifier of somebody's own, whose `forward` takes only what it needs."""

    gives: Callable = dict

    def __init__(self, config):
        super().__init__(config)
        self.bert = BertModel(config)
        self.head = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(self.bert(input_ids, attention_mask=attention_mask)[1])
        return self.gives(logits=logits)


@pytest.mark.parametrize("gives", [dict, SequenceClassifierOutput])
def test_a_model_of_ones_own_need_not_know_return_dict(gives, batch):
    model = Own(BertConfig(**TWO_LAYERS)).eval()
    model.gives = gives
    ids, mask = batch["input_ids"], batch["attention_mask"]
    capture = SignalCapture(model, SignalRequest(logits=True, projections=layers(2)))
    signals = capture(input_ids=ids, attention_mask=mask)
    assert torch.equal(signals.logits["logits"], model(ids, mask)["logits"])
    assert signals.projections[2].query.shape[-1] == 24


def test_outputs_without_names_are_refused(batch):
    model = Own(BertConfig(**TWO_LAYERS)).eval()
    model.gives = lambda logits: (logits,)
    with pytest.raises(ValueError, match="Own returned a tuple: its `forward` must return its outputs by name"):
        SignalCapture(model, SignalRequest(logits=True))(input_ids=batch["input_ids"])


def test_a_data_parallel_wrapper_is_refused():
    with pytest.raises(ValueError, match=r"needs the model inside DataParallel \(its `.module`\)"):
        SignalCapture(nn.DataParallel(make_bert()), SignalRequest(hidden_states=layers(1)))


def test_an_encoder_decoder_is_refused():
    config = T5Config(vocab_size=40, d_model=24, num_layers=2, num_heads=4, d_kv=6, d_ff=32)
    with pytest.raises(UnsupportedArchitectureError, match="T5Model: it is an encoder with a decoder behind it"):
        describe_architecture(T5Model(config))


@pytest.fixture
def own_architectures():
    with patch.dict(ARCHITECTURES):
        yield


@pytest.mark.usefixtures("own_architectures")
def test_a_registered_architecture_can_be_captured(batch):
    paths = {"query": "query", "key": "key", "value": "value"}
    register_architecture("rembert", layers="encoder.layer", attention="attention.self", **paths)
    torch.manual_seed(0)
    config = RemBertConfig(**TWO_LAYERS, input_embedding_size=16)
    model = RemBertModel(config).eval()
    signals = SignalCapture(model, SignalRequest(projections=layers(2), attention_scores=layers(2)))(**batch)
    expected = model(**batch, output_attentions=True).attentions[1]
    padding = ~batch["attention_mask"].bool()[:, None, None, :]
    attention = signals.attention_scores[2].masked_fill(padding, float("-inf")).softmax(-1)
    torch.testing.assert_close(attention, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("own_architectures")
def test_a_row_that_does_not_fit_the_model_is_an_error():
    register_architecture("bert", layers="encoder.layer", attention="attention.elsewhere")
    with pytest.raises(UnsupportedArchitectureError, match=r"does not have the modules of its row.*elsewhere"):
        describe_architecture(make_bert())


def test_albert_with_several_attentions_in_a_layer_is_refused_for_attention_signals(batch):
    config = AlbertConfig(**TWO_LAYERS, embedding_size=16, inner_group_num=2)
    model = AlbertModel(config).eval()
    with pytest.raises(UnsupportedArchitectureError, match=r"2 attentions a layer \(inner_group_num\)"):
        SignalCapture(model, SignalRequest(projections=layers(1)))
    signals = SignalCapture(model, SignalRequest(hidden_states=layers(2)))(**batch)
    assert torch.equal(signals.hidden_states[2], model(**batch).last_hidden_state)


def test_a_row_needs_all_projections_or_none():
    with pytest.raises(ValueError, match=r"all of query, key, value or none of them, not \['q'\]"):
        register_architecture("mine", layers="layers", attention="attention", query="q")


def test_scores_of_talking_heads_are_refused():
    config = DebertaConfig(**TWO_LAYERS)
    config.talking_head = True
    model = DebertaModel(config)
    with pytest.raises(UnsupportedArchitectureError, match="talking_head=True"):
        SignalCapture(model, SignalRequest(attention_scores=layers(1)))


def test_another_attention_implementation_set_later_is_there_again_afterwards(batch):
    model = make_bert()
    capture = SignalCapture(model, SignalRequest(projections=layers(1)))
    expected = capture(**batch).projections[1].query
    model.set_attn_implementation("eager")
    assert torch.equal(capture(**batch).projections[1].query, expected)
    capture.close()
    assert model.config._attn_implementation == "eager"


def test_attention_maps_are_off_where_projections_are_shown(batch, warnings_of, tmp_path):
    model = BertModel._from_config(
        BertConfig(**TWO_LAYERS, output_attentions=True), attn_implementation="eager"
    ).eval()
    said = warnings_of(transformer)
    SignalCapture(model, SignalRequest(projections=layers(2)))(**batch)
    assert said == [
        "BertModel: `config.output_attentions` is off while signals are captured: SDPA, which shows queries, keys and "
        "values, makes no attention maps."
    ]
    model.save_pretrained(tmp_path)
