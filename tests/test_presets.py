"""The settings of papers by name."""

import dataclasses
import json
import re
from importlib.resources import files
from pathlib import Path

import datasets
import pytest
import yaml
from transformers import BertForMaskedLM, BertForSequenceClassification, set_seed

from hf_distill import DistillationArguments, DistillationTrainer, create_student
from hf_distill.cli import main
from hf_distill.hub.citations import CITATIONS
from hf_distill.objectives import build_objectives
from hf_distill.settings import StudentArguments, TeacherArguments, TextbookArguments
from hf_distill.settings.parsing import parse
from hf_distill.settings.presets import list_presets, load_preset, read_preset
from hf_distill.students.shapes import parse_shape

NAMES = [
    "bam",
    "bert_emd",
    "distilbert",
    "minilm",
    "minilm_hidden_mse",
    "minilmv2",
    "mt_dnn_kd",
    "pkd",
    "textbrewer_t12_nano",
    "textbrewer_t3",
    "textbrewer_t4_tiny",
    "textbrewer_t6",
    "tinybert_general",
    "tinybert_task",
    "xtremedistil",
]
CLASSES = (StudentArguments, TeacherArguments, TextbookArguments, DistillationArguments)
QUICK = "--textbook none --use_cpu --disable_tqdm true --report_to none --save_strategy no --logging_steps 1".split()
TINY = "--max_steps 2 --per_device_train_batch_size 4 --gradient_accumulation_steps 1 --max_length 12".split()


def test_all_of_them_are_there():
    assert list_presets() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_known_and_says_where_it_comes_from(name):
    preset = read_preset(name)
    assert preset.citation in CITATIONS
    assert set(preset.student) <= {field.name for field in dataclasses.fields(StudentArguments)}
    assert set(preset.training) <= {field.name for field in dataclasses.fields(DistillationArguments)}
    parse_shape(preset.student["student_shape"])
    text = (files("hf_distill.settings.presets") / f"{name}.yaml").read_text(encoding="utf-8")
    body = text.partition("student:\n")[2].replace("training:\n", "")
    lines = body.splitlines()
    for place, line in enumerate(lines):
        above = next((lines[i] for i in range(place - 1, -1, -1) if not lines[i].startswith("    - ")), "")
        said = "  # " in line or line.lstrip().startswith("#") or above.lstrip().startswith("#")
        assert said or line == "  objectives:", f"{name}: {line!r} does not say where it comes from"


# Fields whose defaults here are those of one paper, MiniLMv2, or of none.
OWN_DEFAULTS = {"learning_rate", "weight_decay", "adam_epsilon", "warmup_steps", "train_sampling_strategy"}


@pytest.mark.parametrize("name", NAMES)
def test_no_preset_inherits_a_default_of_another_paper(name):
    assert not OWN_DEFAULTS - set(load_preset(name))


def test_values_of_the_cited_codes():
    values = {name: load_preset(name) for name in NAMES}
    assert values["pkd"]["warmup_steps"] == 0.1
    emd = values["bert_emd"]
    assert (emd["lr_scheduler_type"], emd["warmup_steps"], emd["learning_rate"]) == ("constant", 0, 3e-5)
    assert emd["objectives"][0]["shared_projection"] is True
    extreme = values["xtremedistil"]
    assert (extreme["objectives"][0]["tokens"], extreme["adam_epsilon"], extreme["max_grad_norm"]) == (
        "first",
        1e-8,
        0,
    )
    assert "paper has no T12-nano" in read_preset("textbrewer_t12_nano").source
    assert parse_shape("t12-nano").hidden_size == 256


@pytest.mark.parametrize("epochs", [13, 23, 53])
def test_tinybert_ends_with_three_epochs_of_predictions(epochs):
    layers, predictions = (
        item.schedule.in_run_of(epochs) for item in build_objectives(load_preset("tinybert_task")["objectives"])
    )
    seen = [(layers(epoch / epochs), predictions(epoch / epochs)) for epoch in range(epochs)]
    assert seen == [(1, 0)] * (epochs - 3) + [(0, 1)] * 3


@pytest.mark.parametrize("name", NAMES)
def test_its_objectives_can_be_built(name):
    arguments = DistillationArguments("out", use_cpu=True, **load_preset(name))
    assert build_objectives(arguments.objectives, arguments.objective_options())


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_student_trains_with_it(name, tmp_path, tiny_bert_config, tiny_tokenizer, sentences):
    preset = read_preset(name)
    layers, copied = parse_shape(preset.student["student_shape"]).num_layers, "student_layers" in preset.student
    width = 24 if copied or preset.student.get("student_init") == "teacher_layers" else 12
    shape = f"{layers}x{width}:4h:{32 if width == 24 else 16}"
    words = [*QUICK, *TINY, "--output_dir", str(tmp_path), "--student_shape", shape]
    student, _, _, training = parse(CLASSES, ["--preset", name, *words], presets=True)
    assert student.student_init == preset.student.get("student_init")
    set_seed(0)
    head = BertForMaskedLM if training.mlm_probability else BertForSequenceClassification
    teacher = head(tiny_bert_config(num_hidden_layers=12))
    rows = {**tiny_tokenizer(sentences, truncation=True, max_length=12)}
    if not training.mlm_probability:
        rows["labels"] = [i % 2 for i in range(len(sentences))]
    trainer = DistillationTrainer(
        create_student(teacher, shape, init=student.student_init or "random", layers=student.student_layers),
        training,
        teacher_model=teacher,
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=tiny_tokenizer,
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 2
    assert all(0 < entry["loss"] < 1e4 for entry in logged)


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    config = tmp_path / "distil.yaml"
    config.write_text(yaml.safe_dump({"preset": "minilmv2", "learning_rate": 1e-3, "max_steps": 7}))
    words = [str(config), *QUICK, "--output_dir", str(tmp_path), "--max_steps", "9"]
    student, _, _, training = parse(CLASSES, words, presets=True)
    assert student.student_shape == "6x384"
    assert (training.max_steps, training.learning_rate, training.warmup_steps) == (9, 1e-3, 4000)
    _, _, _, other = parse(CLASSES, [*words, "--preset=minilm"], presets=True)
    assert other.objectives == ["minilm"]
    assert other.learning_rate == 1e-3


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"`--preset` is 'minilm2'; allowed are bam, .*Did you mean 'minilmv2'\?"):
        parse(CLASSES, [*QUICK, "--preset", "minilm2"], presets=True)


def test_without_presets_there_is_no_such_flag():
    with pytest.raises(ValueError, match="--preset"):
        parse(CLASSES, [*QUICK, "--preset", "minilm"])


def test_a_loaded_preset_is_a_copy():
    load_preset("minilmv2")["objectives"].append("logits")
    assert load_preset("minilmv2")["objectives"] == ["relation"]


def test_the_help_page_names_them(capsys):
    with pytest.raises(SystemExit):
        parse(CLASSES, ["--help"], presets=True)
    assert re.search(r"--preset NAME\s+Settings of a paper.*minilmv2", capsys.readouterr().out, re.DOTALL)


def cell(item):
    """An objective as the table writes it."""
    if isinstance(item, str):
        return f"`{item}`"
    options = {key: value for key, value in item.items() if key not in ("objective", "weight")}
    texts = {k: " ".join(f"{a} {b}" for a, b in v.items()) if isinstance(v, dict) else v for k, v in options.items()}
    weight = f" x {item['weight']:g}" if item.get("weight", 1) != 1 else ""
    settings = ", ".join(f"{key} {value}" for key, value in texts.items())
    return f"`{item['objective']}`{weight}" + (f" ({settings})" if settings else "")


def test_the_table_of_the_page_is_the_files():
    page = (Path(__file__).parents[1] / "docs" / "presets.md").read_text(encoding="utf-8")
    for preset in map(read_preset, NAMES):
        student = f"{preset.student['student_shape']}, {preset.student.get('student_init', 'random')}"
        objectives = "; ".join(map(cell, preset.training["objectives"]))
        assert f"| `{preset.name}` | {student} | {objectives} | {preset.source} |" in page


def test_info_lists_them_with_their_sources(capsys):
    assert main(["info", "presets"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", out, re.MULTILINE) for name in NAMES)
    assert all(read_preset(name).about in out and read_preset(name).source in out for name in NAMES)


@pytest.mark.parametrize(
    ("name", "shape"), [("distilbert", "6x24:4h:32"), ("minilmv2", "6x12:4h:16"), ("xtremedistil", "2x12:4h:16")]
)
def test_the_verb_distils_with_it(name, shape, tmp_path, capsys, tiny_bert_config, tiny_tokenizer, sentences):
    set_seed(0)
    head = BertForMaskedLM if name == "distilbert" else BertForSequenceClassification
    head(tiny_bert_config(num_hidden_layers=12)).save_pretrained(tmp_path / "teacher")
    tiny_tokenizer.save_pretrained(tmp_path / "teacher")
    (tmp_path / "text.txt").write_text("\n".join(sentences))
    words = ["--teacher_model", str(tmp_path / "teacher"), "--textbook", str(tmp_path / "text.txt")]
    words += ["--output_dir", str(tmp_path / "student"), "--student_shape", shape, *QUICK[2:], *TINY]
    assert main(["distill", "--preset", name, *words]) == 0, capsys.readouterr().err
    assert "2 steps" in capsys.readouterr().out
    assert head.from_pretrained(tmp_path / "student").config.num_hidden_layers == parse_shape(shape).num_layers
    results = json.loads((tmp_path / "student" / "results.json").read_text())
    assert set(results["objectives"]) == {
        item if isinstance(item, str) else item["objective"] for item in load_preset(name)["objectives"]
    }
    written = yaml.safe_load((tmp_path / "student" / "arguments.yaml").read_text())
    assert written["learning_rate"] == load_preset(name)["learning_rate"]
