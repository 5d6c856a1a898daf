"""Tasks in one file: the columns are guessed and reported, and rows are held out if the file has no splits."""

from __future__ import annotations

import dataclasses
import logging
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from hf_distill.storage.files import DamagedFileError, close_path, new_folder, write_yaml
from hf_distill.storage.folders import near_name
from hf_distill.storage.tables import COMPRESSIONS, encoding_hint, stem_of, suffix_of
from hf_distill.tasks.columns import guess_columns
from hf_distill.tasks.custom import TASK_FILE, default_metrics, is_known, label_names_of, unlabelled
from hf_distill.tasks.files import (
    COMMON_ALIASES,
    HELD_OUT,
    HELD_OUT_SEED,
    READERS,
    check_kinds,
    drop_rows_without_text,
    read_files,
    texts_of_rows,
)
from hf_distill.tasks.spec import TaskSpec
from hf_distill.tasks.spec_values import FINE_TUNING, FineTuningDefaults

logger = logging.getLogger(__name__)

CONLL = (".conll", ".iob", ".bio")
# At most this many rows are held out for validation.
MOST_HELD_OUT = 2_000
VALIDATION, TEST = "validation", "test"
# Other names of splits in a `split` column.
_SPLITS = {"training": "train", "testing": TEST, "eval": VALIDATION, "evaluation": VALIDATION}
_BLANKS = re.compile("[ \t]+")
# Flags of tasks for which flags of columns exist too.
WITH_COLUMNS = ("--task", "--tasks", "--textbook", "--eval_task")
# A fine-tuning sees about this many rows, within these limits of epochs: 3 epochs are usual for many rows (BERT,
# appendix A.3), 20 for few (Mosbach et al. 2021, "On the Stability of Fine-tuning BERT").
ROWS_SEEN, FEWEST_EPOCHS, MOST_EPOCHS = 24_000, 3, 20


def is_one_file(name: str) -> bool:
    """Whether a name is the path of a file with rows."""
    path = Path(name).expanduser()
    return (suffix_of(path) in READERS or path.suffix.lower() in CONLL) and path.is_file()


def refuse_other_files(name: str, flag: str) -> None:
    """Raise an error for a name that means a file, but not one with rows.

    Args:
        name: The name.
        flag: The flag that gave the name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If files of this kind cannot be read.
    """
    path, kinds = Path(name).expanduser(), (*READERS, *CONLL)
    if suffix_of(path) in kinds and not path.exists():
        raise FileNotFoundError(f"`{flag}`: there is no file {name!r}.{close_path(path)}")
    if path.is_file():
        raise ValueError(
            f"`{flag}` {name!r} is a file of an unknown kind; known are {', '.join(kinds)}."
            + (f" Only tables and JSON may end in {', '.join(COMPRESSIONS)}." if suffix_of(path) in kinds else "")
        )


def read_one_file(
    name: str, fields: Mapping[str, Any], flag: str = "--task", *, to_score: bool = False
) -> tuple[TaskSpec, dict[str, list[Dataset]]]:
    """Return the task of a file, and the rows of its splits.

    Args:
        name: Its path: csv, tsv, jsonl, json, parquet, or words and tags in columns (conll, iob, bio).
        fields: Fields of `TaskSpec` that the user set; the others are guessed from the names and values of the
            columns, and reported in a line.
        flag: The flag that named the file, for error messages.
        to_score: Whether all rows are evaluation rows, unless a `split` column says otherwise.

    Raises:
        ValueError: If columns or labels cannot be inferred, or there are too few rows to hold some out.
    """
    path = Path(name).expanduser()
    where = f"`{flag}` {str(path)!r}"
    rows = _read(path, where)
    columns = guess_columns(rows, fields, where)
    check_kinds(rows, [*columns["text_columns"], columns["label_column"]], where)
    # An empty language means that it is unknown.
    values: dict[str, Any] = {"name": near_name(stem_of(path)), "language": "", **columns, **fields}
    if "label_names" not in values and values["kind"] != "question_answering":
        values["label_names"] = label_names_of(rows, values["label_column"], values, path)
    if "label_names" in values:
        values.setdefault("metrics", default_metrics(values))
    values.setdefault("evaluation_splits", [VALIDATION])
    spec = TaskSpec.from_dict(values)
    splits, how = _splits(rows, spec, where, to_score=to_score)
    if "evaluation_splits" not in fields and TEST in splits and not unlabelled(splits[TEST], spec):
        # What is chosen is chosen on validation rows; the scores are those of rows that chose nothing.
        spec = dataclasses.replace(
            spec, evaluation_splits=tuple(name for name in (TEST, VALIDATION) if name in splits)
        )
    if "fine_tuning" not in fields and spec.train_split in splits:
        spec = dataclasses.replace(spec, fine_tuning=fine_tuning_of(len(splits[spec.train_split])))
    sizes = ", ".join(_size(found, split, spec) for split, found in splits.items())
    names = "numbers" if spec.label_names is None else f"{len(spec.label_names)} classes"
    if spec.is_span:
        names = "some questions have none" if spec.may_have_no_answer else "every question has one"
        names += f", scored as {spec.answer_scorer}"
    other = " `--text_columns` and `--label_column` name other columns." if flag in WITH_COLUMNS else ""
    logger.warning(
        f"Task {spec.name!r} from {path.name}: text in {', '.join(map(repr, spec.text_columns))}, labels in "
        f"{spec.label_column!r} ({names}); {sizes}{how}.{other}"
    )
    return spec, {split: [found] for split, found in splits.items()}


def fine_tuning_of(rows: int) -> FineTuningDefaults:
    """Fine-tuning settings for this many rows: enough epochs to see about `ROWS_SEEN` rows."""
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(ROWS_SEEN / rows)))
    source = f"{epochs} epochs of {rows:,} rows: about {ROWS_SEEN:,} rows, {FEWEST_EPOCHS} to {MOST_EPOCHS} epochs"
    return dataclasses.replace(FINE_TUNING, epochs=float(epochs), source=source)


def write_task_folder(task: Any, folder: Path) -> None:
    """Write a loaded task as a folder that `load_task` can read: one file for each split, and `task.yaml`."""
    fields = {item.name: item.default for item in dataclasses.fields(TaskSpec)}
    spec = {name: value for name, value in task.spec.to_dict().items() if _differs(value, fields[name])}
    spec["fine_tuning"] = dataclasses.asdict(task.spec.fine_tuning)
    with new_folder(folder) as part:
        for split, rows in task.dataset.items():
            rows.to_parquet(part / f"{split}.parquet")
        write_yaml(part / TASK_FILE, spec, sort_keys=False, allow_unicode=True)


def _differs(value: Any, default: Any) -> bool:
    """Whether a field must be written: it differs from its default, and is not one of the derived settings."""
    plain = list(default) if isinstance(default, tuple) else default
    return value not in (plain, {}) and not isinstance(value, dict)


def _read(path: Path, where: str) -> Dataset:
    if path.suffix.lower() in CONLL:
        try:
            return _read_conll(path, where)
        except UnicodeDecodeError as error:
            raise DamagedFileError(f"{where} is not in UTF-8.{encoding_hint(path, error)}") from error
    # This spec is only used to read the file.
    probe = TaskSpec(name=near_name(stem_of(path)), text_columns=("text",), label_names=("0", "1"))
    rows = read_files([path], probe)
    if len(rows) == 0:
        raise ValueError(f"{where} has no rows.")
    return rows


def _read_conll(path: Path, where: str) -> Dataset:
    """Read sentences from a file with a word and its tag on each line (first and last column); empty lines end them.

    Columns are separated by blanks or tabs.
    """
    sentences: list[dict[str, list[str]]] = [{"tokens": [], "tags": []}]
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            # Other kinds of blanks, such as the no-break space, belong to a word.
            parts = _BLANKS.split(line.strip(" \t\r\n"))
            if not sentences[-1]["tokens"] and _is_comment(parts):
                continue
            if parts == [""] or parts[0] == "-DOCSTART-":
                if sentences[-1]["tokens"]:
                    sentences.append({"tokens": [], "tags": []})
                continue
            if len(parts) < 2:
                raise ValueError(f"{where}, line {number}: {line.strip()!r} has a word and no tag.")
            sentences[-1]["tokens"].append(parts[0])
            sentences[-1]["tags"].append(parts[-1])
    sentences = [sentence for sentence in sentences if sentence["tokens"]]
    if not sentences:
        raise ValueError(f"{where} has no rows.")
    return Dataset.from_list(sentences, Features({"tokens": List(Value("string")), "tags": List(Value("string"))}))


def _is_comment(parts: Sequence[str]) -> bool:
    """Whether a line before a sentence is a comment on it (`# id 7 domain=en`, `# text = ...`)."""
    return parts[0] == "#" and len(parts) > 2 and (parts[1] == "id" or any("=" in part for part in parts))


def _splits(rows: Dataset, spec: TaskSpec, where: str, *, to_score: bool) -> tuple[dict[str, Dataset], str]:
    """Split rows by their column `split`, or else into training and held-out rows; and describe how, in words.

    If a column `split` has no validation rows, they are held out from its training rows. Nothing is held out if there
    are no training rows, or if all rows are evaluation rows.
    """
    headline, splits, how = spec.headline_split, {spec.train_split: rows}, ""
    column = next((name for name in rows.column_names if name.strip().lower() == "split"), None)
    if column is not None:
        names = _SPLITS | {alias: split for split, aliases in COMMON_ALIASES.items() for alias in aliases}
        words = (str("" if value is None else value).strip().lower() for value in rows[column])
        own = [names.get(word, word) for word in words]
        found = {name: rows.select([i for i, one in enumerate(own) if one == name]) for name in dict.fromkeys(own)}
        if spec.train_split not in found and found.keys() & {TEST, headline}:
            return found, f" by the column {column!r}"
        if spec.train_split not in found:
            how = f"; {column!r} does not say which rows are those of {spec.train_split} and is not used"
        elif headline in found:
            return found, f" by the column {column!r}"
        else:
            splits, how = found, f"; the others by the column {column!r}"
    train = splits[spec.train_split]
    if headline == spec.train_split:
        return splits, how
    if to_score and len(train) == len(rows):
        return {headline: rows}, how
    if spec.kind == "text_classification":
        train = drop_rows_without_text(train, spec.text_columns, is_training=True, where=where)
    held_out = set(_held_out(train, spec))
    if not held_out:
        raise ValueError(
            f"{where} has {len(train):,} rows of {spec.train_split}, and no label in "
            f"{spec.label_column!r} (`--label_column`) has two different texts, one of them to hold out for {headline}"
            ": too few rows, unless a column `split` or a folder with files of both splits names those for it."
        )
    splits[headline] = train.select(sorted(held_out))
    splits[spec.train_split] = train.select([i for i in range(len(train)) if i not in held_out])
    drawn = "at random" if spec.label_names is None else "from every class"
    return splits, f", those of {headline} drawn {drawn}, always the same ones{how}"


def _size(rows: Dataset, split: str, spec: TaskSpec) -> str:
    hidden = unlabelled(rows, spec)
    return f"{len(rows):,} rows of {split or 'no split'}" + (f" ({hidden:,} without a label)" if hidden else "")


def _held_out(rows: Dataset, spec: TaskSpec) -> Iterator[int]:
    """Yield the numbers of the held-out rows: an equal share of every class, and all rows of a text or none.

    Rows without a label are never held out, unless the same text also occurs with one. Questions are held out by
    context, if there are enough contexts.
    """
    texts = texts_of_rows(rows, spec.text_columns)
    if spec.is_span:
        contexts = texts_of_rows(rows, spec.text_columns[1:])
        texts = contexts if len(set(contexts)) >= 1 / HELD_OUT else texts
    labels = rows[spec.label_column][:]
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    class_of: dict[tuple[str, ...], str] = {}
    has_classes = spec.kind == "text_classification" and spec.label_names is not None
    for place, (text, label) in enumerate(zip(texts, labels, strict=True)):
        places[text].append(place)
        if is_known(label, spec):
            # Several labels are a list.
            class_of.setdefault(text, str(label).strip() if has_classes else "")
    classes: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for text in places:
        if text in class_of:
            classes[class_of[text]].append(text)
    share = min(HELD_OUT, MOST_HELD_OUT / max(1, len(rows)))
    draw = random.Random(HELD_OUT_SEED)
    for name in sorted(classes):
        chosen = classes[name]
        number = round(share * len(chosen)) or int(len(chosen) > 1)
        for text in draw.sample(chosen, number):
            yield from places[text]
