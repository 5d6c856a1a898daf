"""Reads JSON files that hold one mapping: SQuAD's official format, and tables keyed by column or by row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

_QUESTIONS = Features(
    {
        **{name: Value("string") for name in ("id", "title", "context", "question")},
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int64"))},
    }
)


def read_json_document(path: Path) -> Dataset | None:
    """The rows of a JSON file that holds one mapping; `None` for other files, whose rows stand in lines or in a list.

    Supported are SQuAD's official format (`data` > `paragraphs` > `qas`), rows under `data`, and a list or a mapping
    for each column (both as pandas writes them).

    Args:
        path: The file.

    Raises:
        ValueError: If a question of SQuAD's format has no text or malformed answers.
    """
    with path.open(encoding="utf-8-sig") as stream:
        first = next((line for line in stream if line.strip()), "")
        if not first.lstrip().startswith("{") or (_is_json(first) and any(line.strip() for line in stream)):
            return None
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        # The reader of JSON lines reports the error.
        return None
    return _rows_of(found)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _rows_of(found: Mapping[str, Any]) -> Dataset | None:
    data, columns = found.get("data"), found.get("columns")
    if isinstance(data, list) and data:
        if isinstance(data[0], dict) and "paragraphs" in data[0]:
            return Dataset.from_list(list(_questions(data)), features=_QUESTIONS)
        if isinstance(data[0], dict):
            return Dataset.from_list(data)
        if isinstance(data[0], list) and isinstance(columns, list):
            return Dataset.from_dict(dict(zip(columns, map(list, zip(*data, strict=True)), strict=True)))
    values = list(found.values())
    if values and all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        return Dataset.from_dict(dict(found))
    if values and all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        return Dataset.from_dict({name: list(value.values()) for name, value in found.items()})
    return None


def _questions(articles: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for every question of a file in SQuAD's format; an unanswerable question has empty answers."""
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = question.get("answers")
                yield {
                    "id": question.get("id"),
                    "title": article.get("title"),
                    "context": paragraph["context"],
                    "question": question["question"],
                    "answers": None
                    if answers is None
                    else {name: [answer[name] for answer in answers] for name in ("text", "answer_start")},
                }
