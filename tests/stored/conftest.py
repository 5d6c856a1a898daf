"""Rows, stored teachers and trainers for the tests of this folder."""

import copy
from functools import partial

import pytest
from stored_cases import OBJECTIVES

from hf_distill.teachers.stored.precompute import precompute


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
def build(make_trainer):
    """`build(teacher, **arguments)`: a trainer of a fresh copy of the tiny student."""
    return partial(make_trainer, objectives=OBJECTIVES)
