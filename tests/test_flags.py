"""Flags are made of argument dataclasses as `HfArgumentParser` of transformers makes them."""

from dataclasses import dataclass, field
from typing import Literal

import pytest
from transformers import HfArgumentParser

from hf_distill import settings
from hf_distill.settings.flags import DataclassParser

# transformers' own fields that its parser gives a type that no word can have.
UNREADABLE = {"debug", "liger_kernel_config", "parallelism_config"}


@dataclass
class Job:
    """Settings of a job."""

    name: str = field(metadata={"help": "What it is called."})
    rows: int | None = None
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"
    layers: list[int] | None = None
    folders: list[str] = field(default_factory=lambda: ["here"])
    quick: bool = False
    export: bool = True
    greater: bool | None = None
    counted: str | bool = False


def job(*words):
    """The job that words make, and the words that are left."""
    (made,), rest = DataclassParser([Job], exit_on_error=False).instances(["--name", "x", *words])
    return made, rest


@pytest.mark.parametrize(
    ("words", "field_name", "value"),
    [
        ([], "rows", None),
        (["--rows", "3"], "rows", 3),
        (["--rate", "1e-3"], "rate", 1e-3),
        (["--kind", "b"], "kind", "b"),
        (["--layers", "1", "2"], "layers", [1, 2]),
        ([], "folders", ["here"]),
        (["--folders", "p", "q"], "folders", ["p", "q"]),
        (["--quick"], "quick", True),
        (["--quick", "no"], "quick", False),
        (["--export", "False"], "export", False),
        (["--no_export"], "export", False),
        (["--no-export"], "export", False),
        (["--greater"], "greater", True),
        (["--greater", "false"], "greater", False),
        (["--counted", "non_padding"], "counted", "non_padding"),
        (["--counted", "true"], "counted", True),
    ],
)
def test_a_word_becomes_a_value_of_its_field(words, field_name, value):
    made, rest = job(*words)
    assert getattr(made, field_name) == value
    assert rest == []


def test_words_that_no_flag_takes_are_given_back():
    assert job("--nothing", "3")[1] == ["--nothing", "3"]


def test_lists_of_two_instances_are_two_lists():
    assert job()[0].folders is not job()[0].folders


@pytest.mark.parametrize("words", [["--kind", "c"], ["--quick", "maybe"], ["--rows", "many"], ["--layers"]])
def test_words_that_a_field_cannot_have_are_errors(words, capsys):
    with pytest.raises(SystemExit):
        DataclassParser([Job]).instances(["--name", "x", *words])
    assert words[0] in capsys.readouterr().err


def test_a_field_without_a_default_must_be_given(capsys):
    with pytest.raises(SystemExit):
        DataclassParser([Job]).instances([])
    assert "--name" in capsys.readouterr().err


@pytest.mark.parametrize("name", settings.__all__)
def test_the_flags_of_every_argument_class_are_those_of_transformers_parser(name):
    cls = getattr(settings, name)
    theirs = {tuple(action.option_strings): action for action in HfArgumentParser(cls)._actions}
    ours = {tuple(action.option_strings): action for action in DataclassParser([cls])._actions}
    assert ours.keys() == theirs.keys()
    for options, action in ours.items():
        reference = theirs[options]
        if action.dest in UNREADABLE or options[0].startswith("--no_"):
            continue
        for fact in ("dest", "default", "required", "help"):
            assert getattr(action, fact) == getattr(reference, fact), (options[0], fact)
        assert list(action.choices or []) == list(reference.choices or []), options[0]
        # A switch that may also be left open (None) can here be turned on without a word behind it.
        assert action.nargs == reference.nargs or (action.nargs, action.const) == ("?", True), options[0]
