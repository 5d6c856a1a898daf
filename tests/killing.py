"""Forks that do some work and are killed in the middle of writing: cheaper than processes of their own."""

import os
import pickle
import signal
import sys
import warnings

import safetensors.torch
import torch

WRITING = os.O_WRONLY | os.O_RDWR
EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


def in_fork(work):
    """What `work` returns in a fork of this process; its signal (negative) if it was killed.

    Raises:
        AssertionError: If it raised.
    """
    receive, send = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of threads; those of libraries wait for work, of which the fork gives them none.
        warnings.simplefilter("ignore")
        process = os.fork()
    if not process:
        os.close(receive)
        signal.alarm(120)
        torch.set_num_threads(1)
        try:
            answer = (True, work())
        except BaseException as error:
            answer = (False, f"{type(error).__name__}: {error}")
        with os.fdopen(send, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    fine, answer = pickle.loads(data)
    assert fine, answer
    return answer


def killed_at(folder, operation, work):
    """Do `work`, which is killed at its n-th operation on files below `folder`; half of what it writes then is there.

    Operations are what changes a folder, and twice each file that PyTorch or safetensors write: before its first byte
    and in its middle.
    """
    prefix, count = os.path.realpath(folder), 0

    def operate():
        nonlocal count
        count += 1
        if count == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event, args):
        named = event in EVENTS or (event == "open" and isinstance(args[2], int) and args[2] & WRITING)
        if named and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.path.realpath(os.fsdecode(args[0]))
            if path.startswith(prefix):
                operate()

    def torn(write):
        def writing(content, path, *rest, **options):
            operate()
            done = write(content, path, *rest, **options)
            if isinstance(path, (str, os.PathLike)) and count + 1 == operation:
                os.truncate(path, os.path.getsize(path) // 2)
            operate()
            return done

        return writing

    sys.addaudithook(watch)
    torch.save = torn(torch.save)
    safetensors.torch.save_file = torn(safetensors.torch.save_file)
    return work()
