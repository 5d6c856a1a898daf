"""Every engine runs the same model, and says why where it cannot."""

from __future__ import annotations

import functools

import pytest
import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from hf_distill.reports.speed import engines as module
from hf_distill.reports.speed.engines import ENGINES, Engines, EngineUnavailableError
from hf_distill.reports.speed.latency import random_batch, weight_bytes
from hf_distill.students.recurrent import BiGRUConfig, BiGRUForSequenceClassification


@pytest.fixture
def batch(teacher_model):
    return random_batch(teacher_model, 50, 3, 8, seed=0)


@pytest.fixture
def without_inductor(monkeypatch):
    """Compile the graph but no kernels: the same model, in a second."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def test_all_of_them_compute_what_the_model_computes(teacher_model, batch, tmp_path, without_inductor):
    pytest.importorskip("onnxruntime", reason="pip install 'hf_distill[onnx]'")
    ways = Engines(teacher_model, tmp_path)
    with torch.no_grad():
        expected = teacher_model(**batch).logits
    for engine in ENGINES:
        found = ways.open(engine, batch)(batch)["logits"]
        assert (found - expected).abs().max() < (0.05 if engine == "onnx_int8" else 1e-5), engine
    assert list(ways.bytes) == list(ENGINES)
    assert ways.bytes["sdpa"] == weight_bytes(teacher_model)
    assert ways.bytes["onnx_int8"] == (tmp_path / "model_quantized.onnx").stat().st_size


def test_attention_is_switched_in_a_twin_that_shares_the_weights(teacher_model, batch, tmp_path, monkeypatch):
    used, original = [], type(teacher_model).forward

    def note(model, *args, **kwargs):
        used.append((model.config._attn_implementation, model.classifier.weight.data_ptr(), torch.is_grad_enabled()))
        return original(model, *args, **kwargs)

    monkeypatch.setattr(type(teacher_model), "forward", note)
    ways = Engines(teacher_model, tmp_path)
    for engine in ("sdpa", "eager"):
        ways.open(engine, batch)
    pointer = teacher_model.classifier.weight.data_ptr()
    assert used == [("sdpa", pointer, False), ("eager", pointer, False)]
    assert teacher_model.config._attn_implementation == "sdpa"


def test_an_attention_that_an_architecture_does_not_have(tmp_path, batch):
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = DebertaV2ForSequenceClassification(DebertaV2Config(vocab_size=50, **sizes))
    ways = Engines(model, tmp_path)
    with pytest.raises(EngineUnavailableError, match="DebertaV2ForSequenceClassification has no sdpa attention"):
        ways.open("sdpa", batch)
    assert ways.open("eager", batch)(batch).logits.shape == (3, 2)


def test_a_model_without_attention_runs_as_it_is(tmp_path, batch):
    model = BiGRUForSequenceClassification(BiGRUConfig(vocab_size=50, hidden_size=8))
    ways = Engines(model, tmp_path)
    assert torch.equal(ways.open("sdpa", batch)(batch)["logits"], ways.open("eager", batch)(batch)["logits"])


def test_without_a_compiler(teacher_model, batch, tmp_path, monkeypatch):
    def no_compiler(*_args, **_kwargs):
        def fail(**_inputs):
            raise RuntimeError("No working C++ compiler found.\nSecond line")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(EngineUnavailableError, match=r"^torch\.compile: No working C\+\+ compiler found\.$"):
        Engines(teacher_model, tmp_path).open("compiled", batch)


def test_an_error_of_the_model_itself_is_none_of_the_engine(teacher_model, batch, tmp_path):
    wrong = {**batch, "input_ids": batch["input_ids"].float()}
    with pytest.raises(RuntimeError):
        Engines(teacher_model, tmp_path).open("sdpa", wrong)


def test_without_onnx_or_on_another_device(teacher_model, batch, tmp_path, monkeypatch):
    def missing(*_args, **_kwargs):
        raise ImportError("ONNX export needs the package `onnx`.")

    monkeypatch.setattr(module, "export_onnx", missing)
    with pytest.raises(EngineUnavailableError, match="needs the package `onnx`"):
        Engines(teacher_model, tmp_path).open("onnx", batch)
    with pytest.raises(EngineUnavailableError, match="the model on meta: give `--use_cpu`"):
        Engines(teacher_model.to("meta"), tmp_path).open("onnx", batch)
