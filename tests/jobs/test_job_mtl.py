"""Many tasks, from flags to an encoder, heads and scores."""

import json

import pytest
from tiny_data import MOODS, QUIET, mood_rows, save_model, write_task
from transformers import AutoModel, AutoModelForSequenceClassification, BertForSequenceClassification, BertModel

from hf_distill.commands.mtl import run as fine_tune_on_tasks
from hf_distill.hub.disclosure import public
from hf_distill.hub.model_card import read_facts
from hf_distill.settings import MTLArguments, TasksArguments, TeacherArguments
from hf_distill.settings.parsing import parse
from hf_distill.tasks import load_task


@pytest.fixture
def data(tmp_path, sentences):
    """Two tasks of one's own, and SST-2 in miniature."""
    spec = MOODS | {"text_columns": ["sentence"]}
    for name, fields in (("sst2", {}), ("mood", spec), ("praise", spec)):
        write_task(tmp_path / name, mood_rows(sentences, column="sentence"), **fields)
    return tmp_path


def training(folder, **fields):
    given = {"learning_rate": 5e-3, "max_steps": 4, "logging_steps": 1, "per_device_train_batch_size": 8}
    return MTLArguments(str(folder), **QUIET | given | fields)


def test_an_encoder_heads_and_facts_are_written(data, encoder, tmp_path):
    tasks = TasksArguments(
        ["glue/sst2", str(data / "mood")], data_dir=str(data), max_length=16, max_train_samples=24,
        save_heads=["glue/sst2"],
    )  # fmt: skip
    out = tmp_path / "out"
    facts = fine_tune_on_tasks(tasks, TeacherArguments(teacher_model=encoder), training(out))
    assert public(facts) == json.loads((out / "results.json").read_text())
    assert facts["tasks"] == ["glue/sst2", "mood"]
    assert facts["train_rows"] == {"glue/sst2": 24, "mood": 24}
    assert facts["score"] == pytest.approx(sum(facts["headlines"].values()) / 2)
    assert type(AutoModel.from_pretrained(out)) is BertModel
    assert [path.name for path in (out / "tasks" / "glue").iterdir()] == ["sst2"]
    head = AutoModelForSequenceClassification.from_pretrained(out / "tasks" / "glue" / "sst2")
    assert head.config.id2label == {0: "negative", 1: "positive"}
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "Fine-tuned on many tasks at once: glue/sst2, mood; 4 updates of 32 rows" in card
    assert {score.task: score.student for score in read_facts(out).scores} == facts["headlines"]
    assert str(tmp_path) not in card
    of_head = read_facts(out / "tasks" / "glue" / "sst2")
    assert of_head.labels == ["negative", "positive"]
    assert {score.task for score in of_head.scores} == {"glue/sst2"}
    assert of_head.example.printed
    assert (of_head.task, of_head.language, of_head.text_pairs) == ("glue/sst2", ["en"], False)
    assert [(score.rows, score.complete, score.task_type) for score in of_head.scores] == [
        (len(rows), True, "text-classification") for rows in load_task("glue/sst2", data).evaluation.values()
    ]


def test_the_written_arguments_repeat_the_run(data, encoder, tmp_path):
    tasks = TasksArguments([str(data / "mood"), str(data / "praise")], max_length=16)
    facts = fine_tune_on_tasks(tasks, TeacherArguments(teacher_model=encoder), training(tmp_path / "one"))
    classes = (TasksArguments, TeacherArguments, MTLArguments)
    again = parse(classes, [str(tmp_path / "one" / "arguments.yaml"), "--output_dir", str(tmp_path / "two")], "")
    assert fine_tune_on_tasks(*again)["scores"] == facts["scores"]


def test_several_teachers_of_a_task_are_named_one_by_one(data, encoder, tmp_path, tiny_bert_config, tiny_tokenizer):
    for name in ("a", "b"):
        names = {0: "no", 1: "yes"}
        save_model(tmp_path / name, BertForSequenceClassification(tiny_bert_config(id2label=names)), tiny_tokenizer)
    mood = str(data / "mood")
    teachers = [f"{mood}={tmp_path / name}" for name in ("a", "b")]
    tasks = TasksArguments([mood, str(data / "praise")], max_length=16, task_teachers=teachers)
    facts = fine_tune_on_tasks(tasks, TeacherArguments(teacher_model=encoder), training(tmp_path / "out"))
    logged = set().union(*(entry for entry in facts["history"]))
    assert "loss/mood/soft" in logged
    assert "loss/praise/soft" not in logged
    assert [teacher.name for teacher in read_facts(tmp_path / "out").teacher] == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ["a", "a"]}, r"`--tasks` is \['a', 'a'\]; it must name every task once"),
        ({"tasks": ["a"], "task_teachers": ["b=c"]}, r"`--task_teachers` names 'b'; `--tasks` are \['a'\]"),
        ({"tasks": ["a"], "task_teachers": ["a"]}, "has 'a'; it must be TASK=MODEL"),
        ({"tasks": ["a"], "save_heads": ["b"]}, r"`--save_heads` names \['b'\]; allowed are all and \['a'\]"),
        ({"tasks": ["a"], "max_length": 0}, "`--max_length` is 0; it must be at least 1"),
    ],
)
def test_wrong_flags_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        TasksArguments(**fields)


def test_a_file_is_a_task_with_columns_that_flags_name(data, encoder, tmp_path, sentences):
    rows = "".join(f"{row['text']},{row['label']}\n" for row in mood_rows(sentences))
    (tmp_path / "reviews.csv").write_text(f"said,stars\n{rows}", encoding="utf-8")
    tasks = TasksArguments(
        [str(data / "mood"), str(tmp_path / "reviews.csv")], max_length=16, text_columns=["said"],
        label_column="stars", class_names=["bad", "good"],
    )  # fmt: skip
    fine_tune_on_tasks(tasks, TeacherArguments(teacher_model=encoder), training(tmp_path / "out"))
    facts = read_facts(tmp_path / "out")
    assert {score.task for score in facts.scores} == {"mood", "reviews"}


def test_a_model_must_be_given(data, tmp_path):
    with pytest.raises(ValueError, match="`--teacher_model` is missing"):
        fine_tune_on_tasks(TasksArguments([str(data / "mood")]), TeacherArguments(), training(tmp_path))
