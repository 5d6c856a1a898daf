"""Tokenisation pads nothing, cuts at the limit, and keeps labels and lengths."""

import pytest
from datasets import Dataset, DatasetDict, Value

from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.rows.tokenizing import tokenize_task, tokenizer_fingerprint

PAIRS = Dataset.from_dict(
    {
        "sentence1": ["the cat runs", "a dog"],
        "sentence2": ["the cat walks to the river", "a bird"],
        "label": [1, 0],
        "idx": [0, 1],
    }
)


def test_rows_have_their_own_length_and_nothing_is_padded(tiny_tokenizer):
    rows = tokenize_task(PAIRS, get_task("rte"), tiny_tokenizer, 32)
    assert set(rows.column_names) == {"input_ids", "attention_mask", "token_type_ids", "labels", "length"}
    assert rows["length"][:] == [len(ids) for ids in rows["input_ids"]] == [12, 7]
    assert rows["labels"][:] == [1, 0]
    assert all(set(mask) == {1} for mask in rows["attention_mask"])
    expected = tiny_tokenizer("the cat runs", "the cat walks to the river")
    assert rows[0]["input_ids"] == expected["input_ids"]
    assert rows[0]["token_type_ids"] == expected["token_type_ids"]


def test_a_pair_loses_tokens_of_its_longer_text(tiny_tokenizer):
    ids = tokenize_task(PAIRS, get_task("rte"), tiny_tokenizer, 9)[0]["input_ids"]
    assert len(ids) == 9
    assert tiny_tokenizer.decode(ids) == "[CLS] the cat runs [SEP] the cat walks [SEP]"


def test_regression_labels_are_floats(tiny_tokenizer):
    rows = tokenize_task(PAIRS, get_task("stsb"), tiny_tokenizer, 32)
    assert rows.features["labels"] == Value("float32")
    assert rows["labels"][:] == [1.0, 0.0]


def test_all_splits_and_any_number_of_processes_give_the_same(tiny_tokenizer):
    splits = DatasetDict({"train": PAIRS, "validation": PAIRS})
    both = tokenize_task(splits, get_task("rte"), tiny_tokenizer, 32)
    assert list(both) == ["train", "validation"]
    assert both["train"].to_list() == tokenize_task(PAIRS, get_task("rte"), tiny_tokenizer, 32).to_list()


def test_the_cache_key_follows_data_tokenizer_and_length_and_nothing_else(tiny_tokenizer):
    spec = get_task("rte")
    before = tokenizer_fingerprint(tiny_tokenizer)
    first = tokenize_task(PAIRS, spec, tiny_tokenizer, 32)._fingerprint
    tiny_tokenizer("a dog", padding="max_length", max_length=8, truncation=True)
    assert tokenizer_fingerprint(tiny_tokenizer) == before, "the last call's padding is no part of a tokenizer"
    assert tokenize_task(PAIRS, spec, tiny_tokenizer, 32)._fingerprint == first
    assert tokenize_task(PAIRS, spec, tiny_tokenizer, 16)._fingerprint != first
    assert tokenize_task(PAIRS.select([1]), spec, tiny_tokenizer, 32)._fingerprint != first


@pytest.mark.parametrize("limit", [4, 65, 512])
def test_a_length_that_cannot_be_is_an_error_with_the_bounds(tiny_tokenizer, limit):
    with pytest.raises(ValueError, match=f"`--max_length` is {limit}.*between 5 .* and 64"):
        tokenize_task(PAIRS, get_task("rte"), tiny_tokenizer, limit)
