"""One run at a time writes to a folder, and nothing that is read is written to."""

import errno
import json
import os
import re
import signal
import socket
import threading
import time

import pytest
from killing import in_fork

from hf_distill.cli import end_in_order, run_command
from hf_distill.commands.folders import writes_folder
from hf_distill.settings import (
    CorpusArguments,
    DistillationArguments,
    PipelineArguments,
    ShardArguments,
    TaskArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.storage.files import SCRATCH, DiskFullError, new_file, remove_abandoned
from hf_distill.storage.folders import check_apart
from hf_distill.storage.steps import LOCK, FolderInUseError, end_with, in_turn, writing_to


def _hold(folder):
    with writing_to(folder):
        return sorted(os.listdir(folder))


def test_a_folder_is_held_by_one_process_and_by_it_as_often_as_it_wants(tmp_path):
    folder = tmp_path / "new"
    with writing_to(folder), writing_to(tmp_path / "x" / ".." / "new"):
        assert os.listdir(folder) == [LOCK]
        owner = f"process {os.getpid()} on {socket.gethostname()}"
        said = f"FolderInUseError: `--output_dir` {str(folder)!r} is being written by {owner}: wait for its end"
        with pytest.raises(AssertionError, match=re.escape(said)):
            in_fork(lambda: _hold(folder))
    assert not folder.exists(), "nothing was written into it"
    assert in_fork(lambda: _hold(folder)) == [LOCK]


def test_a_killed_run_holds_nothing(tmp_path):
    def killed():
        with writing_to(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(killed) == -signal.SIGKILL
    assert (tmp_path / LOCK).is_file()
    assert _hold(tmp_path) == [LOCK]
    assert os.listdir(tmp_path) == []


def test_what_a_worker_of_a_killed_run_still_holds_is_taken_over(tmp_path):
    receive, send = os.pipe()
    process = os.fork()
    if not process:
        with writing_to(tmp_path):
            if not os.fork():
                os.read(receive, 1)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(process, 0)[1])
    owner = json.loads((tmp_path / LOCK).read_text())
    assert owner["process"] != os.getpid()
    assert _hold(tmp_path) == [LOCK]
    os.write(send, b"x")


def test_a_process_of_a_container_with_the_name_of_this_machine_may_live(tmp_path, monkeypatch):
    def killed():
        with writing_to(tmp_path), new_file(tmp_path / "file"):
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", lambda _: "pid:[4026539999]")
        assert in_fork(killed) == -signal.SIGKILL
    remove_abandoned(tmp_path)
    assert list(tmp_path.glob(f"{SCRATCH}*"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", lambda _: "pid:[4026539999]")
        remove_abandoned(tmp_path)
    assert not list(tmp_path.glob(f"{SCRATCH}*"))


def test_who_wants_what_is_being_made_waits_for_it(tmp_path, monkeypatch, caplog):
    def enter():
        with in_turn(tmp_path / "index.lock", "The index"):
            return "made"

    def wait(_):
        raise InterruptedError(caplog.text)

    monkeypatch.setattr("hf_distill.storage.steps.time.sleep", wait)
    said = f"The index is being written by process {os.getpid()} on {socket.gethostname()}: this job waits"
    with in_turn(tmp_path / "index.lock", "The index"), pytest.raises(AssertionError, match=re.escape(said)):
        in_fork(enter)
    assert in_fork(enter) == "made"
    assert os.listdir(tmp_path) == []


def test_a_worker_ends_with_the_process_that_it_works_for(monkeypatch):
    monkeypatch.setattr("hf_distill.storage.steps.time.sleep", lambda _, sleep=time.sleep: sleep(0.01))
    alive, works = os.pipe()
    process = os.fork()
    if not process:
        parent = os.getpid()
        if not os.fork():
            os.close(alive)
            end_with(parent)
            threading.Event().wait(60)
            os._exit(0)
        os.kill(parent, signal.SIGKILL)
    os.close(works)
    os.waitpid(process, 0)
    started = time.monotonic()
    assert os.read(alive, 1) == b""
    assert time.monotonic() - started < 30


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("hf_distill.storage.steps.FileLock.acquire", refuse)
    with writing_to(tmp_path / "run"), in_turn(tmp_path / "lock", "The index"):
        (tmp_path / "run" / "file").touch()
    assert os.listdir(tmp_path / "run") == ["file"]


def test_what_a_scheduler_ends_leaves_nothing_unfinished(tmp_path, monkeypatch):
    def job():
        monkeypatch.delenv("RANK", raising=False)
        end_in_order()

        def write():
            with writing_to(tmp_path), new_file(tmp_path / "file"):
                receive, send = os.pipe()
                process = os.fork()
                if not process:
                    os.write(send, b"x")
                    threading.Event().wait(60)
                    os._exit(1)
                os.read(receive, 1)
                os.kill(process, signal.SIGTERM)
                assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGTERM
                os.kill(os.getpid(), signal.SIGTERM)

        return run_command("hf-distill corpus", write), os.listdir(tmp_path)

    assert in_fork(job) == (143, [])


def test_a_folder_that_cannot_be_made_is_named_with_its_flag(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"`--work_dir` '.*file/work' cannot be written to: Not a dir"):
        _hold_for_work(tmp_path / "file" / "work")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert _hold_for_work(tmp_path / "link") == [LOCK]


def _hold_for_work(folder):
    with writing_to(folder, "--work_dir"):
        return os.listdir(folder)


def test_the_other_processes_of_one_torchrun_hold_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with writing_to(tmp_path):
        assert os.listdir(tmp_path) == []


def test_a_full_disk_is_said_with_the_flag(tmp_path):
    with pytest.raises(DiskFullError, match="another disk \\(--corpus_dir\\)"), writing_to(tmp_path, "--corpus_dir"):
        raise RuntimeError("IoError: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("output", "read", "refused"),
    [
        ("a", "a", "is the folder of"),
        ("link", "a", "is the folder of"),
        ("a/../a/", "a", "is the folder of"),
        ("a/deep/new", "a", "lies inside"),
        ("link/new", "a", "lies inside"),
        ("runs", "runs/checkpoint-1", "would write over"),
        ("runs", "runs/checkpoint-1/file", "would write over"),
        ("runs", "link_to_checkpoint", "would write over"),
        ("runs", "runs/teacher", None),
        ("b", "a", None),
        ("ab", "a", None),
        ("a", "some/hub_id", None),
        ("a", "", None),
        ("a", None, None),
    ],
)
def test_an_input_is_never_an_output(output, read, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "runs/checkpoint-1", "runs/teacher"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs" / "checkpoint-1" / "file").touch()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "link_to_checkpoint").symlink_to("runs/checkpoint-1")
    for place in (output, tmp_path / output):
        if refused is None:
            check_apart(place, {"--teacher_model": read})
        else:
            said = f"`--output_dir` {os.fspath(place)!r} {refused} `--teacher_model` {read!r}"
            with pytest.raises(ValueError, match=re.escape(said)):
                check_apart(place, {"--teacher_model": ["another", read]})


@writes_folder("data", "work")
def job(*arguments):
    """What the folder holds while a job runs."""
    folder = next(getattr(item, "output_dir", None) or getattr(item, "corpus_dir", None) for item in arguments)
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else None


def test_jobs_hold_their_folder_and_refuse_what_they_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "text/data", "tasks/mood", "index"):
        (tmp_path / name).mkdir(parents=True)
    training = DistillationArguments("out", use_cpu=True)
    assert job(training, TeacherArguments("teacher"), TextbookArguments(["text"])) == [LOCK]
    assert not os.path.exists("out")
    for arguments, said in [
        (
            (DistillationArguments("teacher"), TeacherArguments("teacher")),
            "'teacher' is the folder of `--teacher_model`",
        ),
        ((DistillationArguments("text"), TextbookArguments(["x", "text"])), "is the folder of `--textbook` 'text'"),
        ((CorpusArguments(corpus="text", corpus_dir="text"),), "`--corpus_dir` 'text' is the folder of `--corpus`"),
        ((CorpusArguments(corpus="text/data", corpus_dir="text"),), "would write over `--corpus` 'text/data'"),
        ((CorpusArguments(corpus="text", work_dir="text/work"),), "`--work_dir` 'text/work' lies inside `--corpus`"),
        ((PipelineArguments("tasks"), TaskArguments("mood", data_dir="tasks")), "is the folder of `--data_dir`"),
    ]:
        with pytest.raises(ValueError, match=re.escape(said)):
            job(*arguments)
    # The working directory is where task files often lie.
    assert job(PipelineArguments("out"), TaskArguments("mood", data_dir=".")) == [LOCK]
    # Shards share their folder.
    assert job(CorpusArguments(corpus="text", corpus_dir="out"), ShardArguments(num_shards=2, shard=0)) is None


def test_the_lock_goes_into_no_push():
    assert LOCK.startswith("_")
    assert SCRATCH.startswith(".")
    assert issubclass(FolderInUseError, OSError)
