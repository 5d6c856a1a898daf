"""Several labels a row: columns, scores, thresholds, and trainings from end to end."""

import dataclasses

import datasets
import numpy as np
import pytest
import torch
from sklearn import metrics
from tiny_data import write_rows
from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    FineTuningArguments,
    create_student,
    finetune,
    load_task,
)
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.metrics.compute import compute_scores
from hf_distill.tasks.several_labels import best_thresholds
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning.task_models import load_task_model

WORDS = ("cat", "dog", "river")


def write(folder, labels, texts=None):
    texts = texts or [f"the {i}" for i in range(len(labels))]
    for split in ("train", "validation"):
        write_rows(folder / f"{split}.jsonl", [{"text": t, "label": c} for t, c in zip(texts, labels, strict=True)])
    return str(folder)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([["x", "y"], ["x"], []], ("x", "y")),
        ([[0, 1], [0], []], ("0", "1")),
        ([[1, 1, 0], [1, 0, 0], [0, 0, 0]], ("0", "1", "2")),
        ([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], ("0", "1")),
    ],
)
def test_lists_of_labels_say_that_a_row_has_several(labels, names, tmp_path):
    task = load_task(write(tmp_path / "t", labels), text_columns=["text"])
    assert (task.spec.label_names, task.spec.problem_type) == (names, "multi_label_classification")
    assert [row[:2] for row in task.train["label"]] == [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    assert task.spec.headline == "f1_micro"


@pytest.mark.parametrize(
    ("train", "others", "expected"),
    [
        # Numbers of labels in training: in the small split `[0, 1]` is both of them, not the second alone.
        ([[0, 1], [0], [1]], [[0, 1], [0, 1]], [[1.0, 1.0], [1.0, 1.0]]),
        ([[1, 0], [1, 1], [0, 0]], [[0, 1], [0, 1]], [[0.0, 1.0], [0.0, 1.0]]),
        # Hidden in all places, or empty: no label is known.
        ([[1, 0], [1, 1], [0, 0]], [[0, 1], [-1, -1]], [[0.0, 1.0], [-1.0, -1.0]]),
        ([[1, 0], [1, 1], [0, 0]], [[0, 1], []], [[0.0, 1.0], [-1.0, -1.0]]),
    ],
)
def test_the_training_split_says_what_numbers_mean_in_all_splits(train, others, expected, tmp_path):
    for split, labels in (("train", train), ("validation", others)):
        write_rows(tmp_path / f"{split}.jsonl", [{"text": f"the {i}", "label": c} for i, c in enumerate(labels)])
    task = load_task(str(tmp_path), text_columns=["text"])
    assert task.dataset["validation"]["label"][:] == expected


@pytest.mark.parametrize(
    ("train", "others", "error"),
    [
        ([[1, 0], [1, 1], [0, 0]], [[0, 1], [1]], r"holds \[1\], but the task's rows hold 0 or 1 for each"),
        ([[0, 1], [0], [1]], [[0, 1], [1, 1]], r"holds \[1, 1\], which is 0 or 1 for each label, but"),
    ],
)
def test_splits_that_write_labels_in_two_ways_are_refused(train, others, error, tmp_path):
    for split, labels in (("train", train), ("validation", others)):
        write_rows(tmp_path / f"{split}.jsonl", [{"text": f"the {i}", "label": c} for i, c in enumerate(labels)])
    with pytest.raises(ValueError, match=error):
        load_task(str(tmp_path), text_columns=["text"])


def test_a_separated_column_of_a_csv(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("text,label\nthe 0,sad;good\nthe 1,sad\nthe 2,good\n")
    folder = str(tmp_path)
    task = load_task(folder, text_columns=["text"], label_separator=";")
    assert task.spec.label_names == ("good", "sad")
    assert task.train["label"][:] == [[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    with pytest.raises(ValueError, match=r"looks like several labels of one row. Say so with `--label_separator ';'`"):
        load_task(folder, text_columns=["text"])
    with pytest.raises(ValueError, match=r"holds the labels \[\"'sad'\"\]"):
        load_task(folder, text_columns=["text"], label_separator=";", label_names=["good", "bad"])


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 4)), rng.integers(0, 2, (40, 4)).astype(float)
    labels[0], labels[1] = 0, 1
    logits[:, 3] = -1
    spec = TaskSpec(
        "t", ("text",), tuple("abcd"), several_labels=True,
        metrics=("f1_micro", "f1_macro", "ranking_average_precision", "exact_match"),
    )  # fmt: skip
    hidden = np.vstack([labels, np.full((1, 4), -1.0)])
    found = compute_scores(spec, np.vstack([logits, logits[:1]]), hidden)
    given = (logits > 0).astype(int)
    assert found == pytest.approx(
        {
            "f1_micro": metrics.f1_score(labels, given, average="micro"),
            "f1_macro": metrics.f1_score(labels, given, average="macro", zero_division=0),
            "ranking_average_precision": metrics.label_ranking_average_precision_score(labels, logits),
            "exact_match": metrics.accuracy_score(labels, given),
        }
    )


def test_thresholds_are_the_best_that_there_are():
    rng = np.random.default_rng(1)
    probabilities = rng.random((30, 3)).round(1)
    labels = (rng.random((30, 3)) < probabilities).astype(float)
    labels[:, 2] = 0
    found = best_thresholds(probabilities, labels)
    assert found[2] == 0.5
    for place in range(2):
        reached = metrics.f1_score(labels[:, place], probabilities[:, place] > found[place])
        best = max(metrics.f1_score(labels[:, place], probabilities[:, place] >= t) for t in np.arange(0, 1.05, 0.05))
        assert reached == pytest.approx(best)


@pytest.fixture
def task(tmp_path, sentences):
    """A row has the labels of the words in it."""
    texts = [f"{text} {WORDS[i % 3]}" if i % 4 else text for i, text in enumerate(sentences)]
    labels = [[word for word in WORDS if word in text.split()] for text in texts]
    return write(tmp_path / "task", labels, texts)


def test_thresholds_are_those_of_the_rows_that_choose(task, tiny_tokenizer, tiny_bert_config, tmp_path):
    loaded = load_task(task, text_columns=["text"])
    spec = dataclasses.replace(loaded.spec, evaluation_splits=("test", "validation"))
    rows = {"test": loaded.split("validation").select(range(6)), "validation": loaded.split("validation")}
    args = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "max_steps": 1}
    found = []
    for splits in (("test", "validation"), ("validation",)):
        set_seed(0)
        model = AutoModelForSequenceClassification.from_config(tiny_bert_config(num_labels=3))
        parts = datasets.DatasetDict(train=loaded.train, **{name: rows[name] for name in splits})
        part = LoadedTask(dataclasses.replace(spec, evaluation_splits=splits), parts, "here")
        finetune(model, part, tiny_tokenizer, FineTuningArguments(str(tmp_path / "out"), **args), max_length=32)
        found.append(model.config.label_thresholds)
    assert found[0] == found[1]


@pytest.mark.slow
def test_from_rows_to_a_student_that_is_scored(task, tiny_tokenizer, tiny_bert_config, tmp_path, sentences):
    loaded = load_task(task, text_columns=["text"])
    encoder = tmp_path / "encoder"
    AutoModelForSequenceClassification.from_config(tiny_bert_config(num_labels=2)).save_pretrained(encoder)
    teacher = load_task_model(str(encoder), loaded.spec, flag="--teacher_model")
    args = FineTuningArguments(
        str(tmp_path / "teacher"), num_train_epochs=25, learning_rate=5e-3, use_cpu=True, report_to="none",
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    result = finetune(teacher, loaded, tiny_tokenizer, args, max_length=32)
    assert result.metric == "f1_micro"
    assert result.score > 0.6
    config = AutoConfig.from_pretrained(tmp_path / "teacher")
    assert config.problem_type == "multi_label_classification"
    assert len(config.label_thresholds) == 3
    trainer = DistillationTrainer(
        create_student(str(tmp_path / "teacher"), "2x12:4h"),
        DistillationArguments(
            str(tmp_path / "student"), objectives=["logits", "labels"], max_steps=2, use_cpu=True, report_to="none",
            save_strategy="no", disable_tqdm=True, max_length=32,
        ),
        teacher_model=str(tmp_path / "teacher"),
        train_dataset=loaded.train.rename_column("label", "labels"),
        processing_class=tiny_tokenizer, eval_task=loaded,
    )  # fmt: skip
    trainer.train()
    found = trainer.evaluate()
    assert 0 <= found["eval_task/ranking_average_precision"] <= 1
    assert trainer.student.config.problem_type == "multi_label_classification"


def test_the_loss_is_a_mean_over_all_yes_or_no_questions(task, tiny_bert_config):
    from hf_distill.trainers.fine_tuning.heads import head_of

    spec = load_task(task, text_columns=["text"]).spec
    logits = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0, 1.0], [-1.0, -1.0, -1.0]])
    total, count = head_of(spec).loss({"logits": logits}, labels, 0.0)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:1], labels[:1])
    torch.testing.assert_close(total / count, expected)


def test_every_label_may_have_a_temperature_of_its_own():
    from hf_distill.capture.signals import Signals
    from hf_distill.objectives import LogitsObjective

    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    sides = [Signals(torch.ones(4, 2), {"logits": logits}) for logits in (student, teacher)]
    temperatures = [1.0, 2.0, 4.0]
    objective = LogitsObjective(problem_type="multi_label_classification", label_temperatures=temperatures)
    objective.check(*sides)
    expected = 0.0
    for place, t in enumerate(temperatures):
        p, q = torch.sigmoid(teacher[:, place] / t), torch.sigmoid(student[:, place] / t)
        expected = expected - t**2 * (p * q.log() + (1 - p) * (1 - q).log()).mean() / 3
    torch.testing.assert_close(objective(*sides)["soft"], expected)
    with pytest.raises(ValueError, match="3 numbers, but the heads have"):
        objective.check(*(Signals(torch.ones(4, 2), {"logits": torch.randn(4, 2)}) for _ in range(2)))
    with pytest.raises(ValueError, match="several labels a row"):
        LogitsObjective(label_temperatures=[1.0])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_one_file_with_several_labels_is_a_task(kind, tmp_path):
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        path.write_text("text,label\n" + "".join(f"row {i},{['x;y', 'x', 'y', ''][i % 4]}\n" for i in range(40)))
        task = load_task(str(path), label_separator=";")
    else:
        labels = [["x", "y"], ["x"], ["y"], []]
        write_rows(path, [{"text": f"row {i}", "label": labels[i % 4]} for i in range(40)])
        task = load_task(str(path))
    assert task.spec.problem_type == "multi_label_classification"
    assert len(task.train) + len(task.split("validation")) == 40
    known = {f"row {i}": [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]][i % 4] for i in range(40)}
    assert all(row["label"] == known[row["text"]] for row in task.train)
