"""Every job writes its settings and environment beside its result."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

from hf_distill.hub.disclosure import public
from hf_distill.storage.files import write_json

RESULTS_FILE = "results.json"


def environment() -> dict[str, Any]:
    """Versions and machine that a result was made with."""
    from hf_distill import __version__

    on_gpu = torch.cuda.is_available()
    return {
        "hf_distill": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "datasets": datasets.__version__,
        "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def cost_of_training(results: dict[str, Any]) -> str:
    """`120 steps in 35 s`; no seconds where a training was resumed that did not note them."""
    seconds = results["training_seconds"]
    return f"{results['steps']} steps" + ("" if seconds is None else f" in {seconds:.0f} s")


def write_results(folder: str | Path, results: dict[str, Any], name: str = RESULTS_FILE) -> Path:
    """Write a job's result as JSON: numbers that are not finite as null, no secret, no folder of this machine.

    Returns:
        The file.
    """
    path = Path(folder) / name
    return write_json(path, _finite(public(results)), allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    """The value with NaN and infinities replaced: JSON has none."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
