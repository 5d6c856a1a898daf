"""Tokenisation pads nothing, cuts at the limit, and keeps labels and lengths."""

import pytest
from datasets import Dataset, DatasetDict, Value

from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.rows.text import remembered_length, tokenize_text
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


def test_what_is_cut_is_counted_and_said(tiny_tokenizer, caplog):
    tokenize_task(PAIRS, get_task("rte"), tiny_tokenizer, 9)
    tokenize_task(PAIRS, get_task("rte"), tiny_tokenizer, 32)
    texts = Dataset.from_dict({"text": ["the cat runs to the river", "a dog", "the cat walks"]})
    tokenize_text(texts, tiny_tokenizer, max_length=5)
    lists = Dataset.from_dict({"text": ["a", "a"], "candidates": [["a dog", "a dog runs fast to a cat"], ["a"]]})
    tokenize_text(lists, tiny_tokenizer, max_length=7)
    said = [message for message in caplog.messages if "cut off" in message]
    assert said == [
        f"{rows} have {length} tokens or more; longer ones are cut off (`--max_length`)."
        for rows, length in (("1 of 2 rows of task 'glue/rte'", 9), ("2 of 3 rows", 5), ("1 of 2 rows", 7))
    ]


def test_a_tokenizer_remembers_the_length_also_where_the_tokens_were_in_the_cache(tiny_tokenizer, tmp_path):
    for _ in range(2):
        tiny_tokenizer("a longer call", "without an end")
        tokenize_task(PAIRS, get_task("rte"), tiny_tokenizer, 19)
        assert remembered_length(tiny_tokenizer) == 19
        tiny_tokenizer("a dog")
        tokenize_text(Dataset.from_dict({"text": ["a dog"]}), tiny_tokenizer, max_length=21)
        tiny_tokenizer.save_pretrained(tmp_path)
        assert remembered_length(type(tiny_tokenizer).from_pretrained(tmp_path)) == 21
    assert remembered_length(object()) is None
