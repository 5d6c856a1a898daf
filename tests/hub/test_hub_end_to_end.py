"""From this machine to the Hub and back: pushed by the command, used in processes that have nothing but the Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset

import hf_distill
from hf_distill.cli import main
from hf_distill.commands.corpus import run as build_corpus
from hf_distill.hub.push import push_folder
from hf_distill.settings import CorpusArguments, TaskArguments

ROOT = Path(hf_distill.__file__).parents[1]
# What a user of the student and the corpus types.
READER = """
import json, os, sys
import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

text, shown = "a fine film", {}
for repo, revision in (("anna/student", None), ("anna/secret", "trial")):
    model = AutoModelForSequenceClassification.from_pretrained(repo, revision=revision)
    tokenizer = AutoTokenizer.from_pretrained(repo, revision=revision)
    with torch.no_grad():
        shown[repo] = model(**tokenizer(text, return_tensors="pt")).logits.tolist()
shown["pipeline"] = pipeline("text-classification", model="anna/student")(text)
for repo in ("anna/corpus", "anna/shards"):
    shown[repo] = load_dataset(repo, split="train")["text"][:]
try:
    AutoModelForSequenceClassification.from_pretrained("anna/secret", revision="trial", token="hf_bob")
except OSError as error:
    shown["others"] = type(error).__name__
json.dump(shown, open(sys.argv[1], "w"))
"""


@pytest.fixture
def fresh(tmp_path):
    """`fresh(server, *words)`: run Python with an empty home of the Hub, where only the server can be reached."""

    def run(server, *words):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTEST"))}
        environment |= {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": "hf_anna"}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)

    return run


@pytest.fixture
def built_corpus(tmp_path):
    """The folder of a corpus job."""
    task = {"sentence": ["a fine film", "a dull film"], "label": [1, 0], "idx": [0, 1]}
    for split in ("train", "validation"):
        (tmp_path / "sst2").mkdir(exist_ok=True)
        Dataset.from_dict(task).to_parquet(str(tmp_path / "sst2" / f"{split}.parquet"))
    (tmp_path / "general.txt").write_text("The film was fine.\nA dull plot of a film.\nRivers run.\n")
    folder = tmp_path / "corpus"
    arguments = {"corpus": str(tmp_path / "general.txt"), "corpus_dir": str(folder), "engine": "bm25s", "top_k": 3}
    results = build_corpus(TaskArguments("glue/sst2", data_dir=str(tmp_path / "sst2")), CorpusArguments(**arguments))
    assert results["rows"] == 2
    return folder


def test_what_is_pushed_is_used_elsewhere(
    hub, fresh, student_folder, built_corpus, corpus_folder, tiny_student, tiny_tokenizer, tmp_path
):
    done = fresh(hub, "-m", "hf_distill.cli", "push", student_folder, "student")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("uploaded to anna/student (model):")
    assert lines[-1].startswith(f"anna/student is at {hub.url}/anna/student (commit ")
    push_folder(student_folder, "secret", private=True, revision="trial")
    push_folder(built_corpus, "corpus")
    push_folder(corpus_folder, "shards")

    (tmp_path / "reader.py").write_text(READER)
    done = fresh(hub, tmp_path / "reader.py", tmp_path / "shown.json")
    assert done.returncode == 0, done.stderr
    shown = json.loads((tmp_path / "shown.json").read_text())
    with torch.no_grad():
        expected = tiny_student.eval()(**tiny_tokenizer("a fine film", return_tensors="pt")).logits
    for repo in ("anna/student", "anna/secret"):
        torch.testing.assert_close(torch.tensor(shown[repo]), expected)
    assert shown["pipeline"][0]["label"] == ("negative", "positive")[int(expected.argmax())]
    assert shown["pipeline"][0]["score"] == pytest.approx(float(expected.softmax(-1).max()))
    assert sorted(shown["anna/corpus"]) == ["A dull plot of a film.", "The film was fine."]
    assert shown["anna/shards"] == [f"row {row}" for row in range(6)]
    assert shown["others"] == "OSError"


def test_the_command_ends_with_one_line_where_the_hub_does_not_take_it(hub, student_folder, capsys):
    assert main(["push", str(student_folder), "anna/student", "--token", "hf_wrong"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("hf-distill push: The Hub does not know the token that was given (the Hub says: ")
    assert said.endswith(f"to go on: hf-distill push {student_folder} anna/student\n")
    assert said.count("\n") == 1
