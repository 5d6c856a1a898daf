"""A file takes the place of the model that it came from."""

import pytest
import torch
from tiny_data import write_rows

pytest.importorskip("onnxruntime", reason="pip install 'hf_distill[onnx]'")

from hf_distill.reports.onnx.onnx_model import INT8_FILE, OnnxModel
from hf_distill.settings import FineTuningArguments
from hf_distill.tasks import load_task
from hf_distill.trainers.fine_tuning.trainer import evaluate_model


def test_a_folder_opens_with_its_configuration(exported, classifier):
    model = OnnxModel.from_pretrained(exported)
    assert model.config.id2label == classifier.config.id2label
    assert model.output_names == ["logits"]
    assert OnnxModel.from_pretrained(exported, file_name=INT8_FILE).path.name == INT8_FILE


def test_a_mask_and_token_types_that_are_left_out_are_those_of_one_text_without_padding(exported):
    model, ids = OnnxModel.from_pretrained(exported), torch.randint(5, 40, (2, 6))
    full = model(ids, torch.ones_like(ids), torch.zeros_like(ids))
    assert torch.equal(model(ids)["logits"], full["logits"])


def test_it_is_scored_like_any_model(exported, classifier, tiny_tokenizer, sentences, tmp_path):
    for split in ("train", "validation"):
        rows = [{"text": text, "label": index % 2} for index, text in enumerate(sentences)]
        write_rows(tmp_path / f"{split}.jsonl", rows)
    task = load_task(str(tmp_path), text_columns=["text"], label_names=["negative", "positive"], metrics=["accuracy"])
    args = FineTuningArguments(str(tmp_path / "out"), use_cpu=True, report_to="none", disable_tqdm=True)
    scores = [
        evaluate_model(model, task, tiny_tokenizer, args, max_length=32)["validation"]
        for model in (classifier, OnnxModel.from_pretrained(exported))
    ]
    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-4)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="`hf-distill export` writes one"):
        OnnxModel(tmp_path / "model.onnx")
