"""Tasks of the user: a folder of files, described by a `task.yaml`, by flags, or by its columns."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, List

from hf_distill.storage.files import read_yaml
from hf_distill.storage.folders import near_name
from hf_distill.storage.plain_values import as_mapping, did_you_mean, shown
from hf_distill.tasks.columns import guess_columns
from hf_distill.tasks.files import (
    HELD_OUT,
    check_kinds,
    find_task_folder,
    lacks_validation_rows,
    listing,
    read_folder,
)
from hf_distill.tasks.labels import HIDDEN_TEXTS, check_one_label, is_hidden
from hf_distill.tasks.several_labels import items_of, names_in, says_several
from hf_distill.tasks.spec import (
    ENTITY_METRICS,
    HIDDEN_LABEL,
    OUTSIDE_TAG,
    REGRESSION_METRICS,
    SEVERAL_METRICS,
    TaskSpec,
)

logger = logging.getLogger(__name__)

TASK_FILE = "task.yaml"
# Verbs that score a task have the flag `--metrics`.
AS_AMOUNTS = f"say `metrics: [{', '.join(REGRESSION_METRICS)}]` in a {TASK_FILE}, or `--metrics` where a verb has it"
MAX_INFERRED_LABELS = 1000
FEW_NUMBERS = 10
# How pandas and Python write a list as text, items of it being missing or not.
_LIST = re.compile(r"""\[\s*(['"].*['"]|\d+(\s*,\s*\d+)*)?\s*\]""")
MISSING = frozenset({"nan", "NaN", "None", "<NA>", "null", "NULL"})


def is_described(name: str, folder: Path, fields: Mapping[str, Any]) -> bool:
    """Whether a folder is a task of the user: its path was given as the name, or a file or flags describe it."""
    return Path(name).expanduser() == folder or (folder / TASK_FILE).is_file() or "text_columns" in fields


def custom_spec(name: str, folder: Path, fields: Mapping[str, Any]) -> TaskSpec:
    """The spec of a folder: `task.yaml`, overridden by `fields`; what is missing is inferred from the training rows.

    Args:
        name: Name or path that the user gave; the task gets the folder's own name, unless `task.yaml` has another.
        folder: The folder with the data.
        fields: Fields of `TaskSpec` that the user set.

    Raises:
        FileNotFoundError: If the folder or its training split is missing.
        ValueError: If fields are wrong, or columns or labels cannot be inferred.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"The task folder {str(folder)!r} does not exist.")
    # An empty language means that it is unknown.
    values = {"name": near_name(folder.resolve().name), "language": ""} | read_task_file(folder) | dict(fields)
    is_guessed = not {"text_columns", "kind"} & values.keys()
    if is_guessed:
        rows = _training_rows(folder, values | {"text_columns": ["text"]})
        values = guess_columns(rows, values, f"The folder {str(folder)!r}") | values
        check_kinds(rows, [*values["text_columns"], values["label_column"]], repr(str(folder)))
    spec = _finished(folder, values)
    if spec.held_out_share is None and "evaluation_splits" not in values:
        spec = _with_held_out(spec, find_task_folder(spec, folder))
    if is_guessed:
        logger.warning(
            f"Task {spec.name!r} from the folder {str(folder)!r}: text in "
            f"{', '.join(map(repr, spec.text_columns))}, labels in {spec.label_column!r}. `--text_columns` and "
            "`--label_column` name other columns."
        )
    return spec


def _with_held_out(spec: TaskSpec, folder: Path) -> TaskSpec:
    """The task with held-out validation rows if the folder has none; its test splits are scored."""
    if not lacks_validation_rows(folder, spec):
        return spec
    tests = read_folder(folder, spec, spec.test_splits)
    scored = [split for split, rows in tests.items() if not unlabelled(rows, spec)]
    return dataclasses.replace(spec, held_out_share=HELD_OUT, evaluation_splits=(*scored, *spec.evaluation_splits))


def unlabelled(rows: Dataset, spec: TaskSpec) -> int:
    """The number of rows without a label."""
    if spec.label_column not in rows.column_names:
        return len(rows)
    return sum(not is_known(label, spec) for label in rows[spec.label_column])


def is_known(label: Any, spec: TaskSpec) -> bool:
    """Whether a label cell holds at least one label."""
    if spec.several_labels:
        return items_of(label, spec.label_separator) is not None
    return not is_hidden(label, spec)


def _finished(folder: Path, values: dict[str, Any]) -> TaskSpec:
    """The spec for fields whose columns are known: missing labels and metrics are inferred from the training rows."""
    if values.get("kind") == "question_answering":
        return TaskSpec.from_dict(values)
    if "label_names" not in values and len(values.get("choice_columns", ())) > 1:
        values["label_names"] = [str(number) for number in range(len(values["choice_columns"]))]
    if "label_separator" in values:
        values.setdefault("several_labels", True)
    if "label_names" not in values:
        values["label_names"] = _infer_label_names(folder, values)
    if "metrics" not in values:
        values["metrics"] = default_metrics(values)
    return TaskSpec.from_dict(values)


def read_task_file(folder: Path) -> dict[str, Any]:
    """Return the fields in the folder's `task.yaml`; empty if there is no such file."""
    path = folder / TASK_FILE
    if not path.is_file():
        return {}
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ValueError(f"{str(path)!r} must hold fields of a task (`text_columns: [text]`), got {shown(values)}.")
    return as_mapping(values, repr(str(path)))


def _infer_label_names(folder: Path, values: dict[str, Any]) -> list[str] | None:
    """Label names of the training split: those of its ClassLabel, its texts in sorted order, or its numbers.

    If the labels are lists, a row has several labels; this is then recorded in `values`.

    Returns:
        `None` if the labels are fractions: regression.
    """
    rows, column = _training_rows(folder, values), values.get("label_column", "label")
    if column not in rows.column_names:
        raise ValueError(
            f"The labels of {str(folder)!r} cannot be read: column {column!r} is needed, found the columns "
            f"{rows.column_names}. Name them: `--label_column`, `--class_names`."
            + did_you_mean(column, rows.column_names)
        )
    return label_names_of(rows, column, values, folder)


def _training_rows(folder: Path, values: Mapping[str, Any]) -> Dataset:
    """The training rows of a folder as they are in its files, or its evaluation rows if it has no training rows.

    Raises:
        FileNotFoundError: If it has neither.
        ValueError: If fields are wrong, or a file cannot be read.
    """
    # Two placeholder names make a valid spec, which is only used to find and read the file.
    stand_ins = {"label_names": ["0", "1"], "metrics": ["accuracy"], "headline_metric": None}
    several = {"several_labels": False, "label_separator": None}
    probe = TaskSpec.from_dict({**values, **stand_ins, **several})
    found = read_folder(find_task_folder(probe, folder), probe, [probe.train_split, *probe.evaluation_splits])
    if not found:
        raise ValueError(
            f"The columns and labels of {str(folder)!r} cannot be read: the split {probe.train_split!r} is needed, "
            f"found {listing(folder)}. Name them: `--text_columns`, `--label_column`, `--class_names`."
        )
    return next(iter(found.values()))


def label_names_of(rows: Dataset, column: str, values: dict[str, Any], place: Path) -> list[str] | None:
    """The label names of a column; if its rows have several labels, this is recorded in the task's fields.

    Args:
        rows: The training rows.
        column: Their label column.
        values: Fields of the task; the kind defaults to `text_classification`.
        place: File or folder, for messages.

    Returns:
        `None` if the labels are fractions, or are to be scored as numbers: the task is a regression.

    Raises:
        ValueError: If the labels are not one per row, or the label names cannot be inferred.
    """
    kind, separator = values.get("kind", "text_classification"), values.get("label_separator")
    if kind == "text_classification" and says_several(rows, column, separator):
        values["several_labels"] = True
        return names_in(rows, column, separator)
    if kind != "token_classification":
        check_one_label(rows, column, where=str(place))
    metrics = values.get("metrics")
    # Wrong values are reported later, when all fields are checked.
    if any(name in REGRESSION_METRICS for name in (metrics if isinstance(metrics, list) else [metrics])):
        return None
    return names_from(rows, column, place)


def names_from(rows: Dataset, column: str, folder: Path) -> list[str] | None:
    """Class names of a column: those of its ClassLabel, its texts in sorted order, or its numbers.

    Args:
        rows: The rows.
        column: The column of labels, or of lists of labels.
        folder: The folder or file of the rows, for messages.

    Returns:
        `None` if the labels are fractions: the task is a regression.

    Raises:
        ValueError: If the values are not classes, or it is unclear whether they are.
    """
    feature = rows.features[column]
    is_list = isinstance(feature, List)
    feature = feature.feature if is_list else feature
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    found = {item for row in rows[column] for item in row or ()} if is_list else rows.unique(column)
    # An empty cell in a column of numbers is read as NaN.
    values = [value for value in found if value is not None and value == value]
    written = {str(value).strip() for value in values}
    texts = {text for text in written if text.lower() not in HIDDEN_TEXTS}
    _say_missing(texts, column, folder)
    if not texts:
        raise ValueError(f"Column {column!r} of {str(folder)!r} holds no label.")
    if len(texts) == 1 and str(HIDDEN_LABEL) not in written:
        raise ValueError(
            f"Column {column!r} of {str(folder)!r} holds one label only, {next(iter(texts))!r}: a classifier needs "
            "two (`--label_column` names another column)."
        )
    _refuse_decimal_commas(texts, column, folder)
    # Numbers with leading zeros are names, for example of places or diseases.
    are_codes = any(re.fullmatch(r"0\d+", text) for text in texts)
    numbers = [] if are_codes else sorted({float(text) for text in texts if _is_number(text)})
    if any(not math.isfinite(number) for number in numbers):
        raise ValueError(f"Column {column!r} of {str(folder)!r} holds {numbers[-1]}: a label must be finite.")
    if numbers and any(not _is_number(text) for text in texts):
        words = sorted(text for text in texts if not _is_number(text))
        raise ValueError(
            f"Column {column!r} of {str(folder)!r} holds numbers ({numbers[0]:g}) and words ({words[0]!r}): are they "
            "classes? Name all of them with `--class_names`, or mend the column."
        )
    if numbers:
        if not all(number.is_integer() for number in numbers):
            _say_regression(numbers, column, folder)
            return None
        return _numbered_classes(numbers, written, column, folder)
    if len(texts) > MAX_INFERRED_LABELS:
        raise ValueError(f"Column {column!r} of {str(folder)!r} holds {len(texts)} different texts: is it the label?")
    _refuse_several_labels(texts, column, folder)
    _say_marks(written, sorted(texts), column, folder)
    _check_spelling(texts, column, folder)
    return sorted(texts)


def _say_missing(texts: Collection[str], column: str, folder: Path) -> None:
    """Warn if a class has a name that programs write for a missing value."""
    found = sorted(text for text in texts if text in MISSING)
    if found:
        logger.warning(
            f"Column {column!r} of {str(folder)!r} holds {' and '.join(map(repr, found))}, which is taken for a class"
            ": leave the cell empty where the label is missing."
        )


def _say_marks(written: Collection[str], names: Sequence[str], column: str, folder: Path) -> None:
    """Warn of values that mark a row without a label, but that could be the name of a class."""
    marks = sorted(text for text in written if text and text.lower() in HIDDEN_TEXTS)
    if marks:
        logger.warning(
            f"Column {column!r} of {str(folder)!r} holds {' and '.join(marks)}, which marks rows without a label: "
            f"they are not learnt. If it is a class, name all of them: `--class_names {' '.join([*marks, *names])}`."
        )


def _numbered_classes(numbers: Sequence[float], written: Collection[str], column: str, folder: Path) -> list[str]:
    """Names of classes that are numbered from 0.

    Args:
        numbers: The numbers in the column, in ascending order, without the mark of hidden labels.
        written: All values of the column, as text.
        column: The column.
        folder: The folder or file, for messages.

    Raises:
        ValueError: If the numbers are not 0 to n-1.
    """
    if numbers[0] == 0 and numbers[-1] == len(numbers) - 1:
        names = [str(int(number)) for number in numbers]
        _say_marks(written, names, column, folder)
        return names
    numbers = [HIDDEN_LABEL, *numbers] if str(HIDDEN_LABEL) in written else numbers
    listed = " ".join(f"{number:.15g}" for number in numbers[:FEW_NUMBERS]) + " ..." * (len(numbers) > FEW_NUMBERS)
    raise ValueError(
        f"Column {column!r} of {str(folder)!r} holds the numbers {listed}: are they classes? Name them with "
        f"`--class_names {listed}`; if they are amounts to estimate, {AS_AMOUNTS}. Numbers from 0 to n-1 are taken "
        f"for classes; a hidden label is {HIDDEN_LABEL}."
    )


def _refuse_decimal_commas(texts: Collection[str], column: str, folder: Path) -> None:
    """Refuse numbers with a decimal comma such as `0,5`: each of them would become a class."""
    wrong = sorted(text for text in texts if re.fullmatch(r"[+-]?\d+,\d+", text))
    if wrong and all(_is_number(text.replace(",", ".")) for text in texts):
        raise ValueError(
            f"Column {column!r} of {str(folder)!r} holds {wrong[0]!r}: numbers are read with a point, so write "
            f"{wrong[0].replace(',', '.')}. If these are classes, name them with `--class_names`."
        )


def _check_spelling(texts: Collection[str], column: str, folder: Path) -> None:
    """Warn of labels that differ only in upper and lower case."""
    forms: dict[str, list[str]] = {}
    for text in sorted(texts):
        forms.setdefault(text.casefold(), []).append(text)
    alike = next((found for found in forms.values() if len(found) > 1), None)
    if alike is not None:
        logger.warning(
            f"Column {column!r} of {str(folder)!r} holds {' and '.join(map(repr, alike))}, which are two labels: "
            "write them alike if they mean the same."
        )


def _say_regression(numbers: Sequence[float], column: str, folder: Path) -> None:
    """Warn if the labels are only a few different fractions: they may be classes that were coded or averaged."""
    if len(numbers) <= FEW_NUMBERS:
        logger.warning(
            f"Column {column!r} of {str(folder)!r} holds the numbers {numbers}, some with fractions: the task is a "
            f"regression. For classes name them with `--class_names`; where it is one, {AS_AMOUNTS}."
        )


def _refuse_several_labels(texts: Collection[str], column: str, folder: Path) -> None:
    """Refuse cells such as `World|long` or `['World', 'long']`, which hold several labels and not one class name."""
    listed = next((text for text in sorted(texts) if _LIST.fullmatch(text)), None)
    if listed is not None:
        raise ValueError(
            f"Column {column!r} of {str(folder)!r} holds {listed!r}, which looks like a list of labels: write the "
            "rows as JSON lines or Parquet, which have lists, or the labels of a row with a separator between them "
            "(`--label_separator ';'`). If these are classes, name them with `--class_names`."
        )
    for separator in "|;,":
        for text in sorted(texts):
            parts = [part.strip() for part in text.split(separator)]
            known = [part for part in parts if part in texts]
            if len(parts) > 1 and len(set(parts)) > 1 and (known if separator == "|" else len(known) == len(parts)):
                raise ValueError(
                    f"Column {column!r} of {str(folder)!r} holds {text!r}, which looks like several labels of one "
                    f"row. Say so with `--label_separator '{separator}'`, or name the classes with `--class_names`."
                )


def _is_number(text: str) -> bool:
    """Whether a label is a number; `nan` and `inf` count as words."""
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, flags=re.IGNORECASE) is not None


def default_metrics(values: Mapping[str, Any]) -> list[str]:
    """The default metrics of a task.

    Args:
        values: Fields of `TaskSpec`, with `label_names`.
    """
    label_names = values["label_names"]
    if values.get("several_labels"):
        return list(SEVERAL_METRICS)
    if values.get("kind") == "token_classification":
        return list(ENTITY_METRICS) if OUTSIDE_TAG in label_names else ["accuracy"]
    if values.get("kind") == "multiple_choice":
        return ["accuracy"]
    if label_names is None:
        return list(REGRESSION_METRICS)
    return ["accuracy", "f1"] if len(label_names) == 2 else ["accuracy", "f1_macro"]
