"""What a file says on the Hub, where that differs from what it says on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..storage.files import read_json, read_text
from .dataset_card import LOCAL_FOLDER
from .model_card import FACTS_FILE
from .selection import CARD_FILE, Selection

RESULTS_FILE = "results.json"


def contents(selection: Selection, path: str, repo: str) -> Path | bytes:
    """The file itself, or its text as the Hub gets it.

    A card loads the model or corpus from its repository; folders of this machine become their names in the results.

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
        return text.encode()
    if path == RESULTS_FILE:
        return _as_json(_without_folders(_read_json(source)))
    if path == FACTS_FILE:
        facts = _read_json(source)
        return _as_json({**facts, "student": {**facts.get("student", {}), "hub_id": repo}})
    return source


def _local_names(selection: Selection) -> list[str]:
    """What the card of this folder calls the model or corpus."""
    if selection.repo_type == "dataset":
        return [LOCAL_FOLDER]
    if not selection.has(FACTS_FILE):
        return []
    student = _read_json(selection.folder / FACTS_FILE).get("student", {})
    return [name for name in (student.get("hub_id"), student.get("name")) if name]


def _without_folders(value: Any) -> Any:
    """Plain data in which every absolute path is its last part."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _read_json(path: Path) -> Any:
    return read_json(path)


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
