"""Writes the results of a job, together with its settings and its environment."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hf_distill.hub.disclosure import public, public_command
from hf_distill.hub.selection import RESULTS_FILE
from hf_distill.settings.parsing import write_arguments
from hf_distill.storage.files import write_json


def environment() -> dict[str, Any]:
    """Return versions and machine for a result; facts from torch are included only if the job has imported it."""
    from hf_distill import __version__

    torch: Any = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available()
    return {
        "hf_distill": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "datasets")},
        "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "cpus": os.cpu_count(),
        **({} if torch is None else {"threads": torch.get_num_threads()}),
    }


def command_line(verb: str, settings: Mapping[str, Any]) -> str:
    """The command line of a verb with these settings, quoted for the shell; secrets and local folders are left out."""
    words = ["hf-distill", verb]
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            items = value if isinstance(value, list) else [value]
            words += [
                f"--{name}",
                *(json.dumps(item) if isinstance(item, (dict, list)) else str(item) for item in items),
            ]
    return public_command(words)


def cost_of_training(results: dict[str, Any]) -> str:
    """Describe the cost of a training: `120 steps in 35 s`; without seconds if a resumed run did not record them."""
    seconds = results["training_seconds"]
    return f"{results['steps']} steps" + ("" if seconds is None else f" in {seconds:.0f} s")


def write_results(folder: str | Path, results: dict[str, Any], name: str = RESULTS_FILE) -> Path:
    """Write a job's result as JSON: non-finite numbers become null; secrets and local folders are removed.

    Returns:
        The path of the file.
    """
    path = Path(folder) / name
    return write_json(path, _finite(public(results)), allow_nan=False, default=str)


def finish(
    folder: str | Path,
    facts: dict[str, Any],
    started: float,
    *arguments: Any,
    name: str = RESULTS_FILE,
    write: bool = True,
) -> dict[str, Any]:
    """Complete the results of a job with its environment and duration, and write them beside its arguments.

    Args:
        folder: Folder of the job.
        facts: Its results; `environment` and `seconds` are added.
        started: The start time, from `time.perf_counter`.
        arguments: The argument classes that repeat the job; without any, no `arguments.yaml` is written.
        name: File of the results.
        write: Whether this process writes the files.

    Returns:
        `facts`.
    """
    facts |= {"environment": environment(), "seconds": round(time.perf_counter() - started, 2)}
    if write:
        write_results(folder, facts, name)
        if arguments:
            write_arguments(folder, *arguments)
    return facts


def _finite(value: Any) -> Any:
    """The value with NaN and infinities replaced, because JSON has none."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
