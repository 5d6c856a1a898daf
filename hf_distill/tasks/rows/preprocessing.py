"""Named functions that make the text of a row from its official columns (`TaskSpec.preprocessing`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, Value

from hf_distill.tasks.spec import TaskSpec

# Around the noun and around the pronoun that may mean it, as in the baselines of CLUE.
NOUN_MARKS = ("_", "_")
PRONOUN_MARKS = ("[", "]")


@dataclass(frozen=True)
class Preprocessing:
    """A way to make one text column.

    Attributes:
        columns: Columns that it reads, the first of which becomes the text.
        make: Text of the values of these columns.
    """

    columns: tuple[str, ...]
    make: Callable[..., str]


def join_keywords(keywords: Any) -> str:
    """Keywords of CSL joined by spaces, as CLUE's baselines give them to a model; a text stays as it is."""
    return keywords if isinstance(keywords, str) else " ".join(str(word) for word in keywords)


def mark_spans(text: str, target: Mapping[str, Any]) -> str:
    """Text of CLUEWSC with the noun as `_noun_` and the pronoun as `[pronoun]`, at the places that the row names.

    Args:
        text: The sentences.
        target: `span1_text` and `span1_index` of the noun, `span2_text` and `span2_index` of the pronoun, in
            characters.

    Raises:
        ValueError: If the text ends before a span does.
    """
    inserts = []
    for name, (opening, closing) in (("span1", NOUN_MARKS), ("span2", PRONOUN_MARKS)):
        begin = int(target[f"{name}_index"])
        end = begin + len(target[f"{name}_text"])
        if not 0 <= begin <= end <= len(text):
            raise ValueError(f"the text {text!r} has no characters {begin} to {end} ({name} of {dict(target)}).")
        # A span that closes where another opens closes first.
        inserts += [(end, 0, closing), (begin, 1, opening)]
    # From the end of the text, so that the places before stay right.
    for place, _, mark in sorted(inserts, reverse=True):
        text = text[:place] + mark + text[place:]
    return text


PREPROCESSINGS: dict[str, Preprocessing] = {
    "join_keywords": Preprocessing(columns=("keyword",), make=join_keywords),
    "mark_spans": Preprocessing(columns=("text", "target"), make=mark_spans),
}


def preprocess_rows(rows: Dataset, spec: TaskSpec, *, split: str) -> Dataset:
    """Rows whose text column holds what the model reads; unchanged where the task has no preprocessing.

    Raises:
        ValueError: If the name is unknown, a column that is read is missing, or a row does not fit.
    """
    if spec.preprocessing is None:
        return rows
    if spec.preprocessing not in PREPROCESSINGS:
        raise ValueError(
            f"Task {spec.name!r}: `preprocessing` is {spec.preprocessing!r}; allowed are {sorted(PREPROCESSINGS)} and "
            "null."
        )
    step = PREPROCESSINGS[spec.preprocessing]
    missing = [column for column in step.columns if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r} lacks columns {missing}, of which its texts are made "
            f"({spec.preprocessing}); found {rows.column_names}."
        )
    texts = []
    for number, values in enumerate(zip(*(rows[column] for column in step.columns), strict=True)):
        try:
            texts.append(step.make(*values))
        except ValueError as error:
            raise ValueError(f"Split {split!r} of task {spec.name!r}, row {number}: {error}") from error
    return rows.remove_columns(step.columns[0]).add_column(step.columns[0], texts, feature=Value("string"))
