"""Micro-batches have rows of one task; which task comes next is drawn by the strategy."""

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from hf_distill.trainers.multi_task.mixing import TaskBatches, TaskRows, annealed_exponent, task_shares

SIZES = (40, 7, 13)


def batches(sampling="all", *, epoch=0, seed=0, size=4, exponent=0.75, num_epochs=3, sizes=SIZES):
    lengths = [[3 + row % 5 for row in range(count)] for count in sizes]
    return TaskBatches(
        lengths, size, sampling=sampling, exponent=exponent, num_epochs=num_epochs, seed=seed, epoch=lambda: epoch
    )


def task_of(batch):
    ends = np.cumsum(SIZES)
    return {int(np.searchsorted(ends, row, side="right")) for row in batch}


@pytest.mark.parametrize("sampling", ["all", "size", "uniform", "annealed"])
def test_every_batch_is_full_and_of_one_task(sampling):
    for batch in batches(sampling):
        assert len(batch) == 4
        assert len(task_of(batch)) == 1


@pytest.mark.parametrize("sampling", ["all", "size", "uniform", "annealed"])
def test_an_epoch_has_as_many_batches_as_all_tasks_together(sampling):
    assert len(list(batches(sampling))) == len(batches(sampling)) == 10 + 2 + 4


def test_all_takes_every_row_and_repeats_fewer_than_a_batch_of_each_task():
    seen = Counter(row for batch in batches("all") for row in batch)
    assert set(seen) == set(range(60))
    assert sum(seen.values()) - 60 == 0 + 1 + 3


def test_the_order_depends_on_seed_and_epoch_alone():
    assert list(batches(epoch=1)) == list(batches(epoch=1))
    assert list(batches(epoch=0)) != list(batches(epoch=1))
    assert list(batches(seed=0)) != list(batches(seed=1))


def test_tasks_are_mixed_and_not_one_after_the_other():
    order = batches("all").tasks_of(0)
    assert order != sorted(order)
    assert Counter(order) == {0: 10, 1: 2, 2: 4}


def test_shares_follow_the_rows_to_a_power():
    assert task_shares([100, 1], 1.0).tolist() == pytest.approx([100 / 101, 1 / 101])
    assert task_shares([100, 1], 0.5).tolist() == pytest.approx([10 / 11, 1 / 11])
    assert task_shares([100, 1], 0.0).tolist() == [0.5, 0.5]


def test_drawn_tasks_have_these_shares():
    drawn = Counter(batches("size", exponent=1.0, size=1, sizes=(9000, 1000)).tasks_of(0))
    assert drawn[1] / 10000 == pytest.approx(0.1, abs=0.01)
    drawn = Counter(batches("uniform", size=1, sizes=(9000, 1000)).tasks_of(0))
    assert drawn[1] / 10000 == pytest.approx(0.5, abs=0.02)


def test_the_annealed_exponent_falls_from_1_to_a_fifth():
    assert [round(annealed_exponent(epoch, 5), 6) for epoch in range(5)] == [1.0, 0.8, 0.6, 0.4, 0.2]
    assert annealed_exponent(0, 1) == 1.0


def test_rows_of_like_length_share_a_batch():
    lengths = [[1, 50] * 200]
    found = TaskBatches(lengths, 8, sampling="all", exponent=1.0, num_epochs=1, seed=0, epoch=lambda: 0)
    mixed = sum(len({lengths[0][row] for row in batch}) > 1 for batch in found)
    assert mixed <= 5  # one where short meets long in each group that is sorted, and the one with the longest row


def test_a_small_task_fills_a_batch_by_coming_again():
    [batch] = TaskBatches([[3, 4]], 5, sampling="all", exponent=1.0, num_epochs=1, seed=0, epoch=lambda: 0)
    assert sorted(Counter(batch).values()) == [2, 3]


def test_a_task_without_rows_is_an_error():
    with pytest.raises(ValueError, match=r"Tasks \[1\].*no training rows"):
        TaskBatches([[3], []], 2, sampling="all", exponent=1.0, num_epochs=1, seed=0, epoch=lambda: 0)


def test_rows_know_their_task():
    rows = TaskRows({"one": Dataset.from_dict({"x": [1, 2]}), "two": Dataset.from_dict({"y": [3, 4, 5]})})
    assert len(rows) == 5
    assert rows.__getitems__([1, 0]) == [{"task": "one", "x": 2}, {"task": "one", "x": 1}]
    assert rows.__getitems__([4]) == [{"task": "two", "y": 5}]
    with pytest.raises(ValueError, match="of several"):
        rows.__getitems__([1, 2])
