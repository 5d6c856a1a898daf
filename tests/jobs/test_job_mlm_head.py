"""A masked-LM head for an encoder that has none, good enough that words can be replaced with it."""

import json
import shutil

import pytest
import torch
from tiny_data import QUIET, save_model
from transformers import AutoModelForMaskedLM, BertModel, set_seed

from hf_distill.cli import main
from hf_distill.commands.mlm import run as fit_mlm_head
from hf_distill.corpus.augment.candidates import CandidateFinder
from hf_distill.settings import AugmentationArguments, MaskedHeadArguments, MLMHeadArguments, TextbookArguments


@pytest.fixture
def data(tmp_path, tiny_tokenizer, tiny_bert_config, sentences):
    set_seed(0)
    # Half of the words are always the same, so there is something to learn.
    lines = [f"the film is {words}" for words in sentences]
    (tmp_path / "text.txt").write_text("\n".join(lines * 4) + "\n")
    save_model(tmp_path / "encoder", BertModel(tiny_bert_config(), add_pooling_layer=False), tiny_tokenizer)
    return tmp_path


def fit(data, head=None, **fields):
    settings = {
        "max_steps": 40,
        "learning_rate": 2e-2,
        "per_device_train_batch_size": 16,
        "max_length": 24,
        **QUIET,
    }
    return fit_mlm_head(
        MLMHeadArguments(**{"encoder": str(data / "encoder")} | (head or {})),
        TextbookArguments(textbook=[str(data / "text.txt")], textbook_eval_rows=64),
        MaskedHeadArguments(str(data / "mlm"), **settings | fields),
    )


def test_the_head_learns_and_the_encoder_stays_as_it_was(data):
    results = fit(data)
    assert results["before"]["masked_accuracy"] < 0.1
    assert results["after"]["masked_accuracy"] > 0.15
    assert results["after"]["masked_loss"] < results["before"]["masked_loss"]
    assert results["before"]["masked_tokens"] == results["after"]["masked_tokens"] > 50
    assert json.loads((data / "mlm" / "results.json").read_text())["job"] == "mlm"
    model = AutoModelForMaskedLM.from_pretrained(data / "mlm")
    encoder = BertModel.from_pretrained(data / "encoder", add_pooling_layer=False).state_dict()
    for name, tensor in model.bert.state_dict().items():
        torch.testing.assert_close(tensor, encoder[name], rtol=0, atol=0)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert results["trained_parameters"] < 24 * 24 + 3 * 24 + len(encoder["embeddings.word_embeddings.weight"]) + 1


def test_the_encoder_can_learn_too(data):
    results = fit(data, {"freeze_encoder": False}, learning_rate=5e-3)
    assert results["after"]["masked_accuracy"] > 0.15
    encoder = BertModel.from_pretrained(data / "encoder", add_pooling_layer=False)
    fitted = AutoModelForMaskedLM.from_pretrained(data / "mlm").bert
    assert not torch.equal(encoder.encoder.layer[0].output.dense.weight, fitted.encoder.layer[0].output.dense.weight)


def test_a_run_gives_the_same_head_again(data):
    one = fit(data, max_steps=5)
    weights = AutoModelForMaskedLM.from_pretrained(data / "mlm").cls.state_dict()
    assert fit(data, max_steps=5)["after"] == one["after"]
    again = AutoModelForMaskedLM.from_pretrained(data / "mlm").cls.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_run_continues_from_its_last_checkpoint(data):
    fit(data, max_steps=4, save_strategy="steps", save_steps=2)
    whole = AutoModelForMaskedLM.from_pretrained(data / "mlm").cls.state_dict()
    shutil.rmtree(data / "mlm" / "checkpoint-4")
    fit(data, max_steps=4, resume_from_checkpoint="last")
    resumed = AutoModelForMaskedLM.from_pretrained(data / "mlm").cls.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_words_are_replaced_with_it(data):
    fit(data, max_steps=2)
    args = AugmentationArguments(masked_lm=str(data / "mlm"), num_candidates=5, use_cpu=True)
    [found], _ = CandidateFinder(args)(["the film is good"])
    assert found.candidates[1]


@pytest.mark.parametrize(
    ("head", "fields", "message"),
    [
        ({"encoder": None}, {}, "`--encoder` is missing"),
        ({}, {"mlm_probability": 1.0}, "`--mlm_probability` is 1.0"),
        ({}, {"max_length": 1}, "`--max_length` is 1"),
    ],
)
def test_what_makes_no_sense_is_refused(data, head, fields, message):
    with pytest.raises(ValueError, match=message):
        fit(data, head, **fields)


def test_the_verb_shows_no_flag_of_a_distillation(capsys):
    main(["mlm", "--help"])
    shown = capsys.readouterr().out
    assert "--mlm_probability" in shown
    for flag in ("--objectives", "--relations", "--temperature", "--teacher_dtype", "--eval_agreement"):
        assert flag not in shown


def test_an_encoder_that_is_not_there_is_an_error_that_names_the_flag(data):
    with pytest.raises(OSError, match="`--encoder`"):
        fit(data, {"encoder": str(data / "nothing")})
