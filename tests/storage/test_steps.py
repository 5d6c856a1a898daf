"""A step is finished or absent, and its marker knows every change of its files."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from hf_distill.storage.files import DamagedFileError, damage_of_file
from hf_distill.storage.steps import (
    MARKER,
    DamagedStepError,
    Step,
    WorkFolder,
    begin,
    damage_of_noted,
    damage_of_step,
    describe_file,
    differences,
    finish,
    go_on,
    mark,
    note,
    read_marker,
)


@pytest.fixture
def step(tmp_path):
    folder = begin(tmp_path / "step")
    (folder / "deep").mkdir()
    (folder / "a.txt").write_text("content")
    (folder / "deep" / "b.bin").write_bytes(bytes(100))
    finish(folder, {"seed": 1})
    return folder


def test_a_finished_step_knows_its_settings_and_files(step):
    marker = read_marker(step)
    assert marker["settings"] == {"seed": 1}
    assert {name: file["bytes"] for name, file in marker["files"].items()} == {"a.txt": 7, "deep/b.bin": 100}
    assert damage_of_step(step) is None
    (step / "added").touch()
    assert damage_of_step(step) is None


def test_one_that_was_begun_again_is_empty_and_not_finished(step):
    begin(step)
    assert [path.name for path in step.iterdir()] == [MARKER]
    assert damage_of_step(step) == f"{str(step)!r} was not finished"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda step: (step / "a.txt").unlink(), "a.txt' is missing"),
        (lambda step: (step / "a.txt").write_text("conten"), "is damaged or cut short: it has 6 bytes, 7 were"),
        (
            lambda step: (step / "deep" / "b.bin").write_bytes(b"1" + bytes(99)),
            "b.bin' is damaged: its content",
        ),
        (lambda step: (step / MARKER).write_text("{"), f"{MARKER}' cannot be read as JSON"),
        (lambda step: (step / MARKER).write_text("[]"), f"{MARKER}' is not the marker"),
        (lambda step: (step / MARKER).write_text('{"settings": 3}'), f"{MARKER}' is not the marker"),
        (
            lambda step: (step / MARKER).write_text('{"finished": true, "files": {"a": 3}}'),
            f"{MARKER}' is not the marker",
        ),
        (lambda step: (step / MARKER).write_text("{}"), "was not finished"),
        (lambda step: (step / MARKER).unlink(), "was not finished"),
    ],
)
def test_every_change_is_named(change, said, step):
    change(step)
    assert said in damage_of_step(step)


def test_damage_of_single_files(tmp_path):
    torch.save({"a": torch.arange(100)}, tmp_path / "a.pt")
    safetensors.numpy.save_file({"a": np.arange(100)}, tmp_path / "a.safetensors")
    (tmp_path / "a.json").write_text(json.dumps({"a": list(range(100))}))
    (tmp_path / "a.other").write_text("anything")
    for path in list(tmp_path.iterdir()):
        assert damage_of_file(path) is None
        whole = path.read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:length])
            reason = damage_of_file(path)
            assert (reason is None) == (path.suffix == ".other")
            assert reason is None or (str(path) in reason and "\n" not in reason)
        path.write_bytes(whole)
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[data.index(bytes(torch.arange(100).numpy()))] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    assert "a.pt' is damaged (in '" in damage_of_file(tmp_path / "a.pt")
    assert "cannot be read" in damage_of_file(tmp_path / "none.json")


def test_what_differs_is_said_with_both_values():
    assert differences({"a": 1, "b": [1, 2], "c": None}, {"a": 1, "b": (1, 2)}) == ""
    said = differences({"a": 1, "b": 2}, {"b": 3, "c": 4}, "stored")
    assert said == "a: 1 stored, None now; b: 2 stored, 3 now; c: None stored, 4 now"


def test_a_step_is_gone_on_with_where_it_was_begun_with_the_same_settings(tmp_path):
    folder = tmp_path / "step"
    marker = go_on(folder, {"seed": 1, "rows": (1, 2)})
    assert (marker["finished"], marker["facts"], marker["files"]) == (False, {}, {})
    (folder / "a").write_text("whole")
    note(folder, marker, facts={"rows": 3}, files={"a": {**describe_file(folder / "a"), "rows": 3}})
    note(folder, marker, facts={"rows": 5})
    again = go_on(folder, {"seed": 1, "rows": (1, 2)})
    assert again == marker == read_marker(folder)
    assert (again["facts"], again["files"]["a"]["rows"]) == ({"rows": 5}, 3)
    assert damage_of_noted(folder / "a", again["files"]["a"]) is None
    assert go_on(folder, {"seed": 2})["facts"] == {}
    assert [path.name for path in folder.iterdir()] == [MARKER]


def test_a_step_whose_marker_cannot_be_read_is_begun_anew(tmp_path):
    go_on(tmp_path / "step", {"seed": 1})
    (tmp_path / "step" / MARKER).write_text("{")
    (tmp_path / "step" / "a").touch()
    assert go_on(tmp_path / "step", {"seed": 1})["settings"] == {"seed": 1}
    assert not (tmp_path / "step" / "a").exists()


def test_what_was_noted_of_a_file_stays_when_its_step_is_finished(tmp_path):
    marker = go_on(tmp_path, {})
    for name in ("noted", "other"):
        (tmp_path / name).write_text(name)
    note(tmp_path, marker, files={"noted": {**describe_file(tmp_path / "noted"), "rows": 7}})
    found = finish(tmp_path, {}, {"all": 2})
    assert found["files"]["noted"]["rows"] == 7
    assert found["files"].keys() == {"noted", "other"}
    assert read_marker(tmp_path)["facts"] == {"all": 2}
    assert damage_of_step(tmp_path) is None


def test_sizes_are_looked_at_without_reading_contents(step):
    (step / "deep" / "b.bin").write_bytes(b"1" + bytes(99))
    assert damage_of_step(step, content=False) is None
    (step / "deep" / "b.bin").write_bytes(bytes(99))
    assert "b.bin' is damaged or cut short" in damage_of_step(step, content=False)


def test_a_marker_can_stand_in_a_folder_of_others(tmp_path):
    (tmp_path / "theirs").touch()
    mark(tmp_path, {"stage": 1})
    assert damage_of_step(tmp_path) == f"{str(tmp_path)!r} was not finished"
    mark(tmp_path, {"stage": 1}, finished=True)
    assert damage_of_step(tmp_path) is None
    assert (tmp_path / "theirs").exists()


def a_step(folder, **settings):
    return Step(folder / "step", settings, "A step", "Run it again.")


def write_text(text, **facts):
    def work(folder):
        (folder / "file").write_text(text)
        return facts

    return work


def never(folder):
    raise AssertionError("done again")


def test_a_step_is_made_once_and_knows_what_it_cost(tmp_path):
    facts = a_step(tmp_path, seed=1).make(write_text("text", rows=3))
    assert (facts["rows"], facts["disk_bytes"]) == (3, 4)
    assert facts["seconds"] >= 0
    assert a_step(tmp_path, seed=1).make(never) == a_step(tmp_path, seed=1).facts() == facts
    assert a_step(tmp_path, seed=1).file("file").read_text() == "text"
    with pytest.raises(DamagedStepError, match=r"A step has no file .*other'. Run it again."):
        a_step(tmp_path, seed=1).file("other")


def test_a_damaged_step_is_named_and_made_anew(tmp_path, caplog):
    step = a_step(tmp_path)
    step.make(write_text("text"))
    (tmp_path / "step" / "file").write_text("test")
    with pytest.raises(DamagedStepError, match=r"^A step is damaged: .*its content is not what .* Run it again.$"):
        step.check()
    with caplog.at_level("WARNING", logger="hf_distill.storage.steps"):
        step.make(write_text("text"))
    assert "It is made again." in caplog.text
    step.check()


def test_a_step_that_fails_is_absent(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        a_step(tmp_path).make(fail)
    assert a_step(tmp_path).facts() is None
    assert not list(tmp_path.iterdir())


def test_of_two_jobs_on_the_same_step_the_first_to_finish_leaves_its_result(tmp_path):
    def work(folder):
        if not a_step(tmp_path).facts():
            a_step(tmp_path).make(write_text("same", by="the other"))
        return write_text("same", by="this one")(folder)

    assert a_step(tmp_path).make(work)["by"] == "the other"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_a_step_of_other_settings_is_replaced(tmp_path):
    for seed in (1, 2):
        a_step(tmp_path, seed=seed).make(write_text(f"text {seed}"))
    assert a_step(tmp_path, seed=1).facts() is None
    assert a_step(tmp_path, seed=2).file("file").read_text() == "text 2"


def test_a_changed_word_of_a_marker_is_noticed(step):
    marker = (step / MARKER).read_text()
    (step / MARKER).write_text(marker.replace('"seed": 1', '"seed": 2'))
    with pytest.raises(DamagedFileError, match=f"{MARKER}' is damaged: its content is not what was written"):
        read_marker(step)


def test_steps_of_a_job_that_began_at_the_same_moment_are_not_taken(tmp_path):
    """Both found the folder empty, and the marker of one is gone."""
    WorkFolder(tmp_path, {"seed": 1}).step("draw", write_text("one"))
    mark(tmp_path, {"seed": 2})
    assert not WorkFolder(tmp_path, {"seed": 2}).is_finished("draw")


def test_a_work_folder_belongs_to_one_set_of_settings(tmp_path):
    work = WorkFolder(tmp_path / "work", {"seed": 1, "rows": (1, 2)})
    assert not work.is_finished("draw")
    work.step("draw", write_text("text", rows=3))
    again = WorkFolder(tmp_path / "work", {"seed": 1, "rows": [1, 2]})
    assert again.is_finished("draw")
    assert again.step("draw", never)["rows"] == 3
    assert (again.folder("draw") / "file").read_text() == "text"
    said = r"work' belongs to a corpus with other settings \(seed: 1 there, 2 now\).*--work_dir"
    with pytest.raises(ValueError, match=said):
        WorkFolder(tmp_path / "work", {"seed": 2, "rows": [1, 2]})
