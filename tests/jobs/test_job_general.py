"""The job for general corpora: a folder with card and statistics that students and corpora are made from."""

import json

import pytest
import yaml
from datasets import load_dataset
from tiny_data import write_rows

from hf_distill.commands.general import run as mix_general
from hf_distill.commands.textbook import read_textbook
from hf_distill.hub.selection import select_files
from hf_distill.settings import DistillationArguments, GeneralCorpusArguments, TextbookArguments


@pytest.fixture
def data(tmp_path, datasets_cache, sentences):
    (tmp_path / "one.txt").write_text("\n".join(sentences[:30]))
    write_rows(tmp_path / "two.jsonl", [{"text": text} for text in sentences[20:60]])
    return tmp_path


def run(data, **fields):
    arguments = {"corpora": [str(data / "one.txt"), f"two|2={data / 'two.jsonl'}"], "corpus_dir": str(data / "out")}
    return mix_general(GeneralCorpusArguments(**{**arguments, **fields}))


def test_it_writes_a_corpus_with_card_statistics_and_arguments(data):
    results = run(data, rows=[30], weights=[2.0, 1.0], corpus_licence="cc-by-4.0")
    folder = data / "out"
    loaded = load_dataset(str(folder), split="train")
    assert (loaded.column_names, len(loaded), results["rows"]) == (["text", "source"], 30, 30)
    assert json.loads((folder / "statistics.json").read_text()) == json.loads(json.dumps(results["statistics"]))
    assert yaml.safe_load((folder / "arguments.yaml").read_text())["rows"] == [30]
    card = (folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc-by-4.0"
    assert "general-corpus" in header["tags"]
    assert "| one.txt | 30 | 30 | 30 | 0 | 20 | 20 |" in card
    assert "| two\\|2 | 40 | 40 | 40 | 10 | 10 | 10 |" in card
    assert "hf-distill general --corpora one.txt=one.txt 'two|2=two.jsonl' --rows 30 --weights 2.0 1.0" in card
    assert str(data) not in card
    assert "{{" not in card


def test_the_same_command_gives_the_same_corpus(data):
    first = run(data, rows=[20])
    texts = load_dataset(str(data / "out"), split="train")["text"]
    assert run(data, rows=[20])["statistics"]["rows"] == first["rows"]
    assert load_dataset(str(data / "out"), split="train")["text"] == texts


def test_a_student_reads_it_as_its_textbook_and_a_push_takes_it_along(data):
    run(data)
    textbook = TextbookArguments(textbook=[str(data / "out")])
    rows, _ = read_textbook(textbook, DistillationArguments(str(data / "student"), use_cpu=True))
    assert len(rows) == 60
    pushed = {file.path for file in select_files(data / "out").files}
    assert pushed == {"README.md", "statistics.json", "data/train-00000-of-00001.parquet"}


def test_a_missing_corpus_is_named(data):
    with pytest.raises(FileNotFoundError, match=r"`--corpora` .*nowhere"):
        run(data, corpora=[str(data / "nowhere")])
    with pytest.raises(ValueError, match="Name at least one general corpus"):
        run(data, corpora=None)
