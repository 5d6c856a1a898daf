"""Processes that make batches, and batches that several processes share (`test_distributed.py` trains with them)."""

import datasets
import pytest

from hf_distill import DistillationArguments
from hf_distill.settings.distill import Unset
from hf_distill.trainers import loaders
from hf_distill.trainers.loaders import in_equal_parts


@pytest.mark.parametrize(
    ("rows", "parts", "expected"), [("abcd", 2, "abcd"), ("abcde", 2, "abcdea"), ("a", 4, "aaaa")]
)
def test_a_last_batch_is_filled_up_so_that_each_process_gets_as_many_rows(rows, parts, expected):
    assert "".join(in_equal_parts(list, parts, list(rows))) == expected


def test_batches_for_a_gpu_are_made_by_processes_where_nobody_chose_their_number(make_trainer, monkeypatch, tmp_path):
    monkeypatch.setattr(loaders.os, "sched_getaffinity", lambda pid: range(6))
    monkeypatch.setattr(loaders.multiprocessing, "get_start_method", lambda allow_none: "fork")
    rows = datasets.Dataset.from_dict({"text": ["one", "two"]})
    assert loaders.workers_for(rows) == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert loaders.workers_for(rows) == 1
    assert loaders.workers_for(rows.with_transform(lambda batch: batch)) == loaders.workers_for(["one", "two"]) == 0
    assert isinstance(make_trainer().args.dataloader_num_workers, Unset), "the rows decide"
    args = DistillationArguments(str(tmp_path), dataloader_num_workers=0, use_cpu=True)
    assert type(args.for_training(distilling=True).dataloader_num_workers) is int
