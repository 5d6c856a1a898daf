"""Terms, schedules, agreement and scores arrive in TensorBoard and trackio under names that sort well."""

import copy

import datasets
import pytest

from hf_distill import DistillationArguments, DistillationTrainer
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
def train(tmp_path, tiny_teacher, tiny_student, tiny_tokenizer, sentences):
    """`train(tracker)`: a run of four updates and two evaluations that reports to it; returns the trainer."""
    rows = datasets.Dataset.from_dict({"text": sentences})
    (tmp_path / "mood").mkdir()
    spec = custom_spec("mood", tmp_path / "mood", {"text_columns": ("text",), "label_names": ("negative", "positive")})
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    labelled = datasets.Dataset.from_dict({"text": sentences[:8], "label": [0, 1] * 4}, features=features)
    task = LoadedTask(spec, datasets.DatasetDict({"validation": labelled}), "memory")

    def make(tracker):
        trainer = DistillationTrainer(
            model=copy.deepcopy(tiny_student),
            teacher_model=tiny_teacher,
            args=DistillationArguments(
                str(tmp_path / "run"),
                objectives=[
                    '{"objective": "relation", "schedule": "linear_decay"}',
                    {"objective": "logits", "temperature": 3.0, "temperature_schedule": "linear_decay"},
                ],
                max_steps=4,
                per_device_train_batch_size=8,
                max_length=16,
                logging_steps=1,
                eval_strategy="steps",
                eval_steps=2,
                eval_agreement=True,
                save_strategy="no",
                use_cpu=True,
                disable_tqdm=True,
                report_to=tracker,
                run_name="tiny",
                project="tiny-students",
            ),
            train_dataset=rows,
            eval_dataset=rows.select(range(16)),
            eval_task=task,
            processing_class=tiny_tokenizer,
        )
        trainer.train()
        return trainer

    return make


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
