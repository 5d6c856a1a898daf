"""Capture in training: activation checkpointing, torch.compile and peft adapters."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from capture_models import Student, hooks_of, layers, make_batch, make_bert
from torch import nn
from transformers import (
    BertForMaskedLM,
    BertForTokenClassification,
    MPNetConfig,
    MPNetModel,
    TrainerCallback,
)

from hf_distill.capture.architectures import UnsupportedArchitectureError
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return make_batch()


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


# --- torch.compile ---


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


def test_compiled_with_activation_checkpointing_has_equal_gradients(batch):
    torch._dynamo.reset()
    model = make_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    student = Student(model, SignalRequest(projections=layers(1, 2), attention_scores=layers(2)))
    student(**batch).backward()
    gradients = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    model.activation_checkpointing_enable()
    student.zero_grad()
    torch.compile(student, backend="aot_eager", fullgraph=True)(**batch).backward()
    assert model.is_activation_checkpointing
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


# --- peft ---


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


def test_student_and_teacher_have_the_attention_again_that_they_came_with(
    make_trainer, rows, tiny_teacher, tiny_student, tmp_path
):
    """After a training, also one that was broken off, after an evaluation, and in what is saved."""

    class BreakOff(TrainerCallback):
        def on_step_end(self, *_, **__):
            raise RuntimeError("broken off")

    student, teacher = copy.deepcopy(tiny_student), copy.deepcopy(tiny_teacher)
    for model in (student, teacher):
        model.set_attn_implementation("eager")
        model.config.output_attentions = True

    def state():
        return [(model.config._attn_implementation, model.config.output_attentions) for model in (student, teacher)]

    given = {"objectives": ["relation"], "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(teacher, student=student, copies=False, train_dataset=rows, **given)
    assert state() == [("hf_distill_sdpa", False)] * 2
    trainer.train()
    assert state() == [("eager", True)] * 2
    assert len(student(torch.tensor([[5, 6, 7]])).attentions) == student.config.num_hidden_layers
    first = trainer.evaluate(rows)["eval_loss"]
    assert (trainer.evaluate(rows)["eval_loss"], state()) == (first, [("eager", True)] * 2)
    trainer.save_model()
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        assert json.loads((folder / "config.json").read_text())["output_attentions"] is True
    trainer.add_callback(BreakOff())
    with pytest.raises(RuntimeError, match="broken off"):
        trainer.train()
    assert state() == [("eager", True)] * 2
