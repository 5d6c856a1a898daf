"""Captured signals are the ones that each architecture's own eager attention computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from capture_cases import CASES, SIZES, Case
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from hf_distill.capture.architectures import describe_architecture
from hf_distill.capture.signals import SignalRequest, Signals
from hf_distill.capture.transformer import SignalCapture

# The scores of these have a positional bias.
BIASED = ("mpnet", "deberta", "deberta-v2")
# transformers has no activation checkpointing for these.
NEVER_CHECKPOINTED = ("albert", "mpnet")
every_architecture = pytest.mark.parametrize("case", CASES, ids=str)
LAYERS = frozenset({1, 2, 3})
EVERYTHING = SignalRequest(hidden_states=LAYERS | {0}, projections=LAYERS, attention_scores=LAYERS)


def make_model(case: Case, auto_class: Any = AutoModel, **options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(case.model_type, **{**SIZES, **case.options})
    model = auto_class.from_config(config, **options).eval()
    with torch.no_grad():  # large weights, so that attention is far from uniform
        for parameter in model.parameters():
            parameter.normal_(0, 0.5) if parameter.dim() > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
        model.get_input_embeddings().weight[0] = 0  # as the padding token's embedding is
    return model


def eager_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights with eager attention."""
    reference = copy.deepcopy(model)
    if describe_architecture(model).spec.mechanism == "interface":
        reference.set_attn_implementation("eager")
    return reference


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Row 1 is padded on the right, row 2 on the left."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(3, 40, (3, 9), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 6:] = 0
    attention_mask[2, :3] = 0
    return {"input_ids": input_ids * attention_mask, "attention_mask": attention_mask}


def allowed_keys(case: Case, model: PreTrainedModel, layer: int, mask: Tensor) -> Tensor:
    """(B, 1, T, T): which keys each query may see, written down independently of transformers."""
    length = mask.shape[1]
    positions = torch.arange(length)
    allowed = mask[:, None, None, :].bool().expand(-1, 1, length, length)
    if case.causal:
        allowed = allowed & (positions[:, None] >= positions[None, :])
    if case.model_type == "modernbert" and model.config.layer_types[layer - 1] == "sliding_attention":
        window = model.config.local_attention // 2
        allowed = allowed & ((positions[:, None] - positions[None, :]).abs() <= window)
    return allowed


def all_tensors(signals: Signals) -> dict[str, Tensor]:
    """Every signal by name."""
    found = {f"hidden {layer}": tensor for layer, tensor in signals.hidden_states.items()}
    found |= {f"scores {layer}": tensor for layer, tensor in signals.attention_scores.items()}
    found |= {f"logits {name}": tensor for name, tensor in signals.logits.items()}
    for layer, projections in signals.projections.items():
        for name in ("query", "key", "value"):
            found[f"{name} {layer}"] = getattr(projections, name)
    return found


def assert_identical(first: Signals, second: Signals) -> None:
    first_tensors, second_tensors = all_tensors(first), all_tensors(second)
    assert first_tensors.keys() == second_tensors.keys()
    different = [name for name, tensor in first_tensors.items() if not torch.equal(tensor, second_tensors[name])]
    assert different == []


@every_architecture
def test_masked_softmax_of_the_scores_is_the_eager_attention(case: Case, batch: dict[str, Tensor]) -> None:
    model = make_model(case)
    with torch.no_grad():
        reference = eager_copy(model)(**batch, output_attentions=True).attentions
        signals = SignalCapture(model, EVERYTHING)(**batch)
    real = batch["attention_mask"].bool()
    for layer in LAYERS:
        forbidden = ~allowed_keys(case, model, layer, batch["attention_mask"])
        attention = signals.attention_scores[layer].masked_fill(forbidden, float("-inf")).softmax(-1)
        difference = (attention - reference[layer - 1]).transpose(1, 2)[real]
        assert difference.abs().max() <= 1e-5
        assert reference[layer - 1].amax(-1).transpose(1, 2)[real].max() > 0.5  # the comparison can tell


@pytest.mark.parametrize("case", [case for case in CASES if case.model_type not in BIASED], ids=str)
def test_projections_explain_the_scores(case: Case, batch: dict[str, Tensor]) -> None:
    model = make_model(case)
    with torch.no_grad():
        signals = SignalCapture(model, EVERYTHING)(**batch)
    info = describe_architecture(model)
    for layer in LAYERS:
        projections = signals.projections[layer]
        query = projections.query.unflatten(-1, (info.num_heads, -1)).transpose(1, 2)
        key = projections.key.unflatten(-1, (info.num_key_value_heads, -1)).transpose(1, 2)
        for head in range(info.num_heads):
            key_head = head * info.num_key_value_heads // info.num_heads
            scores = query[:, head] @ key[:, key_head].mT / query.shape[-1] ** 0.5
            torch.testing.assert_close(signals.attention_scores[layer][:, head], scores, rtol=1e-4, atol=1e-4)


def reference_projections(case: Case, model: PreTrainedModel, layer: int, hidden: Tensor) -> list[Tensor]:
    """Queries, keys and values before rotary embedding, recomputed from the layer's input."""
    if case.norm:
        hidden = model.get_submodule(case.norm.format(layer - 1))(hidden)
    prefix, *names = case.parts
    module = (layer - 1) * case.groups // 3 if case.groups else layer - 1
    outputs = [model.get_submodule(prefix.format(module) + name)(hidden) for name in names]
    return list(outputs[0].chunk(3, dim=-1)) if len(names) == 1 else outputs


@pytest.mark.parametrize("case", [case for case in CASES if case.parts], ids=str)
def test_projections_are_those_of_the_layer_input(case: Case, batch: dict[str, Tensor]) -> None:
    model = make_model(case)
    with torch.no_grad():
        signals = SignalCapture(model, EVERYTHING)(**batch)
        for layer in LAYERS:
            query, key, value = reference_projections(case, model, layer, signals.hidden_states[layer - 1])
            captured = signals.projections[layer]
            torch.testing.assert_close(captured.value, value, rtol=1e-5, atol=1e-5)
            if case.rotary:  # a rotation keeps the length of every head
                size = 24 // 4
                for got, want in ((captured.query, query), (captured.key, key)):
                    got, want = (tensor.unflatten(-1, (-1, size)).norm(dim=-1) for tensor in (got, want))
                    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
            else:
                torch.testing.assert_close(captured.query, query, rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(captured.key, key, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relative", [True, False])
def test_deberta_v1_projections_contain_their_biases(relative: bool, batch: dict[str, Tensor]) -> None:
    """The context vectors of the first layer, rebuilt from scores and values, are those of the module."""
    case = Case("deberta", {"relative_attention": relative, "pos_att_type": ["c2p", "p2c"] if relative else None})
    model = make_model(case)
    seen: list[Tensor] = []
    model.encoder.layer[0].attention.self.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    with torch.no_grad():
        signals = SignalCapture(model, EVERYTHING)(**batch)
    forbidden = ~allowed_keys(case, model, 1, batch["attention_mask"])
    attention = signals.attention_scores[1].masked_fill(forbidden, float("-inf")).softmax(-1)
    value = signals.projections[1].value.unflatten(-1, (4, -1)).transpose(1, 2)
    context = (attention @ value).transpose(1, 2).flatten(2)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(context[real], seen[0][real], rtol=1e-5, atol=1e-5)


@every_architecture
def test_hidden_states_are_the_raw_outputs_of_the_layers(case: Case, batch: dict[str, Tensor]) -> None:
    model = make_model(case)
    with torch.no_grad():
        signals = SignalCapture(model, EVERYTHING, early_stop=False)(**batch)
        expected = model(**batch, output_hidden_states=True)
        last = signals.hidden_states[3]
        last = model.get_submodule(case.final_norm)(last) if case.final_norm else last
    assert torch.equal(last, expected.last_hidden_state)
    for layer in (0, 1, 2):
        assert torch.equal(signals.hidden_states[layer], expected.hidden_states[layer])


SINGLE_REQUESTS = [
    *(SignalRequest(hidden_states=frozenset({layer})) for layer in range(4)),
    *(SignalRequest(projections=frozenset({layer})) for layer in LAYERS),
    SignalRequest(attention_scores=frozenset({2})),
    SignalRequest(hidden_states=frozenset({2}), projections=frozenset({1, 2}), attention_scores=frozenset({2})),
    EVERYTHING,
]


@every_architecture
def test_the_modules_hold_the_same_attributes_after_a_call(case: Case, batch: dict[str, Tensor]) -> None:
    model = make_model(case)
    capture = SignalCapture(model, EVERYTHING)
    before = [set(vars(module)) for module in model.modules()]
    capture(**batch)
    assert [set(vars(module)) for module in model.modules()] == before


@every_architecture
def test_early_stop_is_bitwise_the_full_forward(case: Case, batch: dict[str, Tensor]) -> None:
    model = make_model(case, AutoModelForSequenceClassification)
    expected = model(**batch).logits
    for request in SINGLE_REQUESTS:
        stopped, output = SignalCapture(model, request).run(**batch)
        full, full_output = SignalCapture(model, request, early_stop=False).run(**batch)
        assert output is None
        assert_identical(stopped, full)
        assert torch.equal(full_output.logits, expected)
    assert torch.equal(model(**batch).logits, full_output.logits)


def loss_of(signals: Signals) -> Tensor:
    """Some number that depends on every element of every signal."""
    total = torch.zeros(())
    for index, tensor in enumerate(all_tensors(signals).values()):
        weights = torch.linspace(-1, 1, tensor[0].numel()).view_as(tensor[0])
        total = total + (tensor.float() * weights).sin().mean() * (index + 1)
    return total


def gradients(model: nn.Module, run: Callable[[], Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    run().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


STUDENT_REQUESTS = [
    SignalRequest(projections=frozenset({3})),
    SignalRequest(projections=frozenset({1, 2}), hidden_states=frozenset({1})),
    EVERYTHING,
]


@every_architecture
def test_gradients_are_those_of_the_full_forward(case: Case, batch: dict[str, Tensor]) -> None:
    model = make_model(case).train()
    for request in STUDENT_REQUESTS:
        results = []
        for early_stop in (True, False):
            torch.manual_seed(3)  # the same dropout
            capture = SignalCapture(model, request, early_stop=early_stop)
            results.append(gradients(model, lambda capture=capture: loss_of(capture(**batch))))
        assert results[0].keys() == results[1].keys()
        assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("case", [case for case in CASES if case.model_type not in NEVER_CHECKPOINTED], ids=str)
@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_activation_checkpointing_changes_no_gradient(case: Case, reentrant: bool, batch: dict[str, Tensor]) -> None:
    model = make_model(case).train()
    if reentrant and "norm_rel_ebd" in case.options:
        pytest.skip("transformers cannot do this: reentrant backward passes share the relative embeddings' norm")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for request in STUDENT_REQUESTS:
        capture = SignalCapture(model, request)
        model.activation_checkpointing_disable()
        plain = gradients(model, lambda capture=capture: loss_of(capture(**batch)))
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        checkpointed = gradients(model, lambda capture=capture: loss_of(capture(**batch)))
        model.disable_input_require_grads()
        assert plain.keys() == checkpointed.keys()
        if reentrant:  # shared parameters receive their gradients in another order
            torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)
        else:
            assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
        assert model.is_activation_checkpointing


# transformers fills the bfloat16 scores of DeBERTa v1 with the minimum of float32, which fails without capture too.
@pytest.mark.parametrize("case", [case for case in CASES if case.model_type != "deberta"], ids=str)
def test_bf16_autocast_changes_no_value_between_early_stop_and_full_forward(
    case: Case, batch: dict[str, Tensor]
) -> None:
    model = make_model(case)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        stopped = SignalCapture(model, EVERYTHING)(**batch)
        full = SignalCapture(model, EVERYTHING, early_stop=False)(**batch)
    assert_identical(stopped, full)
    assert stopped.projections[2].value.dtype == torch.bfloat16


@every_architecture
def test_padding_changes_no_signal_of_real_tokens(case: Case, batch: dict[str, Tensor]) -> None:
    """One more padded column on the right."""
    model = make_model(case)
    longer = {
        name: torch.cat([tensor, torch.zeros(3, 1, dtype=tensor.dtype)], dim=1) for name, tensor in batch.items()
    }
    with torch.no_grad():
        capture = SignalCapture(model, EVERYTHING)
        short, long = capture(**batch), capture(**longer)
    real = batch["attention_mask"].bool()
    for layer in LAYERS:
        torch.testing.assert_close(
            long.hidden_states[layer][:, :-1][real], short.hidden_states[layer][real], rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            long.projections[layer].key[:, :-1][real], short.projections[layer].key[real], rtol=1e-4, atol=1e-4
        )


@every_architecture
def test_description_has_the_sizes_of_the_model(case: Case, batch: dict[str, Tensor]) -> None:
    model = make_model(case, AutoModelForSequenceClassification)
    info = describe_architecture(model)
    assert (info.num_layers, info.hidden_size, info.num_heads) == (3, 24, 4)
    assert info.num_key_value_heads == case.options.get("num_key_value_heads", 4)
    projections = SignalCapture(model, SignalRequest(projections=frozenset({2})))(**batch).projections[2]
    assert projections.query.shape[-1] == info.num_heads * info.head_size
    assert projections.key.shape[-1] == projections.value.shape[-1] == info.num_key_value_heads * info.head_size


def test_models_without_a_row_are_described_from_what_transformers_declares(batch: dict[str, Tensor]) -> None:
    """GPT-2 has no row: fused projections, causal, a final norm."""
    model = AutoModel.from_config(AutoConfig.for_model("gpt2", n_embd=24, n_layer=3, n_head=4, vocab_size=40)).eval()
    info = describe_architecture(model)
    assert (info.num_layers, info.spec.layers, info.spec.attention) == (3, "h", "attn")
    with torch.no_grad():
        signals = SignalCapture(model, EVERYTHING)(**batch)
        projected = model.h[1].attn.c_attn(model.h[1].ln_1(signals.hidden_states[1]))
    torch.testing.assert_close(signals.projections[2].value, projected.chunk(3, dim=-1)[2])
    torch.testing.assert_close(model.ln_f(signals.hidden_states[3]), model(**batch).last_hidden_state)
