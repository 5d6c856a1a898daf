"""Workers that die, jobs that fail, nodes that are lost."""

import importlib.util
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from hf_distill.jobs import shard_runners
from hf_distill.jobs.shard_runners import run_in_processes, run_with_ray

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'hf_distill[ray]'"
)


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
    with caplog.at_level("WARNING", logger="hf_distill.jobs.shard_runners"):
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


def wait_then_leave_a_file(folder, shard):
    """A job that takes a while, so that its node can be lost meanwhile."""
    leave_a_file(folder, shard)
    (Path(folder) / f"done-{shard}").unlink()
    time.sleep(2)
    (Path(folder) / f"done-{shard}").write_text("1")


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of Ray with a head without work and two nodes of one core each."""
    for name, value in {
        "RAY_health_check_initial_delay_ms": "500",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "4",
        # The jobs of this file are imported by name.
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]),
    }.items():
        monkeypatch.setenv(name, value)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.nodes = [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@needs_ray
def test_tasks_of_ray_do_every_shard_also_those_of_a_node_that_was_lost(tmp_path, cluster):
    job = partial(wait_then_leave_a_file, str(tmp_path))

    def lose_a_node():
        while not list(tmp_path.glob("attempts-*")):
            time.sleep(0.05)
        time.sleep(0.5)
        cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    run_with_ray(job, range(4), what="Trying")
    thread.join()
    assert set(done(tmp_path)) == {0, 1, 2, 3}
    attempts = {path.name: int(path.read_text()) for path in tmp_path.glob("attempts-*")}
    assert sum(attempts.values()) > 4, "no shard was lost"
    with pytest.raises(ValueError, match="unlucky"):
        run_with_ray(partial(leave_a_file, str(tmp_path)), [13], what="Trying")
