"""Rows of words with one tag each: checked, and tokenized with the tag on the first token of its word."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from datasets import ClassLabel, Dataset, List, Value

from hf_distill.tasks.labels import MAX_EXAMPLES, LabelLookup, cast_column
from hf_distill.tasks.spec import HIDDEN_LABEL, TaskSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
NO_WORD = -1


def normalise_words(rows: Dataset, spec: TaskSpec, *, split: str) -> Dataset:
    """Convert words to lists of texts, and tags to lists of `ClassLabel` in the task's order; hidden tags are -1.

    Raises:
        ValueError: If a row does not have one tag for each word, or a tag is not one of the task's.
    """
    words, tags = spec.text_columns[0], spec.label_column
    wanted = List(ClassLabel(names=list(spec.label_names or ())))
    _check_lists(rows, words, spec, split)
    rows = cast_column(rows, words, List(Value("string")), spec=spec, split=split)
    if tags not in rows.column_names:
        hidden = [[HIDDEN_LABEL] * len(row) for row in rows[words]]
        return rows.add_column(tags, hidden, feature=wanted)
    _check_lists(rows, tags, spec, split)
    lookup = LabelLookup(rows.features[tags].feature, spec, split)
    values, unknown = [], set()
    for number, (row_words, row_tags) in enumerate(zip(rows[words], rows[tags], strict=True)):
        if len(row_words) != len(row_tags):
            raise ValueError(
                f"Split {split!r} of task {spec.name!r}: row {number} has {len(row_words)} words in {words!r}, but "
                f"{len(row_tags)} tags in {tags!r}."
            )
        found = [lookup.find(tag) for tag in row_tags]
        unknown |= {str(tag) for tag, label in zip(row_tags, found, strict=True) if label is None}
        values.append(found)
    if unknown:
        raise ValueError(
            f"Split {split!r} of task {spec.name!r}: column {tags!r} holds {sorted(unknown)[:MAX_EXAMPLES]}; allowed "
            f"are the tags {list(spec.label_names or ())} or their numbers, and {HIDDEN_LABEL} for a hidden one."
        )
    return rows.remove_columns(tags).add_column(tags, values, feature=wanted)


def _check_lists(rows: Dataset, column: str, spec: TaskSpec, split: str) -> None:
    """Check that a column holds a list in every row."""
    if not isinstance(rows.features[column], List):
        raise ValueError(
            f"Split {split!r} of task {spec.name!r}: column {column!r} must hold a list in every row (words or their "
            f"tags), it holds {rows.features[column]}."
        )


def encode_words(
    batch: dict[str, list[Any]],
    indices: list[int],
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> dict[str, list[Any]]:
    """Tokenize rows of words, joined by spaces as in running text.

    Returns:
        The tokenizer's outputs, `labels` (the tag on a word's first token, -100 elsewhere), `word_index` (the index of
        the word that a token begins, -1 elsewhere), `row` and `length`. Words beyond `max_length` are cut off.
    """
    all_words = batch[spec.text_columns[0]]
    encoded = tokenizer(
        [" ".join(words) for words in all_words],
        truncation=True,
        max_length=max_length,
        return_offsets_mapping=True,
    )
    firsts = [
        _first_tokens(offsets, words) for offsets, words in zip(encoded.pop("offset_mapping"), all_words, strict=True)
    ]
    labels = [
        [IGNORED if word == NO_WORD or tags[word] == HIDDEN_LABEL else tags[word] for word in first]
        for first, tags in zip(firsts, batch[spec.label_column], strict=True)
    ]
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return {**encoded, "labels": labels, "word_index": firsts, "row": indices, "length": lengths}


def _first_tokens(offsets: list[tuple[int, int]], words: list[str]) -> list[int]:
    """Return for every token the index of the word that it begins; -1 if it begins none.

    Args:
        offsets: Start and end (exclusive) characters of each token; special tokens are empty.
        words: The words, which single spaces join.
    """
    starts: list[int] = []
    position = 0
    for word in words:
        starts.append(position)
        position += len(word) + 1
    first: list[int] = []
    seen = NO_WORD
    for begin, end in offsets:
        # The last character is decisive: some tokenizers add the space before a word to its first token.
        place = bisect_right(starts, end - 1) - 1 if end > begin else NO_WORD
        is_space = place != NO_WORD and end - 1 >= starts[place] + len(words[place])
        is_first = place > seen and not is_space
        first.append(place if is_first else NO_WORD)
        seen = place if is_first else seen
    return first
