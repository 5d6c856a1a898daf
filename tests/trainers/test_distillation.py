"""The contracts of `DistillationTrainer`."""

import copy
import json
from pathlib import Path

import datasets
import pytest
import torch
from tiny_data import save_model
from trainings import assert_same_weights, batch_of, logged, trained
from transformers import AutoModel, BertForSequenceClassification, set_seed

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    MultiTeacherArguments,
    MultiTeacherTrainer,
    create_student,
)
from hf_distill.capture.signals import SignalRequest
from hf_distill.objectives import LogitsObjective, Objective
from hf_distill.trainers.checkpoints import MANIFEST_NAME
from hf_distill.trainers.distillation import model
from hf_distill.trainers.whole_run import RunCosts

STATE = SignalRequest(hidden_states=frozenset({1}))
KL = {"objective": "logits", "logits_loss": "kl"}
RELATION_AND_MORE = ["relation:1", "logits:0.5", "labels:0.3"]


def test_the_student_learns_from_the_teacher(build):
    trainer = build(max_steps=60, learning_rate=5e-3, objectives=["relation", KL])
    before = trainer.evaluate(trainer.train_dataset)
    trainer.train()
    after = trainer.evaluate(trainer.train_dataset)
    assert after["eval_loss"] < 0.7 * before["eval_loss"]


@pytest.mark.parametrize(
    ("init", "given", "rate"),
    [("teacher", {}, 1e-4), ("random", {}, 6e-4), ("teacher", {"learning_rate": 6e-4}, 6e-4)],
)
@pytest.mark.parametrize("by_function", [False, True])
def test_weights_that_were_cut_out_of_the_teacher_learn_slowly(
    tmp_path, tiny_teacher, rows, by_function, init, given, rate
):
    def model_init():
        return create_student(tiny_teacher, "2x12:2h:16", init=init)

    args = DistillationArguments(str(tmp_path), objectives=["relation"], use_cpu=True, report_to=[], **given)
    made = {"model_init": model_init} if by_function else {"model": model_init()}
    trainer = DistillationTrainer(args=args, teacher_model=tiny_teacher, train_dataset=rows, **made)
    assert trainer.args.learning_rate == rate
    args = MultiTeacherArguments(str(tmp_path), objectives=["logits"], use_cpu=True, report_to=[], **given)
    made = {"model_init": model_init} if by_function else {"model": model_init()}
    several = MultiTeacherTrainer(args=args, teacher_models=[tiny_teacher] * 2, train_dataset=rows, **made)
    assert several.args.learning_rate == rate


def test_a_rate_that_was_set_since_stays_whatever_student_is_made(tmp_path, tiny_teacher, tiny_tokenizer, rows):
    inits = iter(["teacher", "random", "teacher", "teacher", "teacher"])
    args = DistillationArguments(str(tmp_path), objectives=["logits"], use_cpu=True, report_to=[], max_steps=1)
    trainer = DistillationTrainer(
        args=args,
        teacher_model=tiny_teacher,
        train_dataset=rows,
        processing_class=tiny_tokenizer,
        model_init=lambda: create_student(tiny_teacher, "2x12:2h:16", init=next(inits)),
    )
    rates = []
    for _ in range(2):
        trainer.train()
        rates.append(trainer.optimizer.param_groups[0]["initial_lr"])
    # As a trial of a search does it; the usual rate, but chosen.
    for rate in (3e-3, float("6e-4")):
        trainer.args.learning_rate = rate
        trainer.train()
        rates.append(trainer.optimizer.param_groups[0]["initial_lr"])
    assert rates == [6e-4, 1e-4, 3e-3, 6e-4]


def test_accumulated_batches_give_the_update_of_one_large_batch(build):
    large = trained(build(objectives=RELATION_AND_MORE))
    small = trained(build(objectives=RELATION_AND_MORE, per_device_train_batch_size=2, gradient_accumulation_steps=4))
    assert logged(small) == pytest.approx(logged(large), rel=1e-5)
    assert logged(small, "grad_norm") == pytest.approx(logged(large, "grad_norm"), rel=1e-4)
    for term in ("loss/relation/qq", "loss/logits/soft", "loss/labels/hard"):
        assert logged(small, term) == pytest.approx(logged(large, term), rel=1e-4)
    assert_same_weights(large.student, small.student, rtol=1e-4, atol=1e-6)


def test_accumulated_values_count_alike_whatever_their_sign(build, rows, tiny_bert_config):
    values = datasets.Dataset.from_dict({**rows.remove_columns("labels")[:8], "labels": [-3, 2, -1, 0, 4, -2, -5, 1]})
    student = BertForSequenceClassification(tiny_bert_config(num_labels=1))
    options = {"student": student, "train_dataset": values, "objectives": ["labels"], "max_steps": 1}
    large = trained(build(None, **options))
    small = trained(build(None, **options, per_device_train_batch_size=3, gradient_accumulation_steps=3))
    assert logged(small, "loss/labels/hard") == pytest.approx(logged(large, "loss/labels/hard"), rel=1e-5)
    assert_same_weights(large.student, small.student, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_weighted_sum_of_the_logged_terms(build):
    trainer = trained(build(objectives=RELATION_AND_MORE))
    for entry in trainer.state.log_history[:-1]:
        relations = sum(entry[f"loss/relation/{pair}"] for pair in ("qq", "kk", "vv"))
        expected = relations + 0.5 * entry["loss/logits/soft"] + 0.3 * entry["loss/labels/hard"]
        assert entry["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_resumed_run_continues_bit_for_bit(build, dropping_student):
    settings = {"student": dropping_student, "max_steps": 8, "train_sampling_strategy": "random"}
    settings["objectives"] = RELATION_AND_MORE
    whole = trained(build(**settings, save_strategy="steps", save_steps=4))
    resumed = trained(build(**settings), f"{whole.args.output_dir}/checkpoint-4")
    assert logged(resumed)[-4:] == logged(whole)[-4:]
    assert_same_weights(whole.student, resumed.student)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"objectives": ["relation:2"]}, "objectives"),
        ({"objectives": [{"objective": "relation", "relation_heads": 4}]}, "objectives"),
        ("teacher", "teacher_weights"),
    ],
)
def test_resuming_another_distillation_is_refused(build, tiny_teacher, change, named):
    build(objectives=["relation"], save_strategy="steps", save_steps=2, max_steps=2).train()
    changes = {"objectives": ["relation"], **change} if isinstance(change, dict) else {"objectives": ["relation"]}
    if change == "teacher":
        with torch.no_grad():
            next(tiny_teacher.parameters()).add_(1)
    other = build(**changes)
    with pytest.raises(ValueError, match=f"another distillation.*{named}"):
        other.train(resume_from_checkpoint=f"{other.args.output_dir}/checkpoint-2")


def test_only_the_layers_up_to_the_signal_get_a_gradient(build):
    trainer = build(objectives=["relation"], max_steps=1)
    trainer.compute_loss(trainer.model, batch_of(trainer)).backward()
    with_gradient = {n for n, p in trainer.student.named_parameters() if p.grad is not None and p.grad.any()}
    last = "bert.encoder.layer.1."
    assert {f"{last}attention.self.{part}.weight" for part in ("query", "key", "value")} <= with_gradient
    assert all(n.startswith(f"{last}attention.self") for n in with_gradient if n.startswith(last))
    assert any(n.startswith("bert.encoder.layer.0.output") for n in with_gradient)
    assert not any("classifier" in n or "pooler" in n for n in with_gradient)


def test_the_teacher_stays_frozen_and_without_dropout(build, tiny_bert_config):
    set_seed(3)
    teacher = BertForSequenceClassification(
        tiny_bert_config(hidden_dropout_prob=0.5, id2label={0: "negative", 1: "positive"})
    ).train()
    before = copy.deepcopy(teacher.state_dict())
    trainer = build(teacher=teacher, objectives=["relation", "logits"])
    batch = batch_of(trainer)
    trainer.train()
    teacher.train()  # as if somebody had forgotten
    first, second = (trainer.teacher.signals(batch).logits["logits"] for _ in range(2))
    assert torch.equal(first, second)
    assert not teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in trainer.student.parameters()}


def test_save_model_writes_a_plain_student(build, tmp_path):
    trainer = trained(build(objectives=["relation"]))
    trainer.save_model(tmp_path / "student")
    names = {path.name for path in (tmp_path / "student").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_args.bin",
    }
    reloaded, info = BertForSequenceClassification.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same_weights(reloaded, trainer.student)
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["intermediate_size"] == 32
    assert AutoModel.from_pretrained(tmp_path / "student", add_pooling_layer=False).config.hidden_size == 12


def test_the_best_checkpoint_is_loaded_at_the_end(build, rows):
    trainer = build(
        objectives=["relation", KL],
        learning_rate=5e-3,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss/logits/soft",
        greater_is_better=False,
        trainer={"eval_dataset": rows},
    )
    trainer.train()
    history = logged(trainer, "eval_loss/logits/soft")
    assert len(history) == 3
    assert trainer.evaluate()["eval_loss/logits/soft"] == pytest.approx(min(history), rel=1e-5)


def test_evaluation_is_exact_and_needs_no_labels(build, rows):
    trainer = build(objectives=["relation", "logits"])
    unlabelled = rows.remove_columns("labels")
    trainer.args.per_device_eval_batch_size = 10  # 64 rows: the last batch is smaller
    uneven = trainer.evaluate(unlabelled)
    trainer.args.per_device_eval_batch_size = 64
    whole = trainer.evaluate(unlabelled)
    for key in ("eval_loss", "eval_loss/relation/vv", "eval_loss/logits/soft"):
        assert uneven[key] == pytest.approx(whole[key], rel=1e-5)


def test_metrics_see_the_students_logits_even_where_training_stops_early(build, rows):
    def accuracy(prediction):
        assert prediction.predictions.shape == (64, 2)
        return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    trainer = build(objectives=["relation"], trainer={"compute_metrics": accuracy})
    assert 0 <= trainer.evaluate(rows)["eval_accuracy"] <= 1


def test_compute_loss_honours_return_outputs(build):
    trainer = build(objectives=["relation"])
    batch = batch_of(trainer)
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs["loss"] is loss
    assert outputs["logits"].shape == (8, 2)
    torch.testing.assert_close(loss, trainer.compute_loss(trainer.model, batch))


def test_text_is_tokenized_and_batched_by_length(build, sentences):
    text = datasets.Dataset.from_dict({"text": sentences, "rank": list(range(len(sentences)))})
    trainer = build(train_dataset=text, train_sampling_strategy="group_by_length", max_length=12)
    assert set(trainer.train_dataset.column_names) == {"input_ids", "token_type_ids", "attention_mask", "length"}
    assert max(trainer.train_dataset["length"]) == 12
    batches = list(trainer.get_train_dataloader())
    padded = sum(int((batch["attention_mask"] == 0).sum()) for batch in batches)
    randomly = build(train_dataset=text, train_sampling_strategy="random", max_length=12)
    padded_randomly = sum(int((batch["attention_mask"] == 0).sum()) for batch in randomly.get_train_dataloader())
    assert padded < 0.5 * padded_randomly


def test_models_may_be_folders(build, tiny_teacher, tiny_student, tiny_tokenizer, tmp_path):
    models = {"teacher": tiny_teacher, "student": tiny_student}
    folders = {side: save_model(tmp_path / side, model, tiny_tokenizer) for side, model in models.items()}
    by_folder = trained(build(**folders, objectives=["logits"]))
    by_instance = trained(build(objectives=["logits"]))
    assert logged(by_folder) == logged(by_instance)


def test_labels_in_another_order_are_permuted(build, tiny_teacher):
    swapped = copy.deepcopy(tiny_teacher)
    swapped.config.id2label = {0: "positive", 1: "negative"}
    with torch.no_grad():
        swapped.classifier.weight.copy_(tiny_teacher.classifier.weight.flip(0))
        swapped.classifier.bias.copy_(tiny_teacher.classifier.bias.flip(0))
    one = trained(build(objectives=["logits"]))
    other = trained(build(teacher=swapped, objectives=["logits"]))
    assert logged(one) == pytest.approx(logged(other), rel=1e-6)


def test_a_users_objective_gets_weight_logging_and_saved_parameters(build):
    class HiddenMatch(Objective):
        """Squared error of a projected hidden state."""

        def __init__(self):
            super().__init__()
            self.projection = torch.nn.Linear(12, 24)

        student_request = teacher_request = STATE

        def forward(self, student, teacher, labels=None):
            difference = self.projection(student.hidden_states[1]) - teacher.hidden_states[1]
            return {"mse": difference.square().mean()}

    set_seed(5)
    objective = HiddenMatch()
    initial = objective.projection.weight.detach().clone()
    trainer = build(
        trainer={"objectives": [objective]}, save_strategy="steps", save_steps=2, max_steps=4, learning_rate=1e-2
    )
    trainer.train()
    assert logged(trainer, "loss/hidden_match/mse")[-1] < logged(trainer, "loss/hidden_match/mse")[0]
    assert not torch.equal(objective.projection.weight, initial)
    set_seed(5)
    resumed = build(trainer={"objectives": [HiddenMatch()]}, max_steps=4, learning_rate=1e-2)
    resumed.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-2")
    assert_same_weights(trainer.model, resumed.model)


SCHEDULED = ["relation", {"objective": "logits", "weight": 2.0, "schedule": "linear_decay"}]


def test_a_scheduled_weight_follows_the_progress_and_is_logged(build):
    trainer = trained(build(objectives=SCHEDULED))
    assert logged(trainer, "weight/logits") == pytest.approx([2.0, 1.5, 1.0, 0.5])
    for entry in trainer.state.log_history[:-1]:
        relations = sum(entry[f"loss/relation/{pair}"] for pair in ("qq", "kk", "vv"))
        expected = relations + entry["weight/logits"] * entry["loss/logits/soft"]
        assert entry["loss"] == pytest.approx(expected, rel=1e-5)


STAGES = [
    {"objective": "relation", "schedule": {"name": "stage", "end_epoch": -1}},
    {"objective": "logits", "schedule": {"name": "stage", "start_epoch": -1}},
]


def test_stages_are_counted_in_epochs(build):
    settings = {"objectives": STAGES, "max_steps": -1, "num_train_epochs": 3, "gradient_accumulation_steps": 3}
    trainer = trained(build(**settings, logging_steps=1))
    steps = trainer.state.max_steps // 3
    weights = [(e["weight/relation"], e["weight/logits"]) for e in trainer.state.log_history if "weight/logits" in e]
    assert weights == [(1, 0)] * 2 * steps + [(0, 1)] * steps


def test_a_stage_that_never_comes_is_said(build, caplog):
    late = {"objective": "logits", "schedule": {"name": "stage", "start_epoch": 20}}
    with pytest.raises(ValueError, match=r"No objective is active in a training of 3 epochs: .*start_epoch=20"):
        build(objectives=[late], max_steps=-1, num_train_epochs=3).train()
    build(objectives=["relation", late], max_steps=1).train()
    assert "'logits' (stage(start_epoch=20)) is never active in a training of" in caplog.text


def test_a_resumed_run_continues_with_the_scheduled_weight(build):
    whole = trained(build(objectives=SCHEDULED, save_strategy="steps", save_steps=2))
    resumed = trained(build(objectives=SCHEDULED), f"{whole.args.output_dir}/checkpoint-2")
    assert logged(resumed) == logged(whole)
    with pytest.raises(ValueError, match=r"objectives.*linear_decay"):
        build(objectives=["relation", "logits:2"]).train(f"{whole.args.output_dir}/checkpoint-2")


class ProjectedMatch(Objective):
    """Squared error of a hidden state, projected to the teacher's width."""

    student_request = teacher_request = STATE

    def check(self, student, teacher):
        widths = (side.hidden_states[1].shape[-1] for side in (student, teacher))
        self.projection = torch.nn.Linear(*widths)

    def forward(self, student, teacher, labels=None):
        difference = self.projection(student.hidden_states[1]) - teacher.hidden_states[1]
        return {"mse": difference.square().mean()}


def test_what_an_objective_creates_for_the_widths_is_trained_and_the_same_every_time(build):
    one, other = (build(trainer={"objectives": [ProjectedMatch()]}, learning_rate=1e-2) for _ in range(2))
    torch.rand(3)
    assert_same_weights(one.model, other.model)
    before = one.model.objectives["projected_match"].projection.weight.detach().clone()
    one.train()
    assert not torch.equal(one.model.objectives["projected_match"].projection.weight, before)


def test_projections_may_have_an_optimizer_setting_of_their_own(build):
    settings = {"learning_rate": 1e-3, "projection_learning_rate": 1e-2, "projection_weight_decay": 0.3}
    trainer = trained(build(trainer={"objectives": [ProjectedMatch()]}, lr_scheduler_type="constant", **settings))
    projection = trainer.model.objectives["projected_match"].projection
    groups = {id(p): group for group in trainer.optimizer.param_groups for p in group["params"]}
    own = groups[id(projection.weight)]
    assert (own["lr"], own["weight_decay"]) == (1e-2, 0.3)
    assert len(groups) == sum(1 for p in trainer.model.parameters() if p.requires_grad)
    student = [group for key, group in groups.items() if key not in set(map(id, projection.parameters()))]
    assert {group["lr"] for group in student} == {1e-3}


def test_every_student_of_model_init_has_its_projection(build, tiny_student):
    trainer = build(trainer={"objectives": [ProjectedMatch()]})
    by_init = DistillationTrainer(
        teacher_model=trainer.teacher.model,
        args=trainer.args,
        objectives=[ProjectedMatch()],
        train_dataset=trainer.train_dataset,
        processing_class=trainer.processing_class,
        model_init=lambda: copy.deepcopy(tiny_student),
    )
    trainer.train()
    by_init.train()
    assert logged(by_init) == logged(trainer)


def test_an_adapter_is_trained_saved_and_resumed(build, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    settings = {"objectives": ["relation", "logits"], "max_steps": 4, "trainer": {"peft_config": config}}
    whole = trained(build(**settings, save_strategy="steps", save_steps=2))
    resumed = trained(build(**settings), f"{whole.args.output_dir}/checkpoint-2")
    assert logged(resumed)[-2:] == logged(whole)[-2:]
    whole.save_model(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()


def test_activation_checkpointing_changes_no_number(build):
    plain = trained(build(objectives=RELATION_AND_MORE))
    saving = trained(build(objectives=RELATION_AND_MORE, activation_checkpointing=True))
    assert logged(saving) == logged(plain)


def test_bfloat16_stays_close_to_float32(build):
    full = trained(build(objectives=RELATION_AND_MORE))
    half = trained(build(objectives=RELATION_AND_MORE, bf16=True))
    assert logged(half) == pytest.approx(logged(full), rel=2e-2)


def test_describe_names_models_objectives_and_layers(build):
    text = build(objectives=RELATION_AND_MORE).describe()
    for part in (
        "teacher: BertForSequenceClassification",
        "student:",
        "relation x 1",
        "layers [[2, 3]]",
        "logits x 0.5",
    ):
        assert part in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": None, "objectives": ["relation"]}, r"\['relation'\] compare with a teacher.*--teacher_model"),
        ({"objectives": []}, "--objectives.*empty"),
        (
            {"objectives": [{"objective": "relation", "relation_heads": 7}]},
            r"relation_heads.*7.*\[12, 6, 4, 3, 2, 1\]",
        ),
        ({"objectives": [{"objective": "relation", "teacher_layer": 9}]}, "no layer 9 in a model of 3 layers"),
        ({"teacher": "no/such-teacher"}, "--teacher_model.*no/such-teacher"),
    ],
)
def test_what_cannot_work_is_refused_before_training(build, settings, message):
    with pytest.raises((ValueError, OSError), match=message):
        build(**settings)


def test_vocabularies_must_agree(build, tiny_bert_config, tiny_tokenizer):
    larger = BertForSequenceClassification(tiny_bert_config(vocab_size=500))
    with pytest.raises(ValueError, match=r"500 entries, the student's.*create_student"):
        build(teacher=larger)
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens(["unheard"])
    with pytest.raises(ValueError, match=r"tokenizers differ.*'unheard'"):
        build(trainer={"teacher_processing_class": other})


def test_labels_must_agree_where_logits_are_compared(build, tiny_teacher):
    other = copy.deepcopy(tiny_teacher)
    other.config.id2label = {0: "bad", 1: "good"}
    with pytest.raises(ValueError, match=r"different labels.*'bad'.*'negative'"):
        build(teacher=other, objectives=["logits"])
    build(teacher=other, objectives=["relation"])


def test_a_teacher_of_another_architecture_with_the_same_vocabulary(build, tiny_tokenizer, rows):
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    set_seed(0)
    teacher = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=len(tiny_tokenizer), dim=24, n_layers=3, n_heads=4, hidden_dim=32)
    )
    trainer = trained(build(teacher=teacher, objectives=["relation"]))  # DistilBERT takes no token_type_ids
    assert len(logged(trainer)) == 4


def test_the_first_snippet_of_the_design_runs(tiny_teacher, tiny_tokenizer, sentences, tmp_path):
    textbook = datasets.Dataset.from_dict({"text": sentences})
    student = create_student(tiny_teacher, "2x12:2h:32")
    args = DistillationArguments(str(tmp_path), objectives=["relation"], max_steps=2, use_cpu=True, disable_tqdm=True)
    trainer = DistillationTrainer(
        model=student, teacher_model=tiny_teacher, args=args, train_dataset=textbook, processing_class=tiny_tokenizer
    )
    trainer.train()
    assert (tmp_path / "checkpoint-2" / MANIFEST_NAME).is_file()


def test_the_manifest_never_travels_to_the_hub():
    assert MANIFEST_NAME.startswith("_")


def test_custom_objects_keep_their_identity(build):
    objective = LogitsObjective("mse")
    trainer = build(trainer={"objectives": [objective]})
    assert next(iter(trainer.model.objectives.values())) is objective


def test_a_resumed_run_knows_what_the_whole_of_it_took(build):
    settings = {"objectives": ["relation"], "max_steps": 7, "logging_steps": 2, "train_sampling_strategy": "random"}
    whole = build(**settings, save_strategy="steps", save_steps=3)
    output = whole.train()
    assert whole.whole_run.steps == 7
    assert whole.whole_run.train_loss == pytest.approx(output.training_loss)
    assert whole.whole_run.seconds == output.metrics["train_runtime"]
    entry = json.loads(Path(whole.args.output_dir, "checkpoint-6", "trainer_state.json").read_text())
    spent = entry["stateful_callbacks"]["WholeRun"]["attributes"]["seconds"]
    for step in (3, 6):
        resumed = trained(build(**settings), f"{whole.args.output_dir}/checkpoint-{step}")
        assert resumed.whole_run.steps == 7
        assert resumed.whole_run.train_loss == pytest.approx(output.training_loss, rel=1e-5)
        assert step < 6 or resumed.whole_run.seconds >= spent > 0


def test_a_checkpoint_that_does_not_tell_leaves_it_open(build, monkeypatch):
    settings = {"objectives": ["relation"], "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    with monkeypatch.context() as patch:
        patch.setattr(RunCosts, "note", lambda self, state, loss_sum: None)
        first = trained(build(**settings))
    resumed = trained(build(**settings), f"{first.args.output_dir}/checkpoint-2")
    assert resumed.whole_run.facts() == {"steps": 4, "train_loss": None, "training_seconds": None}


def test_without_objectives_checkpoints_are_those_of_trainer(build):
    plain = trained(build(objectives=[], teacher=None, max_steps=2, save_strategy="steps", save_steps=2))
    state = json.loads(Path(plain.args.output_dir, "checkpoint-2", "trainer_state.json").read_text())
    assert "WholeRun" not in state["stateful_callbacks"]


def test_a_head_that_nobody_trains_is_said(build, warnings_of):
    said = warnings_of(model)
    build(objectives=["relation", "labels"])
    assert not said
    build(objectives=["relation"])
    assert (
        "The head of BertForSequenceClassification stays untrained, because its outputs are not used by relation"
        in said[0]
    )
