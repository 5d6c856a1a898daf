"""What every result carries, and the file that it goes to."""

import json
import subprocess
from pathlib import Path
from typing import Any


def head_commit() -> str:
    """The commit that is checked out, short, with `+` for changes of the package on top."""
    head = _git("rev-parse", "--short", "HEAD")
    return head + ("+" if _git("status", "--porcelain", "--", "../hf_distill") else "")


def append_line(output: str | Path, result: dict[str, Any]) -> None:
    """Add a result to a file of JSON lines, which is made if need be."""
    file = Path(output)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(result) + "\n")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
