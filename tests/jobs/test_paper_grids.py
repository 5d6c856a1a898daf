"""The grids of the papers' tables run with tiny models, texts and tasks; their costs are reckoned."""

import json
import os
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from tiny_data import mood_rows, save_model, write_task
from transformers import BertForQuestionAnswering, BertForSequenceClassification, BertModel, set_seed

from hf_distill.cli import main
from hf_distill.commands.grid import CLASSES, run as run_grid
from hf_distill.commands.grid_students import MODELS, plan_students
from hf_distill.settings import GridArguments, StudentArguments
from hf_distill.settings.parsing import parse
from hf_distill.students.shapes import parse_shape
from hf_distill.tasks import get_task

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "examples" / "configs"
GRIDS = sorted(
    path.stem for path in CONFIGS.glob("*.yaml") if {"tasks", "students"} <= yaml.safe_load(path.read_text()).keys()
)
TRAINING = {
    "max_steps": 1, "per_device_train_batch_size": 4, "max_length": 16, "report_to": "none", "save_strategy": "no",
    "eval_strategy": "no", "eval_task": None, "warmup_steps": 0, "calibration_tokens": 0, "disable_tqdm": True,
}  # fmt: skip
# Twelve layers with twelve heads, as the papers' teachers have them: layers are chosen as there.
TINY = {"num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 16}


@pytest.fixture
def data(tmp_path, monkeypatch, sentences, tiny_bert_config, tiny_tokenizer):
    """In the working folder: `mood`, `reader` (a task of answers), `general.txt`, an encoder, and teachers of both."""
    monkeypatch.chdir(tmp_path)
    settings = {"fine_tuning": {"max_length": 16, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3}}
    spec = {"text_columns": ["text"], "label_names": ["no", "yes"], "metrics": ["accuracy"], **settings}
    write_task(tmp_path / "mood", mood_rows(sentences[:16]), num_train=8, **spec)
    rows = [
        {"question": "it", "context": text, "answers": {"text": [text.split()[0]], "answer_start": [0]}}
        for text in sentences[:12]
    ]
    reading = {"kind": "question_answering", "text_columns": ["question", "context"], **settings}
    write_task(tmp_path / "reader", rows, num_train=8, **reading)
    (tmp_path / "general.txt").write_text("\n".join(sentences))
    set_seed(0)
    heads = {"encoder": BertModel, "teachers/mood": BertForSequenceClassification}
    for folder, kind in {**heads, "teachers/reader": BertForQuestionAnswering}.items():
        save_model(tmp_path / folder, kind(tiny_bert_config(**TINY, id2label={0: "no", 1: "yes"})), tiny_tokenizer)
    return tmp_path


def small(name, tasks):
    """The grid of a file with our tasks: given name of the file's -> ours."""
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    shared = values.get("distill", {})
    students = {
        student: tiny_student(name, {**shared, **changes}, tasks, set(values["students"]))
        for student, changes in values["students"].items()
        if student in STUDENTS[name]
    }
    models = [
        f"{entry.partition('=')[0]}={tiny_model(entry.partition('=')[2])}" for entry in values.get("models", [])[:1]
    ]
    kept = {"models": models, "students": students, "distillation_seeds": values["distillation_seeds"]}
    searched = {"seeds": [1], "fractions": values.get("fractions", [1.0])[:1], "epochs": [1]}
    if values.get("fine_tune") is False:
        searched = {"fine_tune": False, "max_length": 16}
    return GridArguments(tasks=sorted(set(tasks.values())), use_cpu=True, output_dir="grid", **kept, **searched)


def tiny_model(model):
    return "teachers/{task}" if "{task}" in model or model == "outputs/mnli_teacher" else "encoder"


def tiny_student(name, settings, tasks, students):
    """Our models, texts and sizes in place of a student's."""
    preset = {
        key: settings[key] for key in ("preset", "student_shape", "student_init", "student_layers") if key in settings
    }
    file = Path(f"{name}.preset.yaml")
    file.write_text(yaml.safe_dump({**preset, "output_dir": "unused", "use_cpu": True}))
    student = next(one for one in parse(CLASSES, [str(file)], presets=True) if isinstance(one, StudentArguments))
    shape = parse_shape(student.student_shape)
    found = {
        **settings,
        **TRAINING,
        "student_shape": f"{shape.num_layers}x{24 if shape.hidden_size >= 768 else 12}:12h:16",
    }
    for field in MODELS:
        given = settings.get(field)
        if isinstance(given, list):
            found[field] = [tiny_model(one) for one in given]
        elif given is not None and given not in students:
            found[field] = tiny_model(given)
    texts = settings["textbook"] if isinstance(settings["textbook"], list) else [settings["textbook"]]
    found["textbook"] = [tasks.get(text, text if text == "{task}" else "general.txt") for text in texts]
    if name.startswith("mitkd") and settings.get("preset") == "xtremedistil":
        found["teacher_model"] = "teachers/mood"
    found["of_task"] = {tasks[task]: {} for task in settings.get("of_task", {}) if task in tasks}
    if "only_tasks" in settings:
        found["only_tasks"] = [tasks[task] for task in settings["only_tasks"] if task in tasks]
        found["textbook"] = [found["only_tasks"][0]] * len(texts)
    return found


# One of every kind, and those before it that it needs.
STUDENTS = {
    "contextualized_corpus_table2": [
        "random_general_wikibook", "random_task_cc", "random_task_cc_taskda", "minilmv2_task_taskda",
    ],
    "contextualized_corpus_figure2": ["cc_20"],
    "minilm_ablation": ["last_two", "hidden_mse", "assistant", "last_with_assistant"],
    "minilmv2": ["bert_base_6x384", "roberta_large_12x384"],
    "mitkd_en": ["mitkd", "xtremedistil"],
    "mitkd_zh": ["assistant", "through_assistant"],
    "textbrewer_table2": ["t3", "t3_small"],
    "textbrewer_table4": ["student"],
    "textbrewer_table5": ["t4_tiny", "t3_da"],
}  # fmt: skip
TASKS = {"textbrewer_table2": {"squad": "reader"}, "textbrewer_table5": {"clue/cmrc2018": "reader"}}


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_of_a_paper_runs_in_small(data, name):
    tasks = TASKS.get(name)
    if tasks is None:
        [*given] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["tasks"]
        tasks = {next(task for task in given if get_task(task).kind == "text_classification"): "mood"}
    facts = run_grid(small(name, tasks))
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    rows = [entry.partition("=")[0] for entry in values.get("models", [])[:1]] + STUDENTS[name]
    assert list(facts["tables"]["1"]) == rows
    assert all(0 <= cell["score"] <= 1 for cell in facts["cells"])


def test_there_is_a_grid_for_every_table():
    assert {name.partition("_table")[0].partition("_figure")[0] for name in GRIDS} == {
        "contextualized_corpus", "minilm_ablation", "minilmv2", "mitkd_en", "mitkd_zh", "textbrewer",
    }  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
def test_every_setting_of_a_grid_is_one(name, tmp_path):
    (grid,) = parse((GridArguments,), [str(CONFIGS / f"{name}.yaml")])
    planned = plan_students(grid, {task: get_task(task).name for task in grid.tasks})
    for student in {one.name: one for one in planned}.values():
        file = tmp_path / f"{student.name}.yaml"
        file.write_text(yaml.safe_dump({**student.settings, "use_cpu": True}))
        parsed = parse(CLASSES, [str(file)], presets=True)
        assert all(any(hasattr(one, setting) for one in parsed) for setting in student.settings if setting != "preset")


def test_the_corpus_paper_is_run_from_its_script(data, tmp_path):
    """What the script calls is noted by a program of the name of ours, and called here in small."""
    noted = tmp_path / "bin" / "hf-distill"
    noted.parent.mkdir()
    noted.write_text('#!/bin/sh\nprintf "%s\\037" "$@" >> calls\nprintf "\\n" >> calls\n')
    noted.chmod(0o755)
    env = {**os.environ, "PATH": f"{noted.parent}:{os.environ['PATH']}", "TASKS": "mood"}
    subprocess.run(["bash", str(CONFIGS / "contextualized_corpus.sh")], check=True, env=env, cwd=tmp_path)
    calls = [line.rstrip("\037").split("\037") for line in (tmp_path / "calls").read_text().splitlines()]
    assert [call[0] for call in calls] == ["general", "teach", *["corpus"] * 5, "augment", "compare", "grid", "grid"]
    shares = [call[call.index("--top_share") + 1] for call in calls if call[0] == "corpus"]
    assert shares == ["0.20", "0.40", "0.60", "0.80", "1.00"]
    names = {"wikimedia/wikipedia:20231101.en": "general.txt", "FacebookAI/roberta-large": "encoder"}
    for call in calls[:-2]:
        words = [names.get(word, word) for word in call]
        if call[0] == "augment":
            continue  # the tiny encoder writes no words; tests/jobs/test_job_augment.py has the verb
        if call[0] == "general":
            words[words.index("passage")] = "row"
        if call[0] == "teach":
            words += ["--use_cpu", "--max_steps", "1", "--report_to", "none", "--save_strategy", "no"]
        if call[0] == "corpus":
            words += ["--engine", "bm25s", "--top_k", "5"]
        if call[0] == "compare":
            words.remove("taskda=outputs/corpus_paper/taskda/mood")
        assert main(words) == 0, shlex.join(words)
    rows = [
        json.loads((tmp_path / f"outputs/corpus_paper/cc/mood/{percent}/statistics.json").read_text())["rows"]
        for percent in (20, 40, 60, 80, 100)
    ]
    assert rows == sorted(rows)
    assert rows[0] < rows[-1]
    assert (tmp_path / "outputs/corpus_paper/compared/mood/comparison.json").is_file()


def test_the_costs_on_the_page_are_those_of_the_files():
    module = runpy.run_path(str(ROOT / "docs" / "grid_costs.py"))
    assert module["page_with"](module["rendered"]()) == (ROOT / "docs" / "grid.md").read_text(encoding="utf-8")


def test_costs_are_updates_times_rows_times_tokens_times_weights():
    module = runpy.run_path(str(ROOT / "docs" / "grid_costs.py"))
    shape = parse_shape("6x384")
    assert module["weights"](shape) == 6 * (4 * 384**2 + 2 * 384 * 1536)
    found = module["costs"](CONFIGS / "minilmv2.yaml")
    assert (found["distillations"], found["updates"], found["rows"]) == (7, 7 * 400_000, 7 * 400_000 * 256)
    base, large = (12 * (12 * 768**2), 24 * (12 * 1024**2))
    students = [module["weights"](parse_shape(name)) for name in ("6x768", "6x384", "12x384")]
    products = 6 * (3 * students[0] + 3 * students[1] + students[2]) + 2 * (2 * base + 5 * large)
    assert found["hours distilling"] == pytest.approx(400_000 * 256 * 512 * products / 200e12 / 3600)
    assert found["fine-tunings"] == 10 * 4 * (7 * 15 + 1)
