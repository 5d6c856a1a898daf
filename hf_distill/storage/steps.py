"""Folders of jobs: one job at a time writes to a folder, and each of its steps is finished or absent.

A step is a folder with a marker file, which records the settings of the step and its files. The marker is written
twice: before the work, so that the folder of a killed step can be recognised, and again, by a rename, when all files
are on the disk, with their sizes and checksums. In between it may record the progress. A folder without a marker was
not made by this package.

A job that works alone writes in place (`begin` or `go_on`, then `finish`). A `Step` may be made by several jobs at the
same time: each works in a temporary folder, which is renamed at the end.

A job locks the folder that it writes to with a file that names the process and the machine. The system releases the
lock when the process ends for any reason, so a killed run never blocks the next one.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import xxhash
from filelock import BaseFileLock, FileLock, Timeout

from .files import (
    DamagedFileError,
    PathLike,
    checksum_of,
    disk_space,
    is_alive,
    machine,
    new_folder,
    read_json,
    remove,
    to_disk,
    write_json,
)

logger = logging.getLogger(__name__)

# The underscores keep them out of every push to the Hub.
MARKER, LOCK = "_finished.json", "_lock"
# Error numbers of file systems without locks, such as some network file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
# Locked folders and the process that locked them: after a fork, the child holds no lock.
_HELD: dict[str, int] = {}
# Files that this process has already read and compared with the marker: path, size, time of the last change.
_compared: dict[tuple[str, int, int], str] = {}


class DamagedStepError(ValueError):
    """A file of a finished step is missing or was changed. The message names the file and the remedy."""


# Reasons why a folder cannot be created or written to; a full disk is reported elsewhere.
_UNWRITABLE = {errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EROFS, errno.ENAMETOOLONG}


class FolderInUseError(OSError):
    """Another process writes to the folder. The message names the folder and the flag that chooses another one."""


# --- steps ---------------------------------------------------------------------------------------------------------


def begin(folder: PathLike, settings: Mapping[str, Any] | None = None) -> Path:
    """Empty a folder and mark it as an unfinished step.

    Args:
        folder: The folder; its content is deleted.
        settings: Everything that determines the step, as JSON values; `go_on` compares it.

    Returns:
        The folder.
    """
    folder = Path(folder)
    if (folder / MARKER).is_file():
        # If the process is killed from here on, the remains of an earlier step do not pass for a finished one.
        mark(folder, {})
    remove(folder)
    mark(folder, settings or {})
    return folder


def go_on(folder: PathLike, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Continue a step that was begun with the same settings, or begin it.

    Returns:
        The marker; its `facts` and `files` are those that `note` recorded before.
    """
    try:
        marker = read_marker(folder)
    except DamagedFileError:
        marker = None
    if marker is None or differences(marker["settings"], settings):
        begin(folder, settings)
        marker = read_marker(folder)
    return cast("dict[str, Any]", marker)


def note(
    folder: PathLike,
    marker: dict[str, Any],
    *,
    facts: Mapping[str, Any] | None = None,
    files: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Record the progress of a step; the recorded files must already be on the disk.

    Args:
        folder: The folder of the step.
        marker: Its marker from `go_on`; it is updated.
        facts: Results so far.
        files: Names of finished files, each with its `bytes` and `checksum` (see `describe_file`) and any other values
            to remember.
    """
    marker |= {"facts": {**marker["facts"], **(facts or {})}, "files": {**marker["files"], **(files or {})}}
    _write_marker(folder, marker, indent=None)


def finish(
    folder: PathLike, settings: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Mark a step as finished, once its files are on the disk.

    Args:
        folder: The folder of the step. Checksums of files that `note` recorded are not computed again.
        settings: Everything that determined the step, as JSON values.
        facts: Results, as JSON values.

    Returns:
        The marker.
    """
    folder = Path(folder)
    to_disk(folder)
    noted = (read_marker(folder) or {"files": {}})["files"]
    files = {
        name: noted.get(name) or describe_file(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (name := file.relative_to(folder).as_posix()) != MARKER
    }
    return mark(folder, settings or {}, facts or {}, files, finished=True)


def mark(
    folder: PathLike,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
    *,
    finished: bool = False,
) -> dict[str, Any]:
    """Write the marker of a folder whose files are managed elsewhere.

    Args:
        folder: The folder; nothing else in it is changed.
        settings: Everything that determines the step, as JSON values.
        facts: Results, as JSON values.
        files: Names of its files, each with `bytes` and `checksum`; the marker records no others.
        finished: Whether the step is finished.

    Returns:
        The marker.
    """
    marker = {"finished": finished, "settings": dict(settings), "facts": dict(facts or {}), "files": dict(files or {})}
    _write_marker(folder, marker)
    return marker


def _write_marker(folder: PathLike, marker: Mapping[str, Any], **options: Any) -> None:
    plain = json.loads(json.dumps(marker, default=str))
    write_json(Path(folder, MARKER), {**plain, "checksum": _key_of(plain)}, **options)


def _key_of(values: Mapping[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(values, sort_keys=True, default=str).encode())


def read_marker(folder: PathLike) -> dict[str, Any] | None:
    """Read the marker of a folder; `None` if there is none.

    Raises:
        DamagedFileError: If it cannot be read.
    """
    path = Path(folder, MARKER)
    if not path.is_file():
        return None
    found = read_json(path)
    checksum = found.pop("checksum", None) if isinstance(found, dict) else None
    if checksum is not None and checksum != _key_of(found):
        raise DamagedFileError(f"{str(path)!r} is damaged: its content is not what was written.")
    marker = {
        "finished": False,
        "settings": {},
        "facts": {},
        "files": {},
        **(found if isinstance(found, dict) else {}),
    }
    mappings = all(isinstance(marker[name], dict) for name in ("settings", "facts", "files"))
    if not (isinstance(found, dict) and mappings and all(map(_is_noted, marker["files"].values()))):
        raise DamagedFileError(f"{str(path)!r} is not the marker of a finished step.")
    return marker


def _is_noted(noted: Any) -> bool:
    return isinstance(noted, dict) and {"bytes", "checksum"} <= set(noted)


def describe_file(path: PathLike) -> dict[str, Any]:
    """Return the size and checksum of a file, which a marker uses to recognise it."""
    return {"bytes": Path(path).stat().st_size, "checksum": checksum_of(path)}


def damage_of_noted(path: PathLike, noted: Mapping[str, Any], *, content: bool = True) -> str | None:
    """Describe how a file differs from its record in a marker; `None` if it does not.

    Args:
        path: The file.
        noted: The recorded `bytes` and `checksum`.
        content: Whether its content is compared too, once per process; otherwise only its size.
    """
    path = Path(path)
    if not path.is_file():
        return f"{str(path)!r} is missing"
    facts = path.stat()
    if facts.st_size != noted["bytes"]:
        return f"{str(path)!r} is damaged or cut short: it has {facts.st_size} bytes, {noted['bytes']} were written"
    if content:
        seen = os.path.realpath(path), facts.st_size, facts.st_mtime_ns
        if seen not in _compared:
            _compared[seen] = checksum_of(path)
        if _compared[seen] != noted["checksum"]:
            return f"{str(path)!r} is damaged: its content is not what was written"
    return None


def damage_of_step(folder: PathLike, *, besides: Collection[str] = (), content: bool = True) -> str | None:
    """Describe the damage of a step that has a marker and name the file; `None` if there is none.

    Args:
        folder: The folder of the step.
        besides: Files that are not checked.
        content: Whether the contents are compared, or only the sizes.
    """
    try:
        marker = read_marker(folder)
    except DamagedFileError as error:
        return str(error)
    if marker is None or not marker["finished"]:
        return f"{os.fspath(folder)!r} was not finished"
    looked_at = ((name, noted) for name, noted in marker["files"].items() if name not in besides)
    found = (damage_of_noted(Path(folder, name), noted, content=content) for name, noted in looked_at)
    return next((reason for reason in found if reason is not None), None)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], there: str = "there") -> str:
    """List the settings in which two results differ, with both values; "" if they agree.

    Args:
        before: Settings of the result on the disk.
        now: Settings of the result to be made.
        there: Word after a value of `before`.
    """
    now = json.loads(json.dumps(now, default=str))
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {before.get(name)} {there}, {now.get(name)} now" for name in names)


@dataclass(frozen=True)
class Step:
    """A step in a shared folder: several jobs, on several machines, may make it at the same time.

    Attributes:
        folder: Where the finished step lies.
        settings: Everything that changes the result, as JSON values; other settings make another step.
        what: Its name in messages.
        way_out: What to do if it is damaged.
        flags: The flags that choose another location for it.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    what: str = "The step"
    way_out: str = "Start again."
    flags: str = "--work_dir"

    def facts(self) -> dict[str, Any] | None:
        """Return the facts of `make`; `None` if the step is not finished or was made with other settings."""
        marker = self._marker()
        return None if marker is None else cast("dict[str, Any]", marker["facts"])

    def file(self, name: str) -> Path:
        """Return the path of a file of the step, after its content was checked.

        Raises:
            DamagedStepError: If it is missing or has changed.
        """
        marker = self._marker()
        if marker is None or name not in marker["files"]:
            raise DamagedStepError(f"{self.what} has no file {str(self.folder / name)!r}. {self.way_out}")
        reason = damage_of_noted(self.folder / name, marker["files"][name])
        if reason is not None:
            raise DamagedStepError(f"{self.what} is damaged: {reason}. {self.way_out}")
        return self.folder / name

    def check(self, folder: str | None = None) -> None:
        """Check the contents of all files, or of those in one subfolder of the step.

        Raises:
            DamagedStepError: If one is missing or has changed.
        """
        for name in (self._marker() or {"files": ()})["files"]:
            if folder is None or Path(name).parent == Path(folder):
                self.file(name)

    def make(self, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Make the step unless it is finished; a damaged step is made again.

        Args:
            work: Writes the files into an empty folder and returns facts as JSON values.

        Returns:
            The facts together with those of `measured`; if the step was finished before, those of the first time.

        Raises:
            OSError: If it cannot be written; its partial files are deleted.
        """
        facts = self.facts()
        if facts is not None:
            try:
                self.check()
            except DamagedStepError as error:
                logger.warning(f"{error} It is made again.")
                remove(self.folder)
            else:
                logger.info(f"{self.what} is finished in {str(self.folder)!r}: skipped.")
                return facts
        room = disk_space(self.folder.parent, self.what, self.flags)
        with room, new_folder(self.folder, unless=lambda: self.facts() is not None) as new:
            finish(new, self.settings, measured(lambda: work(new), new))
        return cast("dict[str, Any]", self.facts())

    def _marker(self) -> dict[str, Any] | None:
        try:
            marker = read_marker(self.folder)
        except (OSError, ValueError):
            return None
        if marker is None or not marker["finished"] or differences(marker["settings"], self.settings):
            return None
        return marker


class WorkFolder:
    """The folder of a job that consists of steps, for one set of settings.

    Args:
        path: The folder; it is created if needed.
        settings: Everything that changes the result, as JSON values.

    Raises:
        ValueError: If the folder belongs to a job with other settings; the message lists the differences.
    """

    def __init__(self, path: PathLike, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        # Two jobs may have begun at once, so each step records the key of its job.
        self._key = _key_of(settings)
        marker = read_marker(self.path)
        if marker is None:
            mark(self.path, settings)
            return
        different = differences(marker["settings"], settings)
        if different:
            raise ValueError(
                f"The work folder {str(self.path)!r} belongs to a corpus with other settings ({different}). Choose "
                "another one (--work_dir), or delete it to build again."
            )

    def alone(self) -> AbstractContextManager[Path]:
        """Lock the folder for the job of this process; its own workers may do steps meanwhile.

        Raises:
            FolderInUseError: If another process works there.
        """
        return writing_to(self.path, "--work_dir")

    def step(self, name: str, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Do a step unless it is finished (see `Step.make`), and return its facts."""
        return self._step(name).make(work)

    def is_finished(self, name: str) -> bool:
        """Whether a step is finished."""
        return self._step(name).facts() is not None

    def folder(self, name: str) -> Path:
        """Return the folder of a step's files."""
        return self.path / name

    def _step(self, name: str) -> Step:
        return Step(self.folder(name), {"job": self._key}, f"The step {name!r}")


def measured(work: Callable[[], dict[str, Any]], folder: Path | None = None) -> dict[str, Any]:
    """Do some work and add its costs to the facts.

    Args:
        work: Does the work and returns its facts.
        folder: The folder of the files it wrote.

    Returns:
        The facts, with `seconds`, `disk_bytes` of the folder, and `peak_memory_mb`: the peak memory so far of this
        process or of one of its children, mapped files included (on systems that report it).
    """
    start = time.perf_counter()
    facts = work()
    facts["seconds"] = round(time.perf_counter() - start, 3)
    if folder is not None:
        facts["disk_bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    peak = _peak_memory()
    if peak is not None:
        facts["peak_memory_mb"] = round(peak / 2**20, 1)
    return facts


def total_seconds(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds of every step, from the facts of all steps, and their sum."""
    seconds = {name: float(facts["seconds"]) for name, facts in steps.items()}
    return {**seconds, "total": round(sum(seconds.values()), 3)}


def _peak_memory() -> int | None:
    """Return the peak memory in bytes; `None` on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak if sys.platform == "darwin" else peak * 1024


# --- locks ---------------------------------------------------------------------------------------------------------


@contextmanager
def writing_to(folder: PathLike, flag: str = "--output_dir") -> Iterator[Path]:
    """Lock a folder while this run writes to it; it is created if needed. A full disk becomes an error of one line.

    A process may lock a folder several times (a job, and the trainer that it starts). The processes of one `torchrun`
    are one run; the first of them holds the lock.

    Args:
        folder: The folder.
        flag: The argument that named the folder.

    Raises:
        FolderInUseError: If another process has locked it.
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
    is_new, path, named = not folder.exists(), Path(key, LOCK), f"`{flag}` {str(folder)!r}"
    try:
        # This also covers a link to a folder that no longer exists.
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path, named)
    except OSError as error:
        if isinstance(error, FolderInUseError) or error.errno not in _UNWRITABLE:
            raise
        raise type(error)(error.errno, f"{named} cannot be written to: {error.strerror}") from error
    _HELD[key] = os.getpid()
    try:
        yield
    finally:
        del _HELD[key]
        path.unlink(missing_ok=True)
        if lock is not None:
            lock.release()
        if is_new:
            # A refused run leaves no empty folder.
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def in_turn(path: PathLike, what: str) -> Iterator[None]:
    """Hold a lock, or wait until another process releases it: for something that several jobs need, made only once.

    Args:
        path: The lock file; it is deleted at the end.
        what: What is being made, for the message of a waiting job.
    """
    path, said = Path(path), False
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            lock = _acquire(path, what)
            break
        except FolderInUseError as error:
            if not said:
                logger.warning(f"{str(error).partition(':')[0]}: this job waits for its end.")
            said = True
            time.sleep(0.5)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if lock is not None:
            lock.release()


def end_with(parent: int) -> None:
    """End this worker when the process that started it has ended; only that process reacts to Ctrl-C.

    Args:
        parent: The id of the process that started this one.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _acquire(path: Path, what: str) -> BaseFileLock | None:
    """Return the lock; `None` on a file system without locks."""
    lock = FileLock(path, timeout=0)
    for attempt in range(2):
        try:
            lock.acquire()
        except Timeout:
            owner = _owner(path)
            gone = owner.get("machine") == machine() and not is_alive(int(owner["process"]))
            if attempt == 0 and gone:
                # Workers that outlive a killed process keep its lock.
                path.unlink(missing_ok=True)
                continue
            holder = f"process {owner['process']} on {owner['machine'].split()[0]}" if owner else "another process"
            raise FolderInUseError(
                f"{what} is being written by {holder}: wait for its end, or name another folder."
            ) from None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            return None
        break
    # Write in place, because the lock is on this very file.
    with path.open("r+", encoding="utf-8") as file:
        file.truncate()
        json.dump({"process": os.getpid(), "machine": machine()}, file)
    return lock


def _owner(path: Path) -> dict[str, Any]:
    """Return the process and machine that hold a lock; empty while another process is just acquiring it."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return {"process": int(owner["process"]), "machine": str(owner["machine"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
