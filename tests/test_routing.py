"""Every row goes to its own teacher and comes back to its place."""

import pytest
import torch

from hf_distill.capture.signals import Projections, Signals
from hf_distill.teachers.routing import join_parts, rows_of_teachers, shapes_of, take_inputs, take_rows

IDS = torch.tensor([2, 0, 2, 1, 0])


@pytest.fixture
def signals():
    """Signals of five rows, of every kind."""
    draw = torch.Generator().manual_seed(0)
    rows = len(IDS)

    def some(*shape):
        return torch.randn(rows, *shape, generator=draw)

    return Signals(
        attention_mask=torch.ones(rows, 4, dtype=torch.long).tril(),
        logits={"logits": some(3)},
        hidden_states={0: some(4, 6), 2: some(4, 6)},
        projections={2: Projections(some(4, 6), some(4, 2), some(4, 2), num_heads=3)},
        attention_scores={1: some(3, 4, 4)},
    )


def tensors(signals):
    yield signals.attention_mask
    for found in (signals.logits, signals.hidden_states, signals.attention_scores):
        yield from found.values()
    for found in signals.projections.values():
        yield from (found.query, found.key, found.value)


def test_every_teacher_gets_the_rows_that_name_it():
    rows = rows_of_teachers({"teacher_id": IDS}, 4)
    assert [part.tolist() for part in rows] == [[1, 4], [3], [0, 2], []]
    inputs = take_inputs({"input_ids": torch.arange(10).view(5, 2), "name": "x"}, rows[2])
    assert inputs["input_ids"].tolist() == [[0, 1], [4, 5]]
    assert inputs["name"] == "x"


def test_rows_that_were_taken_apart_join_to_the_same_batch(signals):
    rows = [part for part in rows_of_teachers({"teacher_id": IDS}, 4) if len(part)]
    joined = join_parts([take_rows(signals, part) for part in rows], rows)
    assert shapes_of(joined) == shapes_of(signals)
    assert joined.projections[2].num_heads == 3
    pairs = list(zip(tensors(joined), tensors(signals), strict=True))
    assert len(pairs) == 8
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_missing_column_and_an_unknown_teacher_are_refused():
    with pytest.raises(ValueError, match=r"`--combine route` needs the column 'teacher_id'.*from 0 to 1.*input_ids"):
        rows_of_teachers({"input_ids": IDS}, 2)
    with pytest.raises(ValueError, match=r"'teacher_id' has \[-1, 2\].*2 teachers; allowed are 0 to 1"):
        rows_of_teachers({"teacher_id": torch.tensor([0, 2, -1])}, 2)
