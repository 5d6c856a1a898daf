"""A training in fp32 on a GPU with tensor cores is told how to use them, and so is who asks what is installed."""

import pytest
import torch

from hf_distill.commands import info
from hf_distill.kernels import cuda
from hf_distill.trainers import base


@pytest.fixture
def gpu(monkeypatch):
    """`gpu(capability)`: torch sees one CUDA device."""

    def make(capability):
        answers = {"is_available": True, "get_device_capability": capability, "get_device_name": "a GPU"}
        answers["is_bf16_supported"] = capability >= (8, 0)
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, lambda *args, _answer=answer, **kwargs: _answer)

    return make


@pytest.mark.parametrize(("capability", "flags"), [((9, 0), ["--bf16", "--tf32 true"]), ((7, 5), [])])
def test_flags_are_those_that_the_device_has_units_for(capability, flags, gpu):
    gpu(capability)
    assert cuda.faster_flags() == flags


def test_without_a_gpu_there_is_nothing_to_say(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda.faster_flags() == []


def test_tf32_is_seen_however_it_was_chosen(monkeypatch):
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for precision in ("tf32", "ieee"):
            matmul.fp32_precision = precision
            assert cuda.fp32_is_tf32() == (precision == "tf32")
    finally:
        matmul.fp32_precision = before


def test_a_training_in_fp32_says_it_in_a_line(gpu, make_trainer, monkeypatch, warnings_of):
    said = warnings_of(base)
    gpu((9, 0))
    trainer = make_trainer(objectives=["relation"])
    for change in ({}, {"tf32": False}, {"mixed": "bf16"}):
        monkeypatch.setattr(trainer.args, "tf32", change.get("tf32"))
        monkeypatch.setattr(trainer.accelerator.state, "_mixed_precision", change.get("mixed", "no"))
        trainer._advise_arithmetic()
    assert len(said) == 1
    assert "`--bf16` or `--tf32 true`; `--tf32 false` stays in fp32" in said[0]


def test_info_says_it_too(gpu, monkeypatch):
    gpu((9, 0))
    monkeypatch.setattr(info, "_version", lambda name: "2.11")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert info._device()["tensor cores"] == "used by a training with --bf16 or --tf32 true"
    gpu((7, 0))
    assert info._device().keys() == {"device"}
