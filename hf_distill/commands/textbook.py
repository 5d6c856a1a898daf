"""The textbook: the rows that a student is distilled on, from one or several sources."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import datasets

from hf_distill.commands.corpus_folder import is_built_folder
from hf_distill.corpus.build.loading import load_general_corpus
from hf_distill.settings import DistillationArguments, TextbookArguments
from hf_distill.storage.plain_values import did_you_mean
from hf_distill.storage.tables import suffix_of
from hf_distill.students.first_weights import CalibrationRow
from hf_distill.tasks.catalogue.registry import is_registered
from hf_distill.tasks.custom import TASK_FILE
from hf_distill.tasks.labels import visible_labels
from hf_distill.tasks.loading import LoadedTask, load_task, takes_columns
from hf_distill.tasks.one_file import CONLL, is_one_file, refuse_other_files
from hf_distill.tasks.rows.text import CANDIDATES_COLUMN, PAIR_COLUMN
from hf_distill.tasks.rows.tokenizing import tokenize_task
from hf_distill.tasks.spec import REGRESSION_METRICS
from hf_distill.tasks.vectors import is_retrieval
from hf_distill.teachers.routing import TEACHER_COLUMN
from hf_distill.teachers.stored.teacher import StoredTeacher, join_rows
from hf_distill.trainers.fine_tuning.task_models import label_order

logger = logging.getLogger(__name__)

# The column of plain text, if no flag names another.
TEXT_COLUMN = "text"


def read_textbook(
    textbook: TextbookArguments, training: DistillationArguments, tokenizer: Any = None, config: Any = None
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Read the training rows and, if requested, held-out rows.

    Args:
        textbook: Names of the sources; their rows are concatenated in this order.
        training: Settings with the text column, the maximum length of a row, and the seed for drawing held-out rows.
        tokenizer: Tokenizes words and contexts, which are not read as plain text.
        config: Configuration of the model whose labels the rows' labels must match.

    Returns:
        See `read_rows`.

    Raises:
        FileNotFoundError: If a source does not exist.
        ValueError: If a source has no text, or more rows are to be held out than there are.
    """
    rows = read_rows(
        textbook,
        training.text_column,
        tokenizer,
        training.max_length,
        config,
        training.teacher_text_column,
        as_text=training.align_tokenizers and not textbook.with_labels,
        eval_task=training.eval_task,
    )
    return hold_back(rows, textbook.textbook_eval_rows, training.seed)


def read_eval_task(textbook: TextbookArguments, training: DistillationArguments, config: Any) -> LoadedTask | None:
    """Load the task of `--eval_task` if it is a user's file or folder whose columns the textbook's flags name.

    If the model has one output, integer labels are read as numbers to predict. All rows of a file are scored, unless a
    column `split` says otherwise or the file is also the textbook.

    Returns:
        `None` if the trainer can load the task by name alone.

    Raises:
        ValueError: If a column that a flag names does not exist, or columns or labels cannot be inferred.
    """
    name = training.eval_task
    if not _takes_flags(name) or is_retrieval(name):
        return None
    given = _task_fields(textbook, config)
    # If students train on the same file, its held-out rows are scored.
    place = Path(name).expanduser().resolve()
    learnt = any(Path(source).expanduser().resolve() == place for source in textbook.textbook or ())
    return load_task(
        name, training.eval_task_dir, splits="evaluation", flag="--eval_task", to_score=not learnt, **given
    )


def texts_in(rows: datasets.Dataset, column: str) -> Iterator[str] | None:
    """The texts of all rows one after the other, including second texts; `None` if the rows have only tokens."""
    columns = [name for name in (column, PAIR_COLUMN, CANDIDATES_COLUMN) if name in rows.column_names]
    if not columns:
        return None
    found = (row[name] for row in rows.select_columns(columns) for name in columns if row[name])
    # Values that are not text are refused when the rows are tokenized.
    return (
        text for value in found for text in ([value] if isinstance(value, str) else value) if isinstance(text, str)
    )


def calibration_rows(rows: datasets.Dataset, column: str) -> Iterator[CalibrationRow]:
    """The rows for refitting first weights, as the student reads them.

    A row with candidates or choices yields one of them at a time, and the next one after all other rows had their
    turn. So the first tokens come from many rows, and from every position in them.

    Returns:
        Texts, pairs of texts, or tokens if the rows have no text.
    """
    known = (
        (column, PAIR_COLUMN, CANDIDATES_COLUMN) if column in rows.column_names else ("input_ids", "token_type_ids")
    )
    readings = partial(_read_texts, column=column) if column in known else _read_tokens
    rows = rows.with_format(None).select_columns([name for name in known if name in rows.column_names])
    turn, most = 0, 1
    while turn < most:
        for number, row in enumerate(rows):
            found = readings(row)
            most = max(most, len(found))
            if turn < len(found):
                yield found[(number + turn) % len(found)]
        turn += 1


def _read_texts(row: dict[str, Any], column: str) -> Sequence[CalibrationRow]:
    """A text, a pair, or a query with each of its candidates; empty if there is no text."""
    text, other, candidates = row[column], row.get(PAIR_COLUMN), row.get(CANDIDATES_COLUMN)
    if not text:
        return []
    if candidates:
        # Values that are not text are refused when the rows are tokenized.
        return [(text, one) for one in candidates if isinstance(one, str)]
    return [(text, other) if other else text]


def _read_tokens(row: dict[str, Any]) -> Sequence[CalibrationRow]:
    """The tokens of a row, or of each of its choices."""
    if not row["input_ids"] or isinstance(row["input_ids"][0], int):
        return [row]
    return [dict(zip(row, choice, strict=True)) for choice in zip(*row.values(), strict=True)]


def read_rows(
    textbook: TextbookArguments,
    column: str,
    tokenizer: Any = None,
    max_length: int = 128,
    config: Any = None,
    teacher_column: str | None = None,
    *,
    as_text: bool = False,
    flag: str = "--textbook",
    eval_task: str | None = None,
) -> datasets.Dataset:
    """Read the rows of every source, one source after the other, without holding any out.

    With `as_text`, words and contexts are read as text without labels, so that several tokenizers can read them.
    `flag` is the flag of the sources, for error messages. Flags of columns may apply to `eval_task` alone.

    Returns:
        Rows with the text column; the column of the teacher's text if it reads another; `text_pair` (None for a single
        text) if a source has pairs; `teacher_id` if every source has it; and `labels` if requested. For tasks of words
        or answers: tokens with their labels.

    Raises:
        FileNotFoundError: If a source does not exist.
        ValueError: If no source is named, one has no text, or they cannot be combined.
    """
    if not textbook.textbook:
        raise ValueError("`--textbook` is missing: name the text to read (files, folders, Hub ids, tasks).")
    sources = textbook.textbook
    columns = _columns(textbook, column, config, eval_task)
    unlabelled = {source for source in sources if _lacks_labels(source, textbook, eval_task)}
    tasks = {
        source: task
        for source in sources
        if source not in unlabelled and (task := _task_of(source, textbook, columns)) is not None
    }
    if not as_text and (
        textbook.with_labels or any(task.spec.kind != "text_classification" for task in tasks.values())
    ):
        _check_tasks(sources, tasks, textbook)
        parts = [_labelled(tasks[source], column, tokenizer, max_length, config) for source in sources]
    else:
        parts = [
            _task_text(tasks[source], column)
            if source in tasks
            else plain_text(source, column, flag, columns.get("text_columns") if source in unlabelled else None)
            for source in sources
        ]
        parts = [_first_rows(rows, textbook.max_textbook_rows) for rows in parts]
        parts = _same_columns(parts, column, teacher_column)
    if len(parts) > 1:
        counts = (f"{len(rows)} rows of {source}" for source, rows in zip(sources, parts, strict=True))
        logger.warning(f"Textbook: {', '.join(counts)}")
    return datasets.concatenate_datasets(parts)


def stored_rows(
    textbook: TextbookArguments, training: DistillationArguments, teachers: Sequence[StoredTeacher]
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Read training and held-out rows as `read_textbook` does, from teachers that were stored with their rows.

    Raises:
        ValueError: If a text is named, the teachers have different rows, or more rows are to be held out than there
            are.
    """
    if textbook.textbook:
        first = teachers[0]
        raise ValueError(
            f"`--textbook` {textbook.textbook} is given, but the stored teacher {first.folder!r} knows its own "
            f"{len(first.dataset):,} rows only: leave it out, or precompute the teacher on that text."
        )
    if textbook.column_flags() and not _takes_flags(training.eval_task):
        raise ValueError(
            f"`{textbook.column_flags()[0]}` is about the rows of `--textbook` and of a file as `--eval_task`, but a "
            "stored teacher has its own rows, and `--eval_task` is none."
        )
    rows, limit = join_rows(teachers), textbook.max_textbook_rows
    rows = rows if limit is None else rows.select(range(min(limit, len(rows))))
    return hold_back(rows, textbook.textbook_eval_rows, training.seed)


def hold_back(rows: datasets.Dataset, count: int, seed: int) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Hold out `count` random rows; `None` instead of them if `count` is 0.

    Raises:
        ValueError: If there are not more rows than that.
    """
    if not count:
        return rows, None
    if count >= len(rows):
        raise ValueError(f"`--textbook_eval_rows` is {count}, but there are {len(rows)} rows.")
    split = rows.train_test_split(test_size=count, seed=seed)
    return split["train"], split["test"]


def _columns(textbook: TextbookArguments, column: str, config: Any, eval_task: str | None) -> dict[str, Any]:
    """Fields for those tasks among the sources that are files or folders without a description.

    Raises:
        ValueError: If flags set any, and neither a source nor `eval_task` is such a task.
    """
    if textbook.column_flags() and not (any(map(_is_own, textbook.textbook or ())) or _takes_flags(eval_task)):
        raise ValueError(
            f"`{textbook.column_flags()[0]}` is about files and folders of your own without a {TASK_FILE}, but none "
            f"of `--textbook` {textbook.textbook} is one"
            + (f", and neither is `--eval_task` {eval_task!r}." if eval_task else ".")
        )
    # If the column of plain text is named, it is the text column of a task too.
    named = {} if column == TEXT_COLUMN else {"text_columns": [column]}
    return named | _task_fields(textbook, config)


def _task_fields(textbook: TextbookArguments, config: Any) -> dict[str, Any]:
    """Fields of a file as a task, from the flags; if the model has one output, its labels are numbers to predict."""
    regression = {"metrics": list(REGRESSION_METRICS)} if getattr(config, "num_labels", None) == 1 else {}
    return textbook.column_fields() | regression


def _takes_flags(eval_task: str | None) -> TypeGuard[str]:
    """Whether flags may name the columns of `--eval_task`."""
    return eval_task is not None and takes_columns(eval_task)


def _is_own(source: str) -> bool:
    """Whether flags may name the columns of a source; text files have none, and built corpora have fixed ones."""
    is_built = is_built_folder(Path(source).expanduser())
    return takes_columns(source) and suffix_of(source) != ".txt" and not is_built


def _lacks_labels(source: str, textbook: TextbookArguments, eval_task: str | None) -> bool:
    """Whether a file that is read for its text lacks the label column, which flags name for `--eval_task`."""
    label = textbook.label_column
    if label is None or textbook.with_labels or not (_is_own(source) and _takes_flags(eval_task)):
        return False
    if suffix_of(source) in CONLL:
        return False
    try:
        return label not in load_general_corpus(source, flag="--textbook").column_names
    except (OSError, ValueError):
        # Files that only tasks can read, or that are unreadable, are reported when they are read as a task.
        return False


def _task_of(source: str, textbook: TextbookArguments, columns: dict[str, Any]) -> LoadedTask | None:
    """The task that a source names, limited to the requested training rows; `None` for any other text.

    A file, or a folder without a description, is a task if labels are requested or a flag names one of its columns. A
    file is also a task if it holds words and tags.
    """
    path, splits = Path(source).expanduser(), ["train"]
    is_asked = textbook.with_labels or suffix_of(source) in CONLL
    if not path.exists() and is_registered(source):
        task = load_task(source, textbook.data_dir, splits=splits)
    elif (path / TASK_FILE).is_file():
        task = load_task(source, splits=splits)
    elif _is_own(source) and (is_asked or textbook.column_flags()):
        task = load_task(source, splits=splits, flag="--textbook", **columns)
    else:
        return None
    train = _first_rows(task.train, textbook.max_textbook_rows)
    return LoadedTask(task.spec, datasets.DatasetDict({task.spec.train_split: train}), task.source)


def _check_tasks(sources: Sequence[str], tasks: dict[str, LoadedTask], textbook: TextbookArguments) -> None:
    """Refuse sources of different kinds: rows with labels, words or contexts cannot be joined with other rows."""
    kinds = {source: tasks[source].spec.kind if source in tasks else "text without labels" for source in sources}
    for source in set(sources) - set(tasks):
        if not Path(source).expanduser().exists():
            refuse_other_files(source, "--textbook")
    if len(set(kinds.values())) > 1 or set(tasks) != set(sources):
        because = "with `--with_labels` " if textbook.with_labels else ""
        raise ValueError(f"`--textbook` {because}must name tasks of one kind, but it names {kinds}.")
    if "multiple_choice" in kinds.values():
        raise ValueError(
            f"`--textbook` names tasks of multiple choice ({kinds}), whose rows are several texts each: no "
            "student can be distilled on them. Fine-tune on them, and distil on plain text."
        )
    columns = {source: tasks[source].spec.label_names for source in sources}
    if len({names for names in columns.values()}) > 1 and kinds[sources[0]] != "question_answering":
        raise ValueError(f"`--textbook` names tasks with different labels: {columns}.")


def _labelled(task: LoadedTask, column: str, tokenizer: Any, max_length: int, config: Any) -> datasets.Dataset:
    """The training rows of a task with labels in the order of a model's outputs; words and contexts as tokens."""
    spec, rows = task.spec, task.train
    order = None
    if config is not None and spec.label_names is not None:
        order = label_order(config, spec, where="The student")
    if spec.kind == "text_classification":
        rows = rows.select(visible_labels(rows, spec).nonzero()[0])
        labels = rows.with_format(None)[spec.label_column][:]
        if order is not None and spec.several_labels:
            labels = [[row[order.index(place)] for place in range(len(order))] for row in labels]
        elif order is not None:
            labels = [order[label] for label in labels]
        return _task_text(
            LoadedTask(spec, datasets.DatasetDict({spec.train_split: rows}), task.source), column
        ).add_column("labels", labels)
    tokens = tokenize_task(rows, spec, tokenizer, max_length)
    if order is None or order == list(range(len(order))):
        return tokens
    return tokens.map(
        lambda row: {"labels": [order[tag] if tag >= 0 else tag for tag in row["labels"]]},
        features=tokens.features,
    )


def _task_text(task: LoadedTask, column: str) -> datasets.Dataset:
    """The training text of a task without labels; pairs stay pairs, words are joined with blanks."""
    texts = task.spec.text_columns
    names = dict(zip(texts, (column, PAIR_COLUMN), strict=False))
    rows = task.train.select_columns(list(texts)).rename_columns(names)
    if task.spec.kind == "token_classification":
        return rows.map(
            lambda row: {column: " ".join(row[column])},
            features=datasets.Features({column: datasets.Value("string")}),
        )
    return rows


def plain_text(source: str, column: str, flag: str, names: Sequence[str] | None = None) -> datasets.Dataset:
    """Read the text of a source that is not a task.

    Args:
        source: The file, folder or id.
        column: The column of the text.
        flag: The flag that named the source.
        names: The source's names for this column and for that of second texts; by default the same names.

    Raises:
        ValueError: If there is no column of this name with texts.
    """
    rows = load_general_corpus(source, flag=flag)
    if names is not None:
        unknown = [name for name in names if name not in rows.column_names]
        if unknown:
            raise ValueError(
                f"`{flag}` {source!r} has the columns {rows.column_names}, and no column {unknown[0]!r} "
                f"(`--text_columns`).{did_you_mean(unknown, rows.column_names)}"
            )
        renamed = dict(zip(names, (column, PAIR_COLUMN), strict=False))
        rows = rows.select_columns(list(renamed)).rename_columns(renamed)
    if column not in rows.column_names:
        raise ValueError(
            f"`{flag}` {source!r} has no column {column!r} (`--text_column`); it has {rows.column_names}."
            + did_you_mean(column, rows.column_names)
            + (" With `--with_labels` its columns are found." if flag == "--textbook" and is_one_file(source) else "")
        )
    if rows.features[column] not in (datasets.Value("string"), datasets.Value("large_string")):
        raise ValueError(
            f"`{flag}` {source!r}: the column {column!r} (`--text_column`) must hold a text in every row, but "
            f"holds {rows.features[column]}, in row 0 {str(rows[0][column])[:60]}."
        )
    if not any(row[column] and str(row[column]).strip() for row in rows.select_columns([column])):
        raise ValueError(f"`{flag}` {source!r} has no text: each of its {len(rows):,} rows is empty.")
    return rows


def _first_rows(rows: datasets.Dataset, limit: int | None) -> datasets.Dataset:
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def _same_columns(parts: list[datasets.Dataset], column: str, teacher_column: str | None) -> list[datasets.Dataset]:
    """Give all parts the same columns: the text, and if present the teacher's text and the second text of a pair.

    The number of the teacher is kept if all parts have it; candidates are kept with their relevance.
    """
    columns: dict[str, Any] = {column: datasets.Value("string")}
    if any(CANDIDATES_COLUMN in rows.column_names for rows in parts):
        columns |= _columns_of_candidates(parts)
    if teacher_column is not None and all(teacher_column in rows.column_names for rows in parts):
        columns[teacher_column] = datasets.Value("string")
    if any(PAIR_COLUMN in rows.column_names for rows in parts):
        columns[PAIR_COLUMN] = datasets.Value("string")
    if all(TEACHER_COLUMN in rows.column_names for rows in parts):
        columns[TEACHER_COLUMN] = datasets.Value("int64")
    return [_with_columns(part, columns) for part in parts]


def _columns_of_candidates(parts: list[datasets.Dataset]) -> dict[str, Any]:
    """Return the column of the candidates of a query, and that of their relevance if all parts have it.

    Raises:
        ValueError: If some parts have no candidates.
    """
    if not all(CANDIDATES_COLUMN in rows.column_names for rows in parts):
        raise ValueError(f"`--textbook` names queries with {CANDIDATES_COLUMN!r} and plain text: give one of them.")
    judged = all("labels" in rows.column_names for rows in parts)
    lists = {CANDIDATES_COLUMN: datasets.List(datasets.Value("string"))}
    return lists | ({"labels": datasets.List(datasets.Value("float32"))} if judged else {})


def _with_columns(rows: datasets.Dataset, features: dict[str, Any]) -> datasets.Dataset:
    """Reduce rows to these columns with these types; missing columns are filled with None."""
    for column in features:
        if column not in rows.column_names:
            rows = rows.add_column(column, [None] * len(rows), feature=features[column])
    return rows.select_columns(list(features)).cast(datasets.Features(features))
