"""Runs one job per shard, in local processes or as Ray tasks; the shard of a dead worker is done again.

A job writes files and returns nothing. An error in a job ends the run. A dead worker does not, unless the worker of
the same shard dies repeatedly. Finished shards are kept.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from datasets.utils import disable_progress_bars, logging, tqdm

from hf_distill._optional import require

from ...storage.steps import end_with

logger = logging.get_logger(__name__)

# How often the worker of one shard may be restarted before the run fails.
RETRIES = 3

Job = Callable[[int], Any]


def run_in_processes(job: Job, shards: Sequence[int], *, workers: int, what: str) -> None:
    """Run a job for every shard, each in a separate process.

    Args:
        job: Function that does one shard; it must be picklable.
        shards: Indices of the shards.
        workers: Number of parallel processes.
        what: Description of the progress bar.

    Raises:
        Exception: The exception that a job raised.
        ChildProcessError: If the process of a shard died more than `RETRIES` times.
    """
    # Threads of the search or of Arrow do not survive a fork.
    context = multiprocessing.get_context("spawn")
    waiting, deaths = list(shards), Counter[int]()
    running: dict[Connection, tuple[SpawnProcess, int]] = {}
    try:
        with tqdm(total=len(waiting), desc=what, unit=" shards") as bar:
            while waiting or running:
                while waiting and len(running) < workers:
                    shard = waiting.pop(0)
                    receive, send = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(os.getpid(), job, shard, send))
                    process.start()
                    send.close()
                    running[receive] = process, shard
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    process, shard = running.pop(connection)
                    if _is_finished(connection, process, shard, deaths):
                        bar.update()
                    else:
                        waiting.insert(0, shard)
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def _work(parent: int, job: Job, shard: int, send: Connection) -> None:
    """Do a job and send its outcome; a killed process sends nothing."""
    end_with(parent)
    disable_progress_bars()
    found = None
    try:
        job(shard)
    except Exception as error:  # raised again by the waiting process
        found = error
    # The waiting process may have ended.
    with suppress(BrokenPipeError):
        send.send(found)


def _is_finished(connection: Connection, process: SpawnProcess, shard: int, deaths: Counter[int]) -> bool:
    """Whether a job is done; raises the job's exception."""
    try:
        error = connection.recv()
    except EOFError:
        error = None
        process.join()
        deaths[shard] += 1
        if deaths[shard] > RETRIES:
            raise _gave_up(shard, f"exit status {process.exitcode}") from None
        logger.warning(f"The process of shard {shard} died (exit status {process.exitcode}); it is started again.")
        return False
    finally:
        connection.close()
    process.join()
    if error is not None:
        raise error
    return True


def _gave_up(shard: int, reason: str) -> ChildProcessError:
    return ChildProcessError(
        f"The worker of shard {shard} died {RETRIES + 1} times ({reason}). If it ran out of memory, take more shards "
        "(--num_shards, another --work_dir) or fewer at a time (--shard_workers). Finished shards stay."
    )


def run_with_ray(job: Job, shards: Sequence[int], *, what: str) -> None:
    """Run a job for every shard as a Ray task, spread over the nodes of the cluster.

    If Ray finds a cluster (`RAY_ADDRESS`, or a local one), it is used, else one is started here. Tasks are stateless,
    so those of a lost node are simply done on another node.

    Args:
        job: Function that does one shard; it must be picklable. Every node must see the same files.
        shards: Indices of the shards.
        what: Description of the progress bar.

    Raises:
        ImportError: If Ray is not installed.
        Exception: The exception that a job raised.
        ChildProcessError: If the workers of a shard died more than `RETRIES` times.
    """
    if not shards:
        return
    ray = require("ray", extra="ray", needed_by="`--runner ray`")
    starts = not ray.is_initialized()
    if starts:
        ray.init(log_to_driver=False)
    try:
        task = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_work_quietly)
        waiting = {task.remote(job, shard): shard for shard in shards}
        with tqdm(total=len(waiting), desc=what, unit=" shards") as bar:
            while waiting:
                (done,), _ = ray.wait(list(waiting))
                _check_task(ray, done, waiting.pop(done))
                bar.update()
    finally:
        if starts:
            ray.shutdown()


def _work_quietly(job: Job, shard: int) -> None:
    disable_progress_bars()
    job(shard)


def _check_task(ray: Any, task: Any, shard: int) -> None:
    """Raise the error of a task, without the long text that Ray adds to it."""
    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise _gave_up(shard, str(error).partition("\n")[0]) from error
