"""Batches under a budget of tokens: each row once, like lengths together, the same loss, exactly resumed."""

import random

import pytest
import torch
from trainings import assert_same_weights, trained

from hf_distill.trainers.lengths import TokenBatches


def plan(lengths, budget=40, *, processes=1, process=0, epoch=0, seed=0):
    return list(TokenBatches(budget, lengths, seed, lambda: epoch, num_processes=processes, process=process))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_row_comes_once_and_the_budget_is_kept(seed, processes):
    draw = random.Random(seed)
    lengths = [draw.randint(1, 40) for _ in range(draw.randint(40, 90))]
    epochs = [
        [plan(lengths, processes=processes, process=p, epoch=e, seed=seed) for p in range(processes)] for e in (0, 1)
    ]
    for parts in epochs:
        assert len({len(part) for part in parts}) == 1, "every process has as many batches"
        batches = [batch for part in parts for batch in part]
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        assert all(len(batch) * max(lengths[row] for row in batch) <= 40 for batch in batches)
        assert max(lengths[row] for row in parts[0][0]) == max(lengths), "the longest come first"
        # Neighbouring batches at the same time.
        assert all(
            abs(max(lengths[r] for r in one) - max(lengths[r] for r in other)) <= 12
            for one, other in zip(parts[0], parts[-1], strict=True)
        )
    assert len(epochs[0][0]) == len(epochs[1][0])
    assert epochs[0] != epochs[1]
    assert plan(lengths, processes=processes, seed=seed) == epochs[0][0], "an order is one of seed and epoch"


def test_little_is_padding():
    draw = random.Random(0)
    lengths = [draw.randint(4, 60) for _ in range(500)]
    batches = plan(lengths, 512)
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.05 * sum(lengths)
    assert len(batches) <= 1.15 * sum(lengths) / 512


def test_more_processes_than_batches():
    parts = [plan([5] * 6, 100, processes=4, process=process) for process in range(4)]
    assert sorted(row for part in parts for batch in part for row in batch) == list(range(6))
    # Five rows in batches of one: three come twice, so that each of four processes has two.
    parts = [plan([30] * 5, 40, processes=4, process=process) for process in range(4)]
    assert [len(part) for part in parts] == [2] * 4
    rows = [row for part in parts for batch in part for row in batch]
    assert set(rows) == set(range(5))
    assert len(rows) == 8
    with pytest.raises(ValueError, match="There are 3 training rows for 4 processes"):
        plan([5] * 3, 100, processes=4)


def test_a_row_beyond_the_budget_is_named():
    with pytest.raises(ValueError, match=r"`--max_tokens_per_batch` is 40, but row 1 has 41 tokens"):
        plan([3, 41, 5])


# ---- In a training ----


@pytest.fixture
def build(make_trainer, rows):
    """`build(**arguments)`: a trainer with batches of at most 64 tokens."""
    rows = rows.select(range(40))
    given = {"train_dataset": rows, "trainer": {"eval_dataset": rows}, "max_steps": -1, "num_train_epochs": 2}
    given |= {"objectives": ["relation", "logits", "hidden", "labels"], "max_tokens_per_batch": 64}
    return lambda **arguments: make_trainer(**given | {"train_sampling_strategy": "group_by_length"} | arguments)


def test_the_loss_is_that_of_rows_one_by_one(build):
    trainer = build()
    trainer.model.eval()
    batches = list(trainer.get_train_dataloader())
    singly = [
        {
            name: values[row : row + 1, :length] if values.dim() > 1 else values[row : row + 1]
            for name, values in batch.items()
        }
        for batch in batches
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist())
    ]
    assert len(singly) == 40
    assert all(batch["input_ids"].numel() <= 64 for batch in batches)
    items = trainer._get_num_items_in_batch(batches, trainer.args.device)
    losses = [
        sum(trainer.compute_loss(trainer.model, dict(part), num_items_in_batch=items) for part in parts)
        for parts in (batches, singly)
    ]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_ends_in_the_same_weights(build, tmp_path):
    whole = trained(build(save_strategy="steps", save_steps=3, gradient_accumulation_steps=2))
    steps = whole.state.global_step
    assert steps == 2 * -(-len(whole.get_train_dataloader()) // 2)
    middle = max(step for step in range(3, steps, 3) if step > steps // 2)  # within the second epoch
    resumed = trained(build(gradient_accumulation_steps=2), str(tmp_path / "run" / f"checkpoint-{middle}"))
    assert_same_weights(whole.student, resumed.student)


def test_an_evaluation_is_what_it_is_without(build):
    budget, plain = build(), build(max_tokens_per_batch=None)
    assert budget.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-6)
    assert len(budget.predict(budget.eval_dataset).predictions) == 40


def test_what_contradicts_it_is_refused(build, rows):
    with pytest.raises(ValueError, match=r"`--max_tokens_per_batch` 64 puts rows .* is 'random'"):
        build(train_sampling_strategy="random")
    with pytest.raises(ValueError, match="`--auto_find_batch_size` tries fewer rows"):
        build(auto_find_batch_size=True)
    with pytest.raises(ValueError, match="`--max_tokens_per_batch` is 0"):
        build(max_tokens_per_batch=0)
    stream = build(train_dataset=rows.to_iterable_dataset(), max_steps=2)
    with pytest.raises(ValueError, match="`--max_tokens_per_batch` 64 needs the length of every row beforehand"):
        stream.train()
