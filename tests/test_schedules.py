"""Weight schedules: pure functions of progress."""

import math

import pytest

from hf_distill.schedules import SCHEDULES, Schedule, build_schedule


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
    ],
)
def test_what_is_unknown_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(spec)
