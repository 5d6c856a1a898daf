"""Folders as the jobs leave them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_cases import LEFTOVERS, touch

from hf_distill.hub.dataset_card import LOCAL_FOLDER
from hf_distill.hub.model_card import CardFacts, ModelFacts, write_model_card


@pytest.fixture
def student_folder(tmp_path, tiny_student, tiny_tokenizer):
    """A tiny student with tokenizer, card and results, amid everything that a training leaves."""
    folder = tmp_path / "out" / "student"
    tiny_student.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    write_model_card(folder, CardFacts("student", [], ModelFacts("student"), pipeline_tag="text-classification"))
    results = {"job": "distill", "teacher": "/home/me/teacher", "model": "student", "history": [{"loss": 0.5}]}
    (folder / "results.json").write_text(json.dumps(results))
    touch(folder, LEFTOVERS)
    return folder


@pytest.fixture
def corpus_folder(tmp_path):
    """Three shards of two rows, with card and statistics, amid the work of the build."""
    folder = tmp_path / "out" / "corpus"
    (folder / "data").mkdir(parents=True)
    for shard in range(3):
        table = pa.table({"text": [f"row {2 * shard}", f"row {2 * shard + 1}"]})
        pq.write_table(table, folder / "data" / f"train-{shard:05d}-of-00003.parquet")
    card = f'---\nlicense: mit\ntags: [hf_distill]\n---\n\n# Corpus\n\nload_dataset("{LOCAL_FOLDER}", split="train")\n'
    (folder / "README.md").write_text(card)
    (folder / "statistics.json").write_text("{}")
    touch(folder, ["work/hits/hits.arrow", "arguments.yaml", "_finished.json", "results.json"])
    return folder
