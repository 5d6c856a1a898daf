"""The scripts in `examples/` are short, say what they take, run on tiny data; their configurations parse."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertModel,
    set_seed,
)

from hf_distill import EncoderForGeneration
from hf_distill.commands import pipeline_report
from hf_distill.corpus import load_general_corpus
from hf_distill.settings import DistillationArguments, FineTuningArguments, parsing
from hf_distill.settings.parsing import from_mapping, read_config

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted([*EXAMPLES.glob("run_*.py"), EXAMPLES / "build_corpus.py"])
# The others are files of other jobs, which their tests read.
CONFIGS = [EXAMPLES / "configs" / "demo.yaml"]
STAGES = {"teach": FineTuningArguments, "distill": DistillationArguments, "adapt": FineTuningArguments}
QUICK = "--use_cpu --disable_tqdm true --report_to none --max_steps 2 --save_strategy no --max_length 16".split()
QUICK_PROTOCOL = {"batch_size": 2, "seq_length": 8, "num_batches": 2, "warmup": 0}

each_script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
each_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


@pytest.fixture
def load(monkeypatch):
    """`load(path)`: the script as a module, found as when it is run from its folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def make(path):
        spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return make


@pytest.fixture
def data(tmp_path, tiny_teacher, tiny_tokenizer, tiny_bert_config, sentences):
    """`mood/` (a task), `general.txt`, `encoder/` and `teacher/` in one folder."""
    (tmp_path / "mood").mkdir()
    rows = [{"text": f"{('bad', 'good')[i % 2]} {t}", "label": i % 2} for i, t in enumerate(sentences)]
    for split, part in (("train", rows[:40]), ("validation", rows[40:])):
        (tmp_path / "mood" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    spec = {"text_columns": ["text"], "label_names": ["negative", "positive"], "metrics": ["accuracy"]}
    (tmp_path / "mood" / "task.yaml").write_text(yaml.safe_dump(spec))
    general = [f"{first} and {second}" for first, second in zip(sentences, reversed(sentences), strict=True)]
    (tmp_path / "general.txt").write_text("\n".join(general))
    set_seed(0)
    BertModel(tiny_bert_config()).save_pretrained(tmp_path / "encoder")
    tiny_teacher.save_pretrained(tmp_path / "teacher")
    for name in ("encoder", "teacher"):
        tiny_tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


@each_script
def test_a_script_is_short_and_begins_with_how_to_call_it(path, load):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    module = load(path)
    assert f"python examples/{path.name} " in module.__doc__
    assert module.main.__doc__


def test_the_readme_is_what_scripts_and_notebooks_say(load):
    module = load(EXAMPLES / "make_readme.py")
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert page == module.render(), "write it anew: python examples/make_readme.py"
    for path in SCRIPTS:
        assert module.command(path).startswith(f"python examples/{path.name} ")


def test_a_page_is_made_about_runs(data, load, capsys):
    (data / "run").mkdir()
    history = [{"step": step, "loss": 1.0 / step, "loss/logits/soft": 1.0 / step} for step in (1, 2)]
    (data / "run" / "results.json").write_text(json.dumps({"job": "distill", "history": history}))
    words = ["--runs", str(data / "run"), "--output", str(data / "report.md")]
    assert load(EXAMPLES / "run_report.py").main(words)["curves"] == 2
    assert f"page written to {data / 'report.md'}" in capsys.readouterr().out


@each_script
def test_help_shows_the_flags(path, load, capsys):
    with pytest.raises(SystemExit) as ended:
        load(path).main(["--help"])
    assert ended.value.code == 0
    assert "CONFIG.yaml" in capsys.readouterr().out


def test_a_script_runs_from_the_command_line():
    command = [sys.executable, "examples/run_pipeline.py", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert done.stdout.startswith("usage: run_pipeline.py [CONFIG.yaml] [--flag value ...]")
    assert "--student_shape" in done.stdout


def test_a_corpus_is_built(data, load, capsys):
    words = ["--task", str(data / "mood"), "--corpus", str(data / "general.txt"), "--engine", "bm25s", "--top_k", "2"]
    results = load(EXAMPLES / "build_corpus.py").main([*words, "--corpus_dir", str(data / "corpus")])
    corpus = load_general_corpus(data / "corpus")
    assert 0 < len(corpus) == results["rows"] <= 64
    assert set(corpus.column_names) == {"text", "rank", "score", "anchors", "source"}
    out = capsys.readouterr().out
    assert f"mood: {results['rows']} rows" in out
    assert f"written to {data / 'corpus'}" in out


def test_general_corpora_are_mixed(data, load, capsys):
    words = ["--corpora", f"one={data / 'general.txt'}", f"two={data / 'general.txt'}", "--rows", "20"]
    results = load(EXAMPLES / "run_general.py").main([*words, "--corpus_dir", str(data / "mixed")])
    assert len(load_general_corpus(data / "mixed")) == results["rows"] == 20
    out = capsys.readouterr().out
    assert "two: 0 of 64 usable rows, 64 repeated" in out
    assert f"written to {data / 'mixed'}" in out


def test_corpora_are_compared(data, load, capsys):
    words = ["--task", str(data / "mood"), "--corpora", f"general={data / 'general.txt'}", "--num_draws", "2"]
    results = load(EXAMPLES / "run_comparison.py").main([*words, "--output_dir", str(data / "compared")])
    assert list(results["corpora"]) == ["task", "general"]
    assert results["command"].startswith("python examples/run_comparison.py ")
    out = capsys.readouterr().out
    assert "of its most frequent words in common with mood" in out
    assert f"written to {data / 'compared'}" in out


def test_a_head_is_fitted_and_words_are_replaced_with_it(data, load, capsys):
    words = ["--encoder", str(data / "encoder"), "--textbook", str(data / "general.txt"), *QUICK]
    words += ["--textbook_eval_rows", "16", "--output_dir", str(data / "mlm")]
    results = load(EXAMPLES / "run_mlm_head.py").main(words)
    assert results["steps"] == 2
    assert f"Masked language model written to {data / 'mlm'}" in capsys.readouterr().out
    words = ["--task", str(data / "mood"), "--masked_lm", str(data / "mlm"), "--num_samples", "2", "--use_cpu"]
    results = load(EXAMPLES / "run_augmentation.py").main([*words, "--corpus_dir", str(data / "augmented")])
    assert 40 < results["rows"] <= 120
    assert set(load_general_corpus(data / "augmented").column_names) == {"text", "label", "row"}
    out = capsys.readouterr().out
    assert f"mood: {results['rows']} rows" in out
    assert f"written to {data / 'augmented'}" in out


def test_an_encoder_is_fine_tuned_on_many_tasks(data, load, capsys):
    shutil.copytree(data / "mood", data / "praise")
    words = ["--teacher_model", str(data / "encoder"), "--tasks", str(data / "mood"), str(data / "praise"), *QUICK]
    words += ["--task_teachers", f"{data / 'mood'}={data / 'teacher'}", "--save_heads", str(data / "mood")]
    results = load(EXAMPLES / "run_mtl.py").main([*words, "--output_dir", str(data / "mtl")])
    assert set(results["headlines"]) == {"mood", "praise"}
    assert type(AutoModel.from_pretrained(data / "mtl")) is BertModel
    AutoModelForSequenceClassification.from_pretrained(data / "mtl" / "tasks" / "mood")
    out = capsys.readouterr().out
    assert "praise: accuracy" in out
    assert f"written to {data / 'mtl'}" in out


def test_an_encoder_learns_to_write(data, load, capsys):
    words = ["--task", str(data / "mood"), "--source_template", "{text}", "--target_column", "text", "--use_cpu"]
    words += ["--student_model", str(data / "encoder"), "--max_source_length", "24", "--max_target_length", "6"]
    words += ["--max_eval_samples", "4", "--num_beams", "2", "--max_steps", "2", "--report_to", "none"]
    (data / "mood" / "task.yaml").unlink()
    results = load(EXAMPLES / "run_generation.py").main([*words, "--output_dir", str(data / "writer")])
    assert len(EncoderForGeneration.from_pretrained(data / "writer").generate_texts(["a good film"])) == 1
    out = capsys.readouterr().out
    assert f"mood, validation: loss {results['losses']['validation']:.4f}, rouge2 " in out
    assert f"Texts written to {data / 'writer' / 'predictions.jsonl'}" in out


def test_a_student_is_distilled(data, load, capsys):
    words = ["--teacher_model", str(data / "teacher"), "--textbook", str(data / "general.txt"), *QUICK]
    words += ["--student_shape", "2x12:2h:20", "--objectives", "relation:1", "logits:1"]
    results = load(EXAMPLES / "run_distillation.py").main([*words, "--output_dir", str(data / "student")])
    model = AutoModelForSequenceClassification.from_pretrained(data / "student")
    assert isinstance(model, BertForSequenceClassification)
    assert model.num_parameters() == results["student_parameters"]
    assert f"written to {data / 'student'}" in capsys.readouterr().out


def test_a_student_is_distilled_from_a_stored_teacher(data, load, capsys):
    words = ["--teacher_model", str(data / "teacher"), "--textbook", str(data / "general.txt"), "--use_cpu"]
    words += ["--objectives", "relation", "logits", "--max_length", "16", "--output_dir", str(data / "stored")]
    results = load(EXAMPLES / "run_precompute.py").main(words)
    assert results["rows"] == results["new_rows"] == 64
    assert f"written to {data / 'stored'}" in capsys.readouterr().out
    words = ["--teacher_model", str(data / "stored"), "--student_shape", "2x12:2h:20", *QUICK]
    words += ["--objectives", "relation:1", "logits:1", "--output_dir", str(data / "student")]
    results = load(EXAMPLES / "run_distillation.py").main(words)
    assert results["textbook_rows"] == 64
    assert results["teacher_parameters"] > results["student_parameters"]


def test_a_grid_is_run(data, load, capsys):
    words = ["--models", f"one={data / 'encoder'}", "--tasks", str(data / "mood"), "--fractions", "0.5", "--use_cpu"]
    words += ["--epochs", "1", "--max_length", "16", "--output_dir", str(data / "grid")]
    results = load(EXAMPLES / "run_benchmark.py").main(words)
    assert set(results["tables"]["0.5"]["one"]) == {"mood"}
    assert f"written to {data / 'grid'}" in capsys.readouterr().out


def test_attention_is_drawn(data, load, capsys):
    pytest.importorskip("matplotlib")
    words = ["--models", str(data / "teacher"), str(data / "encoder"), "--text", "the cat likes the film"]
    results = load(EXAMPLES / "run_attention.py").main([*words, "--output", str(data / "attention.png")])
    assert [model["name"] for model in results["models"]] == ["teacher", "encoder"]
    assert f"written to {data / 'attention.png'}" in capsys.readouterr().out


def test_what_a_push_would_upload_is_shown(data, load, capsys):
    words = ["--folder", str(data / "teacher"), "--repo", "me/small", "--dry_run"]
    results = load(EXAMPLES / "run_push.py").main(words)
    assert {"model.safetensors", "tokenizer.json"} <= {item["path"] for item in results["files"]}
    assert "would be uploaded to me/small (model):" in capsys.readouterr().out


def test_students_are_timed_and_the_command_is_kept(data, load, capsys):
    words = ["--teacher_model", str(data / "teacher"), "--student_shapes", "1x12:2h", "--engines", "sdpa", "eager"]
    words += ["--batch_size", "2", "--seq_length", "8", "--num_batches", "2", "--grid_seq_lengths", "8", "--use_cpu"]
    results = load(EXAMPLES / "run_bench.py").main([*words, "--output_dir", str(data / "bench")])
    assert [model["name"] for model in results["models"]] == ["teacher", "1x12:2h"]
    assert results["command"].startswith("python examples/run_bench.py --teacher_model ")
    out = capsys.readouterr().out
    assert (data / "bench" / "bench.md").read_text() in out


def test_a_model_is_exported_and_scored(data, load, capsys):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install 'hf_distill[onnx]'")
    words = ["--model", str(data / "teacher"), "--task", str(data / "mood"), "--max_length", "16"]
    results = load(EXAMPLES / "run_export.py").main(words)
    assert results["scores"]["onnx"] == results["scores"]["pytorch"]
    out = capsys.readouterr().out
    assert f"files written to {data / 'teacher' / 'onnx'}" in out
    assert "onnx_int8" in out


def test_the_whole_job_runs_from_a_file_with_flags_after_it(data, load, capsys, monkeypatch):
    monkeypatch.setattr(pipeline_report, "SPEED_PROTOCOL", QUICK_PROTOCOL)
    quick = {"max_steps": 2, "disable_tqdm": True, "report_to": "none", "per_device_train_batch_size": 8}
    config = {
        "task": str(data / "mood"), "teacher_model": str(data / "encoder"), "corpus": str(data / "general.txt"),
        "engine": "bm25s", "top_k": 2, "max_length": 16, "use_cpu": True, "teach": quick, "adapt": quick,
        "distill": {**quick, "objectives": ["relation", "logits"]},
    }  # fmt: skip
    (data / "job.yaml").write_text(yaml.safe_dump(config))
    words = [str(data / "job.yaml"), "--student_shape", "2x12:2h:20", "--output_dir", str(data / "out")]
    report = load(EXAMPLES / "run_pipeline.py").main(words)
    assert json.loads((data / "out" / "report.json").read_text())["student"]["score"] == report["student"]["score"]
    assert report["command"].startswith("python examples/run_pipeline.py ")
    assert pipeline_report.format_report(report) in capsys.readouterr().out


STRUCTURED = {
    "run_ner": (
        "kind: token_classification\ntext_columns: [tokens]\nlabel_column: tags\nlabel_names: [O, B-X]\n",
        "f1",
    ),
    "run_squad": ("kind: question_answering\ntext_columns: [question, context]\n", "f1"),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_words_and_answers_are_distilled_from_teacher_to_student(name, data, load, sentences, capsys, monkeypatch):
    monkeypatch.setattr(pipeline_report, "SPEED_PROTOCOL", QUICK_PROTOCOL)
    folder, (spec, metric) = data / "own", STRUCTURED[name]
    folder.mkdir()
    (folder / "task.yaml").write_text(spec)
    rows = []
    for text in sentences[:24]:
        words = text.split()
        tagged = {"tokens": words, "tags": ["B-X" if word[0] < "h" else "O" for word in words]}
        answers = {"text": [words[1]], "answer_start": [len(words[0]) + 1]}
        rows.append(tagged if name == "run_ner" else {"question": "it", "context": text, "answers": answers})
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = json.dumps({"max_steps": 2, "disable_tqdm": True, "report_to": "none", "per_device_train_batch_size": 8})
    words = ["--task", str(folder), "--teacher_model", str(data / "encoder"), "--use_cpu", "--max_length", "32"]
    words += [word for stage in STAGES for word in (f"--{stage}", quick)]
    report = load(EXAMPLES / f"{name}.py").main([*words, "--output_dir", str(data / "out")])
    assert (report["metric"], set(report["distillation"]["objectives"])) == (metric, {"logits", "hidden", "nst"})
    assert report["command"].startswith(f"python examples/{name}.py ")
    assert pipeline_report.format_report(report) in capsys.readouterr().out


@pytest.fixture
def what_would_run(load, monkeypatch):
    """`what_would_run(*words)`: the arguments that the pipeline script hands on."""
    module = load(EXAMPLES / "run_pipeline.py")
    models = {role: {"score": 0.5, "parameters": 1_000_000} for role in ("teacher", "student", "baseline")}
    report = {**models, "metric": "accuracy", "latency": {"speedup": 3.0}}
    given = []
    monkeypatch.setattr(module, "run_pipeline", lambda *arguments: given.extend(arguments) or report)
    monkeypatch.setattr(module, "demo_teacher_path", lambda: "demo teacher")
    return lambda *words: (module.main(words), given)[1]


def test_without_task_teacher_and_corpus_it_takes_those_of_the_demo(what_would_run, tmp_path):
    (tmp_path / "small.yaml").write_text("student_shape: 3x384\n")
    task, teacher, student, corpus, *_ = what_would_run(str(tmp_path / "small.yaml"))
    assert Path(task.task) == EXAMPLES / "data" / "wordnet_categories"
    assert Path(corpus.corpus) == EXAMPLES / "data" / "general_corpus"
    assert (teacher.teacher_model, student.student_shape) == ("demo teacher", "3x384")


def test_what_is_named_is_taken(what_would_run):
    task, teacher, _, corpus, *_ = what_would_run("--task=mine", "--teacher_model", "t", "--corpus", "rows.json")
    assert (task.task, teacher.teacher_model, corpus.corpus) == ("mine", "t", "rows.json")


@each_config
def test_a_configuration_fits_its_script_and_its_stages(path, load, monkeypatch):
    module = load(EXAMPLES / "run_pipeline.py")
    parsed = []

    def stop(*arguments):
        parsed.extend(arguments)
        raise InterruptedError

    monkeypatch.setattr(module, "run_pipeline", stop)
    monkeypatch.setattr(module, "demo_teacher_path", lambda: "demo teacher")
    monkeypatch.chdir(ROOT)
    path = path.relative_to(ROOT)
    with pytest.raises(InterruptedError):
        module.main([str(path)])
    *_, stages, command = parsed
    assert command == f"python examples/run_pipeline.py {path}"
    for stage, argument_class in STAGES.items():
        settings = stages.settings(stage)
        made = from_mapping(argument_class, {"output_dir": "unused", "use_cpu": True, **settings}, stage)
        for name, value in settings.items():
            assert getattr(made, name) == value, f"{stage}: {name} is read as another value"
    assert parsing.CONFIG_SUFFIXES[0] == path.suffix


@each_config
def test_the_data_of_a_configuration_are_in_the_repository(path):
    values = read_config(path)
    for name in ("task", "corpus"):
        assert (ROOT / values[name]).exists()


def test_there_are_scripts_and_configurations():
    found = {path.stem for path in SCRIPTS}
    scripts = "build_corpus run_distillation run_glue run_pipeline run_precompute run_push run_teacher"
    assert set(scripts.split()) <= found
    assert CONFIGS
