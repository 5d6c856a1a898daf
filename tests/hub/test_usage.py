"""The code of a card runs as it stands, for every kind of model."""

import pytest
from transformers import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    set_seed,
)

from hf_distill import EncoderForGeneration, GenerationSettings
from hf_distill.hub.usage import onnx_usage, parts, usage

KINDS = {
    "text-classification": BertForSequenceClassification,
    "token-classification": BertForTokenClassification,
    "question-answering": BertForQuestionAnswering,
    "multiple-choice": BertForMultipleChoice,
    "fill-mask": BertForMaskedLM,
    "feature-extraction": BertModel,
}


@pytest.fixture
def saved(tmp_path, monkeypatch, tiny_bert_config, tiny_tokenizer):
    """`saved(make)`: the name of a model in the working folder, as somebody would have it from the Hub."""
    monkeypatch.chdir(tmp_path)
    tiny_tokenizer.save_pretrained("small")

    def save(kind):
        set_seed(0)
        kind(tiny_bert_config(num_hidden_layers=1)).save_pretrained("small")
        return "small"

    return save


def run(code, capsys):
    exec(compile(code, "card", "exec"), {})
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("language", ["en", "zh", "fr"])
@pytest.mark.parametrize("tag", KINDS)
def test_code_of_a_card_runs(saved, capsys, tag, language):
    name = saved(KINDS[tag])
    out = run(usage(name, tag, language=language), capsys)
    expected = {"text-classification": "LABEL_", "fill-mask": "token_str", "feature-extraction": "torch.Size([1, "}
    assert expected.get(tag, "") in out
    code = parts(name, tag)
    assert (code is None) == (tag in ("question-answering", "multiple-choice"))
    if code is not None:
        run(code, capsys)


def test_pairs_are_given_as_pairs(saved, capsys):
    out = run(usage(saved(BertForSequenceClassification), "text-classification", pairs=True), capsys)
    assert "LABEL_" in out


def test_a_language_model_writes(tmp_path, monkeypatch, capsys, tiny_tokenizer):
    monkeypatch.chdir(tmp_path)
    config = GPT2Config(
        vocab_size=len(tiny_tokenizer), n_positions=64, n_embd=8, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=3
    )
    GPT2LMHeadModel(config).save_pretrained("small")
    tiny_tokenizer.save_pretrained("small")
    code = usage("small", "text-generation")
    assert 'pipeline("text-generation", model="small")' in code


def test_an_encoder_that_writes_is_loaded_by_its_own_class(saved, capsys, tiny_tokenizer):
    name = saved(BertForMaskedLM)
    settings = GenerationSettings(max_source_length=24, max_new_tokens=4, num_beams=1)
    EncoderForGeneration.from_pretrained(name, tiny_tokenizer, settings=settings).save_pretrained(name)
    assert run(usage(name, "fill-mask", writes=True), capsys).startswith("[")
    assert "AutoModelForMaskedLM" in parts(name, "fill-mask", writes=True)


def test_several_labels_of_a_text_are_shown(saved, capsys):
    name = saved(BertForSequenceClassification)
    out = run(usage(name, "text-classification", several=True), capsys)
    assert "LABEL_0" in out
    assert "LABEL_1" in out


def test_a_pair_is_a_pair_for_an_onnx_file_too():
    own = {"text": "one 'two'", "text_pair": "three"}
    code = onnx_usage("x", "", "en", ["onnx"], "text-classification", pairs=True, inputs=own)
    assert """rows = tokenizer(["one 'two'"], ["three"], return_tensors="np")""" in code
    assert 'session.run(["logits"], inputs)[0]' in code


def test_what_a_model_does_may_be_unknown():
    assert usage("small", None) is None
    assert usage("small", "something-new") is None
    assert "AutoModel.from_pretrained" in parts("small", None)


def test_the_texts_of_a_multiple_choice_are_one_row_of_an_onnx_file():
    one, several = (onnx_usage("x", "", "en", ["onnx"], tag) for tag in ("text-classification", "multiple-choice"))
    assert 'tokenizer(["A quiet film that nobody will forget."], return' in one
    assert "rows[item.name] for" in one
    assert '["She opens the door and"] * 2, ["leaves the house.", "is a colour."], padding=True' in several
    assert "rows[item.name][None] for" in several
