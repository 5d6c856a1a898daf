"""A model folder becomes a folder of ONNX files with scores beside PyTorch's."""

import json
import re

import numpy as np
import pytest
import torch
from tiny_data import save_model, write_task
from transformers import (
    AutoTokenizer,
    BertForQuestionAnswering,
    BertModel,
)

pytest.importorskip("onnx", reason="pip install 'hf_distill[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'hf_distill[onnx]'")
pytest.importorskip("onnxruntime", reason="pip install 'hf_distill[onnx]'")

from hf_distill.commands.card import run as make_card
from hf_distill.commands.export import run as export, summary
from hf_distill.hub.loading import load_model
from hf_distill.hub.selection import select_files
from hf_distill.reports.onnx.onnx_model import OnnxModel
from hf_distill.reports.speed.quality import read_quality
from hf_distill.settings import CardArguments, ExportArguments, ScoredTaskArguments
from hf_distill.students.sentence import Dense, Normalize, SentenceHead, encode_texts


@pytest.fixture
def folder(tiny_student, tiny_tokenizer, tmp_path):
    save_model(tmp_path / "student", tiny_student, tiny_tokenizer)
    return tmp_path / "student"


@pytest.fixture
def mood(tmp_path, sentences):
    """Arguments of a task of forty rows."""
    rows = [{"text": text, "label": ("negative", "positive")[i % 2]} for i, text in enumerate(sentences[:40])]
    write_task(tmp_path / "mood", [*rows, *rows])
    columns = {"text_columns": ["text"], "class_names": ["negative", "positive"]}
    return ScoredTaskArguments(str(tmp_path / "mood"), **columns, max_length=32, max_eval_samples=30)


def test_a_model_is_exported_quantised_and_scored_beside_itself(folder, mood):
    results = export(mood, ExportArguments(str(folder)))
    assert results["folder"] == str(folder / "onnx")
    assert results["files"] == ["model.onnx", "model_quantized.onnx"]
    assert results["difference"] < 1e-5 < results["int8_difference"] < 0.05
    assert results["bytes"]["onnx_int8"] < results["bytes"]["onnx"]
    scores = results["scores"]
    assert results["rows"] == 30
    assert scores["onnx"] == scores["pytorch"]
    # One row of thirty may change its side.
    assert abs(results["points"]["onnx_int8"]) <= 100 / 30 + 1e-6
    assert results["points"]["onnx_int8"] == pytest.approx(100 * (scores["onnx_int8"] - scores["pytorch"]))
    assert json.loads((folder / "onnx" / "export.json").read_text())["scores"] == scores
    # The folder is complete, and bench finds its scores.
    found = {path.name for path in (folder / "onnx").iterdir()}
    assert {"config.json", "tokenizer.json", "export.json", "arguments.yaml"} <= found
    assert OnnxModel.from_pretrained(folder / "onnx").config.id2label == {0: "negative", 1: "positive"}
    assert len(AutoTokenizer.from_pretrained(folder / "onnx")) > 5
    scored = {"job": "teach", "task": results["task"], "metric": "accuracy", "score": 0.5}
    (folder / "results.json").write_text(json.dumps(scored))
    assert read_quality(folder).on("onnx_int8") == results["scores"]["onnx_int8"]


def test_without_a_task_nothing_is_scored_and_without_quantize_there_is_no_int8(folder, tmp_path):
    results = export(
        ScoredTaskArguments(), ExportArguments(str(folder), output_dir=str(tmp_path / "out"), quantize=False)
    )
    assert results["files"] == ["model.onnx"]
    assert results["int8_difference"] is None
    assert "scores" not in results


def test_a_configuration_that_asks_for_attention_maps_stays_as_it_is_and_an_export_without_int8_leaves_none(folder):
    file = folder / "config.json"
    settings = json.loads(file.read_text()) | {"output_attentions": True, "output_hidden_states": True}
    file.write_text(json.dumps(settings))
    assert export(ScoredTaskArguments(), ExportArguments(str(folder)))["files"][-1] == "model_quantized.onnx"
    again = export(ScoredTaskArguments(), ExportArguments(str(folder), quantize=False))
    assert again["files"] == ["model.onnx"]
    assert OnnxModel.from_pretrained(folder / "onnx").output_names == ["logits"]
    assert json.loads(file.read_text()) == settings
    # The card of the student names what lies beside it.
    make_card(CardArguments(str(folder)))
    assert "| `onnx/model.onnx` | fp32 |" in (folder / "README.md").read_text()
    assert {"onnx/model.onnx", "onnx/config.json"} <= {file.path for file in select_files(folder).files}
    # Of other weights than these it is no file of the student any more.
    model = load_model(str(folder), flag="--model")
    torch.nn.init.ones_(model.classifier.bias)
    model.save_pretrained(folder)
    left_out = {file.path: file.reason for file in select_files(folder).left_out}
    assert "other weights" in left_out["onnx/model.onnx"]
    make_card(CardArguments(str(folder)))
    assert "onnx/model.onnx" not in (folder / "README.md").read_text()


def test_a_model_of_the_hub_has_no_folder_to_write_into():
    with pytest.raises(ValueError, match=r"`--model` 'org/name' is not a local folder.*`--output_dir`"):
        export(ScoredTaskArguments(), ExportArguments("org/name"))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"tolerance": 0.0}, "`--tolerance` is 0.0"), ({"eval_batch_size": 0}, "`--eval_batch_size`")],
)
def test_numbers_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        ExportArguments("model", **change)


def test_the_file_of_a_sentence_encoder_gives_its_vectors(
    tiny_bert_config, tiny_tokenizer, sentences, tmp_path, monkeypatch
):
    encoder = BertModel(tiny_bert_config(), add_pooling_layer=False).eval()
    head = SentenceHead(("mean", "cls"), [Dense(48, 8, activation="Tanh"), Normalize()])
    save_model(tmp_path / "encoder", encoder, tiny_tokenizer)
    head.save(tmp_path / "encoder", 24)
    results = export(ScoredTaskArguments(None), ExportArguments(str(tmp_path / "encoder")))
    assert results["difference"] < 1e-5 < results["int8_difference"]
    exported = OnnxModel.from_pretrained(tmp_path / "encoder" / "onnx")
    inputs = tiny_tokenizer(sentences[:7], padding=True, return_tensors="pt")
    found = exported(**{name: inputs[name] for name in exported.input_names})
    expected = encode_texts(encoder, head, tiny_tokenizer, sentences[:7])
    torch.testing.assert_close(found["sentence_embedding"], torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    # The code of the card prints the vectors of its texts.
    code = re.findall(r"```python\n(.*?)```", (tmp_path / "encoder" / "onnx" / "README.md").read_text(), re.DOTALL)[0]
    monkeypatch.chdir(tmp_path / "encoder" / "onnx")
    exec(compile(code.replace("_quantized", ""), "card", "exec"), names := {})
    found = names["session"].run(["sentence_embedding"], names["inputs"])[0]
    texts = ["A man plays the guitar.", "Somebody makes music."]
    assert np.allclose(found, encode_texts(encoder, head, tiny_tokenizer, texts), atol=1e-5)
    with pytest.raises(ValueError, match=r"compared by their vectors, not scored"):
        export(ScoredTaskArguments("glue/stsb"), ExportArguments(str(tmp_path / "encoder")))


def test_the_answers_of_a_model_are_scored_in_all_its_files(tiny_bert_config, tiny_tokenizer, sentences, tmp_path):
    """The graph knows no positions of answers, which the scorer needs all the same."""
    folder = save_model(tmp_path / "qa", BertForQuestionAnswering(tiny_bert_config()), tiny_tokenizer)
    rows = [
        {"question": "the", "context": text, "answers": {"text": [text[:3]], "answer_start": [0]}}
        for text in sentences
    ]
    fields = {"kind": "question_answering", "text_columns": ["question", "context"]}
    write_task(tmp_path / "task", rows, num_train=50, **fields)
    results = export(ScoredTaskArguments(str(tmp_path / "task"), max_length=32), ExportArguments(folder))
    assert results["scores"]["onnx"] == results["scores"]["pytorch"]
    assert results["scores"].keys() == {"pytorch", "onnx", "onnx_int8"}


@pytest.mark.parametrize(("folder", "pushed"), [("my model/onnx", "'my model'"), ("elsewhere", "elsewhere")])
def test_the_folder_to_push_is_said(folder, pushed):
    results = {"bytes": {}, "difference": 0.0, "folder": folder, "model": "my model"}
    assert summary(results).endswith(f"go on with: hf-distill push {pushed} USER/NAME --dry_run")
