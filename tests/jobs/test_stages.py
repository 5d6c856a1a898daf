"""Stages of a job: how long the others take, at the speed of those that ran."""

import pytest

from hf_distill.commands.stages import Stages


@pytest.fixture
def stages(tmp_path):
    return Stages(tmp_path, ["teacher", "corpus", "distilled", "student"])


def test_what_is_left_follows_from_work_and_seconds(stages):
    stages.work = {"teacher": 30.0, "distilled": 60.0, "student": 15.0}
    stages.seconds = {"teacher": 100.0, "corpus": 7.0}
    assert stages.seconds_left("distilled") == pytest.approx(250.0)
    stages.seconds["distilled"] = 350.0
    assert stages.seconds_left("student") == pytest.approx(15.0 * 450 / 90)


def test_nothing_is_said_of_what_is_not_known(stages):
    assert stages.seconds_left("teacher") is None
    stages.work = {"teacher": 30.0, "distilled": 60.0, "student": 15.0}
    assert stages.seconds_left("distilled") is None, "nothing ran"
    stages.seconds = {"teacher": 100.0}
    assert stages.seconds_left("corpus") is None, "nobody knows what the corpus takes"
    stages.seconds = {"corpus": 100.0}
    assert stages.seconds_left("distilled") is None, "the corpus says nothing about trainings"


def test_a_stage_says_its_number_and_what_is_left(stages, caplog):
    stages.begin("teacher")
    stages.work = {"teacher": 1.0, "corpus": 0.0, "distilled": 2.0, "student": 1.0}
    stages.seconds = {"teacher": 80.0}
    stages.begin("corpus")
    stages.seconds = {"teacher": 8.0}
    stages.begin("student")
    assert caplog.messages == [
        "[teacher] starts: stage 1 of 4, 0 minutes so far",
        "[corpus] starts: stage 2 of 4, 0 minutes so far, about 4 left",
        "[student] starts: stage 4 of 4, 0 minutes so far",
    ]
