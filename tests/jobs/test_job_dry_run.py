"""A dry run says what the run would do, and leaves no trace."""

import json

import pytest
import torch
from tiny_data import QUIET
from transformers import Trainer

from hf_distill import cli
from hf_distill.commands.distill import dry_run, run as distill, summary
from hf_distill.reports.dry_run import _KeptForBackward
from hf_distill.settings import (
    DistillationArguments,
    MultiTeacherArguments,
    StudentArguments,
    TeacherArguments,
    TextbookArguments,
)


@pytest.fixture
def folder(tmp_path, teacher, text):
    """`my-teacher/`, `sentences.txt`, and no `student/`."""
    return tmp_path


def arguments_of(folder, cls=DistillationArguments, teacher="my-teacher", **training):
    fields = {
        "output_dir": str(folder / "student"),
        "objectives": ["relation", "logits:0.5"],
        "per_device_train_batch_size": 8,
        "max_length": 16,
        "num_train_epochs": 2,
        "logging_steps": 1,
        **QUIET,
    }
    return (
        StudentArguments("2x12:2h:20"),
        TeacherArguments(str(folder / teacher) if teacher else None),
        TextbookArguments(str(folder / "sentences.txt")),
        cls(**{**fields, **training}),
    )


@pytest.mark.parametrize("objectives", [["relation", "logits:0.5"], ["hidden"]])
def test_it_gives_the_terms_of_the_first_step(objectives, folder):
    facts = dry_run(*arguments_of(folder, objectives=objectives))
    first = distill(*arguments_of(folder, objectives=objectives, max_steps=1))["history"][0]
    assert facts["terms"] == pytest.approx(
        {name.removeprefix("loss/"): value for name, value in first.items() if name.startswith("loss/")}, rel=1e-3
    )
    assert facts["loss"] == pytest.approx(first["loss"], rel=1e-3)


def test_it_says_what_would_be_trained(folder):
    facts = dry_run(*arguments_of(folder))
    assert facts["layers"] == {"relation": "student 2 <- teacher 3"}
    assert facts["signals"] == {
        "student": "queries, keys and values of layers 2; logits",
        "teacher": "queries, keys and values of layers 3; logits",
    }
    assert (facts["rows"], facts["steps"]) == (64, 16)
    assert facts["batch"]["rows"] == 8
    assert facts["batch"]["rows"] < facts["batch"]["tokens"] <= facts["batch"]["rows"] * facts["batch"]["length"]
    assert facts["settings"]["student_shape"] == "2x12:2h:20"
    assert "objective: relation x 1" in facts["description"]


def test_it_leaves_no_trace(folder, monkeypatch):
    def forbidden(*_args, **_kwargs):
        raise AssertionError("the Hub was called")

    monkeypatch.setattr(Trainer, "init_hf_repo", forbidden)
    arguments = arguments_of(folder, push_to_hub=True)
    before = sorted(folder.iterdir())
    dry_run(*arguments)
    assert sorted(folder.iterdir()) == before
    # What was handed over is as it was.
    assert (arguments[-1].output_dir, arguments[-1].push_to_hub) == (str(folder / "student"), True)


def test_memory_is_counted_by_part(folder, tiny_teacher):
    facts = dry_run(*arguments_of(folder))
    memory = facts["memory"]
    assert memory["teachers"] == 4 * tiny_teacher.num_parameters()
    assert memory["gradients"] == memory["student"]
    assert memory["optimizer"] == 2 * memory["student"]
    # Twice the rows keep twice as much for the backward pass, within what a first batch of other lengths changes.
    more = dry_run(*arguments_of(folder, per_device_train_batch_size=16))["memory"]
    assert more["activations"] == pytest.approx(2 * memory["activations"], rel=0.2)
    assert dry_run(*arguments_of(folder, optim="sgd"))["memory"]["optimizer"] == 0


@pytest.mark.usefixtures("own_products")
def test_packed_weights_of_the_teacher_are_counted(folder, tiny_teacher):
    def packed(**settings):
        return dry_run(*arguments_of(folder, **settings))["memory"]["packed weights"]

    assert packed(fp32_matmul="strict") == 0
    # Not all of its weights: embeddings stay, and so does what comes after the last signal.
    assert 0 < packed(fp32_matmul="fast") < 4 * tiny_teacher.num_parameters()


def test_what_backward_keeps_is_counted_once_and_without_parameters():
    layer, inputs = torch.nn.Linear(4, 3), torch.ones(5, 4)
    kept = _KeptForBackward(layer)
    with kept:
        hidden = layer(inputs)
        (hidden * hidden + hidden.exp()).sum()
    # The inputs, the hidden values (kept by the product twice) and the exponentials.
    assert kept.num_bytes == 4 * (20 + 15 + 15)


def test_it_refuses_what_the_run_would_refuse(folder):
    with pytest.raises(ValueError, match="`--teacher_model` is missing"):
        dry_run(*arguments_of(folder, teacher=None))
    with pytest.raises(ValueError, match="relation_heads"):
        dry_run(*arguments_of(folder, objectives=[{"objective": "relation", "relation_heads": 7}]))
    assert not (folder / "student").exists()


def test_several_teachers(folder):
    teachers = [str(folder / "my-teacher")] * 2
    arguments = arguments_of(folder, MultiTeacherArguments, None, teacher_models=teachers, objectives=["logits"])
    facts = dry_run(*arguments)
    assert facts["signals"] == {"student": "logits", "teacher": "logits"}
    assert facts["memory"]["teachers"] > 0


def test_the_verb_prints_it_and_stops(folder, capsys):
    words = ["distill", "--dry_run", "--teacher_model", str(folder / "my-teacher"), "--student_shape", "2x12:2h:20"]
    words += ["--textbook", str(folder / "sentences.txt"), "--use_cpu", "--max_length", "16", "--report_to", "none"]
    assert cli.main([*words, "--output_dir", str(folder / "student")]) == 0
    out = capsys.readouterr().out
    for said in ("layers of relation: student 2 <- teacher 3", "relation/qq ", "memory, about ", "| student |"):
        assert said in out
    assert out.endswith("Dry run: nothing was trained or written.\n")
    assert not (folder / "student").exists()


def test_the_page_is_made_of_the_facts_alone(folder):
    facts = dry_run(*arguments_of(folder))
    assert summary(json.loads(json.dumps(facts))) == summary(facts)
