"""Folders of jobs: one job at a time writes to one, and its steps are finished or absent.

A step is a folder with a marker, which says what made the step and what is in it. The marker is written twice: before
the work, so that a killed step is known for what it is, and by a rename when all files are on the disk, with their
sizes and checksums. In between it may tell how far the work is. A folder without a marker was made by somebody else.

Who writes alone writes in place (`begin` or `go_on`, then `finish`). A `Step` may be made by several jobs at once:
each works in a folder of its own, which takes its place by a rename.

A job holds the folder that it writes to by a lock, a file with the process and the machine that hold it. The system
lets it go when the process ends, however it ends, so that a killed run never stands in the way of the next one.
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
# What file systems say that have no locks, such as some over a network.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
# Folders that are held, and the process that holds them: a fork holds nothing.
_HELD: dict[str, int] = {}
# Files of which this process has read every byte and compared it with the marker: path, size, time of the last change.
_compared: dict[tuple[str, int, int], str] = {}


class DamagedStepError(ValueError):
    """A file of a finished step is missing or is not what was written. The message names it and the way out."""


# Why a folder cannot be made or written to; that the disk is full is said elsewhere.
_UNWRITABLE = {errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EROFS, errno.ENAMETOOLONG}


class FolderInUseError(OSError):
    """Another process writes to the folder. The message names it, and the flag of another folder."""


# --- steps ---------------------------------------------------------------------------------------------------------


def begin(folder: PathLike, settings: Mapping[str, Any] | None = None) -> Path:
    """Empty a folder and mark it as that of an unfinished step.

    Args:
        folder: The folder; what is in it is removed.
        settings: What decides the step, JSON-able; `go_on` compares it.

    Returns:
        The folder.
    """
    folder = Path(folder)
    if (folder / MARKER).is_file():
        # Killed from here on, the rest of an earlier step is nobody's finished step.
        mark(folder, {})
    remove(folder)
    mark(folder, settings or {})
    return folder


def go_on(folder: PathLike, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Go on with a step that was begun with the same settings, or begin it.

    Returns:
        Its marker: `facts` and `files` are what `note` was told before.
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
    """Note how far a step is; what is noted must be on the disk.

    Args:
        folder: Where its files are.
        marker: Its marker, as `go_on` gave it; is changed.
        facts: What is done.
        files: Names of finished files, each with its `bytes` and `checksum` (see `describe_file`) and with whatever
            else is to be known of it.
    """
    marker |= {"facts": {**marker["facts"], **(facts or {})}, "files": {**marker["files"], **(files or {})}}
    _write_marker(folder, marker, indent=None)


def finish(
    folder: PathLike, settings: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Say that a step is finished, when its files are on the disk.

    Args:
        folder: Where its files are. Of those that `note` was told of, the checksums are not computed again.
        settings: What made it, JSON-able.
        facts: What came of it, JSON-able.

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
    """Write the marker of a folder whose files somebody else looks after.

    Args:
        folder: The folder; nothing else in it is touched.
        settings: What decides the step, JSON-able.
        facts: What came of it, JSON-able.
        files: Names of its files, each with `bytes` and `checksum`; the marker knows no others.
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
        raise DamagedFileError(f"{str(path)!r} is no marker of a finished step.")
    return marker


def _is_noted(noted: Any) -> bool:
    return isinstance(noted, dict) and {"bytes", "checksum"} <= set(noted)


def describe_file(path: PathLike) -> dict[str, Any]:
    """Return the size and checksum of a file, by which a marker knows it again."""
    return {"bytes": Path(path).stat().st_size, "checksum": checksum_of(path)}


def damage_of_noted(path: PathLike, noted: Mapping[str, Any], *, content: bool = True) -> str | None:
    """Say in what a file differs from what a marker notes of it; `None` if in nothing.

    Args:
        path: The file.
        noted: Its `bytes` and `checksum`.
        content: Whether its content is compared too, once in a process; else its size alone.
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
    """Say what is wrong with a step that has a marker, naming the file; `None` if it is whole.

    Args:
        folder: Where its files are.
        besides: Files that are not looked at.
        content: Whether contents are compared, not sizes alone.
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
    """Name the fields in which what made two results differs, with both values; "" if none does.

    Args:
        before: Settings of what is on the disk.
        now: Settings of what is to be made.
        there: What to say behind a value of the first.
    """
    now = json.loads(json.dumps(now, default=str))
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {before.get(name)} {there}, {now.get(name)} now" for name in names)


@dataclass(frozen=True)
class Step:
    """A step that any number of jobs may make, on several machines at once and more than once: they share its folder.

    Attributes:
        folder: Where it is, once it is finished.
        settings: Everything that changes it, JSON-able; a step with others is not this one.
        what: What to call it in messages.
        way_out: What to do if it is damaged.
        flags: The flags that name another place for it.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    what: str = "The step"
    way_out: str = "Start again."
    flags: str = "--work_dir"

    def facts(self) -> dict[str, Any] | None:
        """Return what `make` returned; `None` if the step is not finished or was made with other settings."""
        marker = self._marker()
        return None if marker is None else cast("dict[str, Any]", marker["facts"])

    def file(self, name: str) -> Path:
        """Return the path of a file of the step, after a look at its content.

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
        """Look at the contents of all files, or of those in a folder of the step.

        Raises:
            DamagedStepError: If one is missing or has changed.
        """
        for name in (self._marker() or {"files": ()})["files"]:
            if folder is None or Path(name).parent == Path(folder):
                self.file(name)

    def make(self, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Make the step unless it is there; one that is damaged is made anew.

        Args:
            work: Writes the files into an empty folder and returns facts, JSON-able.

        Returns:
            The facts, with those of `measured` added; those of the first time if the step was finished before.

        Raises:
            OSError: If it cannot be written; what it wrote is removed.
        """
        facts = self.facts()
        if facts is not None:
            try:
                self.check()
            except DamagedStepError as error:
                logger.warning(f"{error} It is made anew.")
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
    """The folder of a job that is done in steps, for one set of settings.

    Args:
        path: Folder, made if needed.
        settings: Everything that changes the result, JSON-able.

    Raises:
        ValueError: If the folder belongs to a job with other settings; the message lists the differences.
    """

    def __init__(self, path: PathLike, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        # Two jobs may have begun at once: a step tells by itself whose it is.
        self._key = _key_of(settings)
        marker = read_marker(self.path)
        if marker is None:
            mark(self.path, settings)
            return
        different = differences(marker["settings"], settings)
        if different:
            raise ValueError(
                f"The work folder {str(self.path)!r} belongs to a corpus with other settings ({different}). Choose "
                "another one (--work_dir), or delete it to build anew."
            )

    def alone(self) -> AbstractContextManager[Path]:
        """Hold the folder for the job of this process; workers of its own may do steps meanwhile.

        Raises:
            FolderInUseError: If another process works there.
        """
        return writing_to(self.path, "--work_dir")

    def step(self, name: str, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Do a step unless it is finished (see `Step.make`), and return its facts."""
        return self._step(name).make(work)

    def is_finished(self, name: str) -> bool:
        """Return whether a step has its marker."""
        return self._step(name).facts() is not None

    def folder(self, name: str) -> Path:
        """Return the folder in which a step keeps its files."""
        return self.path / name

    def _step(self, name: str) -> Step:
        return Step(self.folder(name), {"job": self._key}, f"The step {name!r}")


def measured(work: Callable[[], dict[str, Any]], folder: Path | None = None) -> dict[str, Any]:
    """Do some work, and add to its facts what it cost.

    Args:
        work: Does it and returns its facts.
        folder: Where it left files.

    Returns:
        The facts, with `seconds`, `disk_bytes` of the folder, and `peak_memory_mb`: the most memory that the process,
        or one of those it started, has had up to here, mapped files included (where the system tells).
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
    """Return seconds of every step, by the facts of all, and their sum."""
    seconds = {name: float(facts["seconds"]) for name, facts in steps.items()}
    return {**seconds, "total": round(sum(seconds.values()), 3)}


def _peak_memory() -> int | None:
    """Return the peak of memory in bytes; `None` on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak if sys.platform == "darwin" else peak * 1024


# --- locks ---------------------------------------------------------------------------------------------------------


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
    is_new, path, named = not folder.exists(), Path(key, LOCK), f"`{flag}` {str(folder)!r}"
    try:
        # Also where a link leads to a folder that is gone.
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
            # A run that was refused leaves no empty folder.
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def in_turn(path: PathLike, what: str) -> Iterator[None]:
    """Hold a lock, and wait while another process holds it: for what several jobs want to be made, once.

    Args:
        path: File of the lock; it is gone afterwards.
        what: What is made, for the line of a job that waits.
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
    """Let this worker end once the process that it works for has ended, and leave interruptions by a user to that.

    Args:
        parent: The process that started this one.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _acquire(path: Path, what: str) -> BaseFileLock | None:
    """Return the lock; `None` on a file system that has none."""
    lock = FileLock(path, timeout=0)
    for attempt in range(2):
        try:
            lock.acquire()
        except Timeout:
            owner = _owner(path)
            gone = owner.get("machine") == machine() and not is_alive(int(owner["process"]))
            if attempt == 0 and gone:
                # Workers that outlive a killed process hold what it held.
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
    # In place: the lock is on this very file.
    with path.open("r+", encoding="utf-8") as file:
        file.truncate()
        json.dump({"process": os.getpid(), "machine": machine()}, file)
    return lock


def _owner(path: Path) -> dict[str, Any]:
    """Return the process and machine of a lock; nothing where it is being taken just now."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return {"process": int(owner["process"]), "machine": str(owner["machine"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
