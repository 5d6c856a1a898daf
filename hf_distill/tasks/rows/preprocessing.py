"""Named functions that make columns of a row from its official ones (`TaskSpec.preprocessing`)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, List, Value

from hf_distill.tasks.rows.questions import ANSWERS
from hf_distill.tasks.spec import TaskSpec

# Around the noun and around the pronoun that may mean it, as in the baselines of CLUE.
NOUN_MARKS = ("_", "_")
PRONOUN_MARKS = ("[", "]")
# Choices of a row of ARC and of MathQA.
FIVE = 5


@dataclass(frozen=True)
class Preprocessing:
    """A way to make columns of others.

    Attributes:
        columns: Columns that it reads.
        make: What is made of their values; of several columns a tuple.
        made: The columns that are made, with their types; by default the first one that is read, a text.
        only: A column, and the value of the rows that are the task's; the others are left out.
    """

    columns: tuple[str, ...]
    make: Callable[..., Any]
    made: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, str] | None = None


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


def join_answer(question: str, answer: str) -> str:
    """The question of MultiRC and one of its answers, which is judged by itself."""
    return f"{question} {answer}"


def mark_words(text: str, noun_index: int, noun: str, pronoun_index: int, pronoun: str) -> str:
    """Text of SuperGLUE's WSC with the noun as `_noun_` and the pronoun as `[pronoun]`, as `mark_spans` has them.

    Args:
        text: The sentences.
        noun_index: Which word of the text the noun begins with.
        noun: The noun; it may have several words.
        pronoun_index: Likewise of the pronoun.
        pronoun: The pronoun.

    Raises:
        ValueError: If the text has fewer words.
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
    """Choices of `{"text": [...], "label": [...]}`."""
    return list(choices["text"])


def five_choices(choices: Mapping[str, Any]) -> list[str]:
    """The same for ARC, filled up with empty choices to five.

    Raises:
        ValueError: If there are more.
    """
    texts = choice_texts(choices)
    if len(texts) > FIVE:
        raise ValueError(f"there are {len(texts)} choices, of which {FIVE} are read: {texts}.")
    return texts + [""] * (FIVE - len(texts))


def lettered_options(options: str) -> list[str]:
    """The options of MathQA, such as `a ) 38 , b ) 27.5 , ... , e ) none`, filled up with empty ones to five."""
    found = re.split(r"(?:^|,)\s*[a-e]\s*\)\s*", options.strip())[1:]
    texts = [text.strip(" ,") for text in found][:FIVE]
    return texts + [""] * (FIVE - len(texts))


def placed_answer(answer: str, first: str, second: str, third: str, question: str) -> tuple[list[str], str]:
    """Choices of SciQ and the place of the right answer among them, which the question decides."""
    place = zlib.crc32(question.encode()) % 4
    choices = [first, second, third]
    choices.insert(place, answer)
    return choices, str(place)


def spans_of(answers: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The answers of MRQA in SQuAD's form: each text at the first of its places."""
    starts = [
        spans["start"][0] if isinstance(spans, Mapping) else spans[0]["start"] for spans in answers["char_spans"]
    ]
    return {"text": list(answers["text"]), "answer_start": starts}


def _mrqa(name: str) -> Preprocessing:
    """The rows of MRQA that come from one data set."""
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
