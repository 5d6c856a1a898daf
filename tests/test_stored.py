"""A stored teacher teaches what the live one does; what does not fit it is refused."""

import copy

import datasets
import pytest
import torch

from hf_distill import DistillationArguments, DistillationTrainer
from hf_distill.signals import SignalRequest
from hf_distill.stored.precompute import precompute

OBJECTIVES = ["relation:1", "logits:0.5", "labels:0.3"]
EVERYTHING = SignalRequest(
    logits=True, hidden_states=frozenset({0, 2}), projections=frozenset({3}), attention_scores=frozenset({1})
)


@pytest.fixture(scope="module")
def rows(sentences, tiny_tokenizer):
    encoded = tiny_tokenizer(sentences, truncation=True, max_length=16)
    return datasets.Dataset.from_dict({**encoded, "labels": [i % 2 for i in range(len(sentences))]})


@pytest.fixture
def store(tmp_path, tiny_teacher, tiny_tokenizer, rows):
    """`store(**fields)`: the folder of the tiny teacher's signals."""

    def make(dataset=rows, teacher=tiny_teacher, objectives=OBJECTIVES, folder="stored", **fields):
        settings = {"processing_class": tiny_tokenizer, "dtype": "float32", **fields}
        return precompute(dataset, teacher, objectives, tmp_path / folder, **settings).folder

    return make


@pytest.fixture
def build(tmp_path, tiny_student, tiny_tokenizer):
    """`build(teacher, **arguments)`: a trainer of a fresh copy of the tiny student."""

    def make(teacher, *, train_dataset=None, student=tiny_student, tokenizer=tiny_tokenizer, **arguments):
        arguments = {
            "output_dir": str(tmp_path / "run"),
            "objectives": OBJECTIVES,
            "max_steps": 8,
            "per_device_train_batch_size": 8,
            "logging_steps": 1,
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
            "train_sampling_strategy": "sequential",
            **arguments,
        }
        return DistillationTrainer(
            model=copy.deepcopy(student),
            teacher_model=teacher,
            args=DistillationArguments(**arguments),
            train_dataset=train_dataset,
            processing_class=tokenizer,
        )

    return make


def logs(trainer):
    return [
        {k: v for k, v in entry.items() if "loss" in k or k == "grad_norm"} for entry in trainer.state.log_history[:-1]
    ]


def test_training_equals_that_with_the_live_teacher_bit_for_bit(store, build, tiny_teacher, rows):
    live = build(tiny_teacher, train_dataset=rows)
    live.train()
    stored = build(store(batch_size=8, shard_rows=8))
    stored.train()
    assert logs(stored) == logs(live)
    for one, two in zip(stored.student.parameters(), live.student.parameters(), strict=True):
        assert torch.equal(one, two)
