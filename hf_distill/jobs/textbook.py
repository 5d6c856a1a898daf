"""The textbook: the unlabelled rows that a student is distilled on, from one source or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
from transformers.utils import logging

from hf_distill.arguments import DistillationArguments, TextbookArguments
from hf_distill.corpus.sources import load_general_corpus
from hf_distill.routing import TEACHER_COLUMN
from hf_distill.stored.teacher import StoredTeacher, join_rows
from hf_distill.tasks.custom import TASK_FILE
from hf_distill.tasks.loading import load_task
from hf_distill.tasks.registry import is_registered
from hf_distill.trainers.data import PAIR_COLUMN

logger = logging.get_logger(__name__)


def read_textbook(
    textbook: TextbookArguments, training: DistillationArguments
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Rows to learn from and, if asked for, held-back rows.

    Args:
        textbook: Names of the sources, in the order in which their rows follow each other.
        training: Has the column of the text, and the seed that draws the rows that are held back.

    Returns:
        Rows with the column of the text, `text_pair` (None for a single text) where a source has pairs, and
        `teacher_id` if every source has it.

    Raises:
        FileNotFoundError: If a source does not exist.
        ValueError: If a source has no text, or more rows are to be held back than there are.
    """
    return hold_back(read_rows(textbook, training.text_column), textbook.textbook_eval_rows, training.seed)


def read_rows(textbook: TextbookArguments, column: str) -> datasets.Dataset:
    """The rows of every source, in the order of their names; none is held back.

    Raises:
        FileNotFoundError: If a source does not exist.
        ValueError: If none is named, or one has no text.
    """
    if not textbook.textbook:
        raise ValueError("`--textbook` is missing: name the text that the student learns from.")
    sources = textbook.textbook
    parts = [_read(source, textbook, column) for source in sources]
    if len(parts) > 1:
        counts = (f"{len(rows)} rows of {source}" for source, rows in zip(sources, parts, strict=True))
        logger.warning(f"Textbook: {', '.join(counts)}")
    columns = {column: "string"}
    if any(PAIR_COLUMN in rows.column_names for rows in parts):
        columns[PAIR_COLUMN] = "string"
    if all(TEACHER_COLUMN in rows.column_names for rows in parts):
        columns[TEACHER_COLUMN] = "int64"
    return datasets.concatenate_datasets([_with_columns(part, columns) for part in parts])


def stored_rows(
    textbook: TextbookArguments, training: DistillationArguments, teachers: Sequence[StoredTeacher]
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """As `read_textbook`, for teachers that were stored with their rows.

    Raises:
        ValueError: If a text is named, the teachers have different rows, or more rows are to be held back than there
            are.
    """
    if textbook.textbook:
        first = teachers[0]
        raise ValueError(
            f"`--textbook` {textbook.textbook} is given, but the stored teacher {first.folder!r} knows its own "
            f"{len(first.dataset):,} rows only: leave it out, or precompute the teacher on that text."
        )
    rows, limit = join_rows(teachers), textbook.max_textbook_rows
    rows = rows if limit is None else rows.select(range(min(limit, len(rows))))
    return hold_back(rows, textbook.textbook_eval_rows, training.seed)


def hold_back(rows: datasets.Dataset, count: int, seed: int) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Split `count` random rows off, `None` if that is 0.

    Raises:
        ValueError: If there are not more rows than that.
    """
    if not count:
        return rows, None
    if count >= len(rows):
        raise ValueError(f"`--textbook_eval_rows` is {count}, but there are {len(rows)} rows.")
    split = rows.train_test_split(test_size=count, seed=seed)
    return split["train"], split["test"]


def _read(source: str, textbook: TextbookArguments, column: str) -> datasets.Dataset:
    """The first rows of one source: a task's own training text, or any text."""
    folder = Path(source).expanduser()
    if not folder.exists() and is_registered(source):
        rows = _task_rows(source, textbook.data_dir, column)
    elif (folder / TASK_FILE).is_file():
        rows = _task_rows(source, None, column)
    else:
        rows = load_general_corpus(source, flag="--textbook")
        if column not in rows.column_names:
            raise ValueError(
                f"`--textbook` {source!r} has no column {column!r} (`--text_column`); it has {rows.column_names}."
            )
    limit = textbook.max_textbook_rows
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def _task_rows(task: str, data_dir: str | None, column: str) -> datasets.Dataset:
    """The training text of a task without its labels, pairs as pairs."""
    loaded = load_task(task, data_dir, splits=["train"])
    texts = loaded.spec.text_columns
    return loaded.train.select_columns(list(texts)).rename_columns(
        dict(zip(texts, (column, PAIR_COLUMN), strict=False))
    )


def _with_columns(rows: datasets.Dataset, columns: dict[str, str]) -> datasets.Dataset:
    """Only these columns, of these types; one that is missing holds None."""
    features = {name: datasets.Value(kind) for name, kind in columns.items()}
    for column in columns:
        if column not in rows.column_names:
            rows = rows.add_column(column, [None] * len(rows), feature=features[column])
    return rows.select_columns(list(columns)).cast(datasets.Features(features))
