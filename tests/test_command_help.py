"""The quick help page says what the argument classes say, although it never imports them."""

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from transformers import TrainingArguments

from hf_distill import settings as arguments
from hf_distill.cli import main
from hf_distill.commands import info
from hf_distill.settings.flags import DataclassParser
from hf_distill.settings.help import OFTEN_SET, defaults_in_source, help_page, lineage, read_argument_classes

ROOT = Path(arguments.__file__).parents[2]
CLASSES = read_argument_classes()
each_class = pytest.mark.parametrize("name", arguments.__all__)


def own_fields(name):
    """Flags that the page has for a class, with those of its ancestors in this package."""
    found = {}
    for cls in reversed(list(lineage(name, CLASSES))):
        found |= cls.flags
    return found


def literal_values(annotation):
    """Values of a `Literal`, also inside a union."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := literal_values(part))), ())


def as_written(value):
    """A default as a user would write it; nothing for what is unset or off."""
    if value is None or value is False or value == []:
        return None
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "on" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


@each_class
def test_every_field_is_there_with_its_text_default_and_choices(name):
    cls = getattr(arguments, name)
    read, hints = own_fields(name), typing.get_type_hints(cls)
    inherited = (
        {field.name for field in dataclasses.fields(TrainingArguments)}
        if issubclass(cls, TrainingArguments)
        else set()
    )
    fields = {field.name: field for field in dataclasses.fields(cls)}
    assert set(fields) - inherited <= set(read) <= set(fields)
    for flag in read.values():
        field = fields[flag.name]
        assert flag.help == field.metadata["help"]
        assert flag.choices == tuple(map(str, literal_values(hints[flag.name])))
        factory, default = field.default_factory, field.default
        has_default = factory is not dataclasses.MISSING or default is not dataclasses.MISSING
        assert flag.required == (not has_default)
        if has_default:
            value = default if factory is dataclasses.MISSING else factory()
            assert flag.negatable == (value is True)
            assert flag.default == as_written(value)


def test_defaults_are_read_as_they_are():
    found = defaults_in_source()
    assert ("temperature", "1.0") in found
    assert ("learning_rate", "0.0006") in found
    assert ("lr_scheduler_type", repr(TrainingArguments.lr_scheduler_type)) in found
    assert ("learning_rate", repr(TrainingArguments.learning_rate)) not in found
    assert ("optim", repr(TrainingArguments.optim)) in found


@each_class
def test_the_parser_has_the_flags_of_the_page(name):
    actions = DataclassParser([getattr(arguments, name)])._actions
    known = {option for action in actions for option in action.option_strings}
    for flag in own_fields(name).values():
        assert f"--{flag.name}" in known
        assert (f"--no_{flag.name}" in known) == flag.negatable


def test_a_base_class_stands_before_what_is_built_on_it_and_every_flag_once():
    page = help_page("prog", "Does it.", ["MultiTeacherArguments"])
    assert page.index("--objectives") < page.index("--teacher_models")
    lines = [line.split()[0].rstrip(",") for line in page.splitlines() if line.startswith("  --")]
    assert len(lines) == len(set(lines))


def test_flags_of_columns_stand_behind_the_task(capsys):
    page = help_page("prog", "Does it.", ["TaskArguments"])
    assert page.index("--task\n") < page.index("--metrics") < page.index("--text_columns")
    for verb in ("mtl", "grid", "bench", "predict"):
        assert main([verb, "--help"]) == 0
        page = capsys.readouterr().out
        assert page.index("--task") < page.index("--text_columns") < page.index("--class_names")


def test_a_field_with_another_default_in_a_subclass_is_shown_with_that_one():
    page = help_page("prog", "Does it.", ["ScoredTaskArguments"])
    assert page.count("--task\n") == 1
    assert "Required." not in page


def test_it_says_what_is_required_what_can_be_turned_off_and_what_is_allowed():
    page = help_page("prog", "Does it.", ["AdaptationArguments", "ExportArguments", "CorpusArguments"])
    assert "Hub id or local folder of the student. Required." in page
    assert "--quantize, --no_quantize" in page
    assert "--query {rake,content_words,text}" in page


def test_the_training_flags_that_it_names_exist():
    assert set(OFTEN_SET) <= {field.name for field in dataclasses.fields(TrainingArguments)}
    assert "--help_all" in help_page("prog", "Trains.", ["FineTuningArguments"])
    assert "--help_all" not in help_page("prog", "Does it.", ["CorpusArguments"])


def test_lines_fit_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    page = help_page("prog", "Does it.", ["CorpusArguments"])
    # A flag with its values is never broken.
    assert all(len(line) <= 60 for line in page.splitlines() if not line.startswith("  --"))


@pytest.mark.parametrize("topic", info.TOPICS)
def test_every_topic_is_shown_without_torch(topic, capsys):
    code = f"import sys; from hf_distill import cli; cli.main(['info', '{topic}']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    *shown, has_torch = done.stdout.splitlines()
    assert has_torch == "False"
    assert main(["info", topic]) == 0
    # Other tests register objectives and engines of their own.
    assert set(shown) <= set(capsys.readouterr().out.splitlines())
