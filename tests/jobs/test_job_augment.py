"""The augmentation job: from a task and a masked language model to a folder that students learn from."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, load_dataset
from transformers import BertForMaskedLM, set_seed

from hf_distill.commands.augment import PAPER_NUM_SAMPLES, run as augment
from hf_distill.commands.textbook import read_textbook
from hf_distill.settings import AugmentationArguments, DistillationArguments, TaskArguments, TextbookArguments
from hf_distill.tasks.loading import load_task

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path, datasets_cache, tiny_tokenizer, tiny_bert_config, sentences):
    """SST-2 and RTE in GLUE's form, a masked language model, and a cache of their own."""
    for task, columns in (("sst2", ["sentence"]), ("rte", ["sentence1", "sentence2"])):
        (tmp_path / task).mkdir()
        rows = {column: sentences[8 * i : 8 * i + 6] for i, column in enumerate(columns)}
        rows |= {"label": [0, 1] * 3, "idx": list(range(6))}
        Dataset.from_dict(rows).to_parquet(str(tmp_path / task / "train.parquet"))
    set_seed(0)
    BertForMaskedLM(tiny_bert_config(initializer_range=0.3)).save_pretrained(tmp_path / "mlm")
    tiny_tokenizer.save_pretrained(tmp_path / "mlm")
    return tmp_path


def arguments(data, name="sst2", **fields):
    task = TaskArguments(f"glue/{name}", data_dir=str(data / name))
    settings = {"masked_lm": str(data / "mlm"), "corpus_dir": str(data / "out"), "num_samples": 5, "use_cpu": True}
    return task, AugmentationArguments(**settings | fields)


def test_the_job_writes_a_corpus_with_card_statistics_and_arguments(data):
    results = augment(*arguments(data))
    folder = data / "out"
    loaded = load_dataset(str(folder), split="train")
    assert loaded.column_names == ["text", "label", "row"]
    assert 6 < results["rows"] == len(loaded) <= 6 * 6
    assert json.loads((folder / "statistics.json").read_text()) == results["statistics"]
    assert yaml.safe_load((folder / "arguments.yaml").read_text())["num_samples"] == 5
    json.dumps(results)


def test_answers_that_have_moved_are_left_out(data, sentences, caplog):
    context = sentences[0]
    answer = {"text": [context[4:9]], "answer_start": [4]}
    row = {"id": "1", "question": "the dog runs?", "context": context, "answers": answer}
    Dataset.from_list([row]).to_parquet(str(data / "qa" / "train.parquet"))
    _, settings = arguments(data)
    augment(TaskArguments("squad", data_dir=str(data / "qa")), settings)
    assert load_dataset(str(data / "out"), split="train").column_names == ["text", "text_pair", "row"]
    assert "answers are left out" in caplog.text


def test_choices_are_refused(data):
    row = {"text": "the dog", "a": "runs", "b": "sees", "label": 0}
    Dataset.from_list([row]).to_parquet(str(data / "choices" / "train.parquet"))
    fields = {"text_columns": ["text"], "kind": "multiple_choice", "choice_columns": ["a", "b"]}
    task, settings = arguments(data)
    loaded = load_task(str(data / "choices"), splits=["train"], **fields)
    with pytest.raises(ValueError, match=r"is of the kind 'multiple_choice'.*allowed are text_classification, quest"):
        augment(task, settings, loaded=loaded)


@pytest.mark.parametrize(("name", "columns"), [("sst2", ["text"]), ("rte", ["text", "text_pair"])])
def test_a_student_reads_it_as_its_textbook(data, name, columns):
    results = augment(*arguments(data, name))
    textbook = TextbookArguments(textbook=[str(data / "out")])
    rows, _ = read_textbook(textbook, DistillationArguments(str(data / "student"), use_cpu=True))
    assert rows.column_names == columns
    assert len(rows) == results["rows"]


def test_the_card_says_how_it_was_made_and_names_no_folder_of_this_machine(data):
    augment(*arguments(data, "rte", work_dir=str(data / "work"), tinybert_compat=True))
    card = (data / "out" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["tags"] == ["hf_distill", "augmented-corpus", "knowledge-distillation"]
    assert str(data) not in card
    for fact in (
        "# Augmented corpus of glue/rte",
        "hf-distill augment --task glue/rte --masked_lm mlm --num_samples 5 --tinybert_compat --use_cpu",
        "`mlm` (BertForMaskedLM, float32)",
        "nearest words by the model's input embeddings",
        "5 times per text, one text of a pair after the other, each word is replaced with probability 0.4",
        "As in TinyBERT's code",
        "| `text_pair` |",
        "@inproceedings{jiao2020tinybert",
    ):
        assert fact in card
    assert "{{ " not in card


def test_draws_per_text_are_those_of_tinyberts_code_unless_given(data):
    assert augment(*arguments(data, num_samples=None))["statistics"]["settings"]["num_samples"] == 20
    by_count = {10: ["mnli", "qqp"], 20: ["qnli", "sst2"], 30: ["cola", "mrpc", "rte", "stsb"]}
    for count, tasks in by_count.items():
        assert sorted(task for task, number in PAPER_NUM_SAMPLES.items() if number == count) == [
            f"glue/{task}" for task in tasks
        ]


def test_only_the_rows_asked_for_are_augmented(data):
    task, augmentation = arguments(data)
    task.max_train_samples = 2
    assert augment(task, augmentation)["statistics"]["source_rows"] == 2


def test_a_run_that_was_killed_ends_as_one_that_was_not(data):
    """SIGKILL as soon as the first shard is finished; the second run does the rest."""
    task, augmentation = arguments(data, shard_texts=1)
    expected = augment(task, arguments(data, corpus_dir=str(data / "whole"))[1])
    words = (
        f"--task glue/sst2 --data_dir {data / 'sst2'} --masked_lm {data / 'mlm'} --corpus_dir {data / 'out'}".split()
    )
    words += ["--num_samples", "5", "--use_cpu", "--shard_texts", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "hf_distill", "augment", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    marker = data / "out" / "work" / "candidates-00000" / "_finished.json"
    while process.poll() is None and not marker.is_file():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert marker.is_file()
    first = marker.stat().st_mtime_ns
    results = augment(task, augmentation)
    one, other = (load_dataset(str(data / name), split="train") for name in ("out", "whole"))
    assert one[:] == other[:]
    assert results["rows"] == expected["rows"]
    assert marker.stat().st_mtime_ns == first, "a finished shard is not done again"


def test_no_model_is_an_error_that_names_the_flag(data):
    with pytest.raises(ValueError, match="`--masked_lm` is missing"):
        augment(*arguments(data, masked_lm=None))
