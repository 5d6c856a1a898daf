"""Which commit a number was made with."""

import subprocess


def head_commit() -> str:
    """The commit that is checked out, short."""
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
