"""An exported model is the model: at every batch and length, in its predictions, and it is refused where it is not."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    FNetConfig,
    FNetForTokenClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

pytest.importorskip("onnx", reason="pip install 'hf_distill[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'hf_distill[onnx]'")
pytest.importorskip("onnxruntime", reason="pip install 'hf_distill[onnx]'")

from hf_distill import _optional
from hf_distill.hub.usage import onnx_usage
from hf_distill.reports.onnx import onnx_export
from hf_distill.reports.onnx.onnx_export import export_onnx, input_names, largest_difference, quantize_onnx
from hf_distill.reports.onnx.onnx_model import DATA_FILE, INT8_FILE, ONNX_FILE, OnnxModel
from hf_distill.students.recurrent import BiGRUConfig, BiGRUForSequenceClassification


@pytest.fixture
def small(tiny_bert_config):
    torch.manual_seed(0)
    return BertForSequenceClassification(tiny_bert_config(num_hidden_layers=1))


def logits_of(model, batch):
    with torch.no_grad():
        return model(**batch)["logits"]


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("length", [4, 33, 64])
def test_the_file_gives_the_logits_of_the_model_at_every_shape(rows, length, classifier, exported, tiny_tokenizer):
    generator = torch.Generator().manual_seed(rows * length)
    ids = torch.randint(5, len(tiny_tokenizer), (rows, length), generator=generator)
    types = torch.randint(0, 2, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, 3:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    found = OnnxModel(exported / ONNX_FILE)(**batch)["logits"]
    torch.testing.assert_close(found, logits_of(classifier, batch), rtol=1e-4, atol=1e-5)


def test_int8_keeps_the_predictions(classifier, exported, tiny_tokenizer, sentences):
    batch = dict(tiny_tokenizer(sentences, padding=True, return_tensors="pt"))
    expected, found = logits_of(classifier, batch), OnnxModel(exported / INT8_FILE)(**batch)["logits"]
    spread = expected.std()
    assert (found - expected).abs().max() < 0.1 * spread
    sure = (expected[:, 0] - expected[:, 1]).abs() > 0.1 * spread
    assert sure.sum() > 32
    assert torch.equal(found.argmax(-1)[sure], expected.argmax(-1)[sure])


def test_int8_is_the_smaller_file_and_the_difference_is_known(classifier, exported):
    assert (exported / INT8_FILE).stat().st_size < (exported / ONNX_FILE).stat().st_size
    fp32, int8 = (OnnxModel(exported / name) for name in (ONNX_FILE, INT8_FILE))
    assert largest_difference(classifier, fp32) < 1e-5 < largest_difference(classifier, int8) < 0.1


def test_the_model_is_left_as_it_was(small, tmp_path):
    small.train()
    small.bert.embeddings.eval()
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    handlers, level = list(logging.getLogger().handlers), logging.getLogger("torch.onnx").level
    assert export_onnx(small, tmp_path) < 1e-5
    quantize_onnx(tmp_path, reduce_range=True)
    assert small.training
    assert not small.bert.embeddings.training
    assert small.config._attn_implementation == "sdpa"
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    assert (logging.getLogger().handlers, logging.getLogger("torch.onnx").level) == (handlers, level)
    assert sorted(path.name for path in tmp_path.iterdir()) == [ONNX_FILE, INT8_FILE]


@pytest.mark.parametrize("difference", [0.2, float("nan")])
def test_a_file_that_differs_is_refused_and_not_left(difference, small, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_draw_graph", lambda model, names, path: shutil.copy(exported / ONNX_FILE, path))
    monkeypatch.setattr(onnx_export, "largest_difference", lambda *_: difference)
    with pytest.raises(ValueError, match=rf"differs from the model by {difference:g}; `--tolerance` allows 0\.001"):
        export_onnx(small, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_file_says_where_code_stands_on_this_machine(exported):
    for name in (ONNX_FILE, INT8_FILE):
        content = (exported / name).read_bytes()
        assert str(Path(transformers.__file__).parent).encode() not in content
        assert b"modeling_bert.py" not in content


def test_weights_that_one_file_cannot_hold_lie_in_a_second_one(small, tiny_tokenizer, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(onnx_export, "LARGEST_FILE", 1_000)
        assert export_onnx(small, tmp_path, tiny_tokenizer) < 1e-5
        quantize_onnx(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {ONNX_FILE, DATA_FILE, INT8_FILE}
    assert (tmp_path / ONNX_FILE).stat().st_size < (tmp_path / DATA_FILE).stat().st_size
    # Elsewhere too.
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert largest_difference(small, OnnxModel(tmp_path / "copy" / ONNX_FILE)) < 1e-5
    assert largest_difference(small, OnnxModel(tmp_path / "copy" / INT8_FILE)) < 0.1
    # Nothing of a former export stays beside the next one.
    shutil.rmtree(tmp_path / "copy")
    export_onnx(small, tmp_path, tiny_tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == [ONNX_FILE]


def test_the_file_of_a_model_in_half_precision_is_fp32(small, tmp_path):
    assert export_onnx(small.to(torch.bfloat16), tmp_path) < 1e-5
    assert small.dtype == torch.bfloat16
    ids = torch.randint(5, 40, (2, 6))
    assert OnnxModel(tmp_path / ONNX_FILE)(ids)["logits"].dtype == torch.float32


def test_another_model_differs(classifier, exported, small):
    assert largest_difference(small, OnnxModel(exported / ONNX_FILE)) > 0.01


def test_inputs_are_what_the_tokenizer_makes_and_the_model_reads(small, tiny_tokenizer, exported):
    assert input_names(small, tiny_tokenizer) == ["input_ids", "attention_mask", "token_type_ids"]
    assert input_names(small) == ["input_ids", "attention_mask"]
    assert OnnxModel(exported / ONNX_FILE).input_names == input_names(small, tiny_tokenizer)


def test_outputs_have_the_names_of_the_model(tiny_bert_config, tiny_tokenizer, tmp_path, monkeypatch):
    model = BertForQuestionAnswering(tiny_bert_config(num_hidden_layers=1))
    assert export_onnx(model, tmp_path) < 1e-5
    assert OnnxModel(tmp_path / ONNX_FILE).output_names == ["start_logits", "end_logits"]
    # What the card says runs.
    tiny_tokenizer.save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(onnx_usage(".", "", "en", ["onnx"], "question-answering"), "card", "exec"), {})


def test_a_decoder_has_no_cache_among_its_outputs(tmp_path):
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    tokens = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForSequenceClassification(LlamaConfig(**sizes, **tokens, max_position_embeddings=32))
    assert export_onnx(model, tmp_path) < 1e-5
    assert OnnxModel(tmp_path / ONNX_FILE).output_names == ["logits"]
    assert model.config.use_cache


def test_a_model_that_torch_cannot_export_is_an_error_in_one_line(tmp_path):
    model = BiGRUForSequenceClassification(BiGRUConfig(vocab_size=40, hidden_size=8))
    with pytest.raises(ValueError, match=r"^BiGRUForSequenceClassification cannot be exported to ONNX: .*sort.*$"):
        export_onnx(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_it_says_how_to_install_them(small, tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(_optional.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"ONNX export needs the package `onnx`.*pip install 'hf_distill\[onnx\]'"):
        export_onnx(small, tmp_path)


def test_there_must_be_a_file_to_quantise(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model\.onnx in"):
        quantize_onnx(tmp_path)


def test_a_model_that_chooses_reads_any_number_of_texts(tiny_bert_config, tmp_path):
    model = BertForMultipleChoice(tiny_bert_config()).eval()
    assert export_onnx(model, tmp_path) < 1e-5
    ids = torch.randint(5, model.config.vocab_size, (3, 4, 7))
    mask = torch.ones_like(ids)
    mask[1, 2, 3:] = 0
    found = OnnxModel(tmp_path / ONNX_FILE)(ids, mask)["logits"]
    torch.testing.assert_close(found, model(input_ids=ids, attention_mask=mask).logits.detach())


@pytest.mark.parametrize(
    "setting", [{"output_hidden_states": True, "output_attentions": True}, {"return_dict": False}]
)
def test_what_a_model_returns_besides_stays_out_of_the_file(setting, tiny_bert_config, tmp_path):
    model = BertForSequenceClassification(tiny_bert_config(num_hidden_layers=1, **setting))
    before = model.config.to_dict()
    assert export_onnx(model, tmp_path) < 1e-5
    assert OnnxModel(tmp_path / ONNX_FILE).output_names == ["logits"]
    assert model.config.to_dict() == before


def test_a_model_without_a_mask_is_compared_at_every_token(tmp_path):
    config = FNetConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, intermediate_size=8)
    assert export_onnx(FNetForTokenClassification(config), tmp_path) < 1e-5
    assert OnnxModel(tmp_path / ONNX_FILE).input_names == ["input_ids"]
