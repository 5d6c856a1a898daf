"""Trainers of ours stand where `Trainer` stands: places, defaults, and what is honoured or refused."""

import copy
import dataclasses
import inspect
import json
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import datasets
import pytest
import torch
from trainings import BreaksOff, assert_same_weights, logged, trained
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, pipeline
from transformers.hyperparameter_search import ALL_HYPERPARAMETER_SEARCH_BACKENDS
from transformers.trainer_pt_utils import LabelSmoother
from transformers.trainer_utils import HPSearchBackend

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    FineTuningArguments,
    GenerationTrainer,
    MTLTrainer,
    MultiTeacherArguments,
    MultiTeacherTrainer,
)
from hf_distill.capture.signals import Signals
from hf_distill.objectives.logits import LabelsObjective, LogitsObjective
from hf_distill.settings import distill
from hf_distill.settings.distill import lower_is_better
from hf_distill.settings.parsing import parse
from hf_distill.trainers.base import refuse_without_effect
from hf_distill.trainers.checkpoints import MANIFEST_NAME
from hf_distill.trainers.fine_tuning.masked_lm_head import MaskedHeadTrainer

STOCK = list(inspect.signature(Trainer.__init__).parameters)


@pytest.mark.parametrize("ours", [DistillationTrainer, MultiTeacherTrainer, MTLTrainer, GenerationTrainer])
def test_arguments_stand_where_trainer_has_them(ours):
    parameters = inspect.signature(ours.__init__).parameters
    assert list(parameters)[: len(STOCK)] == STOCK
    own = [parameters[name].kind for name in list(parameters)[len(STOCK) :]]
    assert set(own) <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize(
    "name",
    ["train", "compute_loss", "prediction_step", "log", "save_model", "push_to_hub"]
    + [f"get_{kind}_dataloader" for kind in ("train", "eval", "test")],
)
def test_methods_take_what_those_of_trainer_take(name):
    stock, ours = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (Trainer, DistillationTrainer))
    named = [parameter for parameter in stock if parameter != "kwargs"]
    assert ours[: len(named)] == named


@pytest.fixture
def quiet(tmp_path):
    return {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "disable_tqdm": True}


def test_a_teacher_may_stand_in_second_place(quiet, tiny_teacher, tiny_student):
    args = DistillationArguments(**quiet)
    for places, named in [
        ((args,), {"teacher_model": tiny_teacher}),
        ((tiny_teacher, args), {}),
    ]:
        trainer = DistillationTrainer(copy.deepcopy(tiny_student), *places, **named)
        assert trainer.distilling
        assert trainer.teacher.model is tiny_teacher
        assert trainer.args.output_dir == quiet["output_dir"]
    plain = DistillationTrainer(tiny_student, None, args)
    assert not plain.distilling
    assert plain.args.output_dir == quiet["output_dir"]
    several = MultiTeacherTrainer(copy.deepcopy(tiny_student), [tiny_teacher], MultiTeacherArguments(**quiet))
    assert several.teachers[0].model is tiny_teacher


def test_what_is_no_training_arguments_is_refused_by_name(quiet, tiny_teacher, tiny_student):
    args = DistillationArguments(**quiet)
    with pytest.raises(TypeError, match=r"`args` is of type dict.*`teacher_model=`"):
        DistillationTrainer(tiny_student, {"learning_rate": 1.0})
    with pytest.raises(TypeError, match=r"`args` is of type DistillationArguments.*`teacher_model=`"):
        DistillationTrainer(tiny_student, args, args)
    with pytest.raises(TypeError, match="two teachers"):
        DistillationTrainer(tiny_student, tiny_teacher, args, teacher_model=tiny_teacher)
    with pytest.raises(TypeError, match=r"`args` is of type list.*by their names"):
        MTLTrainer(tiny_student, [], args, tasks=[])
    with pytest.raises(TypeError, match="tasks"):
        MTLTrainer(tiny_student, args)


def test_arguments_without_a_use_are_refused_by_name(quiet, tiny_student):
    args = TrainingArguments(**quiet)
    with pytest.raises(ValueError, match=r"MTLTrainer takes.*`train_dataset`, `compute_metrics` would have no effect"):
        MTLTrainer(tiny_student, args, train_dataset=[], compute_metrics=len, tasks=[])
    with pytest.raises(ValueError, match=r"GenerationTrainer.*`data_collator`"):
        GenerationTrainer(tiny_student, args, data_collator=len)


# ---- What nobody chose


STOCK_VALUES = {
    "learning_rate": 5e-5,
    "weight_decay": 0.0,
    "adam_epsilon": 1e-8,
    "warmup_steps": 0,
    "logging_steps": 500,
    "train_sampling_strategy": "random",
}
OUR_VALUES = {
    "learning_rate": 6e-4,
    "weight_decay": 0.01,
    "adam_epsilon": 1e-6,
    "warmup_steps": 0.01,
    "logging_steps": 10,
    "train_sampling_strategy": "group_by_length",
}


def values_of(args):
    return {name: getattr(args, name) for name in STOCK_VALUES}


def test_our_defaults_count_where_something_is_distilled(quiet, tiny_teacher, tiny_student):
    args = DistillationArguments(**quiet)
    assert values_of(args) == OUR_VALUES
    plain = DistillationTrainer(copy.deepcopy(tiny_student), args)
    assert values_of(plain.args) == STOCK_VALUES
    assert plain.args.ddp_find_unused_parameters is None
    distilling = DistillationTrainer(copy.deepcopy(tiny_student), args, teacher_model=tiny_teacher)
    assert values_of(distilling.args) == OUR_VALUES
    assert distilling.args.ddp_find_unused_parameters is True
    assert values_of(args) == OUR_VALUES


def test_what_is_chosen_counts_everywhere(quiet, tiny_teacher, tiny_student):
    chosen = DistillationArguments(**quiet, **OUR_VALUES)
    assert values_of(DistillationTrainer(copy.deepcopy(tiny_student), chosen).args) == OUR_VALUES
    later = DistillationArguments(**quiet)
    later.learning_rate = 6e-4
    assert DistillationTrainer(copy.deepcopy(tiny_student), later).args.learning_rate == 6e-4
    (parsed,) = parse(DistillationArguments, ["--output_dir", quiet["output_dir"], "--use_cpu"])
    assert values_of(DistillationTrainer(copy.deepcopy(tiny_student), parsed).args) == STOCK_VALUES
    stock = TrainingArguments(**quiet)
    filled = DistillationTrainer(tiny_student, stock, teacher_model=tiny_teacher).args
    assert values_of(filled) == STOCK_VALUES
    assert (filled.max_length, filled.temperature, filled.output_dir) == (128, 1.0, stock.output_dir)


def test_a_training_without_objectives_leaves_the_process_as_it_is(quiet, tiny_student, own_products, monkeypatch):
    seen = []
    monkeypatch.setattr("hf_distill.trainers.distillation.trainer.configure_fp32_matmul", seen.append)
    for args in (None, TrainingArguments(**quiet), DistillationArguments(**quiet)):
        monkeypatch.chdir(quiet["output_dir"])
        DistillationTrainer(copy.deepcopy(tiny_student), args)
    assert seen == []
    DistillationTrainer(tiny_student, DistillationArguments(**quiet, fp32_matmul="strict"))
    assert seen == ["strict"]


def test_settings_that_wait_for_objectives_are_told(quiet, tiny_student, warnings_of):
    said = warnings_of(distill)
    DistillationTrainer(copy.deepcopy(tiny_student), DistillationArguments(**quiet, max_length=64))
    assert said == []
    DistillationTrainer(tiny_student, DistillationArguments(**quiet, temperature=2.0, projection_weight_decay=0.1))
    [line] = said
    assert "`--projection_weight_decay`, `--temperature` will have no effect" in line
    with pytest.raises(TypeError, match=r"`args` are FineTuningArguments.*`DistillationArguments`"):
        DistillationTrainer(tiny_student, FineTuningArguments(**quiet))


# ---- Directions


@pytest.mark.parametrize(
    ("metric", "sets", "lower"),
    [
        ("loss", (), True),
        ("eval_loss", (), True),
        ("loss/relation/qq", (), True),
        ("kl/logits", (), True),
        ("agreement", (), False),
        ("agreement/my_loss", (), False),
        ("accuracy", (), False),
        ("my_loss", (), True),
        ("task/accuracy", (), False),
        ("eval_dev_loss", ("dev", "test"), True),
        ("dev_loss/logits/soft", ("dev", "test"), True),
        ("dev_kl/logits", ("dev",), True),
        ("dev_agreement/logits", ("dev",), False),
        ("dev_agreement/my_loss", ("dev",), False),
        ("loss_agreement", ("loss",), False),
        ("kl_accuracy", ("kl",), False),
        ("kl_kl/logits", ("kl",), True),
        ("a/loss_b_kl/logits", ("a/loss_b", "a/loss"), True),
        ("a_b_agreement/x", ("a", "a_b"), False),
    ],
)
def test_the_direction_of_every_metric(metric, sets, lower):
    assert lower_is_better(metric, sets) is lower


@pytest.mark.parametrize(
    ("metric", "greater"),
    [("dev_loss/logits/soft", False), ("eval_dev_kl/logits", False), ("dev_agreement", True), ("dev_loss", False)],
)
@pytest.mark.parametrize("kind", [DistillationArguments, TrainingArguments])
def test_trainers_know_the_direction_with_several_sets(
    kind, metric, greater, quiet, tiny_teacher, tiny_student, token_rows
):
    own = {"eval_agreement": True} if kind is DistillationArguments else {}
    args = kind(**quiet, metric_for_best_model=metric, **own)
    given = {
        "teacher_model": tiny_teacher,
        "objectives": ["logits"],
        "eval_dataset": {"dev": token_rows, "b": token_rows},
    }
    if not own and ("agreement" in metric or "kl" in metric):
        with pytest.raises(ValueError, match="is measured with `--eval_agreement` only"):
            DistillationTrainer(tiny_student, args, **given)
        return
    trainer = DistillationTrainer(copy.deepcopy(tiny_student), args, **given)
    assert trainer.args.greater_is_better is greater
    believed = kind(**quiet, metric_for_best_model="dev_loss", greater_is_better=True, **own)
    assert DistillationTrainer(copy.deepcopy(tiny_student), believed, **given).args.greater_is_better is True


def test_a_metric_of_several_sets_must_say_which(quiet, tiny_teacher, tiny_student, token_rows):
    args = DistillationArguments(**quiet, metric_for_best_model="loss")
    with pytest.raises(ValueError, match=r"`--metric_for_best_model loss` is measured on each of 2.*such as a_loss"):
        DistillationTrainer(
            tiny_student, args, teacher_model=tiny_teacher, eval_dataset={"a": token_rows, "b": token_rows}
        )


# ---- The model


@pytest.fixture
def token_rows(tiny_tokenizer, sentences):
    return datasets.Dataset.from_dict({**tiny_tokenizer(sentences[:12])})


def test_the_model_of_a_distillation_is_the_student(make_trainer, tiny_tokenizer, token_rows, tmp_path):
    asked = []

    class Ask(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, processing_class=None, **kwargs):
            asked.append(model(**processing_class("alpha", return_tensors="pt")).logits.shape)

    trainer = trained(
        make_trainer(train_dataset=token_rows, trainer={"callbacks": [Ask()]}, objectives=["logits"], max_steps=1)
    )
    assert len(asked) == 1
    model, batch = trainer.model.eval(), tiny_tokenizer(["alpha beta", "red"], padding=True, return_tensors="pt")
    expected = trainer.student(**batch).logits
    assert torch.equal(model(**batch).logits, expected)
    assert torch.equal(model(batch["input_ids"], batch["attention_mask"]).logits, expected)
    assert "loss" in model(**batch, labels=torch.tensor([0, 1]))
    assert model.config is trainer.student.config
    assert model.bert is trainer.student.bert
    assert model.device == trainer.student.device
    assert not model.can_generate()
    assert model.get_input_embeddings() is trainer.student.get_input_embeddings()
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = model.nothing_of_the_kind
    classify = pipeline("text-classification", model=model, tokenizer=tiny_tokenizer, device="cpu")
    plain = pipeline("text-classification", model=trainer.student, tokenizer=tiny_tokenizer, device="cpu")
    assert classify(["alpha beta", "red"]) == plain(["alpha beta", "red"])
    model.save_pretrained(tmp_path / "student")
    again = type(trainer.student).from_pretrained(tmp_path / "student")
    assert torch.equal(again.eval()(**batch).logits, expected)


def test_a_student_that_writes_writes_through_the_wrapper(quiet):
    def decoder(layers):
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=20, n_positions=16, n_embd=12, n_layer=layers, n_head=2, bos_token_id=1, eos_token_id=1
            )
        ).eval()

    args = DistillationArguments(**quiet)
    model = DistillationTrainer(decoder(1), args, teacher_model=decoder(2), objectives=["logits"]).model
    ids = torch.tensor([[3, 4]])
    assert model.can_generate()
    assert torch.equal(model.generate(ids, max_new_tokens=3), model.student.generate(ids, max_new_tokens=3))


def test_teacher_and_student_are_two(quiet, tiny_teacher, tiny_student):
    args = DistillationArguments(**quiet)
    with pytest.raises(ValueError, match="`model` and the teacher are the same object"):
        DistillationTrainer(tiny_teacher, args, teacher_model=tiny_teacher)
    twin = copy.deepcopy(tiny_teacher)
    twin.bert.embeddings = tiny_teacher.bert.embeddings
    with pytest.raises(ValueError, match=r"shares 5 parameters with the teacher \(bert.embeddings.word"):
        DistillationTrainer(twin, args, teacher_model=tiny_teacher)
    assert all(parameter.requires_grad for parameter in twin.parameters())
    view = copy.deepcopy(tiny_teacher)
    view.classifier.weight.data = tiny_teacher.classifier.weight.data
    with pytest.raises(ValueError, match=r"shares 1 parameters .*classifier.weight"):
        DistillationTrainer(view, args, teacher_model=tiny_teacher)
    with pytest.raises(ValueError, match="the same object"):
        DistillationTrainer(None, args, model_init=lambda: tiny_teacher, teacher_model=tiny_teacher)
    with pytest.raises(ValueError, match="the same object"):
        MultiTeacherTrainer(
            tiny_teacher, MultiTeacherArguments(**quiet), teacher_models=[copy.deepcopy(tiny_teacher), tiny_teacher]
        )


# ---- Honoured


def test_an_optimizer_of_ones_own_trains_the_projections(make_trainer, tiny_student, token_rows):
    optimizer = torch.optim.SGD(tiny_student.parameters(), lr=0.1)

    def make(schedule, **more):
        given = {"train_dataset": token_rows, "trainer": {"optimizers": (optimizer, schedule)}, "copies": False}
        return make_trainer(objectives=["hidden"], max_steps=3, **given, **more)

    trainer = make(None, projection_learning_rate=0.5)
    before = [parameter.clone() for parameter in trainer.model.objectives.parameters()]
    assert before
    trainer.train()
    assert [group["initial_lr"] for group in trainer.optimizer.param_groups] == [0.1, 0.5]
    assert all(not torch.equal(a, b) for a, b in zip(before, trainer.model.objectives.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"`optimizers` has a schedule.*`--lr_scheduler_type`"):
        make(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))


def test_an_optimizer_of_ones_own_trains_adapters_that_come_later(make_trainer, tiny_student, token_rows):
    peft = pytest.importorskip("peft")
    optimizer = torch.optim.SGD(tiny_student.parameters(), lr=0.1)
    given = {"optimizers": (optimizer, None), "peft_config": peft.LoraConfig(target_modules=["query"], r=2)}
    trainer = make_trainer(objectives=["logits"], train_dataset=token_rows, trainer=given, copies=False)
    # They begin at 0.
    trainer.train()
    assert all(value.any() for name, value in trainer.student.named_parameters() if "lora_B" in name)


def test_an_optimizer_of_another_model_is_refused(make_trainer, tiny_student, token_rows):
    optimizer = torch.optim.SGD(copy.deepcopy(tiny_student).parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    for pair, reason in (((optimizer, None), "of another model"), ((None, schedule), "without its optimizer")):
        with pytest.raises(ValueError, match=f"`optimizers` has .*{reason}"):
            make_trainer(objectives=["logits"], train_dataset=token_rows, trainer={"optimizers": pair})


def test_a_student_that_was_a_teacher_is_still_frozen(make_trainer, tiny_student, token_rows):
    make_trainer(tiny_student, objectives=["logits"], train_dataset=token_rows)
    trainer = make_trainer(objectives=["hidden"], train_dataset=token_rows)
    with pytest.raises(ValueError, match=r"All parameters of the BertForSequenceClassification are frozen"):
        trainer.train()
    trainer.student.requires_grad_(True)
    assert trainer.train().global_step == 4


@pytest.mark.parametrize(
    ("wrap", "reason"),
    [
        (partial(torch.compile, backend="eager"), "compiled .*`--torch_compile`"),
        (torch.nn.DataParallel, r"a DataParallel: .*`model.module`"),
        (lambda student: torch.nn.ModuleList([student]), "not from ModuleList: derive it from `PreTrainedModel`"),
    ],
    ids=["compiled", "parallel", "module"],
)
def test_a_student_inside_something_else_is_refused(wrap, reason, make_trainer, tiny_student, token_rows):
    with pytest.raises(ValueError, match=reason):
        make_trainer(student=wrap(tiny_student), train_dataset=token_rows, copies=False)


def test_a_smaller_batch_is_tried_from_the_beginning(make_trainer, rows):
    class TooLarge(DistillationTrainer):
        """The second batch does not fit into the memory."""

        steps = 0

        def training_step(self, *args, **kwargs):
            TooLarge.steps += 1
            if TooLarge.steps == 2:
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(*args, **kwargs)

    trainer = trained(
        make_trainer(
            trainer_class=TooLarge, objectives=["logits", "labels"], train_dataset=rows,
            auto_find_batch_size=True, logging_steps=2,
        )
    )  # fmt: skip
    assert TooLarge.steps == 6
    _check_sum_of_terms(trainer)


def test_a_training_goes_on_after_it_was_broken_off(make_trainer, rows):
    given = {"train_dataset": rows, "trainer": {"callbacks": [BreaksOff()]}}
    trainer = make_trainer(objectives=["logits", "labels"], logging_steps=2, **given)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    _check_sum_of_terms(trained(trainer))


def _check_sum_of_terms(trainer):
    """Every logged loss is the sum of its terms, whose weights are 1."""
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(entries) == 2
    for entry in entries:
        terms = [value for name, value in entry.items() if name.startswith("loss/")]
        assert entry["loss"] == pytest.approx(sum(terms), rel=1e-5)


def test_columns_with_names_of_our_own_are_columns(make_trainer, rows):
    def losses(**more):
        named = rows.add_column("num_items", [0.5] * len(rows)).add_column("only", [1] * len(rows))
        given = {"train_dataset": named, "trainer": {"eval_dataset": named}}
        trainer = trained(make_trainer(objectives=["logits", "labels"], max_steps=2, **given, **more))
        return logged(trainer), trainer.evaluate()["eval_loss"]

    assert losses(remove_unused_columns=False) == losses()


@pytest.mark.parametrize("kind", ["ProcessorMixin", "ImageProcessingMixin", "FeatureExtractionMixin"])
def test_what_reads_no_text_is_refused(kind, make_trainer, token_rows):
    other = type("Eyes", (type(kind, (), {"__call__": len}),), {})()
    for given in (other, "some/tokenizer"):
        with pytest.raises(ValueError, match=f"`processing_class` is a {type(given).__name__}: a distillation reads"):
            make_trainer(tokenizer=given, train_dataset=token_rows)


def test_a_loss_of_ones_own_counts_in_evaluations_too(make_trainer, rows):
    class Penalised(DistillationTrainer):
        """Adds the mean of a column to the loss."""

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            penalty = inputs.pop("labels").float().mean()
            found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return (found[0] + penalty, found[1]) if return_outputs else found + penalty

    given = {"objectives": ["logits"], "train_dataset": rows, "max_steps": 1, "per_device_eval_batch_size": 24}
    stock, ours = (make_trainer(trainer_class=one, **given) for one in (DistillationTrainer, Penalised))
    uneven = rows.select([*range(24), *range(25, 64, 2)])
    expected = stock.evaluate(uneven)
    found = ours.evaluate(uneven)
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"] + sum(uneven["labels"]) / len(uneven), rel=1e-5)
    assert found["eval_loss/logits/soft"] == expected["eval_loss/logits/soft"]
    assert logged(trained(ours)) == pytest.approx([loss + 0.5 for loss in logged(trained(stock))], rel=1e-5)
    assert ours.predict(uneven.remove_columns("labels")).metrics["test_loss"] > 0


def test_the_model_of_one_distillation_is_student_or_teacher_of_the_next(make_trainer, token_rows, tmp_path):
    first = trained(make_trainer(objectives=["logits"], train_dataset=token_rows, max_steps=1))
    again = make_trainer(student=first.model, copies=False, objectives=["logits"], train_dataset=token_rows)
    assert again.student is first.student
    taught = make_trainer(first.model, objectives=["logits"], train_dataset=token_rows)
    assert taught.teacher.model is first.student
    assert taught.evaluate(token_rows)["eval_loss"] > 0
    several = make_trainer([first.model], MultiTeacherTrainer, objectives=["logits"], train_dataset=token_rows)
    assert several.teachers[0].model is first.student
    first.save_model(str(tmp_path / "saved"))
    folder = make_trainer(student=tmp_path / "saved", objectives=["logits"], train_dataset=token_rows)
    assert_same_weights(folder.student, first.student)


def test_labels_are_smoothed_as_trainer_smooths_them(tiny_student):
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, -100, 1, 1])
    signals = Signals(logits={"logits": logits}, attention_mask=torch.ones(5, 1))
    objective = LabelsObjective("single_label_classification", label_smoothing_factor=0.2)
    found = objective(signals, None, {"labels": labels})["hard"]
    torch.testing.assert_close(found, LabelSmoother(epsilon=0.2)({"logits": logits}, labels[:, None]))
    assert objective.describe()["label_smoothing"] == 0.2
    with pytest.raises(ValueError, match=r"`--label_smoothing_factor` 0.2.*regression has none"):
        LabelsObjective("regression", label_smoothing_factor=0.2)


def test_a_callback_may_set_the_temperature(make_trainer, token_rows):
    class Warm(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            model.objectives["logits"].temperature = 8.0

    def first_loss(temperature, callbacks=None):
        given = {"train_dataset": token_rows, "trainer": {"callbacks": callbacks}}
        trainer = trained(make_trainer(objectives=["logits"], max_steps=1, temperature=temperature, **given))
        assert trainer.manifest()["objectives"]["logits"]["temperature"] == temperature
        return trainer.state.log_history[0]["loss"]

    assert first_loss(2.0, [Warm()]) == first_loss(8.0) != first_loss(2.0)
    with pytest.raises(ValueError, match="set to 0; it must be above 0"):
        LogitsObjective().temperature = 0


@pytest.mark.parametrize("objective", ["relation", "hidden", "logits", "labels"])
def test_every_trial_of_a_search_is_a_distillation_of_its_own(
    objective, make_trainer, tiny_teacher, tiny_student, token_rows, monkeypatch
):
    class Trial:
        def __init__(self, number):
            self.number, self.params = number, {}

    def search(trainer, number_of_trials, direction, **kwargs):
        """What Optuna does to a trainer."""
        assert direction == "minimize"
        found = []
        for number in range(number_of_trials):
            trainer.objective = None
            trainer.train(trial=Trial(number))
            weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]
            found.append((trainer.objective, trainer.model.describe(), weights, trainer.state.log_history))
            trainer.model_wrapped = trainer.model = None
        return found

    backend = SimpleNamespace(ensure_available=lambda: None, run=search)
    monkeypatch.setitem(ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, lambda: backend)
    optuna = ModuleType("optuna")
    optuna.__spec__, optuna.trial = ModuleSpec("optuna", None), SimpleNamespace(BaseTrial=Trial)
    monkeypatch.setitem(sys.modules, "optuna", optuna)
    rows = token_rows.add_column("labels", [0, 1] * 6)
    trainer = make_trainer(
        None if objective == "labels" else tiny_teacher, student=None, train_dataset=rows, objectives=[objective],
        trainer={"eval_dataset": rows, "model_init": lambda: copy.deepcopy(tiny_student)},
        max_steps=2, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, logging_steps=2,
        load_best_model_at_end=True, eval_agreement=objective != "labels",
    )  # fmt: skip
    # The first and the last trial are the same.
    settings = [{"temperature": 2.0, "learning_rate": 1e-3}, {"temperature": 5.0, "learning_rate": 1e-2}]
    settings.append(settings[0])
    found = trainer.hyperparameter_search(lambda trial: settings[trial.number], n_trials=3, backend="optuna")
    first, second, third = found
    assert first[0] == third[0] != second[0]
    assert first[0] == [entry["eval_loss"] for entry in first[3] if "eval_loss" in entry][-1]
    for one, other in zip(first[2], third[2], strict=True):
        assert torch.equal(one, other)
    for number, (_, described, _, _) in enumerate(found):
        folder = Path(trainer.args.output_dir, f"run-{number}", "checkpoint-2")
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        assert manifest["objectives"] == json.loads(json.dumps(described))
        if objective == "logits":
            assert described["logits"]["temperature"] == settings[number]["temperature"]


# ---- Every argument of `Trainer`

# What `Trainer` itself does with an argument is done in a distillation too, unless it is here: refused by name, or
# honoured by code of ours, with the test that shows it.
REFUSED = {
    "compute_loss_func": lambda *_: 0.0,
    "use_liger_kernel": True,
    "liger_kernel_config": {"rope": True},
    "label_smoothing_factor": 0.1,  # Without the objective `labels`.
}
OURS = {
    "model": "test_the_model_of_a_distillation_is_the_student",
    "args": "test_our_defaults_count_where_something_is_distilled",
    "data_collator": "test_trainer_data",
    "train_dataset": "test_rows",
    "eval_dataset": "test_rows",
    "processing_class": "test_rows",
    "model_init": "test_every_trial_of_a_search_is_a_distillation_of_its_own",
    "callbacks": "test_a_callback_may_set_the_temperature",
    "optimizers": "test_an_optimizer_of_ones_own_trains_the_projections",
    "metric_for_best_model": "test_trainers_know_the_direction_with_several_sets",
    "greater_is_better": "test_trainers_know_the_direction_with_several_sets",
    "average_tokens_across_devices": "test_a_mean_over_one_process_is_refused",
    **dict.fromkeys(STOCK_VALUES, "test_our_defaults_count_where_something_is_distilled"),
    **dict.fromkeys(("remove_unused_columns", "label_names", "length_column_name"), "test_rows"),
    **dict.fromkeys(("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id"), "test_publishing"),
    **dict.fromkeys(("hub_strategy", "hub_always_push", "hub_revision"), "test_publishing"),
    **dict.fromkeys(("output_dir", "save_total_limit", "resume_from_checkpoint"), "test_checkpoints"),
    **dict.fromkeys(("ddp_find_unused_parameters", "dataloader_pin_memory"), "settled by the arguments"),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps"), "test_distillation"),
    **dict.fromkeys(("disable_tqdm", "logging_nan_inf_filter"), "test_evaluating, test_finite"),
}
# `Trainer` reads these, and nothing of ours stands between.
BY_TRAINER = """
    compute_metrics optimizer_cls_and_kwargs preprocess_logits_for_metrics
    per_device_train_batch_size num_train_epochs max_steps lr_scheduler_type lr_scheduler_kwargs optim optim_args
    adam_beta1 adam_beta2 optim_target_modules max_grad_norm bf16 fp16 bf16_full_eval fp16_full_eval tf32
    activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs
    torch_compile torch_compile_backend torch_compile_mode use_cache neftune_noise_alpha torch_empty_cache_steps
    auto_find_batch_size logging_strategy logging_first_step log_on_each_node include_num_input_tokens_seen log_level
    log_level_replica report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id
    eval_strategy eval_steps eval_delay per_device_eval_batch_size prediction_loss_only eval_on_start
    eval_do_concat_batches eval_use_gather_object include_for_metrics batch_eval_metrics save_only_model save_strategy
    save_steps save_on_each_node enable_jit_checkpoint load_best_model_at_end ignore_data_skip
    restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu accelerator_config
    parallelism_config dataloader_drop_last dataloader_num_workers dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order ddp_bucket_cap_mb
    ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug
    skip_memory_metrics do_train do_eval do_predict local_rank
""".split()
# Values with which a distillation is run: what `Trainer` does with them must not fail on the model of a distillation.
RUN = {
    "bf16_full_eval": True,
    "batch_eval_metrics": True,
    "include_for_metrics": ["inputs", "loss"],
    "eval_do_concat_batches": False,
    "neftune_noise_alpha": 5.0,
    "activation_checkpointing": True,
    "use_cache": True,
    "skip_memory_metrics": False,
    "prediction_loss_only": True,
    "enable_jit_checkpoint": True,
    "auto_find_batch_size": True,
    "accelerator_config": {"split_batches": True},
    "eval_use_gather_object": True,
    "include_num_input_tokens_seen": "all",
    "eval_on_start": True,
    "torch_empty_cache_steps": 1,
    "dataloader_drop_last": True,
    "save_only_model": True,
    "lr_scheduler_type": "cosine",
}


def test_every_argument_of_trainer_has_its_place():
    known = [*REFUSED, *OURS, *BY_TRAINER]
    assert len(known) == len(set(known))
    names = {item.name for item in dataclasses.fields(TrainingArguments)} | set(STOCK[1:])
    assert names - set(known) == set(), "decide what a distillation does with these, and say it here"


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("trainer", [DistillationTrainer, MultiTeacherTrainer])
def test_what_a_distillation_would_ignore_is_refused(name, trainer, quiet, tiny_teacher, tiny_student):
    own = {name: REFUSED[name]}
    of_trainer = name in STOCK
    args = TrainingArguments(**quiet)
    if not of_trainer:
        setattr(args, name, REFUSED[name])
    teachers = (
        {"teacher_models": [tiny_teacher]} if trainer is MultiTeacherTrainer else {"teacher_model": tiny_teacher}
    )
    with pytest.raises(ValueError, match=f"{name}.*would have no effect"):
        trainer(copy.deepcopy(tiny_student), args, **teachers, **(own if of_trainer else {}))


def test_a_mean_over_one_process_is_refused(quiet):
    args = SimpleNamespace(average_tokens_across_devices=False, world_size=2)
    with pytest.raises(ValueError, match="`--average_tokens_across_devices False` would have no effect"):
        refuse_without_effect("a distillation", args, {})
    args.world_size = 1
    refuse_without_effect("a distillation", args, {})


@pytest.mark.parametrize("name", RUN)
def test_what_trainer_does_is_done_in_a_distillation(name, make_trainer, token_rows):
    class Count:
        """A metric that is fed batch by batch, or once."""

        batches = 0

        def __call__(self, prediction, compute_result=True):
            self.batches += 1
            return {"batches": self.batches} if compute_result else {}

    settings = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "objectives": ["logits"], name: RUN[name]}
    settings |= {"save_strategy": "steps", "save_steps": 2}
    given = {"eval_dataset": token_rows, "compute_metrics": Count()}
    trainer = trained(make_trainer(train_dataset=token_rows, trainer=given, **settings))
    assert trainer.state.global_step == 2
    assert trainer.evaluate()["eval_loss"] > 0
    assert len(trainer.predict(token_rows).predictions if name != "prediction_loss_only" else "any") > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataloader_drop_last", True),
        ("neftune_noise_alpha", 1.0),
        ("include_for_metrics", ["loss"]),
        ("label_names", ["labels"]),
        ("bf16_full_eval", True),
        ("prediction_loss_only", True),
        ("train_sampling_strategy", "sequential"),
        ("train_sampling_strategy", "batch_rebalance"),
    ],
)
def test_what_a_training_on_many_tasks_would_ignore_is_refused(name, value, quiet, tiny_student, tiny_tokenizer):
    with pytest.raises(ValueError, match=f"--{name}.*would have no effect on a training on many tasks"):
        MTLTrainer(
            tiny_student, TrainingArguments(**quiet, **{name: value}), tasks=[], processing_class=tiny_tokenizer
        )


def test_what_a_masked_head_would_ignore_is_refused(quiet, tiny_student):
    args = TrainingArguments(**quiet, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match="`--label_smoothing_factor` would have no effect on a masked-LM head"):
        MaskedHeadTrainer(tiny_student, args, freeze_encoder=True)
    with pytest.raises(ValueError, match=r"MaskedHeadTrainer.*`compute_metrics` would have no effect"):
        MaskedHeadTrainer(tiny_student, args, freeze_encoder=True, compute_metrics=len)
