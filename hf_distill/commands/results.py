"""Writes the results of a job, with its settings and its environment beside them."""

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
    """Return versions and machine of a result; facts that torch knows are there only if the job has loaded it."""
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
    """Return the command line of a verb with these settings, quoted for the shell, without secrets and own folders."""
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
    """Say what a training cost: `120 steps in 35 s`; without seconds where a resumed run had not noted them."""
    seconds = results["training_seconds"]
    return f"{results['steps']} steps" + ("" if seconds is None else f" in {seconds:.0f} s")


def write_results(folder: str | Path, results: dict[str, Any], name: str = RESULTS_FILE) -> Path:
    """Write a job's result as JSON: numbers that are not finite as null, no secret, no folder of this machine.

    Returns:
        The file.
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
    """Complete the results of a job with its machine and its seconds, and write them beside its arguments.

    Args:
        folder: Folder of the job.
        facts: Its results; `environment` and `seconds` are added.
        started: When it began, by `time.perf_counter`.
        arguments: The argument classes that repeat it; without any, no `arguments.yaml` is written.
        name: File of the results.
        write: Whether this process is the one that writes.

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
    """The value with NaN and infinities replaced: JSON has none."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
