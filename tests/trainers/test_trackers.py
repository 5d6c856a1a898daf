"""Terms, schedules, agreement and scores arrive in TensorBoard and trackio under names that sort well."""

import datasets
import pytest
from tiny_data import labelled_rows
from trainings import trained

from hf_distill.tasks.custom import custom_spec
from hf_distill.tasks.loading import LoadedTask

SCALARS = {
    "train/loss",
    "train/learning_rate",
    "train/loss/relation/qq",
    "train/loss/logits/soft",
    "train/weight/relation",
    "train/temperature/logits",
    "eval/loss",
    "eval/loss/relation/vv",
    "eval/agreement",
    "eval/agreement/relation",
    "eval/kl/logits",
    "eval/task/accuracy",
}


@pytest.fixture
def train(make_trainer, tmp_path, sentences):
    """`train(tracker)`: a run of four updates and two evaluations that reports to it; returns the trainer."""
    text = datasets.Dataset.from_dict({"text": sentences})
    (tmp_path / "mood").mkdir()
    names = ("negative", "positive")
    fields = {"text_columns": ("text",), "label_names": names, "evaluation_splits": ("validation",)}
    spec = custom_spec("mood", tmp_path / "mood", fields)
    labelled = labelled_rows(sentences[:8], [0, 1] * 4, names)
    task = LoadedTask(spec, datasets.DatasetDict({"validation": labelled}), "memory")
    objectives = [
        '{"objective": "relation", "schedule": "linear_decay"}',
        {"objective": "logits", "temperature": 3.0, "temperature_schedule": "linear_decay"},
    ]
    given = {"train_dataset": text, "trainer": {"eval_dataset": text.select(range(16)), "eval_task": task}}
    given |= {"objectives": objectives, "max_length": 16, "run_name": "tiny", "project": "tiny-students"}
    given |= {"eval_strategy": "steps", "eval_steps": 2, "eval_agreement": True}
    return lambda tracker: trained(make_trainer(**given, report_to=tracker))


def curve(trainer, name):
    """A scalar of a tracker as the trainer's own log has it: (step, value)."""
    key = name.removeprefix("train/").replace("eval/", "eval_", 1)
    return [
        (entry["step"], pytest.approx(entry[key], rel=1e-5)) for entry in trainer.state.log_history if key in entry
    ]


def test_tensorboard_has_every_curve(train, tmp_path):
    accumulation = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'hf_distill[tensorboard]'"
    )
    trainer = train("tensorboard")
    [folder] = {path.parent for path in (tmp_path / "run").rglob("events.out.tfevents.*")}
    events = accumulation.EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) >= SCALARS
    for name in SCALARS:
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == curve(trainer, name), name
    assert len(events.Scalars("train/loss/relation/qq")) == 4
    assert len(events.Scalars("eval/agreement")) == 2


def test_trackio_has_every_curve_and_stays_on_this_machine(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage", reason="pip install 'hf_distill[trackio]'").SQLiteStorage
    trainer = train("trackio")
    assert (tmp_path / "trackio" / "tiny-students.db").is_file()
    assert storage.get_runs("tiny-students") == ["tiny"]
    logs = storage.get_logs("tiny-students", "tiny")
    assert {name for entry in logs for name in entry} >= SCALARS
    for name in SCALARS:
        found = [(entry["train/global_step"], entry[name]) for entry in logs if name in entry]
        assert found == curve(trainer, name), name
