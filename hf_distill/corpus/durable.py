"""Files that are either whole or not there, and full disks that say so.

A file is written beside its name, forced to the disk, and renamed: a process killed at any moment leaves no half of
one under the name that others read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xxhash

_READ = 1 << 24
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def write_arrays(path: Path, arrays: Iterable[np.ndarray]) -> tuple[int, str]:
    """Writes the bytes of some arrays one after the other, as one file that appears when it is complete.

    Returns:
        Bytes and checksum of the file.

    Raises:
        OSError: If the disk is full or broken; nothing is under `path` then.
    """
    partial = path.with_name(path.name + ".partial")
    digest, size = xxhash.xxh3_128(), 0
    with partial.open("wb") as file:
        for array in arrays:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            file.write(data)
            digest.update(data)
            size += len(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return size, digest.hexdigest()


def checksum_of(path: Path) -> str:
    """Checksum of a file's content."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while data := file.read(_READ):
            digest.update(data)
    return digest.hexdigest()


@contextmanager
def space_for(folder: Path, what: str, flags: str) -> Iterator[None]:
    """Turns a full disk into an error that says which folder is full and what to do.

    Args:
        folder: Where files are written.
        what: What is being written.
        flags: The flags that name another folder.

    Raises:
        OSError: With the number of the error that it stands for.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno,
            f"The disk is full: {what} could not be written to {str(folder)!r}. Nothing unfinished is taken for "
            f"finished. Make room and start again, which goes on after the last finished part, or name a folder on "
            f"another disk ({flags})",
        ) from error
