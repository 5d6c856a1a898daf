"""Workers that die and jobs that fail."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from hf_distill.corpus.shards import runners as shard_runners
from hf_distill.corpus.shards.runners import run_in_processes


def leave_a_file(folder, shard):
    """A job that dies as often as a file says, is killed where told, then leaves its result."""
    attempts = Path(folder) / f"attempts-{shard}"
    attempt = int(attempts.read_text()) + 1 if attempts.is_file() else 1
    attempts.write_text(str(attempt))
    deaths = Path(folder) / f"deaths-{shard}"
    if deaths.is_file() and attempt <= int(deaths.read_text()):
        os.kill(os.getpid(), signal.SIGKILL)
    if shard == 13:
        raise ValueError("unlucky")
    (Path(folder) / f"done-{shard}").write_text(str(attempt))


def run(folder, shards, workers=2):
    run_in_processes(partial(leave_a_file, str(folder)), shards, workers=workers, what="Trying")


def done(folder):
    return {int(path.name.partition("-")[2]): int(path.read_text()) for path in folder.glob("done-*")}


def test_every_shard_is_done_once(tmp_path):
    run(tmp_path, [0, 1, 2])
    assert done(tmp_path) == {0: 1, 1: 1, 2: 1}
    run(tmp_path, [])


def test_a_worker_that_was_killed_is_started_again(tmp_path, caplog):
    (tmp_path / "deaths-1").write_text("2")
    with caplog.at_level("WARNING", logger="hf_distill.corpus.shards.runners"):
        run(tmp_path, [0, 1, 2])
    assert done(tmp_path) == {0: 1, 1: 3, 2: 1}
    assert caplog.text.count("The process of shard 1 died (exit status -9); it is started again.") == 2


def test_a_worker_that_dies_again_and_again_ends_the_run_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_runners, "RETRIES", 1)
    (tmp_path / "deaths-1").write_text("99")
    with pytest.raises(ChildProcessError, match=r"shard 1 died 2 times \(exit status -9\).*--num_shards.*Finished"):
        run(tmp_path, [0, 1], workers=1)
    assert done(tmp_path) == {0: 1}


def test_an_error_of_a_job_ends_the_run_as_it_is(tmp_path):
    with pytest.raises(ValueError, match="unlucky"):
        run(tmp_path, [13, 1], workers=1)
