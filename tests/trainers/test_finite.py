"""A training whose numbers are not finite ends with one line of step, term and side, and nothing of it is saved."""

import copy
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from trainings import assert_same_weights, trained
from transformers import BertForSequenceClassification, TrainerCallback

from hf_distill import DistillationArguments, DistillationTrainer, MultiTeacherTrainer
from hf_distill.capture.signals import FiniteWatch, Signals, check_weights, not_finite
from hf_distill.hub.selection import check_weight_file
from hf_distill.objectives import LogitsObjective, WeightedObjective, build_objectives
from hf_distill.objectives.schedules import Schedule
from hf_distill.settings import FineTuningArguments
from hf_distill.storage.plain_values import NotFiniteError
from hf_distill.tasks.spec import FineTuningDefaults, TaskSpec
from hf_distill.teachers.base import LiveTeacher
from hf_distill.trainers.fine_tuning.trainer import build_trainer

NAN = math.nan
HUGE = {"learning_rate": 1e30, "max_grad_norm": 0.0, "warmup_steps": 0.0}


@pytest.fixture(scope="module")
def rows(rows):
    return rows.select(range(16))


@pytest.fixture
def build(build):
    return partial(build, per_device_train_batch_size=4, logging_steps=4)


class Spoilt(LiveTeacher):
    """A teacher whose answers are not finite from some batch on."""

    def __init__(self, model, good_batches):
        super().__init__(model)
        self.left = good_batches

    def signals(self, inputs):
        found = super().signals(inputs)
        self.left -= 1
        return (
            found
            if self.left >= 0
            else found.map(lambda values: values * NAN if values.is_floating_point() else values)
        )


def saved(folder):
    return [path.name for path in Path(folder).rglob("*.safetensors")]


def test_a_watch_keeps_the_first_step_of_every_number():
    watch = FiniteWatch()
    watch.see(1, {"a": torch.tensor(1.0), "b": torch.ones(2, 3), "ids": torch.arange(3), "none": None})
    assert watch.first_steps() == {}
    watch.see(2, {"a": torch.tensor(math.inf), "b": torch.ones(2, 3)})
    watch.see(3, {"a": torch.tensor(1.0), "b": torch.tensor([[1.0, NAN, 1.0]])})
    watch.see(4, {"a": torch.tensor(NAN), "b": torch.tensor([-math.inf])})
    watch.see(5, {"c": torch.full((2,), 65504.0, dtype=torch.float16), "d": torch.tensor([3e38, -3e38])})
    assert watch.first_steps() == {"a": 2, "b": 3}


def test_a_huge_rate_ends_the_run_and_nothing_is_saved(build):
    trainer = build(objectives=["relation", "logits"], save_strategy="steps", save_steps=1, **HUGE)
    with pytest.raises(
        NotFiniteError, match=r"Step 1: what the student says after the update is not finite.*learning_rate"
    ):
        trainer.train()
    assert not saved(trainer.args.output_dir)


def test_the_step_is_the_first_one_although_it_is_looked_at_later(build, tiny_teacher):
    trainer = build(Spoilt(tiny_teacher, 3), objectives=["logits"])
    with pytest.raises(NotFiniteError) as caught:
        trainer.train()
    assert str(caught.value).startswith(
        "Step 3: the loss of `logits/soft` is not finite (NaN or infinite); the teacher's `logits` are not finite"
    ), "the check at the start was the first batch of the teacher"
    assert not [entry for entry in trainer.state.log_history if "loss" in entry], "no loss of 0 is logged"


def test_gradient_accumulation_counts_updates(build, tiny_teacher):
    trainer = build(Spoilt(tiny_teacher, 4), objectives=["relation"], gradient_accumulation_steps=2, logging_steps=1)
    with pytest.raises(NotFiniteError, match=r"Step 2: .*`relation/.*the teacher's `query of layer 3`"):
        trainer.train()


def test_one_of_several_teachers_is_found(build, tiny_teacher):
    teachers = [copy.deepcopy(tiny_teacher), Spoilt(tiny_teacher, 2)]
    trainer = build(teachers, MultiTeacherTrainer, objectives=["logits"])
    with pytest.raises(NotFiniteError, match=r"Step 2: the loss of `logits/soft`"):
        trainer.train()


def test_a_label_that_is_no_number_is_named(build, tiny_bert_config, rows):
    config = tiny_bert_config(num_labels=1, problem_type="regression")
    model = BertForSequenceClassification(config)
    labels = [0.5] * 9 + [NAN] + [0.5] * 6
    data = rows.remove_columns("labels").add_column("labels", labels)
    trainer = build(copy.deepcopy(model), student=model, train_dataset=data, objectives=["logits", "labels"])
    with pytest.raises(
        NotFiniteError, match=r"Step 3: the loss of `labels/hard` .* `labels` of the rows are not finite"
    ):
        trainer.train()


def test_weights_of_teachers_and_students_are_looked_at_first(build, tiny_teacher, tiny_student):
    with torch.no_grad():
        tiny_teacher.classifier.weight[0, 0] = NAN
    with pytest.raises(NotFiniteError, match=r"The teacher's weights are not finite .*`classifier.weight`"):
        build(tiny_teacher, objectives=["logits"])
    with torch.no_grad():
        tiny_student.bert.embeddings.word_embeddings.weight[0, 0] = math.inf
    with pytest.raises(NotFiniteError, match="Nothing is saved: the trained weights are not finite"):
        build(objectives=["labels"], teacher=None, student=tiny_student).save_model()


def test_a_student_is_looked_at_before_it_is_carded(build):
    trainer = build(objectives=["logits"])
    with torch.no_grad():
        trainer.student.classifier.bias[0] = NAN
    with pytest.raises(NotFiniteError, match="No card is written"):
        trainer.create_model_card()
    assert not Path(trainer.args.output_dir, "README.md").exists()


def test_an_evaluation_of_what_is_not_finite_ends_with_a_line(build, rows):
    trainer = build(objectives=["logits", "labels"])
    with torch.no_grad():
        trainer.student.classifier.bias[0] = NAN
    with pytest.raises(NotFiniteError, match=r"Evaluation after step 0: `loss`, `loss/labels/hard`"):
        trainer.evaluate(rows)


def test_infinite_gradients_end_a_run_unless_a_scaler_skips_them(build, monkeypatch):
    trainer = build(objectives=["logits"], max_steps=1)
    norm = torch.tensor(math.inf)
    monkeypatch.setattr("transformers.Trainer._get_grad_norm", lambda self, model, grad_norm=None: norm)
    with pytest.raises(NotFiniteError, match="Step 1: the gradient is not finite"):
        trainer.train()
    other = build(objectives=["logits"], max_steps=1)
    monkeypatch.setattr(other.accelerator, "scaler", object())
    monkeypatch.setattr(other.accelerator, "native_amp", False)
    other._get_grad_norm(other.model)
    assert other.finite.first_steps() == {}


def test_looking_changes_nothing(build, tiny_bert_config, monkeypatch):
    """Dropout draws the same numbers, terms and weights are the same."""
    student = BertForSequenceClassification(
        tiny_bert_config(hidden_size=12, num_hidden_layers=2, hidden_dropout_prob=0.3)
    )
    watched = trained(build(student=student, objectives=["relation", "logits"], save_strategy="steps", save_steps=1))
    monkeypatch.setattr(FiniteWatch, "see", lambda self, step, values: None)
    monkeypatch.setattr(DistillationTrainer, "check_student", lambda self: None)
    plain = trained(build(student=student, objectives=["relation", "logits"]))
    assert_same_weights(watched.student, plain.student)


def test_without_a_teacher_it_is_the_stock_trainer(build, tiny_student):
    trainer = trained(build(None, objectives=[], max_steps=3, **HUGE))
    assert trainer.state.global_step == 3


def test_a_fine_tuning_that_diverges_ends_too(tiny_student, tiny_tokenizer, rows, tmp_path):
    spec = TaskSpec("t", ("text",), ("negative", "positive"), fine_tuning=FineTuningDefaults(epochs=1, batch_size=4))
    args = FineTuningArguments(str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, save_steps=1, **HUGE)
    args = args.with_task_defaults(spec)
    args.train_sampling_strategy = "sequential"
    trainer = build_trainer(tiny_student, spec, tiny_tokenizer, args, rows)
    with pytest.raises(NotFiniteError, match="Step 2: the loss is not finite"):
        trainer.train()
    assert not saved(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_files_are_looked_at_before_they_are_pushed(dtype, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3, dtype=dtype), "ids": torch.arange(3)}, path)
    check_weight_file(path)
    save_file({"a": torch.ones(3, dtype=dtype), "b": torch.tensor([1.0, NAN], dtype=dtype)}, path)
    with pytest.raises(NotFiniteError, match=r"model.safetensors' are not finite .*: `b`"):
        check_weight_file(path)


def test_integers_and_empty_tensors_are_passed_over():
    assert not_finite([("ids", torch.arange(3)), ("none", torch.ones(0)), ("no", None)]) == []
    check_weights(torch.nn.BatchNorm1d(3), "Its")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("learning_rate", math.inf), ("learning_rate", NAN), ("temperature", math.inf), ("weight_decay", NAN),
     ("warmup_steps", NAN), ("projection_learning_rate", math.inf), ("max_grad_norm", NAN),
     ("gradual_unfreezing", [0.0, NAN])],
)  # fmt: skip
def test_settings_are_finite(flag, value, tmp_path):
    with pytest.raises(ValueError, match=f"`--{flag}` is .*finite"):
        DistillationArguments(str(tmp_path), use_cpu=True, **{flag: value})


def test_rates_of_a_fine_tuning_are_finite(tmp_path):
    assert FineTuningArguments(str(tmp_path), use_cpu=True, max_grad_norm=math.inf).max_grad_norm == math.inf
    with pytest.raises(ValueError, match="`--learning_rate` is inf; it must be a finite number"):
        FineTuningArguments(str(tmp_path), use_cpu=True, learning_rate=math.inf)


@pytest.mark.parametrize(
    "make",
    [
        lambda: build_objectives(["logits:inf"]),
        lambda: build_objectives(["logits:nan"]),
        lambda: build_objectives([{"objective": "logits", "temperature": math.inf}]),
        lambda: build_objectives([{"objective": "logits", "schedule": {"name": "warmup", "share": NAN}}]),
        lambda: LogitsObjective(temperature=math.inf),
        lambda: WeightedObjective("logits", LogitsObjective(), math.inf),
        lambda: Schedule("warmup", {"share": math.inf}),
        lambda: LogitsObjective(temperature=2.0, temperature_schedule={"name": "flsw", "beta": NAN}),
    ],
)
def test_weights_temperatures_and_schedules_are_finite(make):
    with pytest.raises(ValueError, match="finite"):
        make()


def test_no_signal_that_is_not_finite_is_stored():
    from hf_distill.teachers.stored.columns import signals_of

    mask = torch.tensor([[1, 1, 0]])
    states = torch.ones(1, 3, 4)
    states[0, 2] = NAN  # padding
    short = Signals(attention_mask=mask, hidden_states={1: states})
    [signal] = signals_of(short, Signals(torch.ones(1, 5), hidden_states={1: torch.ones(1, 5, 4)}), "float32", None)
    [column], [tensor] = signal.columns, signal.encode(short)
    assert len(column.pack(tensor, mask)[0]) == 8
    states[0, 1, 2] = math.inf
    with pytest.raises(NotFiniteError, match="nothing is stored of these rows"):
        column.pack(states, mask)


def test_an_optimizer_that_is_not_finite_is_in_no_checkpoint(build, tmp_path):
    class Spoils(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer, **kwargs):
            next(iter(optimizer.state.values()))["exp_avg"].fill_(NAN)

    trainer = build(objectives=["logits"], max_steps=1, save_strategy="steps", save_steps=1)
    trainer.add_callback(Spoils())
    with pytest.raises(NotFiniteError, match=r"Step 1: a weight after the update .*exp_avg of the optimizer"):
        trainer.train()
    assert not list(tmp_path.glob("run/checkpoint-*"))
