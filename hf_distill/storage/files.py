"""Atomic writes of files and folders, readers that name a damaged file, and one-line errors for a full disk.

Everything is written into a temporary folder beside its destination, flushed to the disk, and renamed. A process that
is killed at any moment leaves no partial file under the final name. No other module of the package writes files; a
library that writes by itself gets the path that `new_file` or `new_files` yields.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import yaml

from hf_distill.storage.plain_values import as_mapping, check_plain, did_you_mean

PathLike = str | os.PathLike[str]

SCRATCH = ".partial"
# Weights of a model as transformers and peft name them, in one file or in several.
WEIGHTS = re.compile(r"(model|pytorch_model|adapter_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index\.json)?")
_READ = 1 << 24
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Messages of libraries that report a full disk without an error number: Rust's, PyTorch's and NumPy's.
_FULL_WORDS = (
    *("No space left on device", "Disk quota exceeded", "File too large"),
    *("(os error 28)", "(os error 122)", "(os error 27)"),
    *("PytorchStreamWriter failed", "file write failed", ". unexpected pos "),
)
_CUT_SHORT = "is damaged or cut short"
_FULL_FOR_NUMPY = re.compile(r"\d+ requested and \d+ written")


class DamagedFileError(ValueError):
    """A file is not what its name promises: cut short, changed, or of another kind. The message names the file."""


class DiskFullError(OSError):
    """The disk, a quota or the maximum file size is reached. Nothing unfinished is left under a final name."""


# --- writing --------------------------------------------------------------------------------------------------------


def write_bytes(path: PathLike, content: bytes) -> Path:
    """Write a file atomically: completely, or not at all.

    Args:
        path: Destination; its folder is created if needed.
        content: The bytes to write.

    Returns:
        The path.

    Raises:
        OSError: If it cannot be written; an earlier file at this path is unchanged then.
    """
    with new_file(path) as part:
        part.write_bytes(content)
    return Path(path)


def write_text(path: PathLike, text: str) -> Path:
    """Write a text in UTF-8, as `write_bytes` does."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: PathLike, content: Any, **options: Any) -> Path:
    """Write a JSON value, as `write_bytes` does; `options` are passed to `json.dumps`."""
    return write_text(path, json.dumps(content, **{"indent": 2, "ensure_ascii": False, **options}) + "\n")


def write_yaml(path: PathLike, content: Any, **options: Any) -> Path:
    """Write a YAML value, as `write_bytes` does; `options` are passed to `yaml.safe_dump`."""
    return write_text(path, yaml.safe_dump(content, **options))


def write_arrays(path: PathLike, arrays: Iterable[np.ndarray]) -> tuple[int, str]:
    """Write the bytes of several arrays one after the other into one file, atomically.

    Returns:
        Size in bytes and checksum of the file.

    Raises:
        OSError: If the disk is full or broken.
    """
    digest, size = xxhash.xxh3_128(), 0
    with new_file(path) as part, part.open("wb") as file:
        for array in arrays:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            file.write(data)
            digest.update(data)
            size += len(data)
    return size, digest.hexdigest()


def append_text(path: PathLike, text: str) -> None:
    """Append lines to a file and flush them to the disk; the last line may be partial if the process is killed."""
    with disk_space(Path(path)), Path(path).open("a", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def copy_file(source: PathLike, path: PathLike) -> Path:
    """Copy a file completely or not at all."""
    with new_file(path) as part:
        shutil.copy(source, part)
    return Path(path)


def copy_folder(source: PathLike, folder: PathLike, *, leave_out: Sequence[str] = ()) -> None:
    """Copy the files of a folder into another one, each completely or not at all; other files there stay.

    Args:
        source: The folder to copy.
        folder: Destination.
        leave_out: Patterns of file names that are not copied.
    """
    with new_files(folder) as part:
        shutil.copytree(source, part, ignore=shutil.ignore_patterns(*leave_out), dirs_exist_ok=True)


@contextmanager
def new_file(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces `path` when the block ends without an error.

    Args:
        path: Destination; an earlier file stays unchanged until then. A path that is not a regular file, such as a
            terminal, is written to directly.

    Raises:
        OSError: If it cannot be written; `DiskFullError` if the disk is full, whatever error a library raises for it.
    """
    path = _real(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    with _scratch(path.parent) as scratch, disk_space(path):
        part = scratch / path.name
        yield part
        _to_disk(part)
        os.replace(part, path)


@contextmanager
def new_files(folder: PathLike) -> Iterator[Path]:
    """Yield an empty folder; its files move into `folder` when the block ends without an error.

    Each file is complete or absent, as with `new_file`; other files in the folder stay.

    Args:
        folder: Destination; it is created if needed.

    Raises:
        OSError: If a file cannot be written; `DiskFullError` if the disk is full.
    """
    folder = _real(folder)
    with _scratch(folder) as scratch, disk_space(folder):
        yield scratch
        files = [file for file in sorted(scratch.rglob("*")) if file.is_file()]
        for file in files:
            _to_disk(file)
        for file in files:
            target = folder / file.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


@contextmanager
def model_files(folder: PathLike) -> Iterator[Path]:
    """Yield an empty folder for the files of a model, as `new_files` does; old weights of the same kind are deleted.

    If weights in one file and weights in several files lay side by side, `from_pretrained` might load the old ones.
    """
    with new_files(folder) as part:
        yield part
        written = {file.name for file in part.iterdir()}
    kinds = {match.group(1) for match in map(WEIGHTS.fullmatch, written) if match}
    for file in Path(folder).iterdir():
        match = WEIGHTS.fullmatch(file.name)
        if match and match.group(1) in kinds and file.name not in written:
            remove(file)


@contextmanager
def new_folder(folder: PathLike, *, unless: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` as a whole when the block ends without an error.

    Args:
        folder: Destination; an earlier folder stays unchanged until then and is deleted afterwards.
        unless: Called at the end; if true, the existing folder is kept, because another process was faster.

    Raises:
        OSError: If it cannot be written; `DiskFullError` if the disk is full.
    """
    folder = _real(folder)
    with _scratch(folder.parent) as scratch, disk_space(folder):
        part = scratch / folder.name
        part.mkdir()
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _to_disk(file)
        if unless():
            return
        if folder.exists():
            os.rename(folder, scratch / f"{folder.name}.before")
        try:
            os.rename(part, folder)
        except OSError:
            # The other process may have finished between the two lines.
            if not unless():
                raise


def remove(path: PathLike) -> None:
    """Delete a file or a folder if it is there."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def to_disk(folder: PathLike) -> None:
    """Flush every file of a folder to the disk."""
    for file in Path(folder).rglob("*"):
        if file.is_file():
            _to_disk(file)


@contextmanager
def disk_space(where: Path, what: str = "", flags: str = "--output_dir") -> Iterator[None]:
    """Turn a full disk into an error of one line that says which disk is full and what to do.

    Args:
        where: The file or folder that is written.
        what: Name of what is being written; by default the name of the file.
        flags: The flags that choose another location.

    Raises:
        DiskFullError: Instead of the error that Python or a library raises.
    """
    try:
        yield
    except Exception as error:
        # An outer caller that knows better what is being written replaces the message of an inner one.
        if not is_full(error) or (isinstance(error, DiskFullError) and not what):
            raise
        folder = where if where.is_dir() else where.parent
        raise DiskFullError(
            getattr(error, "errno", None) or errno.ENOSPC,
            f"The disk is full: {what or where.name} could not be written to {str(folder)!r}. Nothing unfinished is "
            f"taken for finished. Make room and start again, which goes on after the last finished part, or name a "
            f"folder on another disk ({flags})",
        ) from error


def is_full(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that the disk is full; libraries raise many kinds of errors."""
    came_from: BaseException | None = error
    while came_from is not None:
        if isinstance(came_from, OSError) and came_from.errno in _FULL:
            return True
        if any(words in str(came_from) for words in _FULL_WORDS) or _FULL_FOR_NUMPY.search(str(came_from)):
            return True
        # Closing a writer after the disk was full raises other errors.
        came_from = came_from.__cause__ or (None if came_from.__suppress_context__ else came_from.__context__)
    return False


def _real(path: PathLike) -> Path:
    """Resolve symbolic links, so that a rename does not replace the link itself."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def _to_disk(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yield a folder of this process inside `folder`, so that both are on the same disk; it is deleted at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    scratch = folder / f"{SCRATCH}-{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        scratch.mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_abandoned(folder: PathLike) -> None:
    """Delete the unfinished files that killed processes of this machine left in a folder."""
    mine = f"{SCRATCH}-{_machine()}-"
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(mine)]
    for name in names:
        process = name.removeprefix(mine).partition("-")[0]
        if process.isdigit() and not is_alive(int(process)):
            shutil.rmtree(Path(folder, name), ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine is alive; assumed true on systems that cannot tell."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def machine() -> str:
    """Identify this machine among others: its host name, and the process namespace of a container."""
    try:
        # A container may have the host name of its machine, but it numbers its processes independently.
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _machine() -> str:
    name, _, numbers = machine().partition(" ")
    return re.sub(r"\W", "_", name[:40]) + re.sub(r"\D", "", numbers)


# --- reading --------------------------------------------------------------------------------------------------------


def read_text(path: PathLike) -> str:
    """Read a UTF-8 text file, without a byte order mark.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is not text in UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _damaged(path, "text in UTF-8", error) from error


def read_json(path: PathLike) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is damaged, cut short, or not JSON; the message names the file.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "JSON", error) from error


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that gives a key twice: the first value would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is given twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: PathLike) -> Any:
    """Read a YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is damaged, cut short, or not YAML; the message names the file.
    """
    text = read_text(path)
    try:
        value = yaml.load(text, _Loader)
    except Exception as error:
        # For impossible dates and numbers PyYAML raises whatever it runs into, even KeyError and IndexError.
        raise _damaged(path, "YAML", error) from error
    check_plain(value, repr(os.fspath(path)))
    return value


def read_mapping(path: PathLike) -> dict[str, Any]:
    """Read the `name: value` pairs of a file: JSON if its suffix is `.json`, otherwise YAML.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it cannot be read, or holds something other than a mapping; the message names the file.
    """
    values = read_json(path) if Path(path).suffix == ".json" else read_yaml(path)
    try:
        return as_mapping(values, repr(os.fspath(path)))
    except ValueError as error:
        raise DamagedFileError(str(error)) from error


def close_path(path: PathLike) -> str:
    """The end of an error message about a missing path: similar names in the same folder, or an empty text."""
    path = Path(path).expanduser()
    try:
        return did_you_mean(path.name, (item.name for item in path.parent.iterdir()))
    except (OSError, ValueError):
        return ""


def checksum_of(path: PathLike) -> str:
    """Return the checksum of a file."""
    digest = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while data := file.read(_READ):
            digest.update(data)
    return digest.hexdigest()


def damage_of_file(path: PathLike) -> str | None:
    """Describe the damage of a file that can be seen from the file alone; `None` if there is none.

    JSON is parsed, the header of a safetensors file is compared with the file's size, and the checksums in the
    archives of `torch.save` are verified. Files of other kinds are not checked.
    """
    path = Path(path)
    check = _CHECKS.get(path.suffix)
    try:
        reason = None if check is None else check(path)
    except DamagedFileError as error:
        return str(error)
    except OSError as error:
        return f"{str(path)!r} cannot be read: {error.strerror or error}"
    return None if reason is None else f"{str(path)!r} {reason}"


def _json(path: Path) -> None:
    read_json(path)


def _safetensors(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        size = path.stat().st_size
        if len(head) < 8 or 8 + length > size:
            return _CUT_SHORT
        try:
            header = json.loads(file.read(length))
            ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return "is damaged: its header cannot be read"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"{_CUT_SHORT}: it has {size} bytes, its header tells of {expected}"


def _archive(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(2)
    if not head:
        return "is empty"
    if head != b"PK":
        # The pickle files of old versions have no checksums.
        return None if path.suffix == ".bin" else _CUT_SHORT
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OverflowError, RuntimeError):
        return _CUT_SHORT
    return None if broken is None else f"is damaged (in {broken!r})"


_CHECKS = {
    ".json": _json,
    ".safetensors": _safetensors,
    ".pt": _archive,
    ".pth": _archive,
    ".bin": _archive,
}


def _damaged(path: PathLike, kind: str, error: Exception) -> DamagedFileError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DamagedFileError(f"{os.fspath(path)!r} cannot be read as {kind}, it may be cut short: {reason}")
