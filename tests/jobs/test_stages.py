"""Stages of a job: how long the others take, at the speed of those that ran."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hf_distill.commands.stages import Stages
from hf_distill.storage.steps import mark, read_marker


@pytest.fixture
def stages(tmp_path):
    return Stages(tmp_path, ["teacher", "corpus", "distilled", "student"])


@dataclass
class Settings:
    """What a stage reads."""

    corpora: list[str]
    own: dict[str, str] = field(default_factory=dict)
    teacher_model: str | None = None
    index_dir: str | None = None


def run(folder, *given, task=None):
    """Whether the job of a stage ran."""
    ran = []
    job = lambda: ran.append(1) or {"seconds": 1.0}  # noqa: E731
    Stages(folder, ["corpus"], task).run("corpus", job, *given)
    return bool(ran)


@pytest.mark.parametrize(
    "named",
    [
        lambda file: Settings([f"wiki={file}"]),
        lambda file: Settings([], teacher_model=str(file)),
        lambda file: Settings([f"~/{file.name}"]),
    ],
    ids=["name", "text", "home"],
)
def test_other_files_of_the_same_name_are_seen_wherever_they_are_named(named, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "text.txt"
    file.write_text("one")
    assert run(tmp_path / "out", named(file))
    assert not run(tmp_path / "out", named(file))
    file.write_text("another")
    assert run(tmp_path / "out", named(file))


def test_files_that_were_written_again_or_moved_are_the_same(tmp_path):
    teacher = tmp_path / "here" / "teacher"
    teacher.mkdir(parents=True)
    (teacher / "model.safetensors").write_text("weights")
    (teacher / "README.md").write_text("card")
    assert run(tmp_path / "out", Settings([f"wiki={teacher}"], teacher_model=str(teacher)))
    os.utime(teacher / "model.safetensors", (1, 1))
    (teacher / "README.md").write_text("another card")
    assert not run(tmp_path / "out", Settings([f"wiki={teacher}"], teacher_model=str(teacher)))
    moved = teacher.parent.rename(tmp_path / "there") / "teacher"
    assert not run(tmp_path / "out", Settings([f"wiki={moved}"], teacher_model=str(moved)))
    assert run(tmp_path / "out", Settings([f"news={moved}"], teacher_model=str(moved))), "its name is in the corpus"


def test_indexes_that_a_stage_leaves_are_no_input(tmp_path):
    assert run(tmp_path / "out", Settings(["a"], index_dir=str(tmp_path / "indexes")))
    (tmp_path / "indexes").mkdir()
    (tmp_path / "indexes" / "index.bin").write_text("made by the stage")
    assert not run(tmp_path / "out", Settings(["a"], index_dir=str(tmp_path / "indexes")))


def test_a_text_of_any_length_is_no_path(tmp_path):
    assert run(tmp_path / "out", Settings(["long " * 1000]))
    assert not run(tmp_path / "out", Settings(["long " * 1000]))


def test_other_rows_of_a_task_around_the_folder_are_other_rows(tmp_path):
    assert run(tmp_path / "out", Settings([str(tmp_path)]), task="one")
    assert not run(tmp_path / "out", Settings([str(tmp_path)]), task="one")
    assert run(tmp_path / "out", Settings([str(tmp_path)]), task="other")


def test_a_folder_that_was_moved_is_the_same(tmp_path, monkeypatch):
    assert run(tmp_path / "out", Settings(["a"], {"output_dir": str(tmp_path / "out" / "corpus")}))
    (tmp_path / "out").rename(tmp_path / "moved")
    assert not run(tmp_path / "moved", Settings(["a"], {"output_dir": str(tmp_path / "moved" / "corpus")}))
    monkeypatch.chdir(tmp_path)
    assert not run(Path("moved"), Settings(["a"], {"output_dir": "moved/corpus"}))
    assert run(Path("moved"), Settings(["a"], {"output_dir": "moved/other"}))


def test_checkpoints_of_other_settings_are_gone_before_a_stage_begins(tmp_path):
    checkpoint = tmp_path / "corpus" / "checkpoint-3"
    run(tmp_path, Settings(["a"]))
    checkpoint.mkdir()
    mark(checkpoint.parent, read_marker(checkpoint.parent)["settings"])
    run(tmp_path, Settings(["a"]))
    assert checkpoint.is_dir(), "one that was killed may go on"
    run(tmp_path, Settings(["b"]))
    assert not checkpoint.exists()


def test_what_is_left_follows_from_work_and_seconds(stages):
    stages.work = {"teacher": 30.0, "distilled": 60.0, "student": 15.0}
    stages.seconds = {"teacher": 100.0, "corpus": 7.0}
    assert stages.seconds_left("distilled") == pytest.approx(250.0)
    stages.seconds["distilled"] = 350.0
    assert stages.seconds_left("student") == pytest.approx(15.0 * 450 / 90)


def test_nothing_is_said_of_what_is_not_known(stages):
    assert stages.seconds_left("teacher") is None
    stages.work = {"teacher": 30.0, "distilled": 60.0, "student": 15.0}
    assert stages.seconds_left("distilled") is None, "nothing ran"
    stages.seconds = {"teacher": 100.0}
    assert stages.seconds_left("corpus") is None, "nobody knows what the corpus takes"
    stages.seconds = {"corpus": 100.0}
    assert stages.seconds_left("distilled") is None, "the corpus says nothing about trainings"


def test_a_stage_says_its_number_and_what_is_left(stages, caplog):
    stages.begin("teacher")
    stages.work = {"teacher": 1.0, "corpus": 0.0, "distilled": 2.0, "student": 1.0}
    stages.seconds = {"teacher": 80.0}
    stages.begin("corpus")
    stages.seconds = {"teacher": 8.0}
    stages.begin("student")
    assert caplog.messages == [
        "[teacher] starts: stage 1 of 4, 0 minutes so far",
        "[corpus] starts: stage 2 of 4, 0 minutes so far, about 4 left",
        "[student] starts: stage 4 of 4, 0 minutes so far",
    ]
