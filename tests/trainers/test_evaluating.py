"""What a distillation shows of itself: agreement, the score of a task, schedules, the best checkpoint."""

import copy
import dataclasses

import datasets
import numpy as np
import pytest
import torch
from test_heads import WORDS, word_rows
from tiny_data import labelled_rows
from trainings import assert_same_weights, logged, trained
from transformers import BertForSequenceClassification, BertModel, EarlyStoppingCallback, ProgressCallback

from hf_distill import DistillationArguments, TaskSpec
from hf_distill.capture.signals import Signals
from hf_distill.objectives import LogitsObjective, build_objective
from hf_distill.tasks.loading import LoadedTask
from hf_distill.trainers.callbacks import TermsInProgressBar, terms_of
from hf_distill.trainers.distillation.agreement import AgreementMeter, agreement_sums
from hf_distill.trainers.distillation.task_scores import ridge
from hf_distill.trainers.fine_tuning.trainer import evaluate_model

NAMES = ("negative", "positive")
MOVING = {"objective": "logits", "temperature_schedule": "linear_decay"}


@pytest.fixture(scope="module")
def mood(sentences):
    """A task that a probe can learn from any hidden states: which words a sentence begins with."""
    texts = [f"{('bad poor dull', 'good great fine')[i % 2]} {text[:12]}" for i, text in enumerate(sentences)]
    rows = labelled_rows(texts, [i % 2 for i in range(64)], NAMES)
    parts = {"train": rows.select(range(40)), "validation": rows.select(range(40, 64))}
    spec = TaskSpec("mood", text_columns=("text",), label_names=NAMES, metrics=("accuracy", "f1_macro"))
    return LoadedTask(spec, datasets.DatasetDict(parts), "memory")


@pytest.fixture
def build(make_trainer, rows):
    """`build(**arguments)`: a trainer of a fresh copy of the tiny student, with held-out rows."""
    given = {"objectives": ["logits"], "max_length": 24, "train_sampling_strategy": "group_by_length"}

    def make(*, eval_dataset=rows, trainer=None, **arguments):
        trainer = {"eval_dataset": eval_dataset, **(trainer or {})}
        return make_trainer(train_dataset=rows, trainer=trainer, **given | arguments)

    return make


def outputs(model, rows):
    """Logits row by row, without any padding."""
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([row["input_ids"]])).logits for row in rows])


# --- agreement ------------------------------------------------------------------------------------------------------


def test_agreement_is_the_share_of_equal_labels_and_the_mean_divergence(build, tiny_teacher, rows):
    trainer = build(eval_agreement=True)
    metrics = trainer.evaluate()
    ours, theirs = (outputs(model.eval(), rows).log_softmax(-1) for model in (trainer.student, tiny_teacher))
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    divergence = (theirs.exp() * (theirs - ours)).sum(-1).mean().item()
    assert metrics["eval_agreement"] == metrics["eval_agreement/logits"] == pytest.approx(same)
    assert metrics["eval_kl/logits"] == pytest.approx(divergence, rel=1e-4)


@pytest.mark.parametrize("objective", ["logits", "relation", "hidden"])
def test_no_size_of_a_batch_changes_the_agreement(build, objective):
    one, other = (
        build(objectives=[objective], eval_agreement=True, per_device_eval_batch_size=size).evaluate()
        for size in (3, 64)
    )
    assert 0 <= one["eval_agreement"] <= 1
    assert one["eval_agreement"] == pytest.approx(other["eval_agreement"], rel=1e-4)


def test_a_student_that_is_its_teacher_agrees_in_everything(build, tiny_teacher):
    objectives = ["relation", "logits", "hidden"]
    metrics = build(student=tiny_teacher, objectives=objectives, eval_agreement=True).evaluate()
    for name in objectives:
        assert metrics[f"eval_agreement/{name}"] == pytest.approx(1)
    assert metrics["eval_kl/logits"] == pytest.approx(0, abs=1e-6)


def centred_cosine(ours, theirs):
    """Linear CKA by its definition: the cosine of the centred matrices of similarities."""
    ours, theirs = (x @ x.T for x in (ours - ours.mean(0), theirs - theirs.mean(0)))
    return (ours * theirs).sum() / (ours.norm() * theirs.norm())


def test_layers_agree_by_the_cosine_of_their_centred_similarities():
    generator = torch.Generator().manual_seed(0)
    states, theirs = torch.randn(6, 7, 5, generator=generator), torch.randn(6, 7, 9, generator=generator)
    mask = (torch.arange(7) < torch.tensor([7, 3, 5, 7, 1, 2])[:, None]).long()
    objective = build_objective("hidden", {})
    objective.bind(2, 3)
    layer, other = max(objective.student_request.hidden_states), max(objective.teacher_request.hidden_states)
    student = Signals(mask, hidden_states={layer: states})
    teacher = Signals(mask, hidden_states={other: theirs})
    meter = AgreementMeter()
    for part in (slice(0, 2), slice(2, 6)):
        halves = (side.map(lambda x, part=part: x[part]) for side in (student, teacher))
        meter.add(agreement_sums("h", objective, *halves, {}))
    real = mask.bool()
    expected = centred_cosine(states[real].double(), theirs[real].double()).item()
    assert meter.take(lambda x, how: x) == {"agreement/h": pytest.approx(expected, rel=1e-5)}


def test_rotated_and_scaled_states_agree_and_padding_does_not_count():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(4, 6, 5, generator=generator)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    mask = torch.ones(4, 6, dtype=torch.long)
    mask[:, 4:] = 0
    turned = 3 * states @ rotation
    turned[:, 4:] = 100.0
    objective = build_objective("hidden", {})
    objective.bind(1, 1)
    meter = AgreementMeter()
    sides = (Signals(mask, hidden_states={1: side}) for side in (states, turned))
    meter.add(agreement_sums("h", objective, *sides, {}))
    assert meter.take(lambda x, how: x)["agreement/h"] == pytest.approx(1)


def agreement(ours, theirs, mask=None, labels=None, **options):
    """Agreement of an objective on two dicts of logits."""
    objective = LogitsObjective(**options)
    mask = torch.ones(next(iter(ours.values())).shape[:2], dtype=torch.long) if mask is None else mask
    sides = [Signals(mask, logits=logits) for logits in (ours, theirs)]
    objective.check(*sides)
    meter = AgreementMeter()
    meter.add(agreement_sums("x", objective, *sides, labels or {}))
    return meter.take(lambda x, how: x)


def test_tokens_agree_over_real_tokens_or_over_those_with_labels():
    generator = torch.Generator().manual_seed(1)
    ours, theirs = (torch.randn(3, 4, 5, generator=generator) for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    same = (ours.argmax(-1) == theirs.argmax(-1)).float()
    found = agreement({"logits": ours}, {"logits": theirs}, mask)
    assert found["agreement/x"] == pytest.approx(same[mask.bool()].mean().item())
    labels = torch.full((3, 4), -100)
    labels[0, 1] = labels[1, 0] = 2
    found = agreement({"logits": ours}, {"logits": theirs}, mask, {"labels": labels}, positions="labels")
    assert found["agreement/x"] == pytest.approx((same[0, 1] + same[1, 0]).item() / 2)


def test_answers_agree_where_both_ends_do_and_no_end_is_padding():
    start, end = torch.tensor([[0.0, 2, 9], [3, 1, 0]]), torch.tensor([[1.0, 0, 9], [0, 1, 2]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    ours = {"start_logits": start, "end_logits": end}
    theirs = {"start_logits": torch.tensor([[0.0, 2, -9], [3, 1, 0]]), "end_logits": end.flip(0)}
    assert agreement(ours, theirs, mask)["agreement/x"] == 0.5
    assert agreement(ours, {**theirs, "end_logits": end}, mask)["agreement/x"] == 1


def test_scores_agree_by_their_squared_correlation_and_several_labels_one_by_one():
    ours, theirs = torch.tensor([[0.0], [1], [2], [4]]), torch.tensor([[5.0], [3], [4], [0]])
    expected = np.corrcoef(ours[:, 0], theirs[:, 0])[0, 1] ** 2
    assert agreement({"logits": ours}, {"logits": theirs})["agreement/x"] == pytest.approx(expected)
    ours, theirs = torch.tensor([[1.0, -1], [1, 1]]), torch.tensor([[2.0, 1], [1, 3]])
    found = agreement({"logits": ours}, {"logits": theirs}, problem_type="multi_label_classification")
    assert found["agreement/x"] == 0.75


def test_without_outputs_or_layers_to_compare_agreement_is_refused(build):
    with pytest.raises(ValueError, match=r"`--eval_agreement` compares.*\['attention'\] see none"):
        build(objectives=["attention"], eval_agreement=True)
    with pytest.raises(ValueError, match="`--eval_agreement` need a distillation"):
        build(teacher=None, objectives=[], eval_agreement=True)


# --- the score of a task --------------------------------------------------------------------------------------------


def test_the_head_of_the_student_is_scored_as_by_an_evaluation_of_its_own(build, mood, tiny_tokenizer):
    trainer = build(trainer={"eval_task": mood}, per_device_eval_batch_size=5)
    metrics = trainer.evaluate()
    expected = evaluate_model(trainer.student, mood, tiny_tokenizer, trainer.args, max_length=24)["validation"]
    assert metrics["eval_task/accuracy"] == pytest.approx(expected["accuracy"])
    assert metrics["eval_task/f1_macro"] == pytest.approx(expected["f1_macro"])
    assert not [name for name in metrics if "probe" in name]


def test_the_rows_that_checkpoints_are_chosen_by_are_scored(build, mood):
    rows = mood.split("validation")
    spec = dataclasses.replace(mood.spec, evaluation_splits=("test", "validation"))
    parts = datasets.DatasetDict(train=mood.train, test=rows.select(range(4)), validation=rows)
    trainer = build(trainer={"eval_task": LoadedTask(spec, parts, "memory")})
    plain = build(trainer={"eval_task": mood})
    assert trainer.evaluation.task.rows["text"] == rows["text"]
    assert trainer.evaluate()["eval_task/accuracy"] == plain.evaluate()["eval_task/accuracy"]


def test_a_file_whose_columns_cannot_be_guessed_is_to_be_loaded_before(build, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n" + "one text,another text\n" * 20, encoding="utf-8")
    with pytest.raises(ValueError, match=r"`--eval_task` '.*rows.csv' has .* In Python: `eval_task=load_task\("):
        build(eval_task=str(tmp_path / "rows.csv")).evaluate()


def test_files_that_are_not_there_are_asked_for_by_the_flag_of_this_task(build, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`--eval_task_dir` '.*nowhere' is not a folder"):
        build(eval_task="glue/sst2", eval_task_dir=str(tmp_path / "nowhere"))


def test_labels_in_another_order_are_matched_by_name(build, mood, tiny_teacher, tiny_student):
    turned = copy.deepcopy(tiny_student)
    for model in (turned, tiny_teacher):
        model.config.id2label, model.config.label2id = {0: "positive", 1: "negative"}, {"positive": 0, "negative": 1}
    plain = build(trainer={"eval_task": mood}, teacher=tiny_teacher, student=tiny_student).evaluate()
    other = build(trainer={"eval_task": mood}, teacher=tiny_teacher, student=turned).evaluate()
    assert other["eval_task/accuracy"] == pytest.approx(1 - plain["eval_task/accuracy"])


def test_the_curve_of_the_score_is_logged_during_the_training(build, mood):
    trainer = trained(build(trainer={"eval_task": mood}, eval_strategy="steps", eval_steps=2, eval_on_start=True))
    points = {entry["step"]: entry for entry in trainer.state.log_history if "eval_loss" in entry}
    assert list(points) == [0, 2, 4]
    assert all(0 <= entry["eval_task/accuracy"] <= 1 for entry in points.values())


def test_a_head_that_nothing_trains_is_not_scored_but_a_probe_is(build, mood, caplog):
    trainer = build(objectives=["relation"], trainer={"eval_task": mood})
    assert "no objective of ['relation'] trains the student's head" in caplog.text
    assert "linear probe on layer 1" in caplog.text
    metrics = trainer.evaluate()
    assert metrics["eval_probe/accuracy"] > 0.8
    assert not [name for name in metrics if name.startswith("eval_task/")]


def test_a_probe_is_scored_on_rows_that_it_was_not_fitted_on(build, mood, caplog):
    # As many rows as units: a probe tells all that it has seen.
    rows = mood.train.select(range(20))
    labels = np.random.default_rng(0).permutation(20) % 2
    rows = rows.remove_columns("label").add_column("label", labels, feature=rows.features["label"])
    for split in ("validation", "train"):
        spec = dataclasses.replace(mood.spec, evaluation_splits=(split,))
        task = LoadedTask(spec, datasets.DatasetDict({split: rows}), "one file")
        trainer = build(objectives=["relation"], trainer={"eval_task": task})
        probe = trainer.evaluation.task
        texts = [set(probe.task.dataset[name]["text"]) for name in ("train", "validation")]
        assert (len(texts[0] | texts[1]), texts[0] & texts[1]) == (len(set(rows["text"])), set())
        assert "eval_probe/accuracy" in trainer.evaluate()
        assert "It is fitted on 80% of the rows and scored on the others." in caplog.text


def test_a_student_without_a_head_and_one_with_other_labels_are_probed(build, mood, tiny_bert_config, caplog):
    base = BertModel(tiny_bert_config(hidden_size=12, num_hidden_layers=2), add_pooling_layer=False)
    assert (
        "eval_probe/accuracy" in build(student=base, objectives=["relation"], trainer={"eval_task": mood}).evaluate()
    )
    labels = {"id2label": {0: "a", 1: "b", 2: "c"}, "num_labels": 3}
    other = [BertForSequenceClassification(tiny_bert_config(**labels, hidden_size=size)) for size in (24, 12)]
    metrics = build(teacher=other[0], student=other[1], trainer={"eval_task": mood}).evaluate()
    assert "eval_probe/f1_macro" in metrics
    assert "the student's head has other labels" in caplog.text


def test_a_probe_is_ridge_regression_on_standardised_features():
    generator = np.random.default_rng(0)
    known, targets = generator.normal(size=(30, 4)) * [1, 10, 0.1, 0] + 5, generator.normal(size=(30, 2))
    spread = known.std(0)
    spread[3] = 1
    scaled = (known - known.mean(0)) / spread
    centred = targets - targets.mean(0)
    # The normal equations, written as least squares with rows for the penalty.
    padded = np.vstack([scaled, np.sqrt(3.0) * np.eye(4)])
    weights = np.linalg.lstsq(padded, np.vstack([centred, np.zeros((4, 2))]), rcond=None)[0]
    np.testing.assert_allclose(ridge(known, targets, known), scaled @ weights + targets.mean(0), rtol=1e-9)


def test_without_held_out_rows_the_text_of_the_task_takes_their_place(build, mood):
    trainer = build(eval_dataset=None, trainer={"eval_task": mood}, eval_agreement=True, eval_task_samples=10)
    metrics = trainer.evaluate()
    assert len(trainer.eval_dataset) == 10
    assert {"eval_loss/logits/soft", "eval_agreement", "eval_task/accuracy"} <= metrics.keys()


def test_of_several_held_out_sets_the_first_comes_with_the_score(build, mood, rows):
    sets = {"one": rows.select(range(8)), "two": rows.select(range(8, 20))}
    metrics = build(eval_dataset=sets, trainer={"eval_task": mood}, eval_agreement=True).evaluate()
    assert {"eval_one_task/accuracy", "eval_one_agreement", "eval_two_agreement"} <= metrics.keys()
    assert "eval_two_task/accuracy" not in metrics


@pytest.mark.parametrize("objectives", [["logits"], ["relation"]])
def test_watching_a_run_does_not_change_it(build, mood, dropping_student, objectives):
    run = {"student": dropping_student, "objectives": objectives}
    watching = {"trainer": {"eval_task": mood}, "eval_agreement": True, "eval_strategy": "steps", "eval_steps": 1}
    plain = trained(build(**run))
    watched = trained(build(**run, **watching))
    assert logged(watched, "loss") == logged(plain, "loss")
    assert_same_weights(plain.student, watched.student)


# --- schedules, bars, the best and the end --------------------------------------------------------------------------


def test_what_moves_is_in_the_logs_and_what_does_not_is_not(build):
    falling = {"objective": "relation", "weight": 2, "schedule": "linear_decay"}
    trainer = trained(build(objectives=[falling, MOVING, "annealed"], temperature=5.0))
    assert logged(trainer, "weight/relation") == pytest.approx([2, 1.5, 1, 0.5])
    assert logged(trainer, "temperature/logits") == pytest.approx([5, 4, 3, 2])
    assert logged(trainer, "gold_share/annealed") == pytest.approx([0, 0.25, 0.5, 0.75])
    still = trained(build(objectives=["relation", {"objective": "logits", "temperature_schedule": "flsw"}]))
    assert not [key for entry in still.state.log_history for key in entry if key.startswith(("weight/", "temper"))]


def test_the_progress_bar_ends_with_the_terms(build, mood, capsys):
    trainer = build(
        objectives=["relation", "logits"],
        disable_tqdm=False,
        eval_strategy="steps",
        eval_steps=2,
        trainer={"eval_task": mood},
    )
    bars = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, ProgressCallback)]
    assert [type(bar) for bar in bars] == [TermsInProgressBar]
    trainer.train()
    shown = capsys.readouterr()
    entry = trainer.state.log_history[0]
    assert terms_of(entry) in shown.err + shown.out
    assert terms_of(entry).startswith(f"loss {entry['loss']:.3g}, logits/soft {entry['loss/logits/soft']:.3g}")


def test_the_best_checkpoint_may_be_that_of_the_largest_agreement(build):
    trainer = build(
        eval_agreement=True,
        max_steps=6,
        learning_rate=5e-2,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="agreement",
    )
    trainer.train()
    curve = logged(trainer, "eval_agreement")
    assert len(set(curve)) > 1
    assert trainer.state.best_metric == max(curve)
    assert trainer.evaluate()["eval_agreement"] == max(curve)


def test_the_headline_is_the_main_score_of_the_task(build, mood):
    arguments = {"metric_for_best_model": "headline", "eval_strategy": "steps", "eval_steps": 1}
    head = build(**arguments, trainer={"eval_task": mood})
    assert head.args.metric_for_best_model == "task/accuracy"
    head.train()
    assert head.state.best_metric == max(logged(head, "eval_task/accuracy"))
    probe = build(**arguments, objectives=["relation"], trainer={"eval_task": mood})
    assert (probe.args.metric_for_best_model, probe.args.greater_is_better) == ("probe/accuracy", True)


def test_a_run_that_no_longer_improves_ends_early(build):
    trainer = build(max_steps=50, learning_rate=0.0, eval_strategy="steps", eval_steps=2, early_stopping_patience=3)
    assert any(isinstance(callback, EarlyStoppingCallback) for callback in trainer.callback_handler.callbacks)
    trainer.train()
    assert trainer.state.global_step == 8, "one evaluation that counts and three that are no better"


def test_a_term_and_a_divergence_are_better_when_they_are_smaller(build):
    for metric in ("loss", "loss/relation/qq", "eval_loss/logits/soft", "kl/logits"):
        args = DistillationArguments("out", metric_for_best_model=metric, eval_agreement=True, use_cpu=True)
        assert args.greater_is_better is False, metric
    assert DistillationArguments("out", metric_for_best_model="task/f1", use_cpu=True).greater_is_better


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric_for_best_model": "agreement"}, "`--metric_for_best_model agreement` is measured with `--eval_agr"),
        ({"metric_for_best_model": "headline"}, "is the main score of a task: name it by `--eval_task`"),
        ({"early_stopping_patience": 2}, "`--early_stopping_patience` counts evaluations: give `--eval_strategy"),
        ({"early_stopping_patience": 0}, "`--early_stopping_patience` is 0; it must be at least 1"),
        ({"eval_task_samples": 0}, "`--eval_task_samples` is 0; it must be at least 1"),
        ({"eval_task": "no/task"}, "no/task"),
    ],
)
def test_what_cannot_be_watched_is_refused_with_the_flag_in_the_message(build, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(**arguments)


def test_words_without_a_trained_head_are_refused(build, sentences):
    words = word_rows(sentences[:1])
    task = LoadedTask(WORDS, datasets.DatasetDict({"train": words, "validation": words}), "memory")
    with pytest.raises(ValueError, match=r"needs the student's head.*no \.\.\.ForTokenClassification.*Add `logits`"):
        build(trainer={"eval_task": task})


def test_a_metric_that_no_evaluation_measures_is_named_with_those_that_there_are(build, rows):
    given = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best", "metric_for_best_model": "odd"}
    trainer = build(trainer={"eval_dataset": rows}, greater_is_better=True, **given)
    with pytest.raises(ValueError, match=r"`--metric_for_best_model odd` is not measured; there are .*loss/"):
        trainer.train()
