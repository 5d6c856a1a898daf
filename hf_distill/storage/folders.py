"""Names and folders that a run is given: names stay inside the folder they are for, outputs stay apart from inputs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .files import PathLike

# What no file system, or none of the usual three, takes for a file.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[/\\\x00-\x1f\x7f<>:"|?*]')
LONGEST = 200


def safe_name(name: Any, where: str) -> str:
    """Return the name itself, if it is that of one file or folder and of nothing else.

    Args:
        name: What a user, a file or a flag gave.
        where: The flag or field that gave it, for the error.

    Raises:
        ValueError: If it is no text, empty, longer than 200 bytes, `.` or `..`, begins or ends with a blank, has a
            separator or another character that file systems refuse, or is a name of a device.
    """
    if not isinstance(name, str):
        raise ValueError(f"{where} is {name!r}; a name must be text (put it between quotes).")
    found = _FORBIDDEN.search(name)
    if found:
        raise ValueError(f"{where} is {name!r}; a name becomes a folder, so it cannot have {found[0]!r}.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} is {name!r}; the name is no valid text ({error.reason}).") from error
    if not name or name != name.strip() or name.endswith(".") or _RESERVED.fullmatch(name) or size > LONGEST:
        raise ValueError(
            f"{where} is {name[:60]!r}; a name becomes a folder: one to {LONGEST} bytes, no blank at its ends, no dot "
            "at its end, no name of a device."
        )
    return name


def near_name(name: str) -> str:
    """Return a name that `safe_name` takes, made of one that need not be: that of a file of a user."""
    near = _FORBIDDEN.sub("_", name).encode(errors="replace")[:LONGEST].decode(errors="ignore").strip().rstrip(". ")
    return f"_{near}" if not near or _RESERVED.fullmatch(near) else near


def safe_path(name: Any, where: str) -> str:
    """Return the name itself, if it is one of `safe_name`, or several with a slash between them such as `glue/sst2`.

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
