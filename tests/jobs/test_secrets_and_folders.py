"""Several verbs run with a marked token and marked folders: nothing that others read has one of them."""

from __future__ import annotations

import json

import pytest
from tiny_data import save_model, write_rows
from transformers import BertModel, set_seed

from hf_distill.cli import main
from hf_distill.hub.push import contents
from hf_distill.hub.selection import select_files

TOKEN, PASSWORD = "hf_MARKEDTOKEN0123456789", "marked-password-0123"
MARKED = (TOKEN, PASSWORD, "MARKED_HOME", "MARKED_TASKS", "MARKED_MODELS", "MARKED_OUTPUTS")
QUICK = "--use_cpu --disable_tqdm true --report_to none --max_steps 2 --save_strategy no --max_length 16".split()
# Of the owner alone: they are no part of a push, and repeat a run on this machine.
PRIVATE = ("arguments.yaml", "training_args.bin", "small.yaml")
OF_LIBRARIES = ("config", "tokenizer", "trainer_state")
TEXTS = (".json", ".md", ".html", ".yaml", ".txt", ".svg")


@pytest.fixture
def home(tmp_path, monkeypatch, tiny_tokenizer, tiny_bert_config, sentences):
    """A folder of a user with models, a task and a corpus, each in a marked folder."""
    folder = tmp_path / "MARKED_HOME"
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(sentences)]
    for split in ("train", "validation"):
        write_rows(folder / "MARKED_TASKS" / "mood" / f"{split}.jsonl", rows)
    (folder / "MARKED_TASKS" / "mood" / "task.yaml").write_text("text_columns: text\nlabel_names: ['0', '1']\n")
    (folder / "MARKED_TASKS" / "general.txt").write_text("\n".join(f"{text} and more" for text in sentences))
    set_seed(0)
    save_model(folder / "MARKED_MODELS" / "encoder", BertModel(tiny_bert_config()), tiny_tokenizer)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return folder


def marks_in(text):
    return [mark for mark in MARKED if mark in text]


def check(folder):
    """Every text that lies there, and every file as a push would upload it."""
    looked_at = []
    for path in sorted(folder.rglob("*")):
        hidden = {"work", "scratch"} & set(path.relative_to(folder).parts) or path.name.startswith(("_", "."))
        other = path.name in PRIVATE or path.name.startswith(OF_LIBRARIES)
        if path.is_file() and path.suffix in TEXTS and not other and not hidden:
            looked_at.append(path.name)
            assert marks_in(path.read_text(encoding="utf-8")) == [], path
        if path.name in PRIVATE and path.suffix == ".yaml":
            assert not {TOKEN, PASSWORD} & set(marks_in(path.read_text(encoding="utf-8"))), path
    for pushed in {path.parent for path in folder.rglob("config.json")}:
        # A folder of ONNX files has a card too, but is pushed with its model only.
        pushable = (pushed / "README.md").is_file() and pushed.name != "onnx"
        selection = select_files(pushed) if pushable else None
        for file in selection.files if selection else ():
            uploaded = contents(selection, file.path, "me/student")
            data = uploaded if isinstance(uploaded, bytes) else uploaded.read_bytes()
            assert marks_in(data.decode("utf-8", "ignore")) == [], (pushed, file.path)
    return looked_at


def test_a_pipeline_and_its_report(home, capsys):
    out = home / "MARKED_OUTPUTS" / "mood"
    secret = json.dumps({"hub_token": TOKEN, "max_steps": 2, "objectives": ["relation", "logits"]})
    quick = json.dumps({"max_steps": 2, "report_to": "none", "disable_tqdm": True})
    task = ["--task", str(home / "MARKED_TASKS" / "mood"), "--max_length", "16", "--use_cpu"]
    models = ["--teacher_model", str(home / "MARKED_MODELS" / "encoder"), "--student_shape", "2x12:2h:20"]
    corpus = ["--corpus", str(home / "MARKED_TASKS" / "general.txt"), "--engine", "bm25s", "--top_k", "3"]
    corpus += ["--elasticsearch_url", f"https://me:{PASSWORD}@host:9200"]
    stages = ["--teach", quick, "--distill", secret, f"--adapt={quick}", "--output_dir", str(out)]
    assert main(["pipeline", *task, *models, *corpus, *stages]) == 0
    for page in ("report.html", "report.md"):
        assert main(["report", str(out), "--output", str(home / "MARKED_OUTPUTS" / page)]) == 0
    looked_at = check(home / "MARKED_OUTPUTS")
    assert {"README.md", "distillation.json", "report.json", "report.html", "results.json"} <= set(looked_at)
    assert "statistics.json" in looked_at
    command = json.loads((out / "report.json").read_text())["command"]
    assert "hub_token" in command
    assert "--teacher_model encoder" in command


def test_a_grid_with_students_compare_and_bench(home, capsys):
    out = home / "MARKED_OUTPUTS"
    encoder, task = str(home / "MARKED_MODELS" / "encoder"), str(home / "MARKED_TASKS" / "mood")
    shared = {"teacher_model": encoder, "textbook": [str(home / "MARKED_TASKS" / "general.txt")], "hub_token": TOKEN}
    shared |= {"max_steps": 1, "student_shape": "2x12:2h:20", "report_to": "none", "max_length": 16}
    words = ["--students", '{"small": {}}', "--distill", json.dumps(shared), "--epochs", "0.1", "--max_length", "16"]
    assert main(["grid", "--use_cpu", "--tasks", task, *words, "--output_dir", str(out / "grid")]) == 0
    where = str(home / "MARKED_TASKS" / "general.txt")
    assert main(["compare", "--task", task, "--corpora", where, "--output_dir", str(out / "compared")]) == 0
    looked_at = check(out)
    assert {"grid.json", "grid.md", "README.md", "comparison.json"} <= set(looked_at)
    settings = (out / "grid" / "students" / "small.yaml").read_text()
    assert "hub_token" not in settings
