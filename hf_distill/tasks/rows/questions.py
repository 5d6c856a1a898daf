"""Rows of question, context and answers: checked, and cut into windows that a model can read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pyarrow.compute
from datasets import Dataset, List, Value

from hf_distill.tasks.labels import cast_column
from hf_distill.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Maximum tokens of a question, as in BERT's published script.
MAX_QUESTION_LENGTH = 64
OUTSIDE = -1
ANSWERS = {"text": List(Value("string")), "answer_start": List(Value("int64"))}


def normalise_questions(rows: Dataset, spec: TaskSpec, *, split: str) -> Dataset:
    """Convert question and context to texts, and answers to lists of texts and their first characters in the context.

    Training rows in which no answer stands at its `answer_start` are counted and dropped. A question without any
    answer is unanswerable.

    Raises:
        ValueError: If answers have another format, or a row has no question or context.
    """
    question, context = spec.text_columns
    for column in (question, context):
        rows = cast_column(rows, column, Value("string"), spec=spec, split=split)
        if rows.data.column(column).null_count:
            raise ValueError(f"Split {split!r} of task {spec.name!r}: rows without text in {column!r}.")
    answers = spec.label_column
    if answers not in rows.column_names:
        empty: list[dict[str, list[Any]]] = [{"text": [], "answer_start": []}] * len(rows)
        return rows.add_column(answers, empty, feature=ANSWERS)
    form = rows.features[answers]
    if form == Value("null"):
        return normalise_questions(rows.remove_columns(answers), spec, split=split)
    if not isinstance(form, dict) or not set(ANSWERS) <= set(form):
        raise ValueError(
            f"Split {split!r} of task {spec.name!r}: column {answers!r} must hold lists `text` and `answer_start`, it "
            f"holds {form}."
        )
    if form != ANSWERS:
        rows = cast_column(rows, answers, ANSWERS, spec=spec, split=split)
    rows = _fill_answers(rows, spec, split)
    if split != spec.train_split:
        return rows
    kept = [
        number
        for number, (text, found) in enumerate(zip(rows[context], rows[answers], strict=True))
        if not found["text"] or _first_answer(found, text) is not None
    ]
    if len(kept) < len(rows):
        logger.warning(
            f"Task {spec.name!r}: {len(rows) - len(kept)} training rows are left out, because no answer stands at its "
            "`answer_start`."
        )
        rows = rows.select(kept)
    return rows


def _fill_answers(rows: Dataset, spec: TaskSpec, split: str) -> Dataset:
    """Replace null answers by empty ones, which mark unanswerable questions.

    Raises:
        ValueError: If a row does not have one position for each text.
    """
    answers = spec.label_column
    found = rows.with_format(None)[answers][:]
    filled = [{name: list((one or {}).get(name) or ()) for name in ANSWERS} for one in found]
    for number, one in enumerate(filled):
        texts, starts = one["text"], one["answer_start"]
        if len(texts) != len(starts) or None in texts or None in starts:
            raise ValueError(
                f"Split {split!r} of task {spec.name!r}: column {answers!r} must hold an `answer_start` for every "
                f"`text`, but row {number} has {found[number]}."
            )
    missing = sum(one is None for one in found)
    if missing and split not in spec.test_splits:
        logger.warning(
            f"Task {spec.name!r}: {missing} rows of split {split!r} have no {answers!r} (null); they count as "
            "questions that the context does not answer."
        )
    if filled == found:
        return rows
    return rows.remove_columns(answers).add_column(answers, filled, feature=ANSWERS)


def has_answers(rows: Dataset, spec: TaskSpec) -> bool:
    """Whether any question of normalised rows has an answer; in a hidden test set none has."""
    counts = pyarrow.compute.list_value_length(
        pyarrow.compute.struct_field(rows.with_format("arrow")[spec.label_column][:], "text")
    )
    return bool(pyarrow.compute.any(pyarrow.compute.greater(counts, 0)).as_py())


def encode_questions(
    batch: dict[str, list[Any]],
    indices: list[int],
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    doc_stride: int,
) -> dict[str, list[Any]]:
    """Tokenize question and context into windows; a row gives as many windows as its context needs.

    Returns:
        The tokenizer's outputs; `start_positions` and `end_positions`, the tokens of the first answer that stands at
        its `answer_start` (the first token of the row if the window does not contain it); `row`; `offset_starts` and
        `offset_ends`, the characters of each token in the context, -1 for other tokens; and `length`.
    """
    question_column, context_column = spec.text_columns
    questions = cut_questions(batch[question_column], tokenizer, max_length)
    encoded = tokenizer(
        questions,
        batch[context_column],
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    owners, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    windows: dict[str, list[Any]] = {name: [] for name in ("start_positions", "end_positions", "row")}
    windows |= {"offset_starts": [], "offset_ends": []}
    answers = [
        _first_answer(found, text) for found, text in zip(batch[spec.label_column], batch[context_column], strict=True)
    ]
    for window, owner in enumerate(owners):
        inside = [side == 1 for side in encoded.sequence_ids(window)]
        starts, ends = (
            [pair[side] if own else OUTSIDE for pair, own in zip(offsets[window], inside, strict=True)]
            for side in (0, 1)
        )
        first, last = _answer_tokens(answers[owner], starts, ends)
        windows["start_positions"].append(first)
        windows["end_positions"].append(last)
        windows["row"].append(indices[owner])
        windows["offset_starts"].append(starts)
        windows["offset_ends"].append(ends)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return {**encoded, **windows, "length": lengths}


def cut_questions(questions: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[str]:
    """Strip the questions and truncate each to at most 64 tokens and half of `max_length`."""
    limit = min(MAX_QUESTION_LENGTH, max(1, max_length // 2 - tokenizer.num_special_tokens_to_add(pair=True)))
    stripped = [question.strip() for question in questions]
    offsets = tokenizer(stripped, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [
        text if len(found) <= limit else text[: found[limit - 1][1]]
        for text, found in zip(stripped, offsets, strict=True)
    ]


def window_stride(spec: TaskSpec, max_length: int, doc_stride: int | None, num_special_tokens: int) -> int:
    """Tokens that two windows share: the given number, or the task's, limited to half of a window's smallest context.

    Raises:
        ValueError: If the given number leaves no room for new tokens.
    """
    question = min(MAX_QUESTION_LENGTH, max(1, max_length // 2 - num_special_tokens))
    room = max_length - question - num_special_tokens
    if doc_stride is None:
        return min(spec.fine_tuning.doc_stride, room // 2)
    if not 0 <= doc_stride < room:
        raise ValueError(
            f"`--doc_stride` is {doc_stride}; with `--max_length` {max_length} a window may have as little as {room} "
            f"tokens of context, so it must be at least 0 and below {room}."
        )
    return doc_stride


def _first_answer(answers: dict[str, list[Any]], context: str) -> tuple[int, int] | None:
    """Return the first character and the end of the first answer that stands at its `answer_start`."""
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        if text and start >= 0 and context[start : start + len(text)] == text:
            return start, start + len(text)
    return None


def _answer_tokens(answer: tuple[int, int] | None, starts: list[int], ends: list[int]) -> tuple[int, int]:
    """First and last token of an answer; both the first token of the row if the window does not contain all of it."""
    if answer is None:
        return 0, 0
    begin, end = answer
    held = [token for token, (a, b) in enumerate(zip(starts, ends, strict=True)) if a >= 0 and b > begin and a < end]
    if not held or starts[held[0]] > begin or ends[held[-1]] < end:
        return 0, 0
    return held[0], held[-1]
