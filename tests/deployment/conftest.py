"""One exported classifier for all tests that only read it."""

import copy

import pytest
from trainings import sharpened
from transformers import BertForSequenceClassification, set_seed

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@pytest.fixture(scope="session")
def classifier(tiny_bert_config):
    """A classifier whose logits are far enough apart that its predictions mean something."""
    set_seed(0)
    config = tiny_bert_config(num_hidden_layers=2, id2label={0: "negative", 1: "positive"})
    return sharpened(BertForSequenceClassification(config))


@pytest.fixture(scope="session")
def exported(classifier, tiny_tokenizer, tmp_path_factory):
    """Its folder: `model.onnx`, `model_quantized.onnx`, configuration and tokenizer."""
    for package in PACKAGES:
        pytest.importorskip(package)
    from hf_distill.reports.onnx.onnx_export import export_onnx, quantize_onnx

    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(copy.deepcopy(classifier), folder, tiny_tokenizer)
    quantize_onnx(folder)
    classifier.config.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder
