"""Batches of like length in an order that the seed and the epoch decide."""

import pytest
import torch
from datasets import Dataset

from hf_distill.settings import FineTuningArguments
from hf_distill.tasks.rows.text import tokenize_text
from hf_distill.trainers.lengths import LengthSampler, counted, length_grouped_sampler


class EndlessRows(torch.utils.data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"input_ids": [1] * (index + 1)}


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


def test_lengths_come_from_the_column_or_the_tokens_and_never_from_rows_that_are_made(tmp_path, caplog):
    args = FineTuningArguments(str(tmp_path), use_cpu=True, length_column_name="size", per_device_train_batch_size=4)
    tokens = [[1] * length for length in LENGTHS]
    rows = Dataset.from_dict({"input_ids": tokens, "size": LENGTHS[::-1], "name": ["x"] * len(LENGTHS)})
    assert length_grouped_sampler(rows, args, int).lengths == LENGTHS[::-1]
    assert length_grouped_sampler(rows.remove_columns("size"), args, int).lengths == LENGTHS
    assert length_grouped_sampler(rows.remove_columns("size").select([3, 1]), args, int).lengths == [22, 8]
    assert length_grouped_sampler([{"input_ids": ids} for ids in tokens], args, int).lengths == LENGTHS
    assert not caplog.records
    lazy = rows.with_transform(lambda batch: pytest.fail("the rows were made"))
    for made_late in (lazy, EndlessRows()):
        assert isinstance(length_grouped_sampler(made_late, args, int), torch.utils.data.RandomSampler)
        assert "random order" in caplog.text
        caplog.clear()
    args.length_column_name = "name"
    with pytest.raises(ValueError, match="`--length_column_name`: the column 'name' must hold the length"):
        length_grouped_sampler(rows, args, int)


def test_the_stock_sampler_reads_endless_rows_to_their_number():
    assert len(list(counted(EndlessRows()))) == len(EndlessRows())


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
