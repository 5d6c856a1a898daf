"""Tokenise a task: no padding, a length per row."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from datasets import Dataset, DatasetDict, Value
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from hf_distill.tasks.spec import TaskSpec

# Counts as part of the cache key: `datasets` hashes package functions by name only, not by code.
CODE_VERSION = 1
BATCH_SIZE = 1000

DatasetOrDict = TypeVar("DatasetOrDict", Dataset, DatasetDict)


def tokenize_task(
    dataset: DatasetOrDict,
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    *,
    num_proc: int | None = None,
) -> DatasetOrDict:
    """Tokenise normalised splits of a task.

    Args:
        dataset: One split or all, as `load_task` gives them.
        spec: The task.
        tokenizer: Tokenizer of the model.
        max_length: Tokens per row at most, special tokens included; `None` takes the task's default. A pair loses
            tokens of its longer text first.
        num_proc: Processes; the result is the same for any number.

    Returns:
        Columns `input_ids`, `attention_mask`, `token_type_ids` if the tokenizer makes them, `labels` (int64, or
        float32 for regression) and `length`; nothing is padded.

    Raises:
        ValueError: If `max_length` is more than the tokenizer takes or leaves no room for text.
    """
    limit = max_length if max_length is not None else spec.fine_tuning.max_length
    check_max_length(limit, tokenizer, pair=spec.is_pair)
    if isinstance(dataset, DatasetDict):
        return DatasetDict({name: _tokenize(rows, spec, tokenizer, limit, num_proc) for name, rows in dataset.items()})
    return _tokenize(dataset, spec, tokenizer, limit, num_proc)


def check_max_length(max_length: int, tokenizer: PreTrainedTokenizerBase, *, pair: bool = False) -> None:
    """Check that rows of `max_length` tokens hold text and fit the tokenizer.

    Raises:
        ValueError: If they do not.
    """
    least = tokenizer.num_special_tokens_to_add(pair=pair) + (2 if pair else 1)
    if not least <= max_length <= tokenizer.model_max_length:
        raise ValueError(
            f"`--max_length` is {max_length}; with this tokenizer it must lie between {least} (special tokens and one "
            f"token of text) and {tokenizer.model_max_length} (its `model_max_length`)."
        )


def _tokenize(
    rows: Dataset, spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, max_length: int, num_proc: int | None
) -> Dataset:
    """Tokenise one split."""
    columns, label_column, is_regression = list(spec.text_columns), spec.label_column, spec.label_names is None

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        encoded = tokenizer(*(batch[column] for column in columns), truncation=True, max_length=max_length)
        labels = batch[label_column]
        label_values = [float(value) for value in labels] if is_regression else labels
        return {**encoded, "labels": label_values, "length": [len(ids) for ids in encoded["input_ids"]]}

    key = (CODE_VERSION, rows._fingerprint, tokenizer_fingerprint(tokenizer), columns, label_column, max_length)
    tokenized = rows.map(
        encode,
        batched=True,
        batch_size=BATCH_SIZE,
        num_proc=num_proc,
        remove_columns=rows.column_names,
        new_fingerprint=Hasher.hash(key),
        desc=f"Tokenising {spec.name}",
    )
    label_type = Value("float32") if is_regression else Value("int64")
    return tokenized if tokenized.features["labels"] == label_type else tokenized.cast_column("labels", label_type)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what a tokenizer does, whatever padding or truncation it last used and wherever it was loaded from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        state: Any = (sorted(tokenizer.get_vocab().items()), repr(tokenizer.special_tokens_map))
    else:
        state = {
            key: value for key, value in json.loads(backend.to_str()).items() if key not in ("padding", "truncation")
        }
    return Hasher.hash((type(tokenizer).__name__, state, tokenizer.model_input_names, tokenizer.truncation_side))
