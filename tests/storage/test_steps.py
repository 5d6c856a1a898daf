"""A step is finished or absent, and its marker knows every change of its files."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from hf_distill.storage.files import damage_of_file
from hf_distill.storage.steps import MARKER, begin, damage_of_step, differences, finish, read_marker


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
        (lambda step: (step / MARKER).write_text("[]"), f"{MARKER}' is no marker"),
        (
            lambda step: (step / MARKER).write_text('{"finished": true, "files": {"a": 3}}'),
            f"{MARKER}' is no marker",
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
