"""Projections that begin with a fit: the least-squares map of the student's features to the teacher's."""

from functools import partial

import datasets
import pytest
import torch
from trainings import logged

from hf_distill.trainers.distillation.rows import SAMPLE_BATCH, SAMPLE_ROWS, RowReader

FITTED = {"objective": "hidden", "layers": "2:3"}
RANDOM = FITTED | {"projection": "linear"}


@pytest.fixture(scope="module")
def rows(sentences, tiny_tokenizer):
    return datasets.Dataset.from_dict(dict(tiny_tokenizer(sentences, truncation=True, max_length=16)))


@pytest.fixture
def build(make_trainer, rows):
    """`build(objectives=..., **arguments)`: a trainer of a fresh copy of the tiny student."""
    return partial(make_trainer, train_dataset=rows)


def projection_of(trainer, name="hidden"):
    (weight, bias) = trainer.model.objectives[name].parameters()
    return torch.cat([weight.detach().T, bias.detach()[None]])


def test_it_begins_as_the_ridge_regression_of_the_teachers_states_on_the_students(build, rows):
    trainer = build(objectives=[FITTED], max_steps=1, learning_rate=0.0)
    student, teacher = trainer.student.eval(), trainer.teacher.model.eval()
    trainer.train()
    inputs, goals = [], []
    for row in rows:
        batch = {name: torch.tensor([row[name]]) for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            inputs.append(student(**batch, output_hidden_states=True).hidden_states[2][0])
            goals.append(teacher(**batch, output_hidden_states=True).hidden_states[3][0])
    x, goal = torch.cat(inputs).double(), torch.cat(goals).double()
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    gram, found = x.T @ x, projection_of(trainer).double()
    ridges = [torch.linalg.solve(gram + r * gram.diagonal().mean() * torch.eye(len(gram)), x.T @ goal)
              for r in (1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100)]  # fmt: skip
    assert min(float((found - one).abs().max()) for one in ridges) < 1e-3


@pytest.mark.parametrize("objective", ["hidden", "cosine", "pkd", "fsp", "embedding"])
def test_the_first_loss_is_below_that_of_a_random_one(build, objective):
    losses = []
    for kind in ({}, {"projection": "linear"}):
        trainer = build(objectives=[{"objective": objective, **kind}], max_steps=1)
        trainer.train()
        losses += logged(trainer)
    assert losses[0] < losses[1]


def test_the_training_reads_the_same_rows_in_the_same_order(build):
    curves = []
    for objective in (FITTED, RANDOM):
        trainer = build(objectives=["relation", objective | {"weight": 1e-9}], train_sampling_strategy="random")
        trainer.train()
        curves.append(logged(trainer, "loss/relation/qq"))
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_it_does_not_depend_on_the_batches_of_the_training(build):
    one, other = (
        build(objectives=[FITTED], max_steps=1, learning_rate=0.0, per_device_train_batch_size=size) for size in (2, 8)
    )
    one.train()
    other.train()
    assert torch.equal(projection_of(one), projection_of(other))


def test_a_resumed_training_keeps_the_projections_of_its_checkpoint(build, monkeypatch):
    trainer = build(objectives=[FITTED], save_strategy="steps", save_steps=2)
    trainer.train()
    again = build(objectives=[FITTED])
    monkeypatch.setattr(RowReader, "sample", lambda *_: pytest.fail("fitted anew"))
    again.train(f"{trainer.args.output_dir}/checkpoint-2")
    assert torch.equal(projection_of(again), projection_of(trainer))


def test_without_projections_no_row_is_read_before_the_training(build, monkeypatch):
    sampled = []
    monkeypatch.setattr(RowReader, "sample", sampled.append)
    build(objectives=["relation", RANDOM, {"objective": "tinybert"}], max_steps=1).train()
    assert not sampled


def test_rows_are_spread_over_the_data_and_read_a_few_at_a_time():
    batches = RowReader.sample(range(10 * SAMPLE_ROWS))
    assert {len(batch) for batch in batches} == {SAMPLE_BATCH}
    assert [row for batch in batches for row in batch] == list(range(0, 10 * SAMPLE_ROWS, 10))
    assert RowReader.sample(range(3)) == [[0, 1, 2]]


def test_a_stream_gives_its_first_rows_and_one_that_ends_for_good_none(rows):
    streamed = [row for batch in RowReader.sample(rows.to_iterable_dataset()) for row in batch]
    assert streamed == list(rows)[:SAMPLE_ROWS]
    assert RowReader.sample(iter([1, 2])) == []


def test_a_new_dense_layer_of_the_student_begins_with_a_fit_too(build):
    losses = {}
    for kind in ("auto", "identity"):
        objective = {"objective": "embedding", "projection": kind}
        trainer = build(objectives=[objective], max_steps=1, student_dense_width=24)
        trainer.train()
        losses[kind] = logged(trainer)[0]
    assert trainer.model.sentence_head.describe() == "mean, dense 12 -> 24"
    assert losses["auto"] < 0.5 * losses["identity"]
