"""Weight schedules: pure functions of progress."""

import math

import pytest

from hf_distill.objectives.schedules import SCHEDULES, Schedule, build_schedule


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("constant", [1, 1, 1]),
        ("linear_growth", [0, 0.5, 1]),
        ("linear_decay", [1, 0.5, 0]),
        ("cosine", [1, 0.5, 0]),
        ("warmup", [0, 1, 1]),
        ({"name": "warmup", "share": 0.75}, [0, 2 / 3, 1]),
        ({"name": "warmup", "share": 0}, [1, 1, 1]),
        ({"name": "stage", "end": 0.5}, [1, 0, 0]),
        ({"name": "stage", "start": 0.5}, [0, 1, 1]),
        ({"name": "stage", "start": 0.2, "end": 0.7}, [0, 1, 0]),
        ({"name": "linear_growth", "first": 0.5}, [0.5, 0.5, 1]),
        ({"name": "linear_decay", "first": 5}, [5, 0.5, 0]),
    ],
)
def test_the_factor_at_the_beginning_the_middle_and_the_end(spec, values):
    schedule = build_schedule(spec)
    assert [schedule(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx(values)


def test_the_cosine_is_half_a_cosine():
    assert build_schedule("cosine")(0.25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_progress_beyond_the_ends_is_that_of_the_ends(name):
    schedule = Schedule(name)
    assert schedule(-0.5) == schedule(0.0)
    assert schedule(1.5) == schedule(1.0)


def test_no_schedule_stays_none_and_an_object_stays_itself():
    schedule = Schedule("cosine")
    assert build_schedule(None) is None
    assert build_schedule(schedule) is schedule


def test_it_describes_itself_in_a_word():
    assert build_schedule("cosine").describe() == "cosine"
    assert build_schedule({"name": "warmup", "share": 0.2}).describe() == "warmup(share=0.2)"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("linear_dcay", r"'linear_dcay'; allowed are constant, .*Did you mean 'linear_decay'"),
        ({"name": "cosine", "share": 1}, r"'cosine' has no options \['share'\]; it has \[\]"),
        ({"share": 1}, "write a name, or a mapping"),
        (3, "write a name, or a mapping"),
        ({"name": "stage", "start": 0.6, "end": 0.4}, "begins with 0.6 and ends with 0.4: it has no step"),
        ({"name": "stage", "start": 1}, "begins with 1 and ends with 1"),
        ({"name": "stage", "start": float("nan")}, "start is nan, which is not finite"),
        ({"name": "stage", "end": 13}, "end is 13.0; it must be a finite number from 0 to 1"),
        ({"name": "stage", "start_epoch": 3, "end_epoch": 3}, "begins with 3 and ends with 3"),
        ({"name": "stage", "start_epoch": -1, "end_epoch": -2}, "begins with -1 and ends with -2"),
        ({"name": "stage", "start": 0.5, "end_epoch": 2}, "has shares and epochs"),
        ({"name": "warmup", "share": float("nan")}, "share is nan, which is not finite"),
        ({"name": "warmup", "share": -0.1}, "share is -0.1"),
        ({"name": "warmup", "share": "much"}, "share is 'much'; it must be a number"),
        ({"name": "linear_decay", "first": float("inf")}, "first is inf"),
    ],
)
def test_what_is_unknown_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(spec)


@pytest.mark.parametrize(("epochs", "layers"), [(23, 20), (13, 10), (53, 50)])
@pytest.mark.parametrize("steps_per_epoch", [1, 3, 7, 1000])
def test_stages_counted_in_epochs_change_with_the_step_that_begins_the_epoch(epochs, layers, steps_per_epoch):
    first = build_schedule({"name": "stage", "end_epoch": -3}).in_run_of(epochs)
    second = build_schedule({"name": "stage", "start_epoch": layers}).in_run_of(epochs)
    steps, border = epochs * steps_per_epoch, layers * steps_per_epoch
    for step in (0, border - 1, border, steps - 1):
        assert (first(step / steps), second(step / steps)) == ((1, 0) if step < border else (0, 1))


@pytest.mark.parametrize(
    ("spec", "epochs", "message"),
    [
        (
            {"start_epoch": 3, "end_epoch": -3},
            5,
            "stage.start_epoch=3, end_epoch=-3. lasts from epoch 3 to epoch 2 of",
        ),
        ({"end_epoch": 2}, None, "rows without a length do not have"),
    ],
)
def test_a_stage_that_cannot_be_placed_is_refused(spec, epochs, message):
    schedule = build_schedule({"name": "stage", **spec})
    with pytest.raises(ValueError, match=message):
        schedule.in_run_of(epochs)


@pytest.mark.parametrize(
    ("spec", "epochs", "lasts"),
    [
        ({"start_epoch": 20}, 13, None),
        ({"end_epoch": -3}, 3, None),
        ({"start_epoch": -3}, 2, {"start": 0, "end": 1}),
        ({"end_epoch": 20}, 10, {"start": 0, "end": 1}),
        ({"start_epoch": 2, "end_epoch": 20}, 10, {"start": 0.2, "end": 1}),
    ],
)
def test_a_short_training_has_what_it_can_of_a_stage(spec, epochs, lasts):
    found = build_schedule({"name": "stage", **spec}).in_run_of(epochs)
    assert (found if lasts is None else found.options) == lasts


def test_schedules_without_epochs_are_the_same_in_every_run():
    schedule = build_schedule({"name": "stage", "end": 0.5})
    assert schedule.in_run_of(None) is schedule
    assert not schedule.in_epochs
