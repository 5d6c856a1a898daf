"""Rows without a known length: updates at the end of a pass, and resuming behind the first one."""

import shutil

import pytest
from trainings import assert_same_weights, logged, trained

SETTINGS = {"objectives": ["logits", "labels"], "per_device_train_batch_size": 8, "learning_rate": 1e-2}


@pytest.mark.parametrize("parts", [1, 3])
def test_a_stream_is_learnt_as_the_same_rows_with_a_length(build, rows, parts):
    """Twenty-eight rows are four batches, the last one of them smaller."""
    rows = rows.select(range(28))
    settings = {**SETTINGS, "max_steps": 5, "gradient_accumulation_steps": parts}
    stream = trained(build(train_dataset=rows.to_iterable_dataset(), **settings))
    known = trained(build(train_dataset=rows, **settings))
    assert logged(stream) == logged(known)
    assert stream.state.total_flos == known.state.total_flos
    assert_same_weights(stream.student, known.student)


@pytest.mark.parametrize(("parts", "step"), [(1, 6), (3, 3)])
def test_a_run_goes_on_in_the_pass_over_a_stream_that_it_was_in(build, rows, tmp_path, parts, step):
    def run(folder):
        stream = rows.select(range(28)).to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=8)
        settings = {**SETTINGS, "max_steps": 8, "gradient_accumulation_steps": parts, "save_steps": 1}
        return build(train_dataset=stream, output_dir=str(tmp_path / folder), save_strategy="steps", **settings)

    whole = trained(run("whole"))
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", tmp_path / "again" / f"checkpoint-{step}")
    again = run("again")
    again.train(resume_from_checkpoint="last")
    assert logged(again) == logged(whole)
    assert_same_weights(again.student, whole.student)
