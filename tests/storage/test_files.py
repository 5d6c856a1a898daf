"""Files are whole or not there, damage is said with the file's name, and nothing else of the package writes files."""

import errno
import json
import os
import re
import resource
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import hf_distill
from hf_distill.storage import files
from hf_distill.storage.files import (
    SCRATCH,
    DamagedFileError,
    DiskFullError,
    append_text,
    checksum_of,
    copy_folder,
    is_full,
    new_file,
    new_files,
    new_folder,
    read_json,
    read_mapping,
    read_text,
    read_yaml,
    remove_abandoned,
    write_arrays,
    write_bytes,
    write_json,
    write_text,
    write_yaml,
)

PACKAGE = Path(hf_distill.__file__).parent
# A file that grows and whose journal says how far it is right.
GROWS = "corpus/search/streams.py"


def test_no_other_module_writes_files():
    own = re.compile(
        r"\.write_(text|bytes)\(|\bopen\([^)]*[\"'](w|a|x)b?\+?[\"']|json\.dump\(|yaml\.dump\(|os\.replace|os\.rename"
        r"|shutil\.(copy|move|rmtree)|safe_dump\([^)]*,\s*(stream|file)|mkstemp"
    )
    found = [
        f"{path.relative_to(PACKAGE)}: {match.group()}"
        for path in PACKAGE.rglob("*.py")
        for match in own.finditer(path.read_text(encoding="utf-8"))
        if path.parent != PACKAGE / "storage" and path.relative_to(PACKAGE).as_posix() != GROWS
    ]
    assert not found, "write with hf_distill.storage.files"


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    for name, reader, found in (("a.json", files.read_json, {"a": 1}), ("a.yaml", files.read_yaml, {"a": 1})):
        (tmp_path / name).write_text(json.dumps(found), encoding="utf-8-sig")
        assert reader(tmp_path / name) == found
    assert files.read_text(tmp_path / "a.json") == '{"a": 1}'


def test_what_is_written_is_read(tmp_path):
    content = {"name": "Zoë", "values": [1, 2.5, None]}
    assert read_json(write_json(tmp_path / "new" / "a.json", content)) == content
    assert read_yaml(write_yaml(tmp_path / "a.yaml", content)) == content
    assert read_text(write_text(tmp_path / "a.txt", "a\nb")) == "a\nb"
    append_text(tmp_path / "a.txt", "\nc\n")
    assert (tmp_path / "a.txt").read_bytes() == b"a\nb\nc\n"
    arrays = [np.arange(5), np.ones((2, 3), np.float32)]
    assert write_arrays(tmp_path / "a.bin", arrays) == (64, checksum_of(tmp_path / "a.bin"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.txt", "a.yaml", "new"]


@pytest.mark.parametrize("maker", [new_file, new_files, new_folder])
def test_an_error_leaves_what_was_there(maker, tmp_path):
    target = tmp_path / "target"
    before = target if maker is new_file else target / "old"
    write_text(before, "before")

    def stop(part):
        (part if maker is new_file else part / "old").write_text("half")
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"), maker(target) as part:
        stop(part)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert before.read_text() == "before"
    assert maker is new_file or [path.name for path in target.iterdir()] == ["old"]


def test_files_take_their_places_one_by_one_and_folders_as_a_whole(tmp_path):
    write_text(tmp_path / "kept" / "old", "old")
    with new_files(tmp_path / "kept") as part:
        write_text(part / "deep" / "new", "new")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["deep", "old"]
    with new_folder(tmp_path / "kept") as part:
        write_text(part / "other", "other")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["other"]
    copy_folder(tmp_path / "kept", tmp_path / "copy", leave_out=["o*"])
    assert list((tmp_path / "copy").iterdir()) == []


def test_a_link_stays_a_link(tmp_path):
    write_text(tmp_path / "far" / "file", "before")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "file")
    write_text(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "file").read_text() == "after"


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "words")
    reader.join()
    assert read == ["words"]


@pytest.mark.parametrize("step", range(6))
def test_a_kill_leaves_the_old_file_or_the_new_one(step, tmp_path):
    write_text(tmp_path / "file", "before")
    process = os.fork()
    if not process:
        moments = [("open", 0), ("fsync", 0), ("fsync", 1), ("replace", 0), ("replace", 1), ("rmdir", 0)]
        name, after = moments[step]
        original = getattr(os, name) if name != "open" else Path.open

        def killing(*args, **kwargs):
            if after:
                original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(Path if name == "open" else os, name, killing)
        write_text(tmp_path / "file", "after" * 1000)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status)
    assert (tmp_path / "file").read_text() == ("after" * 1000 if step >= 4 else "before")
    # What the killed process left is gone with the next file.
    write_text(tmp_path / "other", "")
    assert not list(tmp_path.glob(f"{SCRATCH}*"))


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    with new_files(tmp_path) as part:
        remove_abandoned(tmp_path)
        assert part.is_dir()


@pytest.fixture
def small_disk():
    """A process may write files of 4096 bytes at most, which fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "bytes": lambda path: write_bytes(path, bytes(10_000)),
    "torch": lambda path: _inside(path, lambda part: torch.save(torch.zeros(10_000), part)),
    "safetensors": lambda path: _inside(path, lambda part: safetensors.numpy.save_file({"a": np.zeros(5000)}, part)),
    "numpy": lambda path: _inside(path, lambda part: np.save(part.with_suffix(".npy"), np.zeros(5000))),
    "arrays": lambda path: write_arrays(path, [np.zeros(5000)]),
}


def _inside(path, write):
    with new_file(path) as part:
        write(part)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_whoever_writes(writer, small_disk, tmp_path):
    with pytest.raises(DiskFullError, match="The disk is full: file could not be written") as caught:
        WRITERS[writer](tmp_path / "file")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_known_by_what_it_came_from():
    outer = RuntimeError("could not save")
    outer.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_full(outer)
    closing = ValueError("I/O operation on closed file")
    closing.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_full(closing)
    assert not is_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_full(ValueError("three rows requested and four written down"))


@pytest.mark.parametrize(
    ("reader", "content"),
    [
        (read_json, b'{"a": [1, 2'),
        (read_json, b""),
        (read_json, b"\xff\xfe"),
        (read_json, b"[" * 100_000),
        (read_yaml, b"a: [1, 2"),
        (read_yaml, b"a: 2020-13-45"),
        (read_yaml, b"\x00"),
        (read_yaml, b"[" * 10_000),
        (read_mapping, b"- a\n- b\n"),
        (read_text, b"\xc3"),
    ],
)
def test_damage_is_one_line_with_the_name_of_the_file(reader, content, tmp_path):
    (tmp_path / "broken.file").write_bytes(content)
    with pytest.raises(DamagedFileError, match=re.escape(str(tmp_path / "broken.file"))) as caught:
        reader(tmp_path / "broken.file")
    assert "\n" not in str(caught.value)


def test_several_threads_may_write_one_file(tmp_path):
    contents = [json.dumps([number] * 1000) for number in range(4)]
    threads = [threading.Thread(target=write_text, args=(tmp_path / "file", text)) for text in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in contents
    assert files.checksum_of(tmp_path / "file")


def test_a_name_that_is_given_twice_is_no_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("base: &b {x: 1}\nown: {<<: *b, x: 2}\n")
    assert files.read_yaml(tmp_path / "a.yaml")["own"] == {"x": 2}
    (tmp_path / "a.yaml").write_text("x: 1\ny: {z: 1, z: 2}\n")
    with pytest.raises(files.DamagedFileError, match="'z' is given twice"):
        files.read_yaml(tmp_path / "a.yaml")
