"""Folders that are written: one run at a time, and none that the run reads.

The lock is a file in the folder with the process and the machine that hold it. The system lets it go when its process
ends, however it ends, so that a killed run never stands in the way of the next one.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from .files import PathLike, disk_space, is_alive

# The underscore keeps it out of every push to the Hub.
LOCK = "_lock"
# Folders that are held, and the process that holds them: a fork holds nothing.
_HELD: dict[str, int] = {}


class FolderInUseError(OSError):
    """Another process writes to the folder. The message names it, and the flag of another folder."""


@contextmanager
def writing_to(folder: PathLike, flag: str = "--output_dir") -> Iterator[Path]:
    """Hold a folder while this run writes to it; it is made if needed. A full disk is an error of one line.

    A process may hold a folder several times (a job, and the trainer that it starts). The processes of one `torchrun`
    are one run, for which the first of them holds it.

    Args:
        folder: The folder.
        flag: The argument that named it.

    Raises:
        FolderInUseError: If another process holds it.
        DiskFullError: If the disk is full.
    """
    path = Path(folder).expanduser()
    with ExitStack() as stack, disk_space(path, flags=flag):
        if int(os.environ.get("RANK", "0")) == 0:
            stack.enter_context(_held(path, flag))
        yield path


@contextmanager
def _held(folder: Path, flag: str) -> Iterator[None]:
    key = os.path.realpath(folder)
    if _HELD.get(key) == os.getpid():
        yield
        return
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(key, LOCK)
    lock = _acquire(path, f"`{flag}` {str(folder)!r}")
    _HELD[key] = os.getpid()
    try:
        yield
    finally:
        del _HELD[key]
        path.unlink(missing_ok=True)
        if lock is not None:
            lock.release()
        if is_new:
            # A run that was refused leaves no empty folder.
            with suppress(OSError):
                folder.rmdir()


def _acquire(path: Path, what: str) -> BaseFileLock | None:
    """The lock; `None` on a file system that has none."""
    lock = FileLock(path, timeout=0)
    for attempt in range(2):
        try:
            lock.acquire()
        except Timeout:
            owner = _owner(path)
            gone = owner.get("machine") == socket.gethostname() and not is_alive(int(owner["process"]))
            if attempt == 0 and gone:
                # Workers that outlive a killed process hold what it held.
                path.unlink(missing_ok=True)
                continue
            holder = f"process {owner['process']} on {owner['machine']}" if owner else "another process"
            raise FolderInUseError(
                f"{what} is being written by {holder}: wait for its end, or name another folder."
            ) from None
        except NotImplementedError:
            return None
        break
    # In place: the lock is on this very file.
    with path.open("r+", encoding="utf-8") as file:
        file.truncate()
        json.dump({"process": os.getpid(), "machine": socket.gethostname()}, file)
    return lock


def _owner(path: Path) -> dict[str, Any]:
    """Process and machine of a lock; nothing where it is being taken just now."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return {"process": int(owner["process"]), "machine": str(owner["machine"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def check_apart(
    output: PathLike | None,
    inputs: Mapping[str, Any],
    *,
    flag: str = "--output_dir",
    parts: Sequence[str] = ("checkpoint-*",),
    inside: bool = False,
) -> None:
    """Refuse to write into what is read.

    Args:
        output: Folder that is written; `None` is none.
        inputs: Flag -> what is read: a path, several, or `None`. What is no path of this machine is not looked at.
        flag: The argument that named the output.
        parts: Patterns of the folders and files inside the output that are written too.
        inside: Whether the output may lie inside an input.

    Raises:
        ValueError: If the output is an input, lies inside one, or an input lies in a part of it that is written;
            links and other names of one folder do not help. The message names both.
    """
    if output is None:
        return
    target = _resolved(output)
    for name, given in inputs.items():
        for item in [given] if isinstance(given, (str, os.PathLike)) else given or ():
            relation = _relation(target, _resolved(item), parts, inside=inside) if item else None
            if relation is not None:
                raise ValueError(
                    f"`{flag}` {os.fspath(output)!r} {relation} `{name}` {os.fspath(item)!r}: what is read is never "
                    f"written to; name another `{flag}`."
                )


def _relation(target: Path, source: Path, parts: Sequence[str], *, inside: bool) -> str | None:
    """Say how an output would overwrite an input; `None` if it would not."""
    if not source.exists():
        return None
    if source == target:
        return "is the folder of" if source.is_dir() else "is the file of"
    if source.is_dir() and target.is_relative_to(source) and not inside:
        return "lies inside"
    if not source.is_relative_to(target):
        return None
    first = source.relative_to(target).parts[0]
    return "would write over" if any(fnmatchcase(first, part) for part in parts) else None


def _resolved(path: PathLike) -> Path:
    return Path(os.path.realpath(Path(path).expanduser()))
