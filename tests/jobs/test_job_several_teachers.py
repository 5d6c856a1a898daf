"""`hf-distill distill --teacher_models`: several teacher folders, one student."""

import copy
import gc
import json
import weakref

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_data import save_model
from tokenizer_cases import character_tokenizer
from transformers import BertForSequenceClassification

from hf_distill import DistillationTrainer, cli
from hf_distill.hub.loading import load_model
from hf_distill.hub.model_card import read_facts


@pytest.fixture
def teachers(tmp_path, tiny_teacher, tiny_tokenizer):
    """Folders of three teachers that disagree a little."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for shift, folder in enumerate(folders):
        model = copy.deepcopy(tiny_teacher)
        with torch.no_grad():
            model.classifier.weight.add_(0.1 * shift)
        save_model(folder, model, tiny_tokenizer)
    return [str(folder) for folder in folders]


@pytest.fixture
def text(tmp_path, sentences):
    """Rows of text that name their teacher."""
    path = tmp_path / "text.parquet"
    pq.write_table(pa.table({"text": sentences[:24], "teacher_id": [i % 3 for i in range(24)]}), path)
    return str(path)


@pytest.fixture
def run(tmp_path, text):
    """`run(*flags)`: the command line; the content of `results.json`."""

    def make(*flags, textbook=("--textbook", text), folder="student"):
        settings = [
            "--student_shape", "2x12:2h:20", "--max_steps", "2", "--max_length", "16", "--logging_steps", "1",
            "--per_device_train_batch_size", "8", "--save_strategy", "no", "--use_cpu", "--disable_tqdm", "True",
            "--report_to", "none", "--output_dir", str(tmp_path / folder),
        ]  # fmt: skip
        status = cli.main(["distill", *settings, *textbook, *map(str, flags)])
        results = tmp_path / folder / "results.json"
        return json.loads(results.read_text()) if status == 0 else status

    return make


def losses(results):
    return [entry["loss"] for entry in results["history"]]


def test_a_student_learns_from_several_folders(run, teachers, tmp_path):
    results = run("--teacher_models", *teachers, "--combine", "mean_probabilities", "--teacher_weights", 2, 1, 1)
    assert results["teacher"] == ["one", "two", "three"]
    assert list(results["objectives"]) == ["logits"]
    assert results["settings"]["combine"] == "mean_probabilities"
    assert results["settings"]["teacher_weights"] == [2.0, 1.0, 1.0]
    assert [fact.name for fact in read_facts(tmp_path / "student").teacher] == ["one", "two", "three"]
    assert str(tmp_path) not in (tmp_path / "student" / "README.md").read_text()

    written = str(tmp_path / "student" / "arguments.yaml")
    assert cli.main(["distill", written, "--output_dir", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert losses(again) == losses(results)


def test_one_of_several_is_the_one_teacher(run, teachers):
    several = run("--teacher_models", teachers[0], folder="several")
    plain = run("--teacher_model", teachers[0])
    assert losses(several) == losses(plain)
    assert several["teacher"] == plain["teacher"]
    assert several["teacher_parameters"] == plain["teacher_parameters"]


def test_rows_of_the_textbook_may_name_their_teacher(run, teachers):
    results = run("--teacher_models", *teachers, "--combine", "route", "--objectives", "logits", "relation")
    assert len(losses(results)) == 2
    assert run("--teacher_models", *teachers, "--combine", "mean_logits", "--objectives", "relation") == 2


def test_stored_teachers_bring_their_rows(run, teachers, text, tmp_path):
    stored = [str(tmp_path / f"stored_{index}") for index in range(2)]
    for teacher, folder in zip(teachers, stored, strict=False):
        words = ["--teacher_model", teacher, "--textbook", text, "--objectives", "logits", "--store_dtype", "float32"]
        assert cli.main(["precompute", *words, "--max_length", "16", "--output_dir", folder]) == 0
    flags = ("--objectives", "logits", "--train_sampling_strategy", "sequential")
    live = run("--teacher_models", *teachers[:2], *flags, "--student_init", "random", folder="live")
    from_disk = run("--teacher_models", *stored, *flags, textbook=())
    assert losses(from_disk) == pytest.approx(losses(live), rel=1e-5)
    assert from_disk["teacher_parameters"] == live["teacher_parameters"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher_model", "x", "--teacher_models", "a", "b"], "`--teacher_model` is for one teacher"),
        (["--teacher_models", "a", "b", "--teacher_revision", "main"], "`--teacher_revision` is for one teacher"),
        (["--teacher_models", "no/such", "b"], "`--teacher_models`: cannot load 'no/such'"),
        (["--teacher_model", "x", "--combine", "route"], "`--combine` has no effect on one teacher"),
        ([], "`--teacher_model` is missing"),
    ],
)
def test_what_cannot_work_is_refused_with_the_flag_in_the_message(run, flags, message, capsys):
    assert run(*flags) == 2
    assert message in capsys.readouterr().err


def test_teachers_of_different_vocabularies_are_refused(run, teachers, tmp_path, capsys):
    path = tmp_path / "two" / "tokenizer.json"
    stored = json.loads(path.read_text())
    one, two = list(stored["model"]["vocab"])[-2:]
    vocabulary = stored["model"]["vocab"]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    path.write_text(json.dumps(stored))
    assert run("--teacher_models", *teachers) == 2
    assert "tokenizers differ" in capsys.readouterr().err


def test_every_teacher_may_read_with_its_own_tokenizer(run, teachers, tmp_path, sentences, tiny_bert_config):
    characters = character_tokenizer(sentences)
    model = BertForSequenceClassification(
        tiny_bert_config(vocab_size=len(characters), hidden_size=32, id2label={0: "positive", 1: "negative"})
    )
    save_model(tmp_path / "characters", model, characters)
    layers = ['{"objective": "relation", "teacher": 1}', '{"objective": "hidden", "teacher": 0}', "logits"]
    settings = ["--teacher_models", teachers[0], tmp_path / "characters", "--align_tokenizers", "--max_length", 64]
    results = run(*settings, "--objectives", *layers)
    assert list(results["objectives"]) == ["relation", "hidden", "logits"]
    # A student of its own reads with its own tokenizer; that of the first teacher if it is made after it.
    further = run(*settings, "--student_model", tmp_path / "student", "--objectives", *layers, folder="further")
    assert losses(further)[0] < losses(results)[0]


def test_the_teachers_may_compute_on_a_device_of_their_own(run, teachers):
    assert losses(run("--teacher_models", *teachers, "--teacher_device", "cpu")) == losses(
        run("--teacher_models", *teachers)
    )


def test_a_teacher_in_int8_leaves_nothing_of_the_full_one(run, teachers, monkeypatch):
    pytest.importorskip("torchao")
    made = []

    def noting(*args, **kwargs):
        model = load_model(*args, **kwargs)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr("hf_distill.commands.distill_teachers.load_model", noting)
    held = []
    train = DistillationTrainer.train

    def checking(trainer, *args, **kwargs):
        gc.collect()
        held.extend(model for model in made if model() is not None)
        return train(trainer, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "train", checking)
    run("--teacher_models", *teachers, "--teacher_dtype", "int8")
    assert len(made) == 3
    assert not held
