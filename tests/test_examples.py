"""The scripts in `examples/` are a page each, use the public names, and run on tiny data; configurations parse."""

import ast
import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from tiny_data import mood_rows, save_model, write_rows, write_task
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    set_seed,
)

from hf_distill import EncoderForGeneration, StoredTeacher
from hf_distill.corpus.build.loading import load_general_corpus
from hf_distill.settings import DistillationArguments, FineTuningArguments
from hf_distill.settings.parsing import from_mapping, read_config

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted([*EXAMPLES.glob("run_*.py"), EXAMPLES / "build_corpus.py"])
STAGES = {"teach": FineTuningArguments, "distill": DistillationArguments, "adapt": FineTuningArguments}
QUICK = "--use_cpu --disable_tqdm true --report_to none --max_steps 2 --save_strategy no".split()

each_script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)


def load(path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their types up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(data, monkeypatch):
    """`run(name, *words)`: what the script returns, run in the folder of the data."""
    monkeypatch.chdir(data)
    return lambda name, *words: load(EXAMPLES / f"{name}.py").main([str(word) for word in words])


@pytest.fixture
def data(tmp_path, tiny_teacher, tiny_tokenizer, tiny_bert_config, sentences):
    """`mood/` (a task), `general.txt`, `encoder/` and `teacher/` in one folder."""
    rows = mood_rows(sentences)
    spec = {"text_columns": ["text"], "label_names": ["negative", "positive"], "metrics": ["accuracy"]}
    write_task(tmp_path / "mood", rows[:52], **spec, test_splits=["test"])
    write_rows(tmp_path / "mood" / "test.jsonl", rows[52:])
    general = [f"{first} and {second}" for first, second in zip(sentences, reversed(sentences), strict=True)]
    (tmp_path / "general.txt").write_text("\n".join(general))
    set_seed(0)
    for name, model in (("encoder", BertModel(tiny_bert_config())), ("teacher", tiny_teacher)):
        save_model(tmp_path / name, model, tiny_tokenizer)
    return tmp_path


@each_script
def test_a_script_is_a_page_that_begins_with_how_to_call_it(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    module = load(path)
    assert f"python examples/{path.name} " in module.__doc__
    assert module.main.__doc__
    assert "HfArgumentParser(" in text


@each_script
def test_a_script_shows_the_library_and_wraps_no_verb(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name.startswith("hf_distill")} <= {"hf_distill", "hf_distill.tasks"}


def test_the_readme_is_what_scripts_and_notebooks_say():
    module = load(ROOT / "docs" / "examples_page.py")
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert page == module.render(), "write it anew: python docs/examples_page.py"
    for path in SCRIPTS:
        assert module.command(path).startswith(f"python examples/{path.name} ")


@each_script
def test_help_shows_the_flags(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {path.name} ")
    assert "--output_dir" in shown or "--corpus_dir" in shown


def test_a_corpus_is_built(data, run, capsys):
    words = ["--task", "mood", "--corpus", "general.txt", "--engine", "bm25s", "--top_k", "2"]
    statistics = run("build_corpus", *words, "--corpus_dir", "corpus")
    corpus = load_general_corpus(data / "corpus" / "train.parquet")
    assert 0 < len(corpus) <= 64
    assert set(corpus.column_names) == {"text", "rank", "score", "anchors", "source"}
    assert json.loads((data / "corpus" / "statistics.json").read_text()) == json.loads(json.dumps(statistics))
    assert f"{len(corpus)} rows for 40 anchors of mood" in capsys.readouterr().out


def test_a_student_is_distilled(data, run):
    words = ["--teacher_model", "teacher", "--model_class", "AutoModelForSequenceClassification"]
    words += ["--student_shape", "2x12:2h:20", "--objectives", "relation:1", "logits:1", "--validation_rows", "8"]
    metrics = run("run_distillation", *words, "--train_file", "general.txt", *QUICK, "--output_dir", "student")
    assert {"train_loss", "eval_loss", "eval_loss/logits/soft"} <= set(metrics)
    model = AutoModelForSequenceClassification.from_pretrained(data / "student")
    assert (type(model), model.config.hidden_size) == (BertForSequenceClassification, 12)
    assert "relation" in (data / "student" / "README.md").read_text()


def test_a_student_is_distilled_from_a_stored_teacher(data, run):
    words = ["--teacher_model", "encoder", "--student_shape", "2x12:2h:20", "--stored_teacher", "stored"]
    metrics = run("run_distillation", *words, "--train_file", "general.txt", *QUICK, "--output_dir", "student")
    assert metrics["train_loss"] > 0
    assert len(StoredTeacher(data / "stored").dataset) == 64
    assert type(AutoModel.from_pretrained(data / "student")) is BertModel


def test_a_training_goes_on_from_its_checkpoint(data, run):
    words = ["--teacher_model", "encoder", "--student_shape", "2x12:2h:20", "--train_file", "general.txt"]
    words += ["--output_dir", "student", *QUICK[:-2], "--save_steps", "1"]
    run("run_distillation", *words)
    whole = (data / "student" / "model.safetensors").read_bytes()
    shutil.rmtree(data / "student" / "checkpoint-2")
    run("run_distillation", *words, "--resume_from_checkpoint", data / "student" / "checkpoint-1")
    assert (data / "student" / "model.safetensors").read_bytes() == whole


def test_several_teachers_are_distilled_into_one_student(data, run):
    shutil.copytree(data / "teacher", data / "other")
    words = ["--teacher_models", "teacher", "other", "--student_shape", "2x12:2h:20", "--combine", "confidence"]
    words += ["--train_file", "mood/train.jsonl", "--validation_file", "mood/validation.jsonl"]
    metrics = run("run_multi_teacher", *words, "--objectives", "logits", "labels", *QUICK, "--output_dir", "student")
    assert 0 <= metrics["eval_accuracy"] <= 1
    assert {"eval_loss/logits/soft", "eval_loss/labels/hard"} <= set(metrics)
    AutoModelForSequenceClassification.from_pretrained(data / "student")


def test_an_encoder_is_fine_tuned_on_many_tasks(data, run):
    shutil.copytree(data / "mood", data / "praise")
    words = ["--model_name_or_path", "encoder", "--tasks", "mood", "praise", "--task_teachers", "mood=teacher"]
    words += ["--max_length", "16"]
    metrics = run("run_mtl", *words, "--save_heads", *QUICK, "--output_dir", "mtl")
    assert {"eval_mood_accuracy", "eval_praise_accuracy", "eval_mean"} <= set(metrics)
    assert type(AutoModel.from_pretrained(data / "mtl")) is BertModel
    AutoModelForSequenceClassification.from_pretrained(data / "mtl" / "tasks" / "praise")


def test_a_classifier_is_distilled_on_a_task_and_predicts(data, run):
    words = ["--teacher_model", "teacher", "--task_name", "mood", "--max_length", "16"]
    words += ["--student_shape", "2x12:2h:20", "--do_predict"]
    metrics = run("run_glue", *words, *QUICK, "--output_dir", "student")
    assert {"student_validation_accuracy", "teacher_validation_accuracy"} <= set(metrics)
    header, *rows = (data / "student" / "predictions_test.tsv").read_text().splitlines()
    assert (header, len(rows)) == ("index\tprediction", 12)
    assert {row.split("\t")[1] for row in rows} <= {"negative", "positive"}
    words[words.index("--student_shape") : words.index("--do_predict") + 1] = ["--student_model", "student"]
    assert run("run_glue", *words, *QUICK, "--output_dir", "again")["student_validation_accuracy"] >= 0


def test_a_reader_of_answers_is_distilled(data, run, sentences, tiny_bert_config, tiny_tokenizer):
    (data / "own").mkdir()
    (data / "own" / "task.yaml").write_text("kind: question_answering\ntext_columns: [question, context]\n")
    words = [text.split() for text in sentences[:24]]
    answers = [{"text": [found[1]], "answer_start": [len(found[0]) + 1]} for found in words]
    rows = [
        {"question": "it", "context": context, "answers": answer}
        for context, answer in zip(sentences, answers, strict=False)
    ]
    for split in ("train", "validation"):
        write_rows(data / "own" / f"{split}.jsonl", rows)
    save_model(data / "reader", BertForQuestionAnswering(tiny_bert_config()), tiny_tokenizer)
    words = ["--teacher_model", "reader", "--task", "own", "--student_shape", "2x12:2h:20", "--max_length", "32"]
    metrics = run("run_squad", *words, *QUICK, "--output_dir", "student")
    assert {"student_validation_f1", "teacher_validation_exact_match"} <= set(metrics)
    AutoModelForQuestionAnswering.from_pretrained(data / "student")
    assert "nst" in (data / "student" / "README.md").read_text()


def test_students_are_fine_tuned_on_several_tasks(data, run, capsys):
    shutil.copytree(data / "mood", data / "praise")
    words = ["--model_name_or_path", "encoder", "--reference_model", "teacher", "--tasks", "mood", "praise"]
    scores = run("run_clue", *words, "--max_length", "16", *QUICK, "--output_dir", "clue")
    assert {name: set(found) for name, found in scores.items()} == {
        name: {"student", "reference"} for name in ("mood", "praise")
    }
    assert json.loads((data / "clue" / "scores.json").read_text()) == scores
    AutoModelForSequenceClassification.from_pretrained(data / "clue" / "praise" / "student")
    assert "mean of 2 tasks: student " in capsys.readouterr().out


def test_an_encoder_learns_to_write(data, run, sentences):
    pytest.importorskip("rouge_score")
    rows = [{"document": text, "summary": text.split()[0]} for text in sentences]
    for split, part in (("train", rows[:16]), ("validation", rows[16:20])):
        write_rows(data / f"{split}.jsonl", part)
    words = ["--model_name_or_path", "encoder", "--train_file", "train.jsonl", "--validation_file", "validation.jsonl"]
    words += ["--source_column", "document", "--target_column", "summary", "--num_beams", "2"]
    words += ["--max_source_length", "24", "--max_target_length", "6"]
    metrics = run("run_generation", *words, *QUICK, "--output_dir", "writer")
    assert {"eval_loss", "eval_rouge2"} <= set(metrics)
    assert len((data / "writer" / "predictions.jsonl").read_text().splitlines()) == 4
    assert len(EncoderForGeneration.from_pretrained(data / "writer").generate_texts(["a good film"])) == 1


# --- configurations -------------------------------------------------------------------------------------------------


def test_the_configuration_of_the_demo_fits_the_stages_and_its_data_are_here():
    values = read_config(EXAMPLES / "configs" / "demo.yaml")
    for stage, argument_class in STAGES.items():
        made = from_mapping(argument_class, {"output_dir": "unused", "use_cpu": True, **values[stage]}, stage)
        for name, value in values[stage].items():
            assert getattr(made, name) == value, f"{stage}: {name} is read as another value"
    for name in ("task", "corpus"):
        assert (ROOT / values[name]).exists()
