"""A command ends with its exit status, and with one line where something was wrong.

An error of the user (a wrong value, a missing file, a package that is not installed) ends with status 2. What nobody
foresaw is a fault of this package: it ends with status 70 and says how to see where it happened.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from hf_distill.hub.disclosure import without_secrets

# Shows the whole traceback of every error.
DEBUG_VARIABLE = "HF_DISTILL_DEBUG"
USER_ERROR, OUT_OF_MEMORY, FAULT, INTERRUPTED, BROKEN_PIPE = 2, 1, 70, 130, 141


def run_command(name: str, job: Callable[[], Any]) -> int:
    """Run a job as a command of the shell does.

    Args:
        name: What the lines on stderr begin with: the verb, or the name of the script.
        job: What to do; what it returns is not looked at.

    Returns:
        The exit status: 0, or 2 (wrong input), 1 (out of memory), 70 (fault of this package), 130 (interrupted), 141
        (nobody reads the output any more).

    Raises:
        Exception: Every error of the job as it is, if the environment variable HF_DISTILL_DEBUG is set.
    """
    try:
        job()
        sys.stdout.flush()
    except BrokenPipeError:
        _close_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{name}: interrupted\n")
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        line, status = _explain(error)
        sys.stderr.write(f"{name}: {line}\n")
        return status
    return 0


def _explain(error: Exception) -> tuple[str, int]:
    """One line about an error, and the exit status."""
    # Some errors of libraries are pages; one line is what a terminal or a log should end with.
    text = str(without_secrets(" ".join(str(error).split())))
    if isinstance(error, (ValueError, OSError, ImportError)):
        return text or type(error).__name__, USER_ERROR
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({text or 'no further words'}): take smaller batches or shorter rows.", OUT_OF_MEMORY
    return (
        f"this is a fault of hf_distill, please report it: {type(error).__name__}: {text} "
        f"({DEBUG_VARIABLE}=1 shows where it happened)",
        FAULT,
    )


def _close_output() -> None:
    """Let the interpreter end in silence although nobody reads its output."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        # There is no real file behind the output, so nothing is flushed at the end.
        return
