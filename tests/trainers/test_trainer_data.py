"""Batches of like length in an order that the seed and the epoch decide."""

import pytest
import torch
from datasets import Dataset

from hf_distill.arguments import FineTuningArguments
from hf_distill.trainers.data import LengthSampler, length_grouped_sampler, tokenize_text

LENGTHS = [(7 * index) % 60 + 1 for index in range(60)]


def test_every_row_comes_once_and_neighbours_are_alike():
    order = list(LengthSampler(6, LENGTHS, seed=0, epoch=lambda: 0))
    assert sorted(order) == list(range(60))
    batches = [[LENGTHS[index] for index in order[start : start + 6]] for start in range(0, 60, 6)]
    spread = sum(max(batch) - min(batch) for batch in batches)
    plain = [LENGTHS[start : start + 6] for start in range(0, 60, 6)]
    assert spread < sum(max(batch) - min(batch) for batch in plain)


def test_the_order_follows_seed_and_epoch_and_not_the_global_generator():
    epoch = 0
    sampler = LengthSampler(6, LENGTHS, seed=3, epoch=lambda: epoch)
    first = list(sampler)
    torch.rand(5)
    assert list(sampler) == first
    assert list(LengthSampler(6, LENGTHS, seed=4, epoch=lambda: 0)) != first
    epoch = 1
    assert list(sampler) != first


@pytest.mark.parametrize("strategy", ["group_by_length", "random", "sequential"])
def test_only_the_strategy_that_asks_for_it_gets_it(tmp_path, strategy):
    args = FineTuningArguments(
        str(tmp_path), train_sampling_strategy=strategy, use_cpu=True, per_device_train_batch_size=4, data_seed=9
    )
    rows = Dataset.from_dict({"length": LENGTHS})
    sampler = length_grouped_sampler(rows, args, lambda: 0)
    assert (sampler is not None) == (strategy == "group_by_length")
    if sampler is not None:
        assert (sampler.seed, sampler.batch_size) == (9, 4)
    assert length_grouped_sampler(rows.rename_column("length", "size"), args, lambda: 0) is None


def test_pairs_and_single_texts_keep_their_places(tiny_tokenizer):
    rows = Dataset.from_dict(
        {"text": ["good", "bad film", "film"], "text_pair": ["bad", None, "good film"], "id": [1, 2, 3]}
    )
    encoded = tokenize_text(rows, tiny_tokenizer, max_length=8)
    assert set(encoded.column_names) == {"input_ids", "attention_mask", "token_type_ids", "length"}
    expected = [tiny_tokenizer("good", "bad"), tiny_tokenizer("bad film"), tiny_tokenizer("film", "good film")]
    for row, single in zip(encoded, expected, strict=True):
        assert {name: row[name] for name in single} == dict(single)
        assert row["length"] == len(single["input_ids"])
