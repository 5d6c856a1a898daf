"""Names and folders that a user gives: a name stays inside its folder, and outputs stay apart from inputs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .files import PathLike

# Characters and names that no file system, or at least one of the three usual ones, accepts for a file.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[/\\\x00-\x1f\x7f<>:"|?*]')
LONGEST = 200


def safe_name(name: Any, where: str) -> str:
    """Return the name unchanged, if it can be the name of one file or folder and nothing else.

    Args:
        name: The name that a user, a file or a flag gave.
        where: The flag or field that gave it, for the error message.

    Raises:
        ValueError: If it is not a string, is empty, is longer than 200 bytes, is `.` or `..`, begins or ends with a
            blank, contains a path separator or another character that file systems refuse, or is the name of a device.
    """
    if not isinstance(name, str):
        raise ValueError(f"{where} is {name!r}; a name must be text (put it between quotes).")
    found = _FORBIDDEN.search(name)
    if found:
        raise ValueError(f"{where} is {name!r}; a name becomes a folder, so it cannot have {found[0]!r}.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} is {name!r}; the name is not valid text ({error.reason}).") from error
    if not name or name != name.strip() or name.endswith(".") or _RESERVED.fullmatch(name) or size > LONGEST:
        raise ValueError(
            f"{where} is {name[:60]!r}; a name becomes a folder: one to {LONGEST} bytes, no blank at its ends, no dot "
            "at its end, no name of a device."
        )
    return name


def near_name(name: str) -> str:
    """Turn any name, such as that of a user's file, into a similar one that `safe_name` accepts."""
    near = _FORBIDDEN.sub("_", name).encode(errors="replace")[:LONGEST].decode(errors="ignore").strip().rstrip(". ")
    return f"_{near}" if not near or _RESERVED.fullmatch(near) else near


def safe_path(name: Any, where: str) -> str:
    """Return the name unchanged, if it is a `safe_name` or several of them with slashes between, such as `glue/sst2`.

    Raises:
        ValueError: As `safe_name`, for each part.
    """
    if not isinstance(name, str):
        return safe_name(name, where)
    for part in name.split("/"):
        try:
            safe_name(part, where)
        except ValueError as error:
            raise ValueError(f"{error} (of {name!r})" if part != name else str(error)) from None
    return name


def check_apart(
    output: PathLike | None,
    inputs: Mapping[str, Any],
    *,
    flag: str = "--output_dir",
    parts: Sequence[str] = ("checkpoint-*",),
    inside: bool = False,
) -> None:
    """Refuse an output folder that would overwrite an input.

    Args:
        output: The folder that is written; `None` if there is none.
        inputs: Flag -> what is read: a path, several paths, or `None`. Values that are not paths on this machine are
            skipped.
        flag: The argument that named the output.
        parts: Patterns of the files and folders inside the output folder that are overwritten too.
        inside: Whether the output may lie inside an input.

    Raises:
        ValueError: If the output is an input, lies inside one, or an input lies in a part of the output that is
            overwritten. Links and other spellings of a path are resolved first. The message names both.
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
    """Describe how an output would overwrite an input; `None` if it would not."""
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
