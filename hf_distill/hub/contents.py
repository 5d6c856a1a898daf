"""Contents of files as they are uploaded to the Hub, where these differ from the files on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..storage.files import read_json, read_text
from .dataset_card import LOCAL_FOLDER
from .disclosure import public, without_secrets
from .model_card import FACTS_FILE
from .selection import CARD_FILE, Selection

RESULTS_FILE = "results.json"
STATISTICS_FILE = "statistics.json"
# Files of transformers and peft in which a model's own folder may stand.
CONFIGURATIONS = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")
# Their fields that hold a path or an id; of any other field a text that looks like a path may be a token.
_PATHS = ("name_or_path", "_file", "cache_dir", "model_name", "tokenizer_class_path", "auto_mapping")


def contents(selection: Selection, path: str, repo: str) -> Path | bytes:
    """The file itself, or its text as the Hub gets it.

    A card loads the model or corpus from its repository; nothing has a secret or a folder of this machine in it.

    Args:
        selection: What is uploaded.
        path: One of its files.
        repo: Id of the repository.
    """
    source = selection.folder / path
    if path == CARD_FILE:
        text = read_text(source)
        for name in _local_names(selection):
            for call in ("from_pretrained", "load_dataset"):
                text = text.replace(f'{call}("{name}"', f'{call}("{repo}"')
            text = text.replace(f'model="{name}"', f'model="{repo}"')
        return str(public(text)).encode()
    if path in (RESULTS_FILE, STATISTICS_FILE):
        return _as_json(public(_read_json(source)))
    if Path(path).name in CONFIGURATIONS:
        return _configuration(source)
    if path == FACTS_FILE:
        facts = public(_read_json(source))
        return _as_json({**facts, "student": {**facts.get("student", {}), "hub_id": repo}})
    return source


def _local_names(selection: Selection) -> list[str]:
    """Return the names that the card of this folder gives to the model or corpus."""
    if selection.repo_type == "dataset":
        return [LOCAL_FOLDER]
    if not selection.has(FACTS_FILE):
        return []
    student = _read_json(selection.folder / FACTS_FILE).get("student", {})
    return [name for name in (student.get("hub_id"), student.get("name")) if name]


def _configuration(source: Path) -> Path | bytes:
    """The file itself if nothing in it is private, else its text without that."""
    values = _read_json(source)
    shown = without_secrets(_without_folders(values))
    return source if shown == values else _as_json(shown)


def _without_folders(values: Any) -> Any:
    """A configuration in which the fields of paths do not say where this machine has its folders."""
    if isinstance(values, list):
        return [_without_folders(item) for item in values]
    if not isinstance(values, Mapping):
        return values
    return {
        name: public(value) if isinstance(value, str) and str(name).endswith(_PATHS) else _without_folders(value)
        for name, value in values.items()
    }


def _read_json(path: Path) -> Any:
    return read_json(path)


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
