"""The head of a masked language model sees chosen tokens only, and gives what it gives to all."""

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    MPNetConfig,
    MPNetForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    set_seed,
)

from hf_distill.capture.forward import logits_at

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
KINDS = [
    BertForMaskedLM(BertConfig(vocab_size=40, **SIZES)),
    RobertaForMaskedLM(RobertaConfig(vocab_size=40, **SIZES)),
    DistilBertForMaskedLM(DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=20)),
    ElectraForMaskedLM(ElectraConfig(vocab_size=40, **SIZES)),
    AlbertForMaskedLM(AlbertConfig(vocab_size=40, embedding_size=8, **SIZES)),
    MPNetForMaskedLM(MPNetConfig(vocab_size=40, **SIZES)),
    DebertaV2ForMaskedLM(DebertaV2Config(vocab_size=40, **SIZES)),
    ModernBertForMaskedLM(
        ModernBertConfig(
            vocab_size=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, **SIZES
        )
    ),
]


@pytest.fixture
def inputs():
    ids = torch.randint(5, 40, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("model", KINDS, ids=lambda model: model.config.model_type)
def test_chosen_logits_are_those_of_all(model, inputs):
    model.eval()
    rows, positions = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 6, 3, 0])
    with torch.no_grad():
        found = logits_at(model, inputs, rows, positions)
        everything = model(**inputs).logits
    torch.testing.assert_close(found, everything[rows, positions])


def test_gradients_are_those_of_the_whole(inputs):
    set_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=40, **SIZES)).eval()
    rows, positions = torch.tensor([0, 2]), torch.tensor([1, 5])
    logits_at(model, inputs, rows, positions).square().sum().backward()
    partly = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model(**inputs).logits[rows, positions].square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(partly[name], parameter.grad)


def test_no_hook_is_left_even_where_the_model_fails(inputs):
    model = BertForMaskedLM(BertConfig(vocab_size=40, **SIZES)).eval()
    with pytest.raises(IndexError):
        logits_at(model, inputs, torch.tensor([9]), torch.tensor([0]))
    assert model(**inputs).logits.shape == (3, 7, 40)


def test_a_model_without_a_head_is_refused(inputs):
    with pytest.raises(ValueError, match="BertModel has no masked-LM head"):
        logits_at(BertModel(BertConfig(vocab_size=40, **SIZES)), inputs, torch.tensor([0]), torch.tensor([0]))
