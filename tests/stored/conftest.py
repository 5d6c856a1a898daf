"""Rows, stored teachers and trainers for the tests of this folder."""

import copy

import datasets
import pytest
from stored_cases import OBJECTIVES

from hf_distill import DistillationArguments, DistillationTrainer
from hf_distill.teachers.stored.precompute import precompute


@pytest.fixture(scope="module")
def rows(sentences, tiny_tokenizer):
    encoded = tiny_tokenizer(sentences, truncation=True, max_length=16)
    return datasets.Dataset.from_dict({**encoded, "labels": [i % 2 for i in range(len(sentences))]})


@pytest.fixture
def left_tokenizer(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.padding_side = "left"
    return tokenizer


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

    def make(teacher, *, student=tiny_student, tokenizer=tiny_tokenizer, trainer=None, **arguments):
        arguments = {
            "output_dir": str(tmp_path / "run"),
            "objectives": OBJECTIVES,
            "max_steps": 4,
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
            processing_class=tokenizer,
            **(trainer or {}),
        )

    return make
