"""What several jobs start from."""

import pytest
from datasets import Dataset
from tiny_data import save_model
from transformers import BertModel, set_seed


@pytest.fixture
def teacher(tmp_path, tiny_teacher, tiny_tokenizer):
    """A folder with the tiny teacher and its tokenizer."""
    return save_model(tmp_path / "my-teacher", tiny_teacher, tiny_tokenizer)


@pytest.fixture
def encoder(tmp_path, tiny_bert_config, tiny_tokenizer):
    """A folder with a tiny encoder without a head and its tokenizer."""
    set_seed(0)
    return save_model(tmp_path / "encoder", BertModel(tiny_bert_config()), tiny_tokenizer)


@pytest.fixture
def datasets_cache(tmp_path, monkeypatch):
    """A cache of `datasets` of the test's own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(request, tmp_path, datasets_cache):
    """The module's `TASK` in GLUE's form (split -> texts) and its `GENERAL` corpus, a line each, in one folder."""
    (tmp_path / "sst2").mkdir()
    for split, texts in request.module.TASK.items():
        rows = {"sentence": texts, "label": [row % 2 for row in range(len(texts))], "idx": range(len(texts))}
        Dataset.from_dict(rows).to_parquet(str(tmp_path / "sst2" / f"{split}.parquet"))
    (tmp_path / "general.txt").write_text("\n".join(request.module.GENERAL) + "\n")
    return tmp_path


@pytest.fixture
def text(tmp_path, sentences):
    """A file with one sentence a line."""
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(sentences), encoding="utf-8")
    return str(path)
