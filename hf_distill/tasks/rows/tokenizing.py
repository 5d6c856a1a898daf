"""Tokenizes a task of any kind, without padding and with the length of every row."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from datasets import Dataset, DatasetDict, List, Value
from datasets.fingerprint import Hasher

from hf_distill.tasks.rows.choices import encode_choices
from hf_distill.tasks.rows.questions import encode_questions, window_stride
from hf_distill.tasks.rows.text import remember_length, say_rows_cut
from hf_distill.tasks.rows.words import encode_words
from hf_distill.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Part of the cache key: `datasets` hashes functions of a package by name only, not by their code.
CODE_VERSION = 2
BATCH_SIZE = 1000

DatasetOrDict = TypeVar("DatasetOrDict", Dataset, DatasetDict)


def tokenize_task(
    dataset: DatasetOrDict,
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    doc_stride: int | None = None,
) -> DatasetOrDict:
    """Tokenize normalised splits of a task.

    Args:
        dataset: One split or all splits, from `load_task`.
        spec: The task.
        tokenizer: The model's tokenizer.
        max_length: Maximum tokens of a row, special tokens included; `None` takes the task's default. A pair is
            truncated longest text first; the context of a question is cut into windows instead.
        doc_stride: Tokens that two windows share; `None` takes the task's, limited by the size of the windows.

    Returns:
        Columns `input_ids`, `attention_mask`, `token_type_ids` if the tokenizer makes them, `length` and labels:
        `labels` (int64, or float32 for regression; -100 on tokens that do not begin a word), or `start_positions` and
        `end_positions`. In multiple choice every row has a sequence for each choice. Words and windows come with `row`
        and with their positions in the text (see `encode_words`, `encode_questions`). Nothing is padded.

    Raises:
        ValueError: If `max_length` exceeds the tokenizer's limit or leaves no room for text, or the tokenizer cannot
            map tokens to characters.
    """
    limit = max_length if max_length is not None else spec.fine_tuning.max_length
    check_max_length(limit, tokenizer, pair=spec.is_pair)
    encode = _encoder(spec, tokenizer, limit, doc_stride)
    parts = dataset if isinstance(dataset, DatasetDict) else {"": dataset}
    tokens = {name: _tokenize(rows, spec, tokenizer, encode) for name, rows in parts.items()}
    for rows in tokens.values() if not spec.is_span else ():
        say_rows_cut(rows, limit, f"rows of task {spec.name!r}")
    remember_length(tokenizer, limit)
    return DatasetDict(tokens) if isinstance(dataset, DatasetDict) else tokens[""]


def check_max_length(max_length: int, tokenizer: PreTrainedTokenizerBase, *, pair: bool = False) -> None:
    """Check that `max_length` leaves room for text and is within the tokenizer's limit.

    Raises:
        ValueError: If not.
    """
    least = tokenizer.num_special_tokens_to_add(pair=pair) + (2 if pair else 1)
    if not least <= max_length <= tokenizer.model_max_length:
        raise ValueError(
            f"`--max_length` is {max_length}; with this tokenizer it must lie between {least} (special tokens and one "
            f"token of text) and {tokenizer.model_max_length} (its `model_max_length`)."
        )


def _encoder(
    spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, max_length: int, doc_stride: int | None
) -> partial[dict[str, list[Any]]]:
    """Return the function that turns rows of the task's kind into tokens."""
    if spec.kind == "text_classification":
        return partial(_encode_texts, spec=spec, tokenizer=tokenizer, max_length=max_length)
    if spec.kind == "multiple_choice":
        return partial(encode_choices, spec=spec, tokenizer=tokenizer, max_length=max_length)
    if not tokenizer.is_fast:
        raise ValueError(
            f"Task {spec.name!r} needs to know which characters a token stands for, which only a fast tokenizer can "
            f"say; {type(tokenizer).__name__} is not one. Convert it, or take a model that has a tokenizer.json."
        )
    if spec.kind == "token_classification":
        return partial(encode_words, spec=spec, tokenizer=tokenizer, max_length=max_length)
    stride = window_stride(spec, max_length, doc_stride, tokenizer.num_special_tokens_to_add(pair=True))
    return partial(encode_questions, spec=spec, tokenizer=tokenizer, max_length=max_length, doc_stride=stride)


def _encode_texts(
    batch: dict[str, list[Any]],
    indices: list[int],
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> dict[str, list[Any]]:
    """Tokenize single texts or pairs, with the label of each row."""
    encoded = tokenizer(*(batch[column] for column in spec.text_columns), truncation=True, max_length=max_length)
    labels = batch[spec.label_column]
    values = [float(value) for value in labels] if spec.label_names is None else labels
    return {**encoded, "labels": values, "length": [len(ids) for ids in encoded["input_ids"]]}


def _tokenize(
    rows: Dataset,
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    encode: partial[dict[str, list[Any]]],
) -> Dataset:
    """Tokenize one split."""
    numbers = {name: value for name, value in encode.keywords.items() if name in ("max_length", "doc_stride")}
    columns = (spec.kind, spec.several_labels, spec.text_columns, spec.choice_columns, spec.label_column)
    key = (CODE_VERSION, rows._fingerprint, tokenizer_fingerprint(tokenizer), columns, numbers)
    tokenized = rows.map(
        encode,
        batched=True,
        with_indices=True,
        batch_size=BATCH_SIZE,
        remove_columns=rows.column_names,
        new_fingerprint=Hasher.hash(key),
        desc=f"Tokenizing {spec.name}",
    )
    if not spec.is_of_rows:
        return tokenized
    label_type: Any = Value("float32") if spec.label_names is None else Value("int64")
    label_type = List(Value("float32")) if spec.several_labels else label_type
    return tokenized if tokenized.features["labels"] == label_type else tokenized.cast_column("labels", label_type)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of a tokenizer's behaviour, independent of its last padding and truncation and of its path."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        state: Any = (sorted(tokenizer.get_vocab().items()), repr(tokenizer.special_tokens_map))
    else:
        state = {
            key: value for key, value in json.loads(backend.to_str()).items() if key not in ("padding", "truncation")
        }
    return Hasher.hash((type(tokenizer).__name__, state, tokenizer.model_input_names, tokenizer.truncation_side))
