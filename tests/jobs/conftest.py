"""What several jobs start from."""

import pytest
from tiny_data import save_model


@pytest.fixture
def teacher(tmp_path, tiny_teacher, tiny_tokenizer):
    """A folder with the tiny teacher and its tokenizer."""
    return save_model(tmp_path / "my-teacher", tiny_teacher, tiny_tokenizer)


@pytest.fixture
def text(tmp_path, sentences):
    """A file with one sentence a line."""
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(sentences), encoding="utf-8")
    return str(path)
