"""Inputs of both sides: the tokenizer that they share, and the rows of stored teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import try_to_load_from_cache

from ...hub.loading import load_tokenizer
from ...hub.tokenizers import check_same_tokens, warn_of_other_rules
from ...tasks.rows.text import PAIR_COLUMN
from ...teachers.base import TeacherSource
from ...teachers.stored.teacher import StoredTeacher, join_rows


def check_tokenizer(
    teacher: TeacherSource | None,
    given: Any,
    processing_class: Any,
    teacher_processing_class: Any,
    pairs: bool = False,
) -> bool:
    """Compare a tokenizer with that of a teacher, which was `given` as an id or folder, or has its own.

    A teacher that was given as a model is known by the folder that it was loaded from, where its tokenizer lies there
    and has the same tokens.

    Args:
        teacher: The teacher.
        given: What it was given as.
        processing_class: The student's tokenizer.
        teacher_processing_class: The teacher's, if it was given.
        pairs: Whether the rows are pairs of texts.

    Returns:
        Whether both are known, and the same.

    Raises:
        ValueError: If they differ.
    """
    if isinstance(teacher, StoredTeacher):
        if processing_class is not None:
            teacher.check_tokenizer(processing_class, pairs=pairs)
        return processing_class is not None
    if teacher_processing_class is None and isinstance(given, str):
        try:
            teacher_processing_class = load_tokenizer(given, flag="--teacher_model")
        except OSError:
            return False  # A folder with weights only: the sizes of the vocabularies are compared all the same.
        warn_of_other_rules(given, teacher_processing_class)
    elif teacher_processing_class is None and processing_class is not None:
        teacher_processing_class = _tokenizer_beside(given, processing_class)
    if teacher_processing_class is None or processing_class is None:
        return False
    check_same_tokens(teacher_processing_class, processing_class, pairs=pairs)
    return True


def _tokenizer_beside(model: Any, tokenizer: Any) -> Any:
    """The tokenizer in the folder that a model was loaded from; `None` if there is none with the same tokens."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = getattr(getattr(inner, "config", None), "name_or_path", None) or ""
    folder = Path(name).expanduser() if name else None
    if folder is not None and not folder.is_dir():
        commit = getattr(inner.config, "_commit_hash", None)
        file = try_to_load_from_cache(name, "tokenizer_config.json", revision=commit) if commit else None
        folder = Path(file).parent if isinstance(file, str) else None
    if folder is None or not (folder / "tokenizer_config.json").is_file() or not hasattr(tokenizer, "get_vocab"):
        return None
    try:
        found = load_tokenizer(str(folder), flag="--teacher_model")
    except (OSError, ImportError):
        return None
    # Tokens may have been added since, to both.
    return found if found.get_vocab() == tokenizer.get_vocab() else None


def num_ids(tokenizer: Any) -> int | None:
    """One more than the largest id of a tokenizer; `None` for what has no vocabulary."""
    ids = tokenizer.get_vocab().values() if hasattr(tokenizer, "get_vocab") else ()
    return max(ids) + 1 if ids else None


def has_pairs(dataset: Any, text_column: str) -> bool:
    """Whether the rows are pairs of texts: a column of second texts, or a second segment in one of the first rows."""
    if isinstance(dataset, Mapping) and not isinstance(dataset, datasets.Dataset):
        return any(has_pairs(part, text_column) for part in dataset.values())
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list) or "token_type_ids" not in columns:
        return isinstance(columns, list) and text_column in columns and PAIR_COLUMN in columns
    if not isinstance(dataset, datasets.Dataset):
        return False
    return any(1 in types for types in dataset.with_format(None)[:100]["token_type_ids"])


def stored_inputs(stored: Sequence[StoredTeacher], train_dataset: Any, processing_class: Any) -> tuple[Any, Any]:
    """Rows and tokenizer where the signals of teachers are stored; what is given stays as it is."""
    train_dataset = join_rows(stored) if train_dataset is None else train_dataset
    return train_dataset, stored[0].tokenizer() if processing_class is None else processing_class
