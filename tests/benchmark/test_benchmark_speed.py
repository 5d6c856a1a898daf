"""Speed protocol: what is run and how often, never how long it takes."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from hf_distill.reports.speed.latency import (
    Latency,
    describe_device,
    latency_ratio,
    weight_bytes,
)
from hf_distill.students.creation import create_student

SMALL = {"batch_size": 2, "seq_length": 8, "num_batches": 5, "warmup": 2}


@pytest.fixture
def teacher():
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return BertForSequenceClassification(config)


@pytest.fixture
def student(teacher):
    return create_student(teacher, "2x12:2h:16")


def record_calls(model, calls, name):
    def note(module, args, kwargs):
        calls.append((name, module.training, torch.is_grad_enabled(), kwargs["input_ids"].clone(), kwargs))

    return model.register_forward_pre_hook(note, with_kwargs=True)


def test_the_model_runs_in_eval_mode_without_gradients_and_keeps_its_mode(teacher, student):
    student.train()
    student.bert.embeddings.eval()
    calls = []
    record_calls(student, calls, "student")
    latency_ratio(teacher, student, **SMALL)
    assert not any(training or grad for _, training, grad, _, _ in calls)
    assert student.training
    assert student.classifier.training
    assert not student.bert.embeddings.training
    assert all(parameter.grad is None for parameter in student.parameters())
    assert student(input_ids=torch.tensor([[3]])).logits.requires_grad


def test_an_error_inside_leaves_the_mode_as_it_was(teacher, student):
    student.train()

    def fail(*_):
        raise RuntimeError("stop")

    student.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        latency_ratio(teacher, student, **SMALL)
    assert student.training


def test_teacher_and_student_take_turns_on_the_same_batch(teacher, student):
    calls = []
    record_calls(teacher, calls, "teacher")
    record_calls(student, calls, "student")
    result = latency_ratio(teacher, student, **SMALL)
    names = [name for name, *_ in calls]
    assert names == ["teacher", "student", "student", "teacher"] * 3 + ["teacher", "student"]
    first = calls[0][3]
    assert first.shape == (2, 8)
    assert all(torch.equal(first, ids) for *_, ids, _ in calls)
    assert all(int(kwargs["attention_mask"].min()) == 1 for *_, kwargs in calls)
    assert not (first == teacher.config.pad_token_id).any()
    # Two batches before those that count.
    assert len(result.teacher.seconds) == len(result.student.seconds) == 5
    assert min(result.student.seconds) > 0


def test_the_ratio_is_the_median_over_the_batches(teacher, student):
    result = latency_ratio(teacher, student, **SMALL)
    ratios = sorted(big / small for big, small in zip(result.teacher.seconds, result.student.seconds, strict=True))
    assert result.speedup == ratios[2]


def test_the_record_is_plain_data_with_sizes(teacher, student):
    record = latency_ratio(teacher, student, **SMALL).to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["student_parameters"] == sum(parameter.numel() for parameter in student.parameters())
    assert record["num_batches"] == 5
    assert record["dtype"] == "float32"
    assert "threads" in describe_device(torch.device("cpu"))


def test_the_size_is_that_of_the_saved_file(teacher, tmp_path):
    masked = BertForMaskedLM(teacher.config)
    masked.save_pretrained(tmp_path)
    on_disk = (tmp_path / "model.safetensors").stat().st_size
    assert weight_bytes(masked) < on_disk < weight_bytes(masked) + 20_000


def test_statistics_of_a_latency():
    result = Latency(batch_size=4, seq_length=8, seconds=(1.0, 2.0, 6.0))
    assert (result.mean, result.median, result.sentences_per_second) == (3.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_batches": 0}, "num_batches=0"),
        ({"warmup": -1}, "warmup=-1"),
        ({"seq_length": 17}, "seq_length=17, but BertForSequenceClassification has only 16 positions"),
    ],
)
def test_settings_out_of_range(teacher, student, setting, message):
    with pytest.raises(ValueError, match=message):
        latency_ratio(teacher, student, **{**SMALL, **setting})


def test_models_on_different_devices_do_not_compare(teacher, student):
    with pytest.raises(ValueError, match=r"teacher is on meta.*student on cpu"):
        latency_ratio(teacher.to("meta"), student, **SMALL)
