"""What all scripts share: the parser, the command, the origin of a result, and its output file."""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def script_parser(text: str | None) -> argparse.ArgumentParser:
    """A parser with the script's docstring as description, and `--output`."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file of JSON lines to append to")
    return parser


def script_command(name: str, words: Sequence[str] | None = None) -> str:
    """The command line of a script, without local folders."""
    given = sys.argv[1:] if words is None else words
    shown = [Path(word).name if Path(word).is_absolute() else word for word in given]
    return shlex.join(["python", f"benchmarks/{name}.py", *shown])


def origin(name: str) -> dict[str, Any]:
    """The origin of a result of a script that times torch."""
    import torch

    return {
        "benchmark": name,
        "command": script_command(name),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "commit": head_commit(),
    }


def head_commit() -> str:
    """The checked-out commit, abbreviated, with `+` if the package has uncommitted changes."""
    head = _git("rev-parse", "--short", "HEAD")
    return head + ("+" if _git("status", "--porcelain", "--", "../hf_distill") else "")


def report(result: dict[str, Any], output: str | Path | None, indent: int | None = 2) -> None:
    """Print a result, and append it to a file if one is named."""
    print(json.dumps(result, indent=indent), flush=True)
    if output:
        append_line(output, result)


def append_line(output: str | Path, result: dict[str, Any]) -> None:
    """Append a result to a file of JSON lines, which is created if needed."""
    file = Path(output)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(result) + "\n")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
