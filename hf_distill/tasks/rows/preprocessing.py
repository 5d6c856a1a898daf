"""Named functions that compute columns from the official columns of a row (`TaskSpec.preprocessing`)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, List, Value

from hf_distill.tasks.rows.questions import ANSWERS
from hf_distill.tasks.spec import TaskSpec

# Marks around the noun and around the pronoun that may refer to it, as in the baselines of CLUE.
NOUN_MARKS = ("_", "_")
PRONOUN_MARKS = ("[", "]")
# The number of choices in ARC and in MathQA.
FIVE = 5


@dataclass(frozen=True)
class Preprocessing:
    """A way to compute columns from others.

    Attributes:
        columns: Columns that it reads.
        make: Function of their values; it returns a tuple if it makes several columns.
        made: The columns that are made, with their types; by default the first column that is read, as text.
        only: A column and a value: only rows with this value belong to the task; the others are dropped.
    """

    columns: tuple[str, ...]
    make: Callable[..., Any]
    made: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, str] | None = None


def join_keywords(keywords: Any) -> str:
    """Join the keywords of CSL with spaces, as CLUE's baselines do; a text is returned unchanged."""
    return keywords if isinstance(keywords, str) else " ".join(str(word) for word in keywords)


def mark_spans(text: str, target: Mapping[str, Any]) -> str:
    """Write the noun in a text of CLUEWSC as `_noun_` and the pronoun as `[pronoun]`, at the given positions.

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
        # Where one span ends and another begins, the closing mark comes first.
        inserts += [(end, 0, closing), (begin, 1, opening)]
    # Insert from the end of the text, so that earlier positions stay valid.
    for place, _, mark in sorted(inserts, reverse=True):
        text = text[:place] + mark + text[place:]
    return text


def join_answer(question: str, answer: str) -> str:
    """Join a question of MultiRC with one of its answers, which is classified on its own."""
    return f"{question} {answer}"


def mark_words(text: str, noun_index: int, noun: str, pronoun_index: int, pronoun: str) -> str:
    """Write the noun in a text of SuperGLUE's WSC as `_noun_` and the pronoun as `[pronoun]`, as `mark_spans` does.

    Args:
        text: The sentences.
        noun_index: Index of the word at which the noun begins.
        noun: The noun; it may have several words.
        pronoun_index: Index of the word at which the pronoun begins.
        pronoun: The pronoun.

    Raises:
        ValueError: If the text has too few words.
    """
    words = text.split()
    for index, span, (opening, closing) in ((noun_index, noun, NOUN_MARKS), (pronoun_index, pronoun, PRONOUN_MARKS)):
        last = int(index) + max(1, len(span.split())) - 1
        if not 0 <= int(index) <= last < len(words):
            raise ValueError(f"the text {text!r} has no words {index} to {last} ({span!r}).")
        words[int(index)] = opening + words[int(index)]
        words[last] += closing
    return " ".join(words)


def choice_texts(choices: Mapping[str, Any]) -> list[str]:
    """The choices in `{"text": [...], "label": [...]}`."""
    return list(choices["text"])


def five_choices(choices: Mapping[str, Any]) -> list[str]:
    """The choices of ARC, padded to five with empty choices.

    Raises:
        ValueError: If there are more than five.
    """
    texts = choice_texts(choices)
    if len(texts) > FIVE:
        raise ValueError(f"there are {len(texts)} choices, of which {FIVE} are read: {texts}.")
    return texts + [""] * (FIVE - len(texts))


def lettered_options(options: str) -> list[str]:
    """The options of MathQA, such as `a ) 38 , b ) 27.5 , ... , e ) none`, padded to five with empty ones."""
    found = re.split(r"(?:^|,)\s*[a-e]\s*\)\s*", options.strip())[1:]
    texts = [text.strip(" ,") for text in found][:FIVE]
    return texts + [""] * (FIVE - len(texts))


def placed_answer(answer: str, first: str, second: str, third: str, question: str) -> tuple[list[str], str]:
    """Choices of SciQ and the position of the right answer among them, which is derived from the question."""
    place = zlib.crc32(question.encode()) % 4
    choices = [first, second, third]
    choices.insert(place, answer)
    return choices, str(place)


def spans_of(answers: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The answers of MRQA in SQuAD's format: each text at its first position."""
    starts = [
        spans["start"][0] if isinstance(spans, Mapping) else spans[0]["start"] for spans in answers["char_spans"]
    ]
    return {"text": list(answers["text"]), "answer_start": starts}


def _mrqa(name: str) -> Preprocessing:
    """Preprocessing of the rows of MRQA that come from one data set."""
    return Preprocessing(
        columns=("detected_answers",), make=spans_of, made={"answers": ANSWERS}, only=("subset", name)
    )


CHOICES = List(Value("string"))
PREPROCESSINGS: dict[str, Preprocessing] = {
    "join_keywords": Preprocessing(columns=("keyword",), make=join_keywords),
    "mark_spans": Preprocessing(columns=("text", "target"), make=mark_spans),
    "join_answer": Preprocessing(columns=("question", "answer"), make=join_answer),
    "mark_words": Preprocessing(
        columns=("text", "span1_index", "span1_text", "span2_index", "span2_text"), make=mark_words
    ),
    "choice_texts": Preprocessing(columns=("choices",), make=choice_texts, made={"choices": CHOICES}),
    "five_choices": Preprocessing(columns=("choices",), make=five_choices, made={"choices": CHOICES}),
    "lettered_options": Preprocessing(columns=("options",), make=lettered_options, made={"options": CHOICES}),
    "placed_answer": Preprocessing(
        columns=("correct_answer", "distractor1", "distractor2", "distractor3", "question"),
        make=placed_answer,
        made={"choices": CHOICES, "label": Value("string")},
    ),
    "mrqa_natural_questions": _mrqa("NaturalQuestionsShort"),
    "mrqa_hotpotqa": _mrqa("HotpotQA"),
    "mrqa_triviaqa": _mrqa("TriviaQA-web"),
}


def preprocess_rows(rows: Dataset, spec: TaskSpec, *, split: str) -> Dataset:
    """Apply the task's preprocessing to rows; they are unchanged if it has none.

    Raises:
        ValueError: If the preprocessing is unknown, a column that it reads is missing, or a row does not fit.
    """
    if spec.preprocessing is None:
        return rows
    if spec.preprocessing not in PREPROCESSINGS:
        raise ValueError(
            f"Task {spec.name!r}: `preprocessing` is {spec.preprocessing!r}; allowed are {sorted(PREPROCESSINGS)} and "
            "null."
        )
    step = PREPROCESSINGS[spec.preprocessing]
    read = [*step.columns, *([step.only[0]] if step.only else [])]
    missing = [column for column in read if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r} lacks columns {missing}, of which its texts are made "
            f"({spec.preprocessing}); found {rows.column_names}."
        )
    if step.only is not None:
        column, value = step.only
        rows = rows.select([number for number, found in enumerate(rows[column]) if found == value])
    made: list[Any] = []
    for number, values in enumerate(zip(*(rows[column] for column in step.columns), strict=True)):
        try:
            made.append(step.make(*values))
        except ValueError as error:
            raise ValueError(f"Split {split!r} of task {spec.name!r}, row {number}: {error}") from error
    kinds = step.made or {step.columns[0]: Value("string")}
    for place, (column, kind) in enumerate(kinds.items()):
        if column in rows.column_names:
            rows = rows.remove_columns(column)
        rows = rows.add_column(column, [one[place] for one in made] if len(kinds) > 1 else made, feature=kind)
    return rows
