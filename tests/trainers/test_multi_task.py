"""Many tasks on one encoder: what is shared, what is learnt and scored, what is saved, teachers of single tasks."""

import math
from dataclasses import replace

import pytest
import torch
from datasets import DatasetDict
from test_heads import SPANS, WORDS, span_rows, word_rows
from tiny_data import labelled_rows
from torch.nn import functional
from trainings import BreaksOff, trained
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
    set_seed,
)

from hf_distill import MTLArguments, MTLTrainer, StoredTeacher, precompute
from hf_distill.objectives.logits import soft_loss
from hf_distill.settings import TeacherArguments
from hf_distill.tasks import tokenize_task
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.spec import FineTuningDefaults, TaskSpec
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.task_models import task_config
from hf_distill.trainers.fine_tuning.trainer import evaluate_model
from hf_distill.trainers.multi_task import trainer as multi_task
from hf_distill.trainers.multi_task.loss import MultiTaskLoss, as_questions, r3f_loss
from hf_distill.trainers.multi_task.model import multi_task_model
from hf_distill.trainers.multi_task.teachers import TaskTeachers, soft_task_loss
from hf_distill.trainers.multi_task.weighting import log_classes

DEFAULTS = FineTuningDefaults(epochs=1, learning_rate=1e-3, batch_size=8, max_length=32)
MOOD = TaskSpec("mood", ("text",), ("bad", "good"), metrics=("accuracy",), fine_tuning=DEFAULTS)
LENGTH = TaskSpec("my.length", ("text",), None, metrics=("pearson",), fine_tuning=DEFAULTS)


@pytest.fixture(scope="session")
def tasks(sentences):
    """Classes, values, tags and answers: one small task of each kind."""
    moods = [f"{'good' if index % 2 else 'bad'} {text}" for index, text in enumerate(sentences)]
    rows = {
        MOOD: labelled_rows(moods, [index % 2 for index in range(len(moods))], MOOD.label_names),
        LENGTH: labelled_rows(sentences, [len(text.split()) / 5 for text in sentences], None),
        WORDS: word_rows(sentences),
        SPANS: span_rows(sentences),
    }
    return [
        LoadedTask(spec, DatasetDict(train=part, validation=part.select(range(24))), "here")
        for spec, part in rows.items()
    ]


@pytest.fixture
def encoder(tiny_bert_config):
    set_seed(0)
    return BertModel(tiny_bert_config())


def settings(folder, **values):
    given = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    return MTLArguments(str(folder), **{**given, "per_device_train_batch_size": 8, "learning_rate": 1e-3, **values})


def mtl(encoder, tasks, tokenizer, folder, *, lora=None, teachers=None, **values):
    return MTLTrainer(
        encoder,
        settings(folder, **values),
        processing_class=tokenizer,
        tasks=tasks,
        lora=lora,
        task_teachers=teachers,
        max_length=32,
    )


# ---- The model ----


def test_all_heads_share_one_encoder(encoder, tasks):
    model = multi_task_model(encoder, [task.spec for task in tasks])
    own = sum(p.numel() for p in encoder.parameters())
    heads = sum(p.numel() for head in model.heads.values() for p in head.parameters())
    assert sum(p.numel() for p in model.parameters()) == own + heads
    assert heads < own / 10
    assert not [name for name in model.state_dict() if name.startswith("heads.") and "encoder" in name]


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        (RobertaModel, RobertaConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=4)),
        (DistilBertModel, DistilBertConfig(dim=24, n_layers=2, n_heads=4, hidden_dim=32)),
        (ElectraModel, ElectraConfig(
            embedding_size=24, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32
        )),
        (ModernBertModel, ModernBertConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, pad_token_id=0,
        )),
    ],
    ids=["roberta", "distilbert", "electra", "modernbert"],
)  # fmt: skip
def test_the_model_of_a_task_is_that_of_transformers(cls, config, tasks, tmp_path):
    config.vocab_size = 120
    model = multi_task_model(cls(config), [task.spec for task in tasks]).eval()
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        for task in tasks:
            inside = model(task.spec.name, input_ids=ids)
            model.task_model(task.spec.name).save_pretrained(tmp_path / task.spec.name)
            plain = head_of(task.spec).auto_class.from_pretrained(tmp_path / task.spec.name).eval()
            outside = plain(input_ids=ids)
            assert torch.allclose(inside[0], outside[0], atol=1e-6)


def test_models_of_two_architectures_are_refused(encoder, tasks, tiny_bert_config):
    from hf_distill.trainers.multi_task.model import MultiTaskModel

    other = AutoModelForSequenceClassification.from_config(RobertaConfig(hidden_size=24, num_attention_heads=4))
    with pytest.raises(ValueError, match=r"one architecture; these are \['bert', 'roberta'\]"):
        MultiTaskModel(encoder, {"mood": other})


# ---- The loss ----


def loss_of(encoder, tasks, folder, **values):
    set_seed(0)
    model = multi_task_model(encoder, [task.spec for task in tasks])
    specs = {task.spec.name: task.spec for task in tasks}
    return MultiTaskLoss(model, specs, dict.fromkeys(specs, 32), settings(folder, **values))


def batch_of(task, tokenizer, size=6):
    head = head_of(task.spec)
    tokens = tokenize_task(task.train.select(range(size)), task.spec, tokenizer, 32)
    keep = {*tokenizer.model_input_names, "labels", "start_positions", "end_positions"}
    return head.collator(tokenizer, None)([{k: row[k] for k in row if k in keep} for row in tokens])


@pytest.mark.parametrize("index", range(4), ids=["classes", "values", "tags", "answers"])
def test_a_loss_is_that_of_the_head_divided_by_the_logarithm_of_the_choices(
    index, encoder, tasks, tiny_tokenizer, tmp_path
):
    task = tasks[index]
    module = loss_of(encoder, tasks, tmp_path).eval()
    batch = batch_of(task, tiny_tokenizer)
    labels = batch.pop("labels")
    outputs = module.model(task.spec.name, **batch)
    total, count = head_of(task.spec).loss(outputs, labels, 0.0, batch["attention_mask"])
    scale = torch.tensor([2.0, torch.e, 3.0, 32.0][index]).log()
    found = module(task.spec.name, labels, **batch)["loss"]
    assert found.item() == pytest.approx((total / count / scale).item(), rel=1e-5)


@pytest.mark.parametrize("index", range(4), ids=["classes", "values", "tags", "answers"])
def test_padding_changes_no_loss(index, encoder, tasks, tiny_tokenizer, tmp_path):
    task = tasks[index]
    module = loss_of(encoder, tasks, tmp_path, r3f_lambda=0.0).eval()
    batch = batch_of(task, tiny_tokenizer)
    longer = {}
    for name, value in batch.items():
        is_label_of_words = name == "labels" and task.spec is WORDS
        fits = value.dim() == 2 and value.shape == batch["input_ids"].shape and (name != "labels" or is_label_of_words)
        longer[name] = torch.nn.functional.pad(value, (0, 5), value=-100 if name == "labels" else 0) if fits else value
    targets = {name: torch.randn_like(v) for name, v in module.model(task.spec.name, **without(batch)).items()}
    wide = {
        name: torch.nn.functional.pad(v, (0, 5), value=9.0) if name != "logits"
        else (torch.nn.functional.pad(v, (0, 0, 0, 5)) if task.spec is WORDS else v)
        for name, v in targets.items()
    }  # fmt: skip
    near = module(task.spec.name, batch["labels"], targets, **without(batch))
    far = module(task.spec.name, longer["labels"], wide, **without(longer))
    assert near["loss"].item() == pytest.approx(far["loss"].item(), rel=1e-4)
    assert "soft" in near["terms"]


def without(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


def test_noise_costs_nothing_in_evaluation_and_little_in_training(encoder, tasks, tiny_tokenizer, tmp_path):
    module = loss_of(encoder, tasks, tmp_path, r3f_lambda=1.0, r3f_epsilon=1e-3)
    batch = batch_of(tasks[0], tiny_tokenizer)
    labels = batch.pop("labels")
    assert "r3f" not in module.eval()("mood", labels, **batch)["terms"]
    noisy = module.train()("mood", labels, **batch)
    assert 0 <= noisy["terms"]["r3f"].item() < 1e-4
    noisy["loss"].backward()


def test_regression_is_left_alone_by_noise(encoder, tasks, tiny_tokenizer, tmp_path):
    module = loss_of(encoder, tasks, tmp_path, r3f_lambda=1.0).train()
    batch = batch_of(tasks[1], tiny_tokenizer)
    assert set(module("my.length", batch.pop("labels"), **batch)["terms"]) == {"hard"}


def test_annealing_goes_from_the_teacher_to_the_labels(encoder, tasks, tiny_tokenizer, tmp_path):
    module = loss_of(encoder, tasks, tmp_path, teacher_annealing=True, loss_scaling="none").eval()
    batch = batch_of(tasks[0], tiny_tokenizer)
    labels, targets = batch.pop("labels"), {"logits": torch.randn(6, 2)}
    for progress, term in ((0.0, "soft"), (1.0, "hard")):
        module.set_progress(progress)
        found = module("mood", labels, targets, **batch)
        assert found["loss"].item() == pytest.approx(found["terms"][term].item())


# ---- Teachers ----


class Says:
    """A source of signals that always says the same."""

    num_layers, model_type, input_columns = 1, "", []

    def __init__(self, logits):
        self.logits = logits if isinstance(logits, dict) else {"logits": logits}

    def signals(self, inputs):
        from hf_distill.capture.signals import Signals

        return Signals(inputs["attention_mask"], logits=self.logits)


def test_several_teachers_are_the_mean_of_their_probabilities():
    first, second = torch.randn(3, 4), torch.randn(3, 4)
    teachers = TaskTeachers({"mood": [Says(first), Says(second)]}, temperature=2.0)
    targets = teachers.targets("mood", {"attention_mask": torch.ones(3, 2)})["logits"]
    expected = ((first / 2).softmax(-1) + (second / 2).softmax(-1)) / 2
    assert torch.allclose((targets / 2).softmax(-1), expected, atol=1e-6)


def test_what_several_teachers_say_of_padding_is_no_place_of_an_answer():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    first, second = ({name: torch.randn(2, 4) * 3 for name in ("start_logits", "end_logits")} for _ in range(2))
    real = mask[0].bool()
    teachers = TaskTeachers({"answers": [Says(first), Says(second)]}, temperature=2.0)
    for name, values in teachers.targets("answers", {"attention_mask": mask}).items():
        rows = [(side[name][0][real].double() / 2).softmax(-1) for side in (first, second)]
        torch.testing.assert_close((values[0][real] / 2).softmax(-1), (sum(rows) / 2).float())
        assert values.isfinite().all()


def test_several_teachers_of_values_are_their_mean():
    first, second = torch.randn(2, 3, 1).unbind()
    teachers = TaskTeachers({"length": []}, temperature=2.0)
    teachers.connect({"length": BertConfig(num_labels=1, problem_type="regression")}, torch.device("cpu"))
    teachers.teachers["length"] = [Says(first), Says(second)]
    found = teachers.targets("length", {"attention_mask": torch.ones(3, 2)})["logits"]
    torch.testing.assert_close(found, (first + second) / 2)


def test_the_soft_loss_is_that_of_logits_distillation():
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    found = soft_task_loss(MOOD, {"logits": student}, {"logits": teacher}, 4.0, None)
    assert found.item() == pytest.approx((16 * soft_loss(student, teacher, "ce", 4.0).mean()).item())


def test_the_soft_loss_of_textbrewers_multi_task_distiller():
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    found = soft_task_loss(
        MOOD, {"logits": student}, {"logits": teacher}, 8.0, None, scale_by_squared_temperature=False
    )
    expected = -((teacher / 8).softmax(-1) * (student / 8).log_softmax(-1)).sum(-1).mean()
    assert found.item() == pytest.approx(expected.item())


def test_several_labels_a_row_are_questions_of_their_own():
    spec = TaskSpec("topics", ("text",), ("a", "b", "c"), several_labels=True, metrics=("f1_micro",))
    student, first, second = torch.randn(5, 3), torch.randn(5, 3), torch.randn(5, 3)
    found = soft_task_loss(spec, {"logits": student}, {"logits": first}, 2.0, None)
    expected = 4 * functional.binary_cross_entropy_with_logits(student / 2, (first / 2).sigmoid())
    assert found.item() == pytest.approx(expected.item())
    assert log_classes(spec, 32) == pytest.approx(math.log(2))

    teachers = TaskTeachers({"topics": []}, temperature=2.0)
    config = BertConfig(num_labels=3, problem_type=spec.problem_type)
    teachers.connect({"topics": config}, torch.device("cpu"))
    teachers.teachers["topics"] = [Says(first), Says(second)]
    said = teachers.targets("topics", {"attention_mask": torch.ones(5, 2)})["logits"]
    assert torch.allclose((said / 2).sigmoid(), ((first / 2).sigmoid() + (second / 2).sigmoid()) / 2, atol=1e-6)

    p, q = (as_questions({"logits": logits})["logits"].softmax(-1) for logits in (student, first))
    divergence = ((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)).mean()
    noise = r3f_loss(as_questions({"logits": student}), as_questions({"logits": first}), None)
    assert torch.allclose(p[..., 0], student.sigmoid())
    assert noise.item() == pytest.approx(divergence.item(), rel=1e-5)


def test_values_are_compared_by_their_squared_difference():
    found = soft_task_loss(LENGTH, {"logits": torch.zeros(2, 1)}, {"logits": torch.tensor([[1.0], [3.0]])}, 4.0, None)
    assert found.item() == 5.0


def teacher_of(task, tiny_bert_config, seed):
    """A teacher of a task that is sure of what it says."""
    set_seed(seed)
    teacher = head_of(task.spec).auto_class.from_config(task_config(tiny_bert_config(), task.spec)).eval()
    with torch.no_grad():
        for name, weight in teacher.named_parameters():
            if name.endswith("weight") and weight.dim() == 2:
                weight.mul_(4 if "encoder" in name else 20)
    return teacher


def test_a_student_learns_from_a_teacher_of_each_task(encoder, tasks, tiny_tokenizer, tiny_bert_config, tmp_path):
    teachers = {task.spec.name: teacher_of(task, tiny_bert_config, 3) for task in tasks}
    trainer = mtl(
        encoder, tasks, tiny_tokenizer, tmp_path, teachers=teachers, hard_label_weight=0.0, num_train_epochs=2,
        learning_rate=4e-3, loss_scaling="none",
    )  # fmt: skip

    @torch.no_grad()
    def distance(task):
        batch = batch_of(task, tiny_tokenizer, size=32)
        targets = trainer.task_teachers.targets(task.spec.name, batch)
        return trainer.model(task.spec.name, batch.pop("labels"), targets, **batch)["terms"]["soft"].item()

    before = [distance(task) for task in tasks]
    trainer.train()
    assert all(distance(task) < first for task, first in zip(tasks, before, strict=True))


def test_a_stored_teacher_gives_the_losses_of_the_live_one(encoder, tasks, tiny_tokenizer, tiny_bert_config, tmp_path):
    task = tasks[0]
    teacher = teacher_of(task, tiny_bert_config, 3)
    tokens = tokenize_task(task.train, task.spec, tiny_tokenizer, 32)
    precompute(tokens, teacher, ["logits"], tmp_path / "stored", processing_class=tiny_tokenizer, dtype="float32")
    losses = []
    for given in (teacher, StoredTeacher(tmp_path / "stored")):
        set_seed(0)
        own = BertModel(tiny_bert_config())
        trainer = trained(mtl(own, [task], tiny_tokenizer, tmp_path, teachers={"mood": given}, max_steps=3))
        losses.append([entry["loss/mood/soft"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)


def test_a_teacher_of_no_task_is_an_error(encoder, tasks, tiny_tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"`task_teachers` has \['nli'\]; the tasks are \['mood'"):
        mtl(encoder, tasks, tiny_tokenizer, tmp_path, teachers={"nli": encoder})


# ---- Training ----


def test_every_task_is_learnt_and_scored_by_its_own_metrics(encoder, tasks, tiny_tokenizer, tmp_path):
    trainer = mtl(
        encoder,
        tasks,
        tiny_tokenizer,
        tmp_path,
        num_train_epochs=12,
        learning_rate=6e-3,
        gradient_accumulation_steps=2,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    heads = {"eval_mood_accuracy", "eval_my.length_pearson", "eval_words_f1", "eval_spans_f1"}
    assert heads <= set(after)
    assert after["eval_mean"] == pytest.approx(sum(after[name] for name in heads) / 4)
    assert after["eval_mean"] > max(0.7, before["eval_mean"])


def test_scores_are_those_of_the_saved_model(encoder, tasks, tiny_tokenizer, tmp_path):
    trainer = trained(mtl(encoder, tasks, tiny_tokenizer, tmp_path, max_steps=8, learning_rate=4e-3))
    found = trainer.scores()
    for task in tasks:
        name = task.spec.name
        trainer.save_task(name, tmp_path / name)
        plain = head_of(task.spec).auto_class.from_pretrained(tmp_path / name)
        alone = evaluate_model(plain, task, tiny_tokenizer, max_length=32)
        assert alone["validation"] == pytest.approx(found[name]["validation"], rel=1e-4, abs=1e-6)


def test_save_model_writes_the_plain_encoder(encoder, tasks, tiny_tokenizer, tmp_path):
    trainer = trained(mtl(encoder, tasks, tiny_tokenizer, tmp_path, max_steps=2))
    trainer.save_model(str(tmp_path / "out"))
    loaded = AutoModel.from_pretrained(tmp_path / "out")
    assert type(loaded) is BertModel
    for name, weight in trainer.tasks_model.plain_encoder.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


def test_accumulated_micro_batches_are_the_mean_of_their_losses(encoder, tasks, tiny_tokenizer, tmp_path):
    trainer = mtl(encoder, tasks, tiny_tokenizer, tmp_path, max_steps=1, gradient_accumulation_steps=4, optim="sgd")
    losses = []
    original = trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: losses.append(original(*a, **k)) or losses[-1]
    trainer.train()
    [logged] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 4
    assert float(logged) == pytest.approx(torch.stack(losses).mean().item(), abs=2e-4)


def weights_after(trainer, **resume):
    trainer.train(**resume)
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("weighting", ["none", "uncertainty", "gradient_norm"])
def test_a_resumed_training_ends_as_the_uninterrupted_one(
    weighting, tasks, tiny_tokenizer, tiny_bert_config, tmp_path
):
    def trainer(folder, **values):
        set_seed(0)
        own = BertModel(tiny_bert_config())
        return mtl(
            own, tasks[:2], tiny_tokenizer, folder, num_train_epochs=2, gradient_accumulation_steps=2,
            task_weighting=weighting, task_sampling="size", save_strategy="steps", save_steps=5, save_total_limit=3,
            **values,
        )  # fmt: skip

    whole = weights_after(trainer(tmp_path / "whole"))
    again = weights_after(trainer(tmp_path / "again"), resume_from_checkpoint=str(tmp_path / "whole/checkpoint-10"))
    assert set(whole) == set(again)
    for name, value in whole.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0, msg=name)


def test_a_checkpoint_of_other_tasks_is_refused(encoder, tasks, tiny_tokenizer, tmp_path):
    mtl(encoder, tasks[:2], tiny_tokenizer, tmp_path, max_steps=2, save_strategy="steps", save_steps=2).train()
    other = mtl(encoder, tasks[:1], tiny_tokenizer, tmp_path / "other", max_steps=4)
    with pytest.raises(ValueError, match=r"another training on many tasks .*tasks: .* in the checkpoint"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_training_that_is_scored_ends_as_one_that_is_not(tasks, tiny_tokenizer, tiny_bert_config, tmp_path):
    def ending(folder, **values):
        set_seed(0)
        own = BertModel(tiny_bert_config(hidden_dropout_prob=0.3))
        return weights_after(mtl(own, tasks[:2], tiny_tokenizer, tmp_path / folder, max_steps=6, **values))

    watched = ending("watched", eval_strategy="steps", eval_steps=2)
    for name, value in ending("unwatched").items():
        torch.testing.assert_close(watched[name], value, rtol=0, atol=0, msg=name)


def test_learnt_weights_of_tasks_move_and_are_logged(encoder, tasks, tiny_tokenizer, tmp_path):
    trainer = trained(mtl(encoder, tasks, tiny_tokenizer, tmp_path, max_steps=6, task_weighting="uncertainty"))
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    assert {f"weight/{task.spec.name}" for task in tasks} <= set(last)
    assert trainer.model.weighting.log_variances.abs().max() > 0
    trainer.save_model(str(tmp_path / "out"))
    assert not any("variance" in name for name in AutoModel.from_pretrained(tmp_path / "out").state_dict())


def test_the_best_checkpoint_has_the_best_mean(encoder, tasks, tiny_tokenizer, tmp_path):
    trainer = mtl(
        encoder, tasks[:2], tiny_tokenizer, tmp_path, num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, save_total_limit=1, learning_rate=4e-3,
    )  # fmt: skip
    trainer.train()
    means = [entry["eval_mean"] for entry in trainer.state.log_history if "eval_mean" in entry]
    assert trainer.state.best_metric == max(means)
    assert trainer.evaluate()["eval_mean"] == pytest.approx(max(means))


def test_checkpoints_are_chosen_by_validation_where_tests_are_scored(encoder, tasks, tiny_tokenizer, tmp_path):
    spec = replace(MOOD, evaluation_splits=("test", "validation"))
    rows = tasks[0].train
    task = LoadedTask(spec, DatasetDict(train=rows, test=rows.select([0, 2, 4]), validation=rows.select([1])), "here")
    trainer = mtl(encoder, [task], tiny_tokenizer, tmp_path, max_steps=1)
    head = trainer.tasks_model.heads["mood"].classifier
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([0.0, 1.0])  # says "good" of every row, which is right in the validation row
    assert {split: found["accuracy"] for split, found in trainer.scores()["mood"].items()} == {
        "test": 0.0, "validation": 1.0
    }  # fmt: skip
    found = trainer.evaluate()
    assert (found["eval_mood_accuracy"], found["eval_mean"]) == (1.0, 1.0)


def test_lora_trains_little_and_is_merged_in_what_is_saved(encoder, tasks, tiny_tokenizer, tmp_path):
    pytest.importorskip("peft")
    trainer = mtl(encoder, tasks, tiny_tokenizer, tmp_path, max_steps=6, lora=TeacherArguments(lora_r=2))
    frozen = {name for name, weight in trainer.tasks_model.encoder.named_parameters() if not weight.requires_grad}
    assert frozen
    trainer.train()
    found = trainer.scores()["mood"]["validation"]
    trainer.save_task("mood", tmp_path / "mood")
    trainer.save_model(str(tmp_path / "out"))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "mood")
    [task] = [task for task in tasks if task.spec is MOOD]
    assert evaluate_model(plain, task, tiny_tokenizer, max_length=32)["validation"] == pytest.approx(found, rel=1e-3)
    assert not any("lora" in name for name in AutoModel.from_pretrained(tmp_path / "out").state_dict())
    assert any("lora" in name for name in trainer.model.state_dict())  # the training may go on


def test_a_task_without_training_rows_is_only_scored(encoder, tasks, tiny_tokenizer, tmp_path):
    shown = LoadedTask(SPANS, DatasetDict(validation=tasks[3].dataset["validation"]), "here")
    trainer = mtl(encoder, [tasks[0], shown], tiny_tokenizer, tmp_path, max_steps=1)
    assert trainer.train_rows == {"mood": 64}
    assert "eval_spans_f1" in trainer.evaluate()


def test_a_saved_head_is_taken_up_again(encoder, tasks, tiny_tokenizer, tmp_path):
    trainer = mtl(encoder, [tasks[3]], tiny_tokenizer, tmp_path, max_steps=1)
    trainer.save_task("spans", tmp_path / "spans")
    again = multi_task_model(str(tmp_path / "spans"), [SPANS])
    expected = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "spans").qa_outputs.weight
    assert torch.equal(again.heads["spans"].qa_outputs.weight, expected)


# ---- Bad input ----


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task_sampling": "often"}, "`--task_sampling` is 'often'; allowed are all, size, uniform, annealed"),
        ({"temperature": 0}, "`--temperature` is 0; it must be above 0"),
        ({"r3f_lambda": -1}, "`--r3f_lambda` is -1; it must be at least 0"),
    ],
)
def test_settings_out_of_range_name_their_flag(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **values)


def test_without_a_tokenizer_nothing_can_be_read(encoder, tasks, tmp_path):
    with pytest.raises(ValueError, match="processing_class"):
        MTLTrainer(encoder, settings(tmp_path), tasks=tasks)


def test_tasks_are_told_apart_by_name(encoder, tasks):
    with pytest.raises(ValueError, match=r"told apart by their names.*'mood', 'mood'"):
        multi_task_model(encoder, [MOOD, MOOD])


def test_rows_cannot_be_given_to_evaluate(encoder, tasks, tiny_tokenizer, tmp_path):
    trainer = mtl(encoder, tasks, tiny_tokenizer, tmp_path)
    with pytest.raises(ValueError, match="evaluation splits of its tasks"):
        trainer.evaluate(tasks[0].train)


def test_predictions_of_a_task_keep_the_order_of_its_rows(encoder, tasks, tiny_tokenizer, tmp_path):
    run = mtl(encoder, tasks[:2], tiny_tokenizer, tmp_path)
    rows = tasks[0].dataset["validation"]
    found = run.predict(rows, task="mood")
    assert found.label_ids.tolist() == rows["label"][:]
    model = run.tasks_model.task_model("mood").eval()
    encoded = tiny_tokenizer(rows["text"][:], padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(found.predictions), model(**encoded).logits)
    with pytest.raises(ValueError, match=r"`task` is None: name the task whose head predicts, one of \['mood'"):
        run.predict(rows)
    with pytest.raises(ValueError, match="`test_dataset` is a DatasetDict of the splits"):
        run.predict(tasks[0].dataset, task="mood")


# ---- Notebooks and scripts of `Trainer`


@pytest.mark.parametrize("weighting", ["none", "uncertainty"])
def test_an_optimizer_of_the_encoder_trains_heads_and_weights_too(weighting, encoder, tasks, tiny_tokenizer, tmp_path):
    args = settings(tmp_path, max_steps=3, gradient_accumulation_steps=1, task_weighting=weighting)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    given = {"processing_class": tiny_tokenizer, "tasks": tasks[:1], "max_length": 32}
    trainer = MTLTrainer(encoder, args, optimizers=(optimizer, None), **given)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    same = {name for name, value in trainer.model.named_parameters() if torch.equal(value, before[name])}
    assert not any("heads" in name or "log_variances" in name for name in same)
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="`optimizers` has an optimizer of another model"):
        MTLTrainer(encoder, args, optimizers=(other, None), **given)


def test_a_teacher_with_the_encoder_in_it_is_refused(encoder, tasks, tiny_tokenizer, tiny_bert_config, tmp_path):
    teacher = BertForSequenceClassification(tiny_bert_config(id2label={0: "bad", 1: "good"}))
    teacher.bert = encoder
    with pytest.raises(ValueError, match=r"The student shares \d+ parameters with the teacher"):
        mtl(encoder, tasks[:1], tiny_tokenizer, tmp_path, teachers={"mood": teacher})
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_annealed_sampling_ends_with_the_last_epoch_of_a_number_of_steps(encoder, tasks, tiny_tokenizer, tmp_path):
    def sampler(**values):
        trainer = mtl(encoder, tasks[:2], tiny_tokenizer, tmp_path, task_sampling="annealed", **values)
        return trainer.get_train_dataloader().batch_sampler.num_epochs

    # An epoch has 16 micro-batches.
    assert sampler(gradient_accumulation_steps=2, max_steps=40) == 5
    assert sampler(gradient_accumulation_steps=2, num_train_epochs=2.5) == 3


def test_terms_of_a_training_that_was_broken_off_are_not_logged(encoder, tasks, tiny_tokenizer, tmp_path):
    values = {"max_steps": 2, "logging_steps": 2, "gradient_accumulation_steps": 1, "loss_scaling": "none"}
    trainer = mtl(encoder, tasks[:1], tiny_tokenizer, tmp_path, **values)
    trainer.add_callback(BreaksOff())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    [entry] = [entry for entry in trained(trainer).state.log_history if "loss" in entry]
    assert entry["loss"] == pytest.approx(entry["loss/mood/hard"], rel=1e-5)


def test_an_encoder_that_stays_as_it_is_is_said(encoder, tasks, tiny_tokenizer, tmp_path, warnings_of):
    said = warnings_of(multi_task)
    mtl(encoder, tasks[:1], tiny_tokenizer, tmp_path / "free", max_steps=1).train()
    assert said == []
    mtl(encoder.requires_grad_(False), tasks[:1], tiny_tokenizer, tmp_path / "frozen", max_steps=1).train()
    assert [line[:21] for line in said] == ["The encoder is frozen"]


@pytest.mark.parametrize("lora", [None, TeacherArguments(lora_r=2)], ids=["whole", "lora"])
def test_activations_that_are_computed_anew_change_no_weight(lora, tasks, tiny_tokenizer, tiny_bert_config, tmp_path):
    if lora is not None:
        pytest.importorskip("peft")

    def learnt(**values):
        set_seed(0)
        values |= {"lora": lora, "max_steps": 2, "task_weighting": "gradient_norm", "r3f_lambda": 1.0}
        trainer = mtl(BertModel(tiny_bert_config()), tasks, tiny_tokenizer, tmp_path, **values)
        layer, forwards = trainer.tasks_model.plain_encoder.encoder.layer[0], []
        layer.attention.register_forward_hook(lambda *_: forwards.append(1))
        return trained(trainer).model.state_dict(), len(forwards)

    (plain, once), (saving, twice) = learnt(), learnt(activation_checkpointing=True)
    assert twice > once
    for name, weight in plain.items():
        torch.testing.assert_close(saving[name], weight, msg=name)
