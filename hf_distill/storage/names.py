"""Names that become files or folders: whatever they say, they stay inside the folder that they are for."""

from __future__ import annotations

import re
from typing import Any

# What no file system, or none of the usual three, takes for a file.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[/\\\x00-\x1f\x7f<>:"|?*]')
LONGEST = 200


def safe_name(name: Any, where: str) -> str:
    """The name itself, if it is that of one file or folder and of nothing else.

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


def safe_path(name: Any, where: str) -> str:
    """The name itself, if it is one of `safe_name`, or several with a slash between them such as `glue/sst2`.

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
