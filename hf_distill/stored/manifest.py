"""`manifest.json`: what a folder of stored signals holds, and what decided it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..signals import SignalRequest
from ..storage.files import read_json, write_json

MANIFEST_FILE = "manifest.json"
FORMAT = 1
# Fields that decide nothing: two calls may differ in them.
SILENT_FIELDS = frozenset({"hf_distill", "source"})


def is_stored_teacher(folder: Any) -> bool:
    """Whether `folder` is a path that `precompute` wrote."""
    return isinstance(folder, (str, os.PathLike)) and Path(folder, MANIFEST_FILE).is_file()


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        FileNotFoundError: If the folder has none.
        ValueError: If another version of the format was written.
    """
    path = Path(folder, MANIFEST_FILE)
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no stored teacher (no {MANIFEST_FILE}): run precompute first.")
    manifest = read_json(path)
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{str(path)!r} has format {manifest.get('format')}, this version of hf_distill reads {FORMAT}: "
            "precompute it again."
        )
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a folder."""
    write_json(folder / MANIFEST_FILE, manifest)


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Every field in which two manifests differ with both values, or "" if none does."""
    names = sorted((stored.keys() | wanted.keys()) - SILENT_FIELDS)
    different = [name for name in names if stored.get(name) != wanted.get(name)]
    if "request" in different:
        # How the signals are stored follows from what was asked for.
        different = [name for name in different if name != "signals"]
    return "; ".join(f"{name}: {stored.get(name)} stored, {wanted.get(name)} now" for name in different)


def request_fields(request: SignalRequest) -> dict[str, Any]:
    """A request as plain values."""
    return {
        "logits": request.logits,
        "hidden_states": sorted(request.hidden_states),
        "projections": sorted(request.projections),
        "attention_scores": sorted(request.attention_scores),
    }


def request_from(fields: Mapping[str, Any]) -> SignalRequest:
    """The reverse of `request_fields`."""
    layers = {name: frozenset(value) for name, value in fields.items() if name != "logits"}
    return SignalRequest(logits=fields["logits"], **layers)


def missing_signals(request: SignalRequest, stored: SignalRequest) -> str:
    """What a request asks for and the store lacks, in words; "" if it lacks nothing."""
    found = ["logits"] if request.logits and not stored.logits else []
    for name in ("hidden_states", "projections", "attention_scores"):
        layers = sorted(getattr(request, name) - getattr(stored, name))
        if layers:
            found.append(f"{name} of layers {layers}")
    return ", ".join(found)
