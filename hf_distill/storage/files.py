"""Files that are whole or not there, files that say when they are damaged, and full disks that say so.

Everything is written into a scratch folder beside its place, forced to the disk, and renamed: a process killed at any
moment leaves no half of a file under the name that others read. No other module of the package writes files; what a
library writes itself, it writes to the path that `new_file` or `new_files` gives.
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
# What libraries say of a full disk that have no error numbers: Rust's, PyTorch's and NumPy's.
_FULL_WORDS = (
    *("No space left on device", "Disk quota exceeded", "File too large"),
    *("(os error 28)", "(os error 122)", "(os error 27)"),
    *("PytorchStreamWriter failed", "file write failed", ". unexpected pos "),
)
_CUT_SHORT = "is damaged or cut short"
_FULL_FOR_NUMPY = re.compile(r"\d+ requested and \d+ written")


class DamagedFileError(ValueError):
    """A file is not what its name says: cut short, changed, or of another kind. The message names the file."""


class DiskFullError(OSError):
    """A disk, a quota or the largest size of a file is reached; nothing unfinished is under a name that is read."""


# --- writing --------------------------------------------------------------------------------------------------------


def write_bytes(path: PathLike, content: bytes) -> Path:
    """Write a whole file, or nothing.

    Args:
        path: Where to; its folder is made if needed.
        content: What to write.

    Returns:
        The file.

    Raises:
        OSError: If it cannot be written; a file that was there before is as it was.
    """
    with new_file(path) as part:
        part.write_bytes(content)
    return Path(path)


def write_text(path: PathLike, text: str) -> Path:
    """As `write_bytes`, in UTF-8."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: PathLike, content: Any, **options: Any) -> Path:
    """As `write_bytes`, for what JSON can hold; `options` are those of `json.dumps`."""
    return write_text(path, json.dumps(content, **{"indent": 2, "ensure_ascii": False, **options}) + "\n")


def write_yaml(path: PathLike, content: Any, **options: Any) -> Path:
    """As `write_bytes`, for what YAML can hold; `options` are those of `yaml.safe_dump`."""
    return write_text(path, yaml.safe_dump(content, **options))


def write_arrays(path: PathLike, arrays: Iterable[np.ndarray]) -> tuple[int, str]:
    """Write the bytes of some arrays one after the other as one whole file.

    Returns:
        Bytes and checksum of the file.

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
    """Add lines to a file, down to the disk; its last line may be cut where a process is killed."""
    with disk_space(Path(path)), Path(path).open("a", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def copy_file(source: PathLike, path: PathLike) -> Path:
    """Copy a file, whole or not at all."""
    with new_file(path) as part:
        shutil.copy(source, part)
    return Path(path)


def copy_folder(source: PathLike, folder: PathLike, *, leave_out: Sequence[str] = ()) -> None:
    """Copy the files of a folder into another one, each whole or not at all; what is there besides stays.

    Args:
        source: What is copied.
        folder: Where to.
        leave_out: Patterns of names that stay behind.
    """
    with new_files(folder) as part:
        shutil.copytree(source, part, ignore=shutil.ignore_patterns(*leave_out), dirs_exist_ok=True)


@contextmanager
def new_file(path: PathLike) -> Iterator[Path]:
    """Give a temporary path for a file that takes its place when the block ends without an error.

    Args:
        path: The file; one that is there stays as it is until then. What is no plain file (a terminal) is written to.

    Raises:
        OSError: If it cannot be written; `DiskFullError` if the disk is full, whatever a library makes of that.
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
    """Give an empty folder for files that take their places in `folder` when the block ends without an error.

    Each is whole or not there, as with `new_file`; what else lies in the folder stays.

    Args:
        folder: Where the files go; it is made if needed.

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
    """Give an empty folder as `new_files` does, for a model: old weights of the same kind are deleted.

    Of weights in one file and in several, `from_pretrained` would take those that it looks for first.
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
    """Give an empty folder that takes the place of `folder` as a whole when the block ends without an error.

    Args:
        folder: The folder; one that is there stays as it is until then, and is gone afterwards.
        unless: Whether, at the end, the one that is there is to stay: another process was faster.

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
            # Between the two lines the other one may have come.
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
    """Force every file of a folder to the disk."""
    for file in Path(folder).rglob("*"):
        if file.is_file():
            _to_disk(file)


@contextmanager
def disk_space(where: Path, what: str = "", flags: str = "--output_dir") -> Iterator[None]:
    """Turn a full disk into an error of one line that says which one is full and what to do.

    Args:
        where: File or folder that is written.
        what: What is being written; the name of the file if it is not said.
        flags: The flags that name another place.

    Raises:
        DiskFullError: In place of what Python or a library raises then.
    """
    try:
        yield
    except Exception as error:
        # Who knows better what is being written says it in place of who wrote a part of it.
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
    """Return whether an error, or what it came from, is that of a full disk: libraries raise many kinds."""
    came_from: BaseException | None = error
    while came_from is not None:
        if isinstance(came_from, OSError) and came_from.errno in _FULL:
            return True
        if any(words in str(came_from) for words in _FULL_WORDS) or _FULL_FOR_NUMPY.search(str(came_from)):
            return True
        # Writers that are closed because of a full disk raise errors of their own.
        came_from = came_from.__cause__ or (None if came_from.__suppress_context__ else came_from.__context__)
    return False


def _real(path: PathLike) -> Path:
    """Return the path itself, behind a link that has its name: what is renamed must not replace the link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def _to_disk(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a folder of this process inside `folder`, where it is on the same disk; gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    scratch = folder / f"{SCRATCH}-{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        scratch.mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_abandoned(folder: PathLike) -> None:
    """Delete what processes of this machine that were killed left unfinished in a folder."""
    mine = f"{SCRATCH}-{_machine()}-"
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(mine)]
    for name in names:
        process = name.removeprefix(mine).partition("-")[0]
        if process.isdigit() and not is_alive(int(process)):
            shutil.rmtree(Path(folder, name), ignore_errors=True)


def is_alive(process: int) -> bool:
    """Return whether a process of this machine lives; on systems that do not tell it does."""
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
    """Return what tells the processes of this machine from others: its name, and that of a container's own numbers."""
    try:
        # Containers may have the name of the machine, and count their processes by themselves.
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _machine() -> str:
    name, _, numbers = machine().partition(" ")
    return re.sub(r"\W", "_", name[:40]) + re.sub(r"\D", "", numbers)


# --- reading --------------------------------------------------------------------------------------------------------


def read_text(path: PathLike) -> str:
    """Return the text of a file in UTF-8, without a byte order mark.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFileError: If it is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _damaged(path, "text in UTF-8", error) from error


def read_json(path: PathLike) -> Any:
    """Return the content of a JSON file.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFileError: If it is damaged, cut short, or no JSON; the message names the file.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "JSON", error) from error


class _Loader(yaml.SafeLoader):
    """Refuses a name that is given twice: the first value would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is given twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: PathLike) -> Any:
    """Return the content of a YAML file.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFileError: If it is damaged, cut short, or no YAML; the message names the file.
    """
    text = read_text(path)
    try:
        value = yaml.load(text, _Loader)
    except Exception as error:
        # Of dates and numbers that there are not, PyYAML raises what it stumbles over: KeyError and IndexError too.
        raise _damaged(path, "YAML", error) from error
    check_plain(value, repr(os.fspath(path)))
    return value


def read_mapping(path: PathLike) -> dict[str, Any]:
    """Return the `name: value` pairs of a file: JSON where its name ends so, else YAML.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFileError: If it cannot be read, or holds something else; the message names the file.
    """
    values = read_json(path) if Path(path).suffix == ".json" else read_yaml(path)
    try:
        return as_mapping(values, repr(os.fspath(path)))
    except ValueError as error:
        raise DamagedFileError(str(error)) from error


def close_path(path: PathLike) -> str:
    """The end of an error about a path that is not there: the names beside it that are close, or nothing."""
    path = Path(path).expanduser()
    try:
        return did_you_mean(path.name, (item.name for item in path.parent.iterdir()))
    except (OSError, ValueError):
        return ""


def checksum_of(path: PathLike) -> str:
    """Return the checksum of a file's content."""
    digest = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while data := file.read(_READ):
            digest.update(data)
    return digest.hexdigest()


def damage_of_file(path: PathLike) -> str | None:
    """Say what is wrong with a file as far as the file alone shows it; `None` if nothing does.

    JSON is parsed, the header of safetensors is compared with the file's size, and the checksums of the archives that
    `torch.save` writes are computed. Files of other kinds are not looked at.
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
        # The pickles of old versions have no checksums.
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
