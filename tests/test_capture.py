"""Capture of signals on BERT: what comes back, what is left out, and what stays behind."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

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
    DebertaConfig,
    DebertaModel,
    MPNetConfig,
    MPNetModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    RemBertConfig,
    RemBertModel,
    RoFormerConfig,
    RoFormerModel,
    T5Config,
    T5Model,
)

from hf_distill import architectures
from hf_distill.capture import (
    SignalCapture,
    UnsupportedArchitectureError,
    describe_architecture,
    register_architecture,
)
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


# --- early stop -------------------------------------------------------------------------------------------------


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


# --- the padding mask -------------------------------------------------------------------------------------------


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


# --- what stays behind ------------------------------------------------------------------------------------------


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


# --- several captures and models --------------------------------------------------------------------------------


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


def test_a_capture_may_run_inside_the_forward_of_another(batch):
    """Teacher and student are one model object, and the teacher runs in the middle of the student's forward."""
    model = make_bert()
    teacher = SignalCapture(model, SignalRequest(projections=layers(1)))
    student = SignalCapture(model, SignalRequest(projections=layers(3), hidden_states=layers(1)))
    alone = [teacher(**batch), student(**batch)]
    nested = []
    handle = model.encoder.layer[1].register_forward_pre_hook(lambda module, args: nested.append(teacher(**batch)))
    outer = student(**batch)
    handle.remove()
    assert torch.equal(nested[0].projections[1].query, alone[0].projections[1].query)
    assert torch.equal(outer.projections[3].query, alone[1].projections[3].query)
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
        SignalCapture(model, request)(**batch)
        assert model.config._attn_implementation == expected


# --- training ---------------------------------------------------------------------------------------------------


def test_checkpointed_layers_are_captured_once_and_left_checkpointed(batch):
    model = make_bert().train()
    model.activation_checkpointing_enable()
    capture = SignalCapture(model, SignalRequest(projections=layers(1, 2)))
    signals = capture(**batch)
    queries = [signals.projections[layer].query for layer in (1, 2)]
    sum(query.square().mean() for query in queries).backward()  # recomputes layer 1
    assert set(signals.projections) == {1, 2}
    assert [layer.gradient_checkpointing for layer in model.encoder.layer] == [True, True, True]
    assert "gradient_checkpointing" not in vars(make_bert().encoder.layer[1])


def test_no_grad_gives_signals_without_history(batch):
    capture = SignalCapture(make_bert(), SignalRequest(hidden_states=layers(2), attention_scores=layers(1)))
    with torch.no_grad():
        signals = capture(**batch)
    assert not signals.hidden_states[2].requires_grad
    assert not signals.attention_scores[1].requires_grad


def test_projections_share_the_memory_of_the_linear_outputs(batch):
    model = make_bert()
    outputs = []
    model.encoder.layer[1].attention.self.key.register_forward_hook(lambda module, args, out: outputs.append(out))
    signals = SignalCapture(model, SignalRequest(projections=layers(2)))(**batch)
    assert signals.projections[2].key.data_ptr() == outputs[0].data_ptr()


# --- torch.compile ----------------------------------------------------------------------------------------------


class Student(nn.Module):
    """A loss inside the module that is compiled, as the trainer does it."""

    def __init__(self, model: nn.Module, request: SignalRequest) -> None:
        super().__init__()
        self.model = model
        self.capture = SignalCapture(model, request)

    def forward(self, **inputs) -> torch.Tensor:
        signals = self.capture(**inputs)
        tensors = [*signals.hidden_states.values(), *signals.attention_scores.values(), *signals.logits.values()]
        for projections in signals.projections.values():
            tensors += [projections.query, projections.key, projections.value]
        return sum(tensor.square().mean() for tensor in tensors)


@pytest.mark.parametrize(
    "request_",
    [
        SignalRequest(projections=layers(2)),
        SignalRequest(logits=True, hidden_states=layers(0, 3), projections=layers(1, 3), attention_scores=layers(1)),
    ],
    ids=["projections", "everything"],
)
def test_compiled_in_one_graph_with_equal_losses_and_gradients(request_, batch):
    torch._dynamo.reset()
    student = Student(make_bert(BertForMaskedLM), request_)
    expected = student(**batch)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    compiled = torch.compile(student, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        student.zero_grad()
        loss = compiled(**batch)
        loss.backward()
        torch.testing.assert_close(loss, expected)
        for name, gradient in gradients.items():
            torch.testing.assert_close(student.get_parameter(name).grad, gradient)


def test_a_compiled_teacher_gives_the_same_signals(batch):
    torch._dynamo.reset()
    model = make_bert()
    request = SignalRequest(hidden_states=layers(0, 2), projections=layers(1), attention_scores=layers(3))
    expected = SignalCapture(model, request)(**batch)
    signals = SignalCapture(torch.compile(model, backend="aot_eager"), request)(**batch)
    torch.testing.assert_close(signals.hidden_states, expected.hidden_states)
    torch.testing.assert_close(signals.projections[1].value, expected.projections[1].value)
    torch.testing.assert_close(signals.attention_scores, expected.attention_scores)


# --- peft -------------------------------------------------------------------------------------------------------


def with_lora(model: nn.Module, names: list[str], targets: list[str]):
    """Two adapters whose effect is not zero."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    wrapped = get_peft_model(model, config, adapter_name=names[0])
    for name in names[1:]:
        wrapped.add_adapter(name, config)
    return wrapped.eval()


def test_lora_is_part_of_what_is_captured(batch):
    base = make_bert()
    request = SignalRequest(hidden_states=layers(1), projections=layers(2))
    model = with_lora(base, ["one"], ["query", "value"])
    capture = SignalCapture(model, request)
    adapted = capture(**batch)
    with model.disable_adapter():
        plain = capture(**batch)
    assert not torch.equal(adapted.projections[2].query, plain.projections[2].query)
    merged = SignalCapture(model.merge_and_unload(), request)(**batch)
    torch.testing.assert_close(adapted.projections[2].query, merged.projections[2].query)
    torch.testing.assert_close(adapted.hidden_states[1], merged.hidden_states[1])


def test_lora_added_after_the_capture_is_seen_by_hooks_on_projections(batch):
    torch.manual_seed(0)
    model = MPNetModel(
        MPNetConfig(vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32)
    ).eval()
    capture = SignalCapture(model, SignalRequest(projections=layers(2)))
    plain = capture(**batch)
    wrapped = with_lora(model, ["one"], ["q"])
    adapted = capture(**batch)
    expected = SignalCapture(wrapped, capture.request)(**batch)
    assert not torch.equal(adapted.projections[2].query, plain.projections[2].query)
    assert torch.equal(adapted.projections[2].query, expected.projections[2].query)


def test_lora_student_gets_the_gradients_of_the_full_forward(batch):
    model = with_lora(make_bert(), ["one"], ["query", "value"]).train()
    model.base_model.model.activation_checkpointing_enable()
    model.enable_input_require_grads()
    found = []
    for early_stop in (True, False):
        model.zero_grad()
        torch.manual_seed(2)
        signals = SignalCapture(model, SignalRequest(projections=layers(2)), early_stop=early_stop)(**batch)
        (signals.projections[2].query.sin().mean() + signals.projections[2].value.sin().mean()).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all("lora" in name for name in found[0])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_early_stop_of_a_batch_with_several_adapters_leaves_the_model_usable(batch):
    model = with_lora(make_bert(), ["one", "two"], ["query", "key"])
    request = SignalRequest(projections=layers(2))
    installed = hooks_of(model)
    capture = SignalCapture(model, request)
    mixed = capture(**batch, adapter_names=["one", "two", "__base__"]).projections[2].query
    rows = []
    for index, name in enumerate(["one", "two"]):
        model.set_adapter(name, inference_mode=True)
        rows.append(capture(**batch).projections[2].query[index])
    with model.disable_adapter():
        rows.append(capture(**batch).projections[2].query[2])
    torch.testing.assert_close(mixed, torch.stack(rows))
    with pytest.raises(IndexError):
        capture(input_ids=torch.full((1, 4), 1000), adapter_names=["one"])
    model(**batch)
    assert hooks_of(model) == installed


def test_prompt_learning_is_refused():
    from peft import PromptTuningConfig, TaskType, get_peft_model

    config = PromptTuningConfig(task_type=TaskType.TOKEN_CLS, num_virtual_tokens=2)
    model = get_peft_model(make_bert(BertForTokenClassification), config)
    with pytest.raises(UnsupportedArchitectureError, match=r"prompt learning.*LoRA"):
        SignalCapture(model, SignalRequest(hidden_states=layers(1)))


# --- decoders ---------------------------------------------------------------------------------------------------


def test_a_causal_model_keeps_no_cache(batch):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
    )
    model = Qwen2ForCausalLM(config).eval()
    expected = model(**batch).logits
    signals, output = SignalCapture(model, SignalRequest(logits=True, projections=layers(2))).run(**batch)
    assert output.past_key_values is None
    assert torch.equal(signals.logits["logits"], expected)
    assert signals.projections[2].query.shape == (3, 8, 24)
    assert signals.projections[2].key.shape == (3, 8, 12)


# --- errors -----------------------------------------------------------------------------------------------------


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
    config = RoFormerConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32
    )
    with pytest.raises(UnsupportedArchitectureError) as error:
        describe_architecture(RoFormerModel(config))
    assert "model_type 'roformer' is unknown" in str(error.value)
    assert "encoder.layer.0.attention.self.query" in str(error.value)
    assert "register_architecture('roformer'" in str(error.value)
    assert "deberta-v2" in str(error.value)


def test_a_module_that_is_no_transformers_model_is_refused():
    with pytest.raises(UnsupportedArchitectureError, match="not from Linear"):
        describe_architecture(nn.Linear(2, 2))


def test_an_encoder_decoder_is_refused():
    config = T5Config(vocab_size=40, d_model=24, num_layers=2, num_heads=4, d_kv=6, d_ff=32)
    with pytest.raises(UnsupportedArchitectureError, match="register_architecture"):
        describe_architecture(T5Model(config))


@pytest.fixture
def own_architectures(monkeypatch):
    monkeypatch.setattr(architectures, "_ARCHITECTURES", dict(architectures._ARCHITECTURES))


@pytest.mark.usefixtures("own_architectures")
def test_a_registered_architecture_can_be_captured(batch):
    paths = {"query": "query", "key": "key", "value": "value"}
    register_architecture("rembert", layers="encoder.layer", attention="attention.self", **paths)
    torch.manual_seed(0)
    config = RemBertConfig(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        input_embedding_size=16,
        max_position_embeddings=16,
    )
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


def test_a_row_needs_all_projections_or_none():
    with pytest.raises(ValueError, match=r"all of query, key, value or none of them, not \['q'\]"):
        register_architecture("mine", layers="layers", attention="attention", query="q")


def test_scores_of_talking_heads_are_refused():
    config = DebertaConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32
    )
    config.talking_head = True
    model = DebertaModel(config)
    with pytest.raises(UnsupportedArchitectureError, match="talking_head=True"):
        SignalCapture(model, SignalRequest(attention_scores=layers(1)))


def test_another_attention_implementation_set_later_is_an_error(batch):
    model = make_bert()
    capture = SignalCapture(model, SignalRequest(projections=layers(1)))
    model.set_attn_implementation("eager")
    with pytest.raises(RuntimeError, match=r"did not show projections of layers \[1\].*'eager'.*'hf_distill_sdpa'"):
        capture(**batch)
