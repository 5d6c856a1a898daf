"""Presets: the settings of a paper under one name, each value with its place in the paper beside it (YAML files here).

Code that uses a preset does not belong here. A preset stands below a configuration file and below flags: whatever is
given there wins.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from hf_distill.storage.plain_values import did_you_mean


@dataclass(frozen=True)
class Preset:
    """The settings of one paper.

    Attributes:
        name: What it is called here.
        about: What the student learns from, in one line.
        source: Where the values come from.
        citation: BibTeX key (see `hf_distill.hub`).
        student: Fields of `StudentArguments`.
        training: Fields of `DistillationArguments`.
    """

    name: str
    about: str
    source: str
    citation: str
    student: Mapping[str, Any]
    training: Mapping[str, Any]


def list_presets() -> list[str]:
    """The names of all presets."""
    found = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def read_preset(name: str) -> Preset:
    """One preset with all that is known about it.

    Raises:
        ValueError: If there is none of this name.
    """
    known = list_presets()
    if not isinstance(name, str):
        raise ValueError(f"`--preset` is {name!r}; allowed are {', '.join(known)}.")
    if name not in known:
        hint = did_you_mean(name, known)
        raise ValueError(f"`--preset` is {name!r}; allowed are {', '.join(known)}.{hint}")
    text = (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    return Preset(name=name, **yaml.safe_load(text))


def load_preset(name: str) -> dict[str, Any]:
    """The training settings of a preset: `DistillationArguments("student", **load_preset("minilmv2"))`.

    Raises:
        ValueError: If there is none of this name.
    """
    return copy.deepcopy(dict(read_preset(name).training))


def preset_values(name: str) -> dict[str, Any]:
    """The settings of a preset for the student and for training together.

    Raises:
        ValueError: If there is none of this name.
    """
    preset = read_preset(name)
    return {**preset.student, **preset.training}
