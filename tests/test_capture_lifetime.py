"""What a capture leaves behind, and several captures side by side."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import weakref

import pytest
import torch
from capture_models import SIZES, Student, hooks_of, layers, make_batch, make_bert
from transformers import BertConfig, BertModel

from hf_distill.capture import transformer as capture_module
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture, attention_given_back, give_back_attention


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return make_batch()


# --- what stays behind ---


def test_no_tensor_outlives_the_call(batch):
    capture = SignalCapture(
        make_bert(), SignalRequest(hidden_states=layers(1), projections=layers(2), attention_scores=layers(2))
    )
    gc.collect()
    gc.disable()  # without help from the collector of cycles
    try:
        signals = capture(**batch)
        references = [
            weakref.ref(tensor)
            for tensor in (signals.hidden_states[1], signals.projections[2].query, signals.attention_scores[2])
        ]
        del signals
        assert [reference() for reference in references] == [None, None, None]
    finally:
        gc.enable()


def test_hooks_go_with_the_capture(batch):
    model = make_bert()
    before = hooks_of(model)
    capture = SignalCapture(model, SignalRequest(hidden_states=layers(0, 1), projections=layers(2)))
    assert hooks_of(model) > before
    capture.close()
    assert hooks_of(model) == before
    assert not any(name.startswith("_hf_distill") for module in model.modules() for name in vars(module))


def test_a_dropped_capture_leaves_no_hooks():
    model = make_bert()
    capture = SignalCapture(model, SignalRequest(hidden_states=layers(0, 1), projections=layers(2)))
    del capture
    gc.collect()
    assert hooks_of(model) == 0


def test_state_dict_and_configuration_file_do_not_change(tmp_path):
    model = make_bert()
    keys = set(model.state_dict())
    capture = SignalCapture(model, SignalRequest(hidden_states=layers(1), projections=layers(2)))
    model.save_pretrained(tmp_path)
    assert set(model.state_dict()) == keys
    assert capture.num_layers == 3
    assert "hf_distill" not in (tmp_path / "config.json").read_text()
    assert BertModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_a_copy_of_the_model_is_independent(batch):
    model = make_bert()
    capture = SignalCapture(model, SignalRequest(hidden_states=layers(1), projections=layers(1)))
    expected = capture(**batch)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        twin(**batch)
        signals = SignalCapture(twin, capture.request)(**batch)
        assert signals.hidden_states[1].abs().max() == 0
        assert torch.equal(capture(**batch).hidden_states[1], expected.hidden_states[1])


def test_a_copy_of_a_module_that_owns_a_capture_works_on_its_own_model(batch):
    owner = Student(make_bert(), SignalRequest(projections=layers(1)))
    before = owner(**batch)
    twin = copy.deepcopy(owner)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(**batch) == 0
    assert owner(**batch) == before


@pytest.mark.parametrize("wrong", ["token", "hook"])
def test_an_exception_in_the_forward_leaves_the_capture_usable(wrong, batch):
    model = make_bert()
    capture = SignalCapture(model, SignalRequest(hidden_states=layers(1), projections=layers(3)))
    expected = capture(**batch)
    installed = hooks_of(model)
    if wrong == "token":
        with pytest.raises(IndexError):
            capture(input_ids=torch.full((1, 4), 1000))
    else:

        def fail(module, args):
            raise KeyError("stopped by the test")

        handle = model.encoder.layer[1].register_forward_pre_hook(fail)
        with pytest.raises(KeyError, match="stopped by the test"):
            capture(**batch)
        handle.remove()
    assert hooks_of(model) == installed
    model(**batch)
    assert torch.equal(capture(**batch).projections[3].key, expected.projections[3].key)


# --- several captures and models ---


def test_captures_of_one_model_do_not_disturb_each_other(batch):
    model = make_bert()
    requests = [
        SignalRequest(projections=layers(1)),
        SignalRequest(projections=layers(1, 3), hidden_states=layers(1)),
        SignalRequest(hidden_states=layers(3), attention_scores=layers(1)),
    ]
    captures = [SignalCapture(model, request) for request in requests]
    signals = [capture(**batch) for capture in captures]
    assert [set(found.projections) for found in signals] == [{1}, {1, 3}, set()]
    assert torch.equal(signals[0].projections[1].query, signals[1].projections[1].query)
    captures[1].close()
    again = [captures[index](**batch) for index in (0, 2)]
    assert torch.equal(again[0].projections[1].query, signals[0].projections[1].query)
    assert torch.equal(again[1].hidden_states[3], signals[2].hidden_states[3])


@pytest.mark.parametrize("layer", [1, 3])
def test_a_capture_may_run_inside_the_forward_of_another(layer, batch):
    """Teacher and student are one model object, and the teacher runs in the middle of the student's forward."""
    model = make_bert()
    teacher = SignalCapture(model, SignalRequest(projections=layers(layer)))
    student = SignalCapture(model, SignalRequest(projections=layers(3), hidden_states=layers(1, 2)))
    other_batch = {"input_ids": batch["input_ids"].flip(1)}
    alone = [teacher(**other_batch), student(**batch)]
    nested = []

    def run_teacher(module, args):
        if not nested:
            nested.append(None)
            nested[0] = teacher(**other_batch)

    handle = model.encoder.layer[0].register_forward_pre_hook(run_teacher)
    outer = student(**batch)
    handle.remove()
    assert torch.equal(nested[0].projections[layer].query, alone[0].projections[layer].query)
    assert torch.equal(outer.projections[3].query, alone[1].projections[3].query)
    assert torch.equal(outer.hidden_states[1], alone[1].hidden_states[1])
    assert set(outer.projections) == {3}


def test_a_capture_cannot_run_inside_itself(batch):
    model = make_bert()
    capture = SignalCapture(model, SignalRequest(projections=layers(3)))
    handle = model.encoder.layer[0].register_forward_pre_hook(lambda module, args: capture(**batch))
    with pytest.raises(RuntimeError, match="already running"):
        capture(**batch)
    handle.remove()
    assert capture(**batch).projections[3].num_heads == 4


def test_models_that_share_a_configuration_are_told_apart(batch):
    first = make_bert()
    torch.manual_seed(9)
    second = BertModel(first.config).eval()
    before = second(**batch).last_hidden_state
    capture = SignalCapture(first, SignalRequest(projections=layers(1, 2, 3)))
    assert torch.equal(second(**batch).last_hidden_state, before)
    query = capture(**batch).projections[2].query
    other = SignalCapture(second, SignalRequest(projections=layers(2)))(**batch).projections[2].query
    assert not torch.equal(query, other)
    assert torch.equal(capture(**batch).projections[2].query, query)


def test_an_eager_model_switches_to_sdpa_only_if_the_attention_is_asked_for(batch):
    for request, expected in (
        (SignalRequest(hidden_states=layers(1)), "eager"),
        (SignalRequest(projections=layers(1)), "hf_distill_sdpa"),
    ):
        model = make_bert()
        model.set_attn_implementation("eager")
        capture = SignalCapture(model, request)
        capture(**batch)
        assert model.config._attn_implementation == expected
        another = SignalCapture(model, request)
        capture.close()
        assert model.config._attn_implementation == expected, "the other one needs it"
        with pytest.raises(IndexError):
            another(input_ids=torch.tensor([[10_000]]))
        del another, capture
        gc.collect()
        assert model.config._attn_implementation == "eager"


def test_a_model_has_the_attention_again_that_it_came_with(batch):
    config = BertConfig(**SIZES, output_attentions=True)
    model = BertModel._from_config(config, attn_implementation="eager").eval()
    maps = model(**batch).attentions
    capture = SignalCapture(model, SignalRequest(projections=layers(1)))
    query = capture(**batch).projections[1].query
    give_back_attention(model)
    assert all(map(torch.equal, maps, model(**batch).attentions))
    assert torch.equal(capture(**batch).projections[1].query, query)
    assert model(**batch).attentions is None
    twin = copy.deepcopy(model)
    with attention_given_back(model):
        assert model.config.output_attentions
        assert model.config._attn_implementation == "eager"
    assert (model.config.output_attentions, model.config._attn_implementation) == (False, "hf_distill_sdpa")
    capture.close()
    give_back_attention(twin)
    for one in (model, twin):
        assert all(map(torch.equal, maps, one(**batch).attentions))
    model.set_attn_implementation("sdpa")
    preferring = SignalCapture(model, SignalRequest(hidden_states=layers(1)))
    preferring.prefer_products()
    assert model.config._attn_implementation == "hf_distill_sdpa"
    preferring.close()
    assert model.config._attn_implementation == "sdpa"


def test_another_kernel_is_replaced_with_a_warning(caplog, monkeypatch):
    monkeypatch.setattr(capture_module.logger, "warning_once", capture_module.logger.warning)
    monkeypatch.setattr(capture_module.logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model = make_bert()
    model.set_attn_implementation("flex_attention")
    capture = SignalCapture(model, SignalRequest(projections=layers(1)))
    assert capture.num_heads == 4
    assert "changed from 'flex_attention' to 'hf_distill_sdpa'" in caplog.text
