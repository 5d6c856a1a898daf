"""Guesses the text and label columns of a file or folder that comes without a description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from datasets import ClassLabel, Dataset, List, Value

from hf_distill.storage.plain_values import did_you_mean

# Names of columns in the order in which they are searched for; the two columns of a pair stand together.
PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence")),
    *(("text1", "text2"), ("text_a", "text_b"), ("text", "text_pair"), ("query", "document"), ("query", "passage")),
    *(("question", "passage"), ("question", "context"), ("question", "answer"), ("#1 string", "#2 string")),
)
TEXTS = ("text", "sentence", "content", "review", "comment", "body", "message", "tweet", "document", "description")
LABELS = (
    *("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "gold", "tag", "score"),
    *("rating", "stars", "y"),
)
WORDS, TAGS = ("tokens", "words"), ("ner_tags", "tags", "labels", "pos_tags")
ANSWERED = ("question", "context", "answers")
EXAMPLES = 1_000
_TEXT_TYPES = (Value("string"), Value("large_string"))


def guess_columns(rows: Dataset, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Guess the kind, the text columns and the label column of a task, where the user did not name them.

    A column is recognised by its name, or else by its values: the only column with few, repeating values holds the
    labels, and the column with the longest texts holds the text.

    Args:
        rows: The rows.
        fields: Fields of `TaskSpec` that the user chose.
        where: Description of the rows, for error messages.

    Returns:
        `kind`, `text_columns` and `label_column`; `answer_scorer` of questions where it is not that of SQuAD 1.1.

    Raises:
        ValueError: If a named column does not exist, none can be recognised, or the table seems to have no header.
    """
    names = {name.strip().lower(): name for name in rows.column_names}
    chosen, label = fields.get("text_columns"), fields.get("label_column")
    words = next(
        (names[name] for name in WORDS if name in names and isinstance(rows.features[names[name]], List)), None
    )
    if chosen is None and label is None and names.keys() >= set(ANSWERED):
        question, context, answers = (names[name] for name in ANSWERED)
        fields = {"kind": "question_answering", "text_columns": [question, context], "label_column": answers}
        return fields | _scorer_of(rows[answers])
    if chosen is None and words is not None:
        tags = label or next((names[name] for name in TAGS if name in names), None)
        return {"kind": "token_classification", "text_columns": [words], "label_column": _known(tags, where, rows)}
    label = label or _label_column(rows, names, chosen or ())
    found = chosen or _text_columns(rows, names, label)
    if not found:
        raise ValueError(
            f"{where} has the columns {rows.column_names}, and none of them is known to hold text: "
            "name it with `--text_columns`."
        )
    unknown = [name for name in found if name not in rows.column_names]
    if unknown:
        raise ValueError(
            f"{where} has the columns {rows.column_names}, and no column {unknown[0]!r} "
            f"(`--text_columns`).{did_you_mean(unknown, rows.column_names)}"
        )
    label = _known(label, where, rows)
    if not {"label_column", "text_columns"} & fields.keys():
        _check_header(rows, label, found, where)
    return {"kind": "text_classification", "text_columns": list(found), "label_column": label}


def _scorer_of(answers: Iterable[Any]) -> dict[str, Any]:
    """How answers are scored: as those of SQuAD 2.0 where some questions have none, Chinese ones by characters."""
    texts = [found.get("text") or () for found in answers if isinstance(found, dict)]
    if {bool(found) for found in texts} == {True, False}:
        return {"answer_scorer": "squad_v2"}
    firsts = [str(found[0]) for found in texts[:EXAMPLES] if found]
    chinese = [text for text in firsts if any("\u4e00" <= character <= "\u9fff" for character in text)]
    return {"answer_scorer": "cmrc2018"} if 2 * len(chinese) > len(firsts) else {}


def _known(label: str | None, where: str, rows: Dataset) -> str:
    if label is None or label not in rows.column_names:
        raise ValueError(
            f"{where} has the columns {rows.column_names}, and "
            + ("none of them is known to hold labels" if label is None else f"no column {label!r}")
            + ": name it with `--label_column`."
            + did_you_mean(label or (), rows.column_names)
        )
    return label


def _check_header(rows: Dataset, label: str, texts: Iterable[str], where: str) -> None:
    """Refuse a table without a header, whose first row would be taken for column names.

    Raises:
        ValueError: If both columns were recognised by their values alone, and the name of the label column is also a
            label.
    """
    known = {*LABELS, *TEXTS, *(name for pair in PAIRS for name in pair)}
    if not known & {label.lower(), *map(str.lower, texts)} and label in rows.unique(label):
        raise ValueError(
            f"{where} seems to have no header: its first row is {rows.column_names}, and {label!r} is "
            "a label too. Write names of the columns into the first line, such as text,label; or name the columns "
            "with `--text_columns` and `--label_column`."
        )


def _label_column(rows: Dataset, names: Mapping[str, str], texts: Iterable[str]) -> str | None:
    """The label column: known by its name or type, or the only column with few different, repeating values."""
    known = next((names[name] for name in LABELS if name in names and names[name] not in texts), None)
    if known is not None:
        return known
    single = {name: feature for name, feature in rows.features.items() if name not in texts}
    classes = [name for name, feature in single.items() if isinstance(feature, ClassLabel)]
    if len(classes) == 1:
        return classes[0]
    head = rows[:EXAMPLES]
    few = [
        name
        for name, feature in single.items()
        if isinstance(feature, (Value, ClassLabel)) and name.lower() != "split"
        if 1 < len(set(head[name])) <= max(2, len(head[name]) // 10)
    ]
    return few[0] if len(few) == 1 else None


def _text_columns(rows: Dataset, names: Mapping[str, str], label: str | None) -> list[str]:
    """The text column, or both columns of a pair: known by their names, or the column with the longest texts."""
    for pair in PAIRS:
        if all(name in names and names[name] != label for name in pair):
            return [names[name] for name in pair]
    known = [names[name] for name in TEXTS if name in names and names[name] != label]
    if known:
        return known[:1]
    head = rows[:EXAMPLES]
    texts = [name for name in rows.column_names if name != label and rows.features[name] in _TEXT_TYPES]
    lengths = {name: sum(len(value or "") for value in head[name]) / len(head[name]) for name in texts}
    longest = max(lengths, key=lambda name: lengths[name], default=None)
    return [longest] if longest is not None and any(_has_words(value or "") for value in head[longest]) else []


def _has_words(text: str) -> bool:
    """Whether a cell may hold a text; Chinese and Japanese text has no spaces between words."""
    return " " in text or any("\u3040" <= character <= "\u9fff" for character in text)
