"""Teach and adapt, from flags to folders and JSON, on files written here."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from tiny_data import mood_rows, save_model, write_rows, write_task
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    BertModel,
    set_seed,
)

from hf_distill.cli import main
from hf_distill.commands.adapt import run as adapt
from hf_distill.commands.evaluate import run as evaluate
from hf_distill.commands.results import environment, write_results
from hf_distill.commands.teach import run as teach
from hf_distill.hub.disclosure import public
from hf_distill.hub.model_card import CardFacts, ModelFacts, ObjectiveFacts, read_facts, write_model_card
from hf_distill.hub.selection import select_files
from hf_distill.reports.runs import read_run
from hf_distill.settings import (
    AdaptationArguments,
    EvaluationArguments,
    FineTuningArguments,
    TaskArguments,
    TeacherArguments,
)


def run_verb(verb, *words):
    """The results that a verb wrote to its `--output_dir`, the last of the words."""
    assert main([verb, *words]) == 0
    return json.loads(Path(words[-1], "results.json").read_text())


@pytest.fixture
def data(tmp_path, sentences):
    """SST-2 in miniature: "good" or "bad" at the beginning."""
    write_task(tmp_path / "data" / "sst2", mood_rows(sentences, column="sentence"), num_train=48)
    return tmp_path / "data"


@pytest.fixture
def encoder(tmp_path, tiny_bert_config, tiny_tokenizer):
    """A folder with a tiny model and its tokenizer."""
    set_seed(0)
    return save_model(tmp_path / "encoder", BertForSequenceClassification(tiny_bert_config()), tiny_tokenizer)


def training(folder, **fields):
    given = {
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "learning_rate": 5e-3, "num_train_epochs": 6,
        "per_device_train_batch_size": 8,
    }  # fmt: skip
    return FineTuningArguments(str(folder), **{**given, **fields})


def task(data, **fields):
    return TaskArguments("glue/sst2", data_dir=str(data), max_length=16, **fields)


def test_a_teacher_is_made_and_can_be_loaded(data, encoder, tmp_path):
    out = tmp_path / "teacher"
    results = teach(task(data), TeacherArguments(teacher_model=encoder), training(out))
    assert results["score"] == results["scores"]["validation"]["accuracy"] > 0.7
    assert (results["task"], results["metric"], results["train_rows"], results["seed"]) == (
        "glue/sst2", "accuracy", 48, 42,
    )  # fmt: skip
    assert results["settings"]["learning_rate"] == 5e-3
    assert results["settings"]["warmup_steps"] == 0.06
    assert "Contextualized Corpus" in results["settings_source"]
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(public(results)))
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.label2id == {"negative": 0, "positive": 1}
    assert len(AutoTokenizer.from_pretrained(out)) == model.config.vocab_size


def test_the_seed_decides_the_result(data, encoder, tmp_path):
    runs = []
    for index, seed in enumerate((1, 1, 2)):
        args = training(tmp_path / str(index), num_train_epochs=1, seed=seed, save_strategy="no")
        runs.append(teach(task(data, max_train_samples=16), TeacherArguments(teacher_model=encoder), args))
    losses = [run["train_loss"] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert runs[0]["train_rows"] == 16


def test_a_teacher_by_lora_is_a_plain_model(data, encoder, tmp_path):
    lora = TeacherArguments(teacher_model=encoder, lora_r=2, lora_target_modules=["query", "value"])
    results = teach(task(data), lora, training(tmp_path / "teacher", num_train_epochs=1))
    assert results["lora"] == {"r": 2, "alpha": 4.0}
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher")
    assert plain.num_parameters() == results["parameters"]


def test_a_teacher_must_be_named(data, tmp_path):
    with pytest.raises(ValueError, match="`--teacher_model` is missing"):
        teach(task(data), TeacherArguments(), training(tmp_path))


def check_card(folder, results, machine):
    """The card of an adapted student has its labels, its scores beside the others', and nothing of the machine."""
    card, facts = (folder / "README.md").read_text(encoding="utf-8"), read_facts(folder)
    assert machine not in card + (folder / "distillation.json").read_text(encoding="utf-8")
    assert "A small BertForSequenceClassification fine-tuned on glue/sst2 with `hf_distill`." in card
    assert "It answers with 2 labels: `negative`, `positive`." in card
    assert (facts.task, facts.labels, facts.language) == ("glue/sst2", ["negative", "positive"], ["en"])
    assert facts.initialisation == "the weights of encoder"
    accuracy, f1 = facts.scores
    assert (accuracy.metric, f1.metric, accuracy.rows) == ("accuracy", "f1", 16)
    for role in ("student", "teacher", "baseline"):
        assert getattr(accuracy, role) == results[role]["score"]
        assert getattr(f1, role) == results[role]["scores"]["validation"]["f1"]
    assert "Fine-tuned on 48 labelled rows of glue/sst2: 36 updates of 8 rows, learning rate 0.005, seed 42." in card
    assert "hf-distill adapt --task glue/sst2" in card
    data = ModelCard(card).data
    assert data.pipeline_tag == "text-classification"
    assert [result.metric_value for result in data.eval_results] == [accuracy.student, f1.student]
    assert "knowledge-distillation" not in data.tags
    pushed = {file.path for file in select_files(folder).files}
    assert {"README.md", "distillation.json", "results.json", "model.safetensors"} <= pushed
    assert not any(path.startswith("baseline") for path in pushed)


def test_the_card_of_a_distilled_student_goes_on_with_what_came_after(data, encoder, tmp_path):
    distilled = tmp_path / "distilled"
    BertForSequenceClassification.from_pretrained(encoder).save_pretrained(distilled)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(distilled)
    write_model_card(
        distilled,
        CardFacts(
            "distilled", [ModelFacts("big", hub_id="someone/big")], ModelFacts("distilled"), updates=7,
            objectives=[ObjectiveFacts("relation")], citations=["minilmv2"], speed={"speed": 3.0}, seconds=1.0,
            commands=["hf-distill distill"], licence="mit",
        ),
    )  # fmt: skip
    out = tmp_path / "adapted"
    part = task(data, max_eval_samples=8)
    adapt(part, AdaptationArguments(str(distilled)), training(out, max_steps=1))
    facts = read_facts(out)
    assert (facts.model_name, facts.student.name, facts.updates, facts.licence) == ("adapted", "adapted", 7, "mit")
    assert [teacher.hub_id for teacher in facts.teacher] == ["someone/big"]
    assert [objective.name for objective in facts.objectives] == ["relation"]
    assert [command.split()[1] for command in facts.commands] == ["distill", "adapt"]
    assert (facts.speed, facts.seconds) == ({}, None), "measured with another head"
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| glue/sst2 | validation (partial) | accuracy |" in card
    big = "[big](https://huggingface.co/someone/big)"
    assert f"distilled from {big} with `hf_distill`, then fine-tuned on glue/sst2." in card
    assert f"```text\n{facts.example.printed}\n```" in card
    assert "It answers with one of its 2 labels" in facts.limits[-2]
    assert "After the distillation: fine-tuned on 48 labelled rows of glue/sst2" in card


def test_a_student_is_adapted_and_stands_beside_teacher_and_baseline(data, encoder, tmp_path):
    taught = teach(task(data), TeacherArguments(teacher_model=encoder), training(tmp_path / "teacher"))
    out = tmp_path / "student"
    results = adapt(
        task(data),
        AdaptationArguments(student_model=encoder, from_scratch=True),
        training(out),
        TeacherArguments(teacher_model=str(tmp_path / "teacher")),
    )
    assert results["teacher"]["score"] == pytest.approx(taught["score"])
    assert results["student"]["score"] == pytest.approx(taught["score"]), "same model, same seed, same training"
    assert results["retention"] == pytest.approx(1.0)
    assert results["gain"] == results["student"]["score"] - results["baseline"]["score"]
    assert results["baseline"]["settings"] == results["student"]["settings"]
    assert results["baseline"]["parameters"] == results["student"]["parameters"]
    assert json.loads((out / "results.json").read_text())["split"] == "validation"
    check_card(out, results, str(tmp_path))
    for folder in (out, out / "baseline"):
        assert AutoModelForSequenceClassification.from_pretrained(folder).config.id2label[1] == "positive"
    facts, card = read_facts(out / "baseline"), (out / "baseline" / "README.md").read_text(encoding="utf-8")
    assert (facts.model_name, facts.initialisation, facts.teacher) == ("student-baseline", "random weights", [])
    assert {(score.student, score.teacher, score.baseline) for score in facts.scores} == {
        (results["baseline"]["scores"][score.split][score.metric], None, None) for score in facts.scores
    }
    assert facts.example.printed in card
    assert str(tmp_path) not in card


def test_a_student_can_be_scored_as_it_is_beside_its_baseline(data, encoder, tmp_path):
    made = teach(task(data), TeacherArguments(teacher_model=encoder), training(tmp_path / "made"))
    given = AdaptationArguments(student_model=str(tmp_path / "made"), from_scratch=True)
    results = adapt(task(data), given, training(tmp_path / "scores", max_steps=1), way="keep")
    assert results["student"]["score"] == pytest.approx(made["score"])
    assert results["baseline"]["steps"] == 1
    assert not (tmp_path / "scores" / "model.safetensors").exists()


@pytest.mark.parametrize(("rate", "kept"), [(1.0, "distilled"), (5e-3, "adapted")])
def test_of_a_student_before_and_after_its_adaptation_the_better_one_is_kept(data, encoder, tmp_path, rate, kept):
    source = encoder
    if kept == "distilled":
        source = str(tmp_path / "made")
        teach(task(data), TeacherArguments(teacher_model=encoder), training(source))
    out, given = tmp_path / "student", AdaptationArguments(student_model=source)
    results = adapt(task(data), given, training(out, learning_rate=rate), way="better")
    choice, score = results["student"]["choice"], results["student"]["score"]
    assert (choice["kept"], choice["split"]) == (kept, "validation")
    assert score == choice["before" if kept == "distilled" else "after"] == max(choice["before"], choice["after"])
    models = [AutoModelForSequenceClassification.from_pretrained(folder) for folder in (source, out)]
    assert all(map(torch.equal, *(model.parameters() for model in models))) == (kept == "distilled")
    assert models[1].config.id2label == {0: "negative", 1: "positive"}
    assert (read_facts(out).adaptation is None) == (kept == "distilled")


def test_the_student_before_its_adaptation_is_not_that_of_a_checkpoint(data, encoder, tmp_path):
    out, given = tmp_path / "student", AdaptationArguments(student_model=encoder)
    settings = {"learning_rate": 5e-3, "save_strategy": "steps", "save_steps": 1, "resume_from_checkpoint": "last"}
    first, again = (adapt(task(data), given, training(out, **settings), way="better") for _ in range(2))
    assert first["student"]["choice"]["after"] > first["student"]["choice"]["before"]
    assert again["student"]["choice"] == first["student"]["choice"]


def test_a_model_is_scored_on_evaluation_rows_alone(data, encoder, tmp_path):
    made = teach(task(data), TeacherArguments(teacher_model=encoder), training(tmp_path / "made"))
    (data / "sst2" / "train.jsonl").unlink()
    out = tmp_path / "scores"
    results = evaluate(task(data), EvaluationArguments(str(tmp_path / "made"), use_cpu=True, output_dir=str(out)))
    assert results["scores"]["validation"]["accuracy"] == results["score"] == pytest.approx(made["score"])
    assert (results["constant"], results["parameters"]) == (None, made["parameters"])
    assert results["majority"]["score"] == made["majority"]["score"]
    assert json.loads((out / "results.json").read_text())["job"] == "evaluate"
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {"results.json", "arguments.yaml"}
    assert [item["role"] for item in read_run(out, "scores").scores] == ["model", "majority"]


def test_a_model_without_the_tasks_head_is_not_scored(data, encoder, tmp_path, tiny_bert_config):
    BertModel(tiny_bert_config()).save_pretrained(tmp_path / "bare")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "bare")
    given = EvaluationArguments(str(tmp_path / "bare"), use_cpu=True, output_dir=str(tmp_path / "scores"))
    with pytest.raises(ValueError, match=r"`--model`.*classifier"):
        evaluate(task(data), given)


def test_the_verbs_take_flags_and_the_file_that_a_run_wrote(data, encoder, tmp_path, capsys):
    common = ["--task", "sst2", "--data_dir", str(data), "--max_length", "16", "--use_cpu", "--disable_tqdm", "true"]
    quick = ["--max_steps", "3", "--save_strategy", "no"]
    first = run_verb("teach", *common, *quick, "--teacher_model", encoder, "--output_dir", str(tmp_path / "teacher"))
    assert "teacher in" in capsys.readouterr().out
    again = run_verb("teach", str(tmp_path / "teacher" / "arguments.yaml"), "--output_dir", str(tmp_path / "again"))
    assert again["scores"] == first["scores"]
    assert again["settings"] == first["settings"]
    words = [*common, *quick, "--student_model", encoder, "--teacher_model", str(tmp_path / "teacher")]
    results = run_verb("adapt", *words, "--from_scratch", "--output_dir", str(tmp_path / "student"))
    said = capsys.readouterr().out
    for name in ("teacher", "student", "baseline"):
        assert f"{name}: accuracy {results[name]['score']:.4f}" in said


def test_a_folder_of_ones_own_works_from_flags(tmp_path, encoder, sentences):
    folder = tmp_path / "mine"
    rows = [{"text": t, "kind": ("long", "short")[len(t) < 30]} for t in sentences]
    for stem in ("train", "dev"):
        write_rows(folder / f"{stem}.jsonl", rows)
    words = ["--task", str(folder), "--text_columns", "text", "--label_column", "kind", "--metrics", "f1", "accuracy"]
    words += ["--class_names", "short", "long", "--max_length", "16", "--max_steps", "2", "--use_cpu"]
    words += ["--disable_tqdm", "true", "--teacher_model", encoder]
    results = run_verb("teach", *words, "--output_dir", str(tmp_path / "out"))
    assert (results["task"], results["metric"]) == ("mine", "f1")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config.id2label == {
        0: "short",
        1: "long",
    }


def test_numbers_of_arguments_are_checked():
    with pytest.raises(ValueError, match="`--max_train_samples` is 0"):
        TaskArguments("sst2", max_train_samples=0)


def test_results_are_json_even_with_numbers_that_are_not(tmp_path):
    path = write_results(tmp_path / "new", {"score": float("nan"), "list": [float("inf"), 1.5], "path": tmp_path})
    assert json.loads(path.read_text()) == {"score": None, "list": [None, 1.5], "path": tmp_path.name}
    assert environment()["transformers"]
    assert yaml.safe_load(json.dumps(environment())) == environment()
