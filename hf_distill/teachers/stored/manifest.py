"""`manifest.json`: what a folder of stored signals contains, and the settings that it was made with."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...capture.signals import SignalRequest
from ...storage import steps
from ...storage.files import read_mapping, write_json
from ...storage.plain_values import as_hint
from .columns import StoredSignal

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
FORMAT = 3
# Shards that a process has finished, until the manifest has them.
_NOTES = "shards-of-process-{}.json"
# Sizes and checksums of the shards that are finished, by their names.
SHARDS = "shards"


@dataclass(frozen=True)
class _Request:
    """The fields of a request."""

    logits: bool
    hidden_states: list[int] = field(default_factory=list)
    projections: list[int] = field(default_factory=list)
    attention_scores: list[int] = field(default_factory=list)
    pooled: bool = False


_FIELDS: dict[str, Any] = {
    "num_layers": int,
    "model_type": str,
    "request": _Request,
    "signals": list[StoredSignal],
    "rows": int,
    "shard_rows": int,
    SHARDS: dict[str, dict[str, Any]],
}
# Fields that decide nothing: two calls may differ in them.
SILENT_FIELDS = frozenset({"hf_distill", "source", SHARDS})
# From so many bytes on the reader waits long enough to be told why.
_LARGE = 1 << 30


def is_stored_teacher(folder: Any) -> bool:
    """Return whether `folder` is a path that `precompute` wrote."""
    return isinstance(folder, (str, os.PathLike)) and Path(folder, MANIFEST_FILE).is_file()


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises:
        FileNotFoundError: If the folder has none.
        ValueError: If another version of the format was written.
    """
    path = Path(folder, MANIFEST_FILE)
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no stored teacher (no {MANIFEST_FILE}): run precompute first.")
    manifest = read_mapping(path)
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{str(path)!r} has format {manifest.get('format')}, this version of hf_distill reads {FORMAT}: "
            "precompute it again."
        )
    for notes in sorted(Path(folder).glob(_NOTES.format("*"))):
        manifest[SHARDS] = manifest.get(SHARDS, {}) | read_mapping(notes)
    # What opening the folder rests on; everything else is compared only.
    for name, hint in _FIELDS.items():
        if name not in manifest:
            raise ValueError(f"{str(path)!r} lacks {name!r}: precompute it again.")
        as_hint(manifest[name], hint, f"{str(path)!r}: `{name}`")
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a folder."""
    write_json(folder / MANIFEST_FILE, manifest)


def note_shards(folder: Path, made: Mapping[str, Any], process: int) -> None:
    """Write which shards a process has made, to a file of its own; `read_manifest` reads it too.

    Args:
        folder: The folder.
        made: Name of a shard -> its size and checksum.
        process: Number of the process.
    """
    write_json(folder / _NOTES.format(process), made)


def gather_notes(folder: Path) -> None:
    """Write what processes have noted into the manifest; of several processes the first does."""
    write_manifest(folder, read_manifest(folder))
    for notes in folder.glob(_NOTES.format("*")):
        notes.unlink()


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name every field in which two manifests differ, with both values; "" if none does."""
    # How the signals are stored follows from what was asked for.
    follows = {"signals"} if stored.get("request") != wanted.get("request") else set()
    left_out = SILENT_FIELDS | follows
    before, now = ({name: fields[name] for name in fields if name not in left_out} for fields in (stored, wanted))
    return steps.differences(before, now, "stored")


def shard_paths(folder: str | os.PathLike[str], manifest: Mapping[str, Any]) -> list[Path]:
    """Return the files of a stored teacher."""
    count = -(-manifest["rows"] // manifest["shard_rows"])
    return [Path(folder, f"signals-{index:05d}-of-{count:05d}.arrow") for index in range(count)]


def is_whole(path: Path, manifest: Mapping[str, Any]) -> bool:
    """Return whether a shard is there and every byte of it is what was written; looked at once in a process."""
    noted = manifest[SHARDS].get(path.name)
    return noted is not None and steps.damage_of_noted(path, noted) is None


def verify_shards(folder: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Look at every shard; of several processes on one machine the first does.

    Raises:
        ValueError: If one is missing, was cut short or has changed.
    """
    paths = shard_paths(folder, manifest)
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"The stored teacher in {str(folder)!r} is not complete: {len(missing)} of {len(paths)} shards are "
            f"missing (the first is {missing[0]}). Run precompute again with the same settings to finish it."
        )
    if os.environ.get("LOCAL_RANK", "0") not in ("0", "-1"):
        return
    size = sum(path.stat().st_size for path in paths)
    say = logger.warning if size >= _LARGE else logger.info
    say(f"Comparing {len(paths)} shards of the stored teacher in {folder} ({size / 1e9:,.2f} GB) with checksums.")
    damaged = [path.name for path in paths if not is_whole(path, manifest)]
    if damaged:
        raise ValueError(
            f"The stored teacher in {str(folder)!r} is damaged: {len(damaged)} of {len(paths)} shards are not what "
            f"was written (the first is {damaged[0]}). Run precompute again with the same settings: it makes these "
            "anew."
        )


def request_fields(request: SignalRequest) -> dict[str, Any]:
    """Return a request as plain values."""
    return {
        "logits": request.logits,
        "hidden_states": sorted(request.hidden_states),
        "projections": sorted(request.projections),
        "attention_scores": sorted(request.attention_scores),
        **({"pooled": True} if request.pooled else {}),
    }


def request_from(fields: Mapping[str, Any]) -> SignalRequest:
    """Return the reverse of `request_fields`."""
    flags = ("logits", "pooled")
    request: dict[str, Any] = {name: bool(fields.get(name)) for name in flags}
    request |= {name: frozenset(value) for name, value in fields.items() if name not in flags}
    return SignalRequest(**request)


def missing_signals(request: SignalRequest, stored: SignalRequest) -> str:
    """Name the signals of a request that the store lacks, in words; "" if it lacks nothing."""
    names = {"logits": "logits", "pooled": "vectors of texts"}
    found = [words for name, words in names.items() if getattr(request, name) and not getattr(stored, name)]
    for name in ("hidden_states", "projections", "attention_scores"):
        layers = sorted(getattr(request, name) - getattr(stored, name))
        if layers:
            found.append(f"{name} of layers {layers}")
    return ", ".join(found)
