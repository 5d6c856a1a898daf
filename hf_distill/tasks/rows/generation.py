"""Rows of generation tasks: loads their columns and tokenizes sources and targets."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict, Features, List, Value
from datasets.fingerprint import Hasher

from hf_distill.tasks.catalogue.generation import GENERATION_TASKS, GenerationSpec, get_generation_task
from hf_distill.tasks.custom import read_task_file
from hf_distill.tasks.files import drop_rows_without_text
from hf_distill.tasks.loading import LoadedRows, read_splits, rename_columns
from hf_distill.tasks.rows.text import say_rows_cut
from hf_distill.tasks.rows.tokenizing import tokenizer_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Part of the cache key, as in `preprocessing`.
CODE_VERSION = 1
NOTHING_KEPT = (-1, -1)
_FEATURES = Features(
    {
        "parts": List(Value("string")),
        "kept_start": Value("int64"),
        "kept_end": Value("int64"),
        "references": List(Value("string")),
    }
)


@dataclass(frozen=True)
class LoadedGeneration(LoadedRows):
    """A generation task with its rows.

    Attributes:
        spec: What the task is.
        dataset: Splits with the columns `parts` (texts of the source), `kept_start` and `kept_end` (the characters of
            the first part that are kept when it is truncated, -1 for none) and `references` (target texts).
        source: The folder or Hub data set that the rows come from.
    """

    spec: GenerationSpec


def load_generation_task(
    task: str, data_dir: str | Path | None = None, *, train: bool = True, **fields: Any
) -> LoadedGeneration:
    """Load a generation task.

    Args:
        task: A registered name (`qg/squad`), or a folder of your own, described by its task.yaml or by `fields`.
        data_dir: Local files of the task: its own folder, or, for a registered task, a parent folder. `None` loads
            from the Hub.
        train: Whether the training split must exist.
        fields: Fields of `GenerationSpec` to override; `None` means "not given".

    Raises:
        FileNotFoundError: If files or splits are missing.
        ValueError: If the name is unknown, or columns do not fit the task.
    """
    given = {key: value for key, value in fields.items() if value is not None}
    folder = None if data_dir is None else Path(data_dir).expanduser()
    if folder is None and task not in GENERATION_TASKS and Path(task).expanduser().is_dir():
        folder = Path(task).expanduser()
    spec = _resolve_spec(task, folder, given)
    needed = ((spec.train_split,) if train else ()) + spec.evaluation_splits
    raw, source, found = read_splits(spec, folder, needed)
    missing = [split for split in needed if not raw.get(split)]
    if missing:
        raise FileNotFoundError(
            f"Task {spec.name!r} needs the splits {list(needed)}, but {source!r} lacks {missing}; found {found}."
        )
    return LoadedGeneration(spec, DatasetDict({split: _form(raw[split][0], spec, split) for split in needed}), source)


def _resolve_spec(name: str, folder: Path | None, fields: dict[str, Any]) -> GenerationSpec:
    """The registered task of that name, or the one that the folder or the fields describe."""
    if name not in GENERATION_TASKS and folder is not None:
        given = read_task_file(folder) | fields
        if "template" in given or Path(name).expanduser() == folder:
            # Nobody has said which language it is.
            return GenerationSpec.from_dict({"name": folder.resolve().name, "language": ""} | given)
    known = get_generation_task(name)
    values = {item.name: getattr(known, item.name) for item in dataclasses.fields(known)}
    return GenerationSpec.from_dict(values | fields)


def _form(rows: Dataset, spec: GenerationSpec, split: str) -> Dataset:
    """Convert the rows of a split to the columns of `LoadedGeneration`."""
    rows = rename_columns(rows, spec)
    if spec.first_answer and "answers" in rows.column_names:
        rows = _with_first_answer(rows, spec, split)
    needed = [*spec.text_columns, spec.target_column]
    missing = [column for column in needed if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r} lacks columns {missing}; found {rows.column_names}. Name those of "
            "your rows with `--source_template` and `--target_column`, or in a task.yaml."
        )
    rows = drop_rows_without_text(
        rows, needed, is_training=split == spec.train_split, where=f"Split {split!r} of task {spec.name!r}"
    )
    formed = rows.map(
        _form_row,
        fn_kwargs={"spec": spec},
        remove_columns=rows.column_names,
        features=_FEATURES,
        new_fingerprint=Hasher.hash((CODE_VERSION, rows._fingerprint, spec.template, needed, spec.kept_column)),
        desc=f"Reading {spec.name}",
    )
    if split == spec.train_split:
        formed = _without_empty(formed, spec)
    elif spec.merge_references:
        formed = _merged(formed)
    if not len(formed):
        raise ValueError(f"Split {split!r} of task {spec.name!r} has no row with source and target.")
    return formed


def _without_empty(rows: Dataset, spec: GenerationSpec) -> Dataset:
    """Drop training rows with an empty source or target, and count them."""
    texts = zip(rows["parts"], rows["references"], strict=True)
    whole = [number for number, (parts, references) in enumerate(texts) if any(parts) and any(references)]
    if len(whole) == len(rows):
        return rows
    logger.warning(
        f"Task {spec.name!r}: {len(rows) - len(whole)} of {len(rows)} training rows have an empty source or target "
        "and are left out."
    )
    return rows.select(whole)


def _with_first_answer(rows: Dataset, spec: GenerationSpec, split: str) -> Dataset:
    """Rows of question answering with `answer` and `answer_start`; questions without an answer are dropped."""
    answered = [number for number, answers in enumerate(rows["answers"]) if answers and answers["text"]]
    if len(answered) < len(rows):
        logger.warning(
            f"Task {spec.name!r}, split {split!r}: {len(rows) - len(answered)} questions without an answer are left "
            "out: a question is generated from its answer."
        )
        rows = rows.select(answered)
    answers = rows["answers"]
    rows = rows.remove_columns([name for name in ("answer", "answer_start") if name in rows.column_names])
    rows = rows.add_column("answer", [found["text"][0] for found in answers], feature=Value("string"))
    starts = [(list(found.get("answer_start") or []) or [-1])[0] for found in answers]
    return rows.add_column("answer_start", starts, feature=Value("int64"))


def _form_row(row: Mapping[str, Any], spec: GenerationSpec) -> dict[str, Any]:
    """One row of `LoadedGeneration`."""
    parts = [part.format(**{column: row[column] for column in spec.text_columns}).strip() for part in spec.parts]
    target = row[spec.target_column]
    references = [str(text).strip() for text in (target if isinstance(target, list) else [target])]
    start, end = NOTHING_KEPT
    if spec.kept_column is not None and row.get(spec.kept_column) is not None:
        start, end = _place(parts[0], str(row[spec.kept_column]), row.get(f"{spec.kept_column}_start"))
    return {"parts": parts, "kept_start": start, "kept_end": end, "references": references}


def _place(text: str, piece: str, start: Any) -> tuple[int, int]:
    """Find a passage in a text: at its given start if it is there, else at its first occurrence."""
    start = -1 if start is None else int(start)
    if start < 0 or text[start : start + len(piece)] != piece:
        start = text.find(piece)
    return (start, start + len(piece)) if start >= 0 and piece else NOTHING_KEPT


def _merged(rows: Dataset) -> Dataset:
    """Merge rows with equal sources into one row with the references of all."""
    merged: dict[Any, dict[str, Any]] = {}
    for row in rows:
        known = merged.setdefault((*row["parts"], row["kept_start"]), {**row, "references": []})
        known["references"] += row["references"]
    return Dataset.from_list(list(merged.values()), features=_FEATURES)


def tokenize_generation(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_source_length: int,
    max_target_length: int,
) -> Dataset:
    """Tokenize the rows of a generation task.

    A source that is too long loses tokens of its first part: around the passage to keep if there is one, else at its
    end. The later parts get at most half of the length. A target that is too long loses its end.

    Args:
        rows: As in `LoadedGeneration`.
        tokenizer: The model's tokenizer; its separator token joins the parts of a source.
        max_source_length: Maximum tokens of a source, including the begin and end tokens.
        max_target_length: Maximum tokens of a target, including the end token.

    Returns:
        `source` and `target` (ids of the first reference), both without special tokens at the ends, and `length`, the
        number of tokens of both with special tokens.

    Raises:
        ValueError: If the tokenizer has no separator token, or a maximum length leaves no room for text.
    """
    for name, value, least in (("source", max_source_length, 3), ("target", max_target_length, 2)):
        if value < least:
            raise ValueError(f"`--max_{name}_length` is {value}; it must be at least {least}.")
    if tokenizer.sep_token_id is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has no sep_token, which joins the parts of a source: take an encoder."
        )
    lengths = {"max_source_length": max_source_length, "max_target_length": max_target_length}
    key = (CODE_VERSION, rows._fingerprint, tokenizer_fingerprint(tokenizer), lengths)
    tokens = rows.map(
        _encode,
        batched=True,
        fn_kwargs={"tokenizer": tokenizer, **lengths},
        remove_columns=rows.column_names,
        new_fingerprint=Hasher.hash(key),
        desc="Tokenizing",
    )
    for column, special in (("source", 2), ("target", 1)):
        limit, flag = lengths[f"max_{column}_length"], f"`--max_{column}_length`"
        say_rows_cut(tokens, limit, f"{column}s", ids=column, special=special, because=flag)
    return tokens


def _encode(
    batch: dict[str, list[Any]], tokenizer: PreTrainedTokenizerBase, max_source_length: int, max_target_length: int
) -> dict[str, list[Any]]:
    """Tokenize a batch of rows."""
    parts = [_ids(tokenizer, list(texts)) for texts in zip(*batch["parts"], strict=True)]
    sources = []
    for number, found in enumerate(zip(*parts, strict=True)):
        span = (batch["kept_start"][number], batch["kept_end"][number])
        sources.append(_source(found, batch["parts"][number][0], span, tokenizer, max_source_length - 2))
    targets = _ids(tokenizer, [references[0] if references else "" for references in batch["references"]])
    targets = [ids[: max_target_length - 1] for ids in targets]
    lengths = [len(source) + len(target) + 3 for source, target in zip(sources, targets, strict=True)]
    return {"source": sources, "target": targets, "length": lengths}


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Return the token ids of texts, not truncated and without special tokens."""
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def _source(
    parts: Sequence[list[int]], text: str, span: tuple[int, int], tokenizer: PreTrainedTokenizerBase, room: int
) -> list[int]:
    """Join the parts of one source, truncated to `room` tokens.

    Args:
        parts: Token ids of each part.
        text: The first part.
        span: Its characters that are kept; -1 for none.
        tokenizer: Used to count the tokens before them.
        room: Maximum tokens of the source.
    """
    rest = [token for part in parts[1:] for token in (tokenizer.sep_token_id, *part)]
    if len(parts[0]) + len(rest) > room:
        rest = rest[: room // 2]
    first = parts[0]
    room -= len(rest)
    if len(first) > room:
        begin = 0
        if span != NOTHING_KEPT:
            # Count the tokens before the passage and up to its end; this works with any kind of tokenizer.
            before, until = (len(ids) for ids in _ids(tokenizer, [text[: span[0]], text[: span[1]]]))
            begin = min(max(0, (before + until - room) // 2), len(first) - room)
        first = first[begin : begin + room]
    return [*first, *rest]
