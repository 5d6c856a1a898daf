"""Steps that are finished or absent: a folder with a marker that says what made it and what is in it.

The marker is written twice: before the work, so that a killed step is known for what it is, and by a rename when all
files are on the disk, with their sizes and checksums. A folder without a marker was made by somebody else.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .files import DamagedFileError, PathLike, checksum_of, read_json, remove, to_disk, write_json

# The underscore keeps it out of every push to the Hub.
MARKER = "_finished.json"
_CUT_SHORT = "is damaged or cut short"


def begin(folder: PathLike) -> Path:
    """An empty folder whose marker says that its step is not finished; what was there is removed.

    Returns:
        The folder.
    """
    folder = Path(folder)
    if (folder / MARKER).is_file():
        # Killed from here on, the rest of an earlier step is nobody's finished step.
        write_json(folder / MARKER, {"finished": False})
    remove(folder)
    write_json(folder / MARKER, {"finished": False})
    return folder


def finish(folder: PathLike, settings: Mapping[str, Any] | None = None) -> None:
    """Say that a step is finished, when its files are on the disk.

    Args:
        folder: Where its files are.
        settings: What made it, JSON-able.
    """
    folder = Path(folder)
    to_disk(folder)
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "checksum": checksum_of(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MARKER
    }
    write_json(folder / MARKER, {"finished": True, "settings": dict(settings or {}), "files": files}, default=str)


def read_marker(folder: PathLike) -> dict[str, Any] | None:
    """Read the marker of a folder; `None` if there is none.

    Raises:
        DamagedFileError: If it cannot be read.
    """
    path = Path(folder, MARKER)
    if not path.is_file():
        return None
    marker = read_json(path)
    files = marker.get("files", {}) if isinstance(marker, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(noted, dict) and {"bytes", "checksum"} <= set(noted) for noted in files.values()
    ):
        raise DamagedFileError(f"{str(path)!r} is no marker of a finished step.")
    return marker


def damage_of_step(folder: PathLike, *, besides: Collection[str] = ()) -> str | None:
    """Say what is wrong with a step that has a marker, naming the file; `None` if it is whole.

    Args:
        folder: Where its files are.
        besides: Files that are not looked at.
    """
    try:
        marker = read_marker(folder)
    except DamagedFileError as error:
        return str(error)
    if marker is None or not marker.get("finished"):
        return f"{os.fspath(folder)!r} was not finished"
    for name, noted in marker["files"].items():
        path = Path(folder, name)
        if name in besides:
            continue
        if not path.is_file():
            return f"{str(path)!r} is missing"
        if path.stat().st_size != noted["bytes"]:
            return f"{str(path)!r} {_CUT_SHORT}: it has {path.stat().st_size} bytes, {noted['bytes']} were written"
        if checksum_of(path) != noted["checksum"]:
            return f"{str(path)!r} is damaged: its content is not what was written"
    return None


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


def differences(before: Mapping[str, Any], now: Mapping[str, Any], there: str = "there") -> str:
    """The fields in which what made two results differs, with both values; "" if none does.

    Args:
        before: Settings of what is on the disk.
        now: Settings of what is to be made.
        there: What to say behind a value of the first.
    """
    now = json.loads(json.dumps(now, default=str))
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {before.get(name)} {there}, {now.get(name)} now" for name in names)


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
