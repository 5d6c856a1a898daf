"""A file under command-line flags."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
import yaml

from hf_distill.settings import (
    DistillationArguments,
    FineTuningArguments,
    GridArguments,
    PipelineArguments,
    TextbookArguments,
)
from hf_distill.settings.parsing import (
    arguments_to_dict,
    changed_arguments,
    from_mapping,
    name_leading_words,
    parse,
    write_arguments,
)


@dataclass
class Model:
    name: str = field(metadata={"help": "Name."})
    layers: list[int] = field(default_factory=lambda: [1])


@dataclass
class Training:
    rate: float = 0.1
    mode: Literal["a", "b"] = "a"
    fast: bool = False
    limit: int | None = None


@pytest.fixture
def config(tmp_path):
    def write(**values):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return write


def test_flags_win_over_the_file_and_the_file_over_defaults(config):
    model, training = parse(
        [Model, Training], [config(name="file", rate=0.5, layers=[2, 3], fast=True), "--rate", "0.7"]
    )
    assert (model.name, model.layers) == ("file", [2, 3])
    assert (training.rate, training.mode, training.fast, training.limit) == (0.7, "a", True, None)


def test_a_mapping_of_the_file_is_changed_in_the_keys_that_a_flag_names(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "distill: {objectives: [relation], learning_rate: 1.0e-3, lr_scheduler_kwargs: {power: 2, lr_end: 0}}"
    )
    changes = {"max_steps": 2, "learning_rate": None, "lr_scheduler_kwargs": {"power": 3}}
    (found,) = parse([PipelineArguments], [str(file), "--distill", json.dumps(changes)])
    assert found.distill == {
        "objectives": ["relation"], "max_steps": 2, "lr_scheduler_kwargs": {"power": 3, "lr_end": 0},
    }  # fmt: skip
    (alone,) = parse([PipelineArguments], ["--distill", '{"max_steps": 2}'])
    assert alone.settings("distill") == {"max_steps": 2}
    with pytest.raises(ValueError, match="`--distill` must be JSON"):
        parse([PipelineArguments], [str(file), "--distill", "max_steps"])[0].settings("distill")
    students = tmp_path / "grid.yaml"
    students.write_text("{tasks: [glue/rte], students: {one: {max_steps: 1, seed: 3}, two: {}, three: {}}}")
    (grid,) = parse([GridArguments], [str(students), "--students", '{"one": {"max_steps": 2}, "two": null}'])
    assert grid.student_changes() == {"one": {"max_steps": 2, "seed": 3}, "three": {}}


def test_a_mapping_of_transformers_is_changed_likewise(tmp_path):
    file = tmp_path / "teach.yaml"
    file.write_text("{lr_scheduler_type: polynomial, lr_scheduler_kwargs: {power: 2, lr_end: 0}, output_dir: out}")
    (found,) = parse([FineTuningArguments], [str(file), "--lr_scheduler_kwargs", '{"power": 3}'])
    assert found.lr_scheduler_kwargs == {"power": 3, "lr_end": 0}


def test_numbers_that_yaml_reads_as_text_are_converted(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: x\nrate: 1e-4\nlimit: 3\n")
    _, training = parse([Model, Training], [str(path)])
    assert training.rate == 1e-4
    assert training.limit == 3


def test_an_unknown_name_in_the_file_is_refused(config):
    with pytest.raises(ValueError, match=r"unknown arguments \['rat'\].*'rate'"):
        parse([Model, Training], [config(name="x", rat=1)])


def test_a_missing_file_and_a_list_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
        parse(Model, [str(tmp_path / "nothing.yaml")])
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="pairs"):
        parse(Model, [str(tmp_path / "list.yaml")])


def test_written_arguments_can_be_read_back(tmp_path):
    arguments = DistillationArguments(
        str(tmp_path), objectives=["relation:1", "logits:0.5"], use_cpu=True, max_length=64
    )
    path = write_arguments(tmp_path, arguments)
    stored = yaml.safe_load(path.read_text())
    assert stored["objectives"] == ["relation:1", "logits:0.5"]
    assert stored["max_length"] == 64


def test_changed_arguments_leave_defaults_out():
    assert changed_arguments(Training(rate=0.2), Model("x")) == {"rate": 0.2, "name": "x"}
    assert arguments_to_dict(Training())["mode"] == "a"


def test_pairs_become_an_instance_with_the_types_of_its_fields():
    assert from_mapping(Training, {"rate": "1e-4", "mode": "b", "fast": True}, "here") == Training(1e-4, "b", True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1}, r"here has unknown arguments \['rat'\]; did you mean 'rate'\?"),
        ({"zzz": 1}, r"here has unknown arguments \['zzz'\]; known are \['fast', 'limit', 'mode', 'rate'\]"),
        ({"mode": "c"}, r"here: `mode` is 'c'; allowed are \['a', 'b'\]"),
        ({"limit": "many"}, r"here: `limit` is 'many'; it must be a number"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_mapping(Training, values, "here")


def test_a_value_of_the_file_must_be_one_that_a_flag_could_have(config):
    with pytest.raises(ValueError, match=r"config\.yaml': `mode` is 'c'; allowed are \['a', 'b'\]"):
        parse([Model, Training], [config(name="x", mode="c")])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("a b --fast", "--name a --mode b --fast"),
        ("a --fast b", "--name a --fast b"),
        ("--name a --mode b", "--name a --mode b"),
        ("file.yaml a", "file.yaml --name a"),
        ("a b c", "--name a --mode b c"),
        ("", ""),
    ],
)
def test_leading_words_get_the_names_of_flags(words, named):
    assert name_leading_words(words.split(), ("name", "mode")) == named.split()


@pytest.mark.parametrize("given", ["none", "tensorboard"])
def test_written_arguments_of_a_training_can_be_read_whatever_it_reports_to(given, tmp_path):
    written = FineTuningArguments(str(tmp_path), use_cpu=True, report_to=given)
    write_arguments(str(tmp_path), written)
    [read] = parse((FineTuningArguments,), [str(tmp_path / "arguments.yaml")], "")
    assert read.report_to == written.report_to


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--output_dir", ""], "`--output_dir` is empty"),
        (["--output_dir", "x", "--eval_task", ""], "`--eval_task` is empty"),
        (["--output_dir", "x", "--textbook", "a.txt", ""], r"`--textbook` is \['a.txt', ''\], of which one is empty"),
    ],
    ids=["folder", "task", "one of several"],
)
def test_a_variable_of_the_shell_that_is_not_set_is_no_working_folder(words, shown):
    with pytest.raises(ValueError, match=f"{shown}; give a value, or leave the flag out"):
        parse([TextbookArguments, DistillationArguments], ["--use_cpu", *words])
    left = ["--teacher_prompt", "", "--run_name", "", "--label_separator", " "]
    book, training = parse([TextbookArguments, DistillationArguments], ["--textbook", "a", "--output_dir", "x", *left])
    assert (training.teacher_prompt, training.run_name, book.label_separator) == ("", "", " ")


@pytest.mark.parametrize("steps", ["0", "-7"])
def test_steps_below_one_are_none_at_all(steps):
    with pytest.raises(ValueError, match=f"`--max_steps` is {steps}; it must be at least 1, or absent"):
        parse([DistillationArguments], ["--use_cpu", "--output_dir", "x", "--max_steps", steps])


def test_the_home_folder_is_found_where_no_shell_puts_it(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = config(
        textbook=["~/a=b c.txt", "c~/d.txt"],
        output_dir="~/out",
        label_separator="~",
        eval_task="~/dev.csv",
        use_cpu=True,
    )
    book, training = parse([TextbookArguments, DistillationArguments], [given])
    assert book.textbook == [f"{tmp_path}/a=b c.txt", "c~/d.txt"]
    assert (training.output_dir, training.eval_task) == (f"{tmp_path}/out", f"{tmp_path}/dev.csv")
    assert book.label_separator == "~"
    (grid,) = parse([GridArguments], ["--tasks", "t", "--models", "a=~/x", "b=c/~/d", "~/e"])
    assert grid.named_models() == [("a", f"{tmp_path}/x"), ("b", "c/~/d"), ("e", f"{tmp_path}/e")]
    assert from_mapping(PipelineArguments, {"output_dir": "~/p"}, "x").output_dir == f"{tmp_path}/p"


@pytest.mark.parametrize("length", [None, "16", 16.5])
def test_a_length_that_is_no_whole_number_is_refused_in_python_too(length):
    with pytest.raises(ValueError, match=r"`--max_length` is .*; it must be a whole number"):
        DistillationArguments("x", use_cpu=True, max_length=length)
