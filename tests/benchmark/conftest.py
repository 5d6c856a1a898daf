"""A tiny teacher and its student."""

import pytest
from transformers import BertConfig

from hf_distill.students.creation import create_student


def make(shape, **overrides):
    config = BertConfig(vocab_size=50, max_position_embeddings=16)
    return create_student(config, shape, model_class="AutoModelForSequenceClassification", **overrides).eval()


@pytest.fixture
def teacher_model():
    return make("2x24:2h:32")


@pytest.fixture
def student_model():
    return make("1x12:2h:16")
