"""A pass without padding shows the signals, losses and gradients of one with padding."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close
from trainings import trained
from transformers import (
    BertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    NomicBertConfig,
    NomicBertModel,
    RobertaConfig,
    RobertaModel,
    set_seed,
)

from hf_distill.capture.batch import KnowingCollator
from hf_distill.capture.packed_rows import packing_rows
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture

SIZES = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 32,
}
SIZES |= {"max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LENGTHS = [5, 12, 1, 7]
EVERYTHING = SignalRequest(
    hidden_states=frozenset({0, 1, 3}), projections=frozenset({2, 3}), attention_scores=frozenset({1}), pooled=True
)


def batch(side, pad):
    """Rows of different lengths, padded on one side."""
    generator = torch.Generator().manual_seed(0)
    ids, mask = torch.full((4, 12), pad), torch.zeros(4, 12, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        where = slice(0, length) if side == "right" else slice(12 - length, 12)
        ids[row, where], mask[row, where] = torch.randint(5, 60, (length,), generator=generator), 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


@pytest.fixture(params=["bert", "electra", "roberta", "modernbert", "nomic_bert"])
def model(request, tiny_bert_config):
    set_seed(0)
    if request.param == "bert":
        return BertModel(tiny_bert_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).eval()
    if request.param == "electra":
        return ElectraModel(ElectraConfig(**SIZES, embedding_size=24)).eval()
    if request.param == "roberta":
        return RobertaModel(RobertaConfig(**SIZES, type_vocab_size=2)).eval()
    if request.param == "nomic_bert":
        return NomicBertModel(NomicBertConfig(**SIZES, head_dim=6)).eval()
    sizes = {name: value for name, value in SIZES.items() if not name.endswith("_dropout_prob")}
    # Two layers in three look at three tokens to each side.
    return ModernBertModel(ModernBertConfig(**sizes, local_attention=6, pad_token_id=0)).eval()


def mean(states, mask):
    return (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def shown(signals):
    """Every signal on real tokens."""
    real = signals.attention_mask.bool()
    found = {f"hidden {layer}": states[real] for layer, states in signals.hidden_states.items()}
    for layer, one in signals.projections.items():
        found |= {f"{side} {layer}": getattr(one, side)[real] for side in ("query", "key", "value")}
    pairs = (real[:, None, :, None] & real[:, None, None, :]).expand(-1, 4, -1, -1)
    found |= {f"scores {layer}": scores[pairs] for layer, scores in signals.attention_scores.items()}
    return {**found, "pooled": signals.pooled}


@pytest.mark.parametrize("side", ["right", "left"])
def test_signals_and_gradients_are_those_of_padded_rows(side, model):
    inputs = batch(side, model.config.pad_token_id)
    if model.config.model_type == "modernbert":
        del inputs["token_type_ids"]
    capture = SignalCapture(model, EVERYTHING, pool=mean)
    widths = []
    model.embeddings.register_forward_hook(lambda module, given, output: widths.append(tuple(output.shape[:2])))
    found = []
    for on in (False, True):
        model.zero_grad()
        with packing_rows() if on else nullcontext():
            signals = shown(capture(**inputs))
        sum(values.float().square().sum() for values in signals.values()).backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((signals, gradients))
    assert widths == [(4, 12), (1, sum(LENGTHS))]
    assert found[0][0].keys() == found[1][0].keys()
    assert found[0][1].keys() == found[1][1].keys()
    for one, other in zip(found[0], found[1], strict=True):
        for name, values in one.items():
            assert_close(other[name], values, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_what_needs_padding_keeps_it(model):
    inputs = batch("right", model.config.pad_token_id)
    inputs.pop("token_type_ids")
    seen = []
    model.embeddings.register_forward_hook(lambda module, given, output: seen.append(output.shape[0]))
    capture = SignalCapture(model, SignalRequest(hidden_states=frozenset({3})))
    full = {name: values[1:2] for name, values in inputs.items()}
    with packing_rows():
        capture(**KnowingCollator(lambda rows: full)([]).to("cpu"))
        model.activation_checkpointing_enable()
        model.train()
        capture(**inputs)
    assert seen == [1, 4]


def test_losses_are_those_of_padded_rows(make_trainer, tiny_teacher, tiny_student, sentences, tiny_tokenizer):
    import datasets

    rows = datasets.Dataset.from_dict(dict(tiny_tokenizer(sentences, truncation=True, max_length=16)))
    for model in (tiny_teacher, tiny_student):
        model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    student = type(tiny_student)(copy.deepcopy(tiny_student.config))
    logs = []
    for pack in (False, True):
        given = {"objectives": ["relation", "hidden"], "pack_rows": pack, "train_dataset": rows, "student": student}
        trainer = trained(make_trainer(tiny_teacher, **given))
        logs.append([{k: v for k, v in e.items() if "loss" in k} for e in trainer.state.log_history if "loss" in e])
    for one, other in zip(*logs, strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def test_objectives_on_logits_and_other_models_are_refused(make_trainer):
    with pytest.raises(ValueError, match=r"`--pack_rows` has no effect on a \w+ and the objectives \['logits'\]"):
        make_trainer(objectives=["logits"], pack_rows=True)
