"""The plugin that docs/extending.md shows, file by file: every recipe of the page works from the command line."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import yaml
from tiny_data import save_model, write_task
from transformers import BertModel, set_seed

from hf_distill.capture.architecture_table import ARCHITECTURES
from hf_distill.capture.signals import Signals
from hf_distill.cli import main
from hf_distill.corpus.search import retrieval
from hf_distill.corpus.text.analysis import Analyzer
from hf_distill.objectives import base, build_objectives
from hf_distill.settings import parsing
from hf_distill.tasks.catalogue import registry

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "extending.md"
QUICK = "--use_cpu --disable_tqdm true --report_to none --max_steps 2 --save_strategy no".split()
QUICK += "--max_length 16 --logging_steps 1".split()


@pytest.fixture
def my_plugin(tmp_path, monkeypatch):
    """The page's files as a package that Python finds; what it registers is forgotten afterwards."""
    folder = tmp_path / "plugins" / "my_plugin"
    folder.mkdir(parents=True)
    for name, text in re.findall(
        r"^```py\n# my_plugin/(\w+\.py)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copy(TESTS / "plugin_model.py", folder / "model.py")
    assert len(list(folder.iterdir())) == 7
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    tasks = dict(registry.registered_tasks())
    monkeypatch.setattr(registry, "registered_tasks", lambda: tasks)
    monkeypatch.setattr(retrieval, "_REGISTERED", {})
    monkeypatch.setattr(parsing, "_LOADED", [])
    with patch.dict(ARCHITECTURES):
        yield "my_plugin"
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_plugin"]:
        del sys.modules[name]
    forget_classes()


def forget_classes():
    """transformers keeps what is registered with its auto classes: another test makes the same classes anew."""
    from transformers.models.auto import configuration_auto, modeling_auto

    configuration_auto.CONFIG_MAPPING._extra_content.pop("plain_encoder", None)
    for auto_class in vars(modeling_auto).values():
        extra = getattr(getattr(auto_class, "_model_mapping", None), "_extra_content", {})
        for config in [config for config in extra if config.__name__ == "PlainConfig"]:
            del extra[config]


@pytest.fixture
def data(tmp_path, tiny_tokenizer, tiny_bert_config, sentences):
    """Rows of the plugin's task, a general corpus and an encoder."""
    rows = [{"text": text, "label": ("bad", "good")[i % 2]} for i, text in enumerate(sentences)]
    write_task(tmp_path / "moods", rows)
    general = [f"{one} and {other}" for one, other in zip(sentences, reversed(sentences), strict=True)]
    (tmp_path / "general.txt").write_text("\n".join(general))
    set_seed(0)
    save_model(tmp_path / "encoder", BertModel(tiny_bert_config()), tiny_tokenizer)
    return tmp_path


def run(*words):
    assert main([str(word) for word in words]) == 0


# --- each recipe on the command line --------------------------------------------------------------------------------


def test_an_objective_trains_with_settings_of_its_own_and_ends_in_the_arguments(my_plugin, data):
    words = [*QUICK, "--textbook", data / "general.txt", "--teacher_model", data / "encoder", "--output_dir"]
    item = '{"objective": "state_norms", "norm_layer": 1}'
    shape = ["--student_shape", "2x12:2h:20", "--objectives", "relation", item]
    run("distill", "--plugins", my_plugin, *words, data / "student", *shape)
    results = json.loads((data / "student" / "results.json").read_text())
    assert results["steps"] == 2
    facts = json.loads((data / "student" / "distillation.json").read_text())
    assert facts["objectives"][1]["settings"] == {"norm_layer": 1}
    assert "loss/state_norms/difference" in facts["curves"]


def test_the_arguments_that_a_run_wrote_name_the_plugin_for_the_next_one(my_plugin, data):
    words = [*QUICK, "--textbook", data / "general.txt", "--teacher_model", data / "encoder", "--output_dir"]
    shape = ["--student_shape", "2x12:2h:20", "--objectives", "state_norms"]
    run("distill", "--plugins", my_plugin, *words, data / "student", *shape)
    written = data / "student" / "arguments.yaml"
    assert yaml.safe_load(written.read_text())["plugins"] == [my_plugin]
    parsing._LOADED.clear()
    run("distill", written, "--output_dir", data / "again")
    assert parsing.loaded_plugins() == [my_plugin]
    first, second = (json.loads((data / name / "results.json").read_text()) for name in ("student", "again"))
    assert second["train_loss"] == first["train_loss"]


def test_a_task_is_known_by_its_name(my_plugin, data):
    words = [*QUICK, "--teacher_model", data / "encoder", "--output_dir", data / "teacher"]
    run("teach", "--plugins", my_plugin, "--task", "moods/film", "--data_dir", data / "moods", *words)
    results = json.loads((data / "teacher" / "results.json").read_text())
    assert (results["task"], results["metric"], results["train_rows"]) == ("moods/film", "accuracy", 40)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_an_engine_builds_the_corpus_that_the_others_build(my_plugin, data, num_proc):
    task = ["--task", "moods/film", "--data_dir", data / "moods", "--corpus", data / "general.txt", "--top_k", "3"]
    for engine in ("table", "bm25s"):
        words = ["--engine", engine, "--corpus_dir", data / engine, "--num_proc", num_proc]
        run("corpus", "--plugins", my_plugin, *task, *words)
    made, expected = ((data / engine / "data" / "train-00000-of-00001.parquet") for engine in ("table", "bm25s"))
    assert made.read_bytes() == expected.read_bytes()
    assert json.loads((data / "table" / "statistics.json").read_text())["engine"]["name"] == "table"


def test_an_architecture_is_distilled_adapted_and_scored(my_plugin, data):
    import my_plugin.architecture as mine
    from transformers import AutoTokenizer

    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(data / "encoder")
    config = mine.PlainConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    save_model(data / "plain", mine.PlainForSequenceClassification(config), tokenizer)
    plugin, task = ["--plugins", "my_plugin"], ["--task", "moods/film", "--data_dir", data / "moods"]
    shape = ["--student_shape", "1x12:4h:20", "--objectives", "relation", "attention", "hidden", "logits"]
    words = [*QUICK, *shape, "--textbook", data / "general.txt", "--teacher_model", data / "plain"]
    run("distill", *plugin, *words, "--output_dir", data / "student")
    words = [*QUICK, "--student_model", data / "student", "--teacher_model", data / "plain"]
    run("adapt", *plugin, *task, *words, "--output_dir", data / "adapted")
    results = json.loads((data / "adapted" / "results.json").read_text())
    assert 0 <= results["student"]["score"] <= 1
    assert json.loads((data / "adapted" / "config.json").read_text())["architectures"] == [
        "PlainForSequenceClassification"
    ]


def test_info_shows_what_a_plugin_brings(my_plugin, capsys):
    for topic, name in (("objectives", "state_norms"), ("tasks", "moods/film"), ("engines", "table")):
        run("info", topic, "--plugins", my_plugin)
        assert re.search(rf"^{name} ", capsys.readouterr().out, re.MULTILINE)
        run("info")
        assert re.search(rf"^{topic} .*\b{name}\b", capsys.readouterr().out, re.MULTILINE)


# --- what the page says of them -------------------------------------------------------------------------------------


def signals(states, mask):
    return Signals(attention_mask=mask, hidden_states={2: states})


def test_the_objective_is_its_formula_and_leaves_padding_out(my_plugin):
    parsing.load_plugins([my_plugin])
    ((_, objective),) = [(item.name, item.objective) for item in build_objectives(["state_norms"])]
    objective.bind(2, 2)
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 3, 4), torch.randn(2, 3, 6)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    value = objective(signals(ours, mask), signals(theirs, mask))["difference"]
    expected = [
        (ours[row, token].norm() / 4**0.5 - theirs[row, token].norm() / 6**0.5) ** 2
        for row, token in mask.nonzero().tolist()
    ]
    torch.testing.assert_close(value, torch.stack(expected).mean())
    assert objective(signals(ours, mask), signals(ours, mask))["difference"] == 0


def test_the_teacher_is_one_for_the_trainer(my_plugin, make_trainer, tiny_tokenizer, sentences):
    word_list = importlib.import_module(f"{my_plugin}.teacher").WordList
    ids = tiny_tokenizer(sentences[0])["input_ids"]
    rows = [{"text": text} for text in sentences[:8]]
    trainer = make_trainer(word_list(ids), train_dataset=rows, objectives=["logits"], max_steps=1)
    assert trainer.train().global_step == 1
    assert trainer.manifest()["ids"] == sorted(ids)
    says = trainer.teacher.signals(
        {name: torch.tensor([values]) for name, values in tiny_tokenizer(sentences[0]).items()}
    )
    torch.testing.assert_close(says.logits["logits"], torch.tensor([[0.0, 4.0]]))


def test_the_engine_agrees_with_ours_to_the_last_bit(my_plugin, tmp_path):
    parsing.load_plugins([my_plugin])
    generator = np.random.default_rng(0)
    words = [f"w{number}" for number in range(30)]
    streams = Analyzer().encode([[" ".join(generator.choice(words, generator.integers(1, 20))) for _ in range(60)]])
    queries = [["w1", "w2", "w2"], [], ["nothing"], words]
    found = []
    for engine in ("table", "bm25s"):
        handle = retrieval.save_index(streams, tmp_path / engine, {"engine": engine, "k1": 1.2, "b": 0.75})
        found.append(handle.open().search(queries, 7))
    for (rows, scores), (other_rows, other_scores) in zip(*found, strict=True):
        np.testing.assert_array_equal(rows, other_rows)
        np.testing.assert_array_equal(scores, other_scores)


def test_a_name_that_is_taken_is_refused(my_plugin):
    parsing.load_plugins([my_plugin])
    with pytest.raises(ValueError, match=r"already an engine 'table'; there are \['auto', 'retriv', .*'table'\]"):
        retrieval.register_engine(type("Other", (), {"name": "table", "max_rows": 0}))
    with pytest.raises(ValueError, match="already an engine 'bm25s'"):
        retrieval.register_engine(type("Other", (), {"name": "bm25s", "max_rows": 0}))


# --- what can go wrong ----------------------------------------------------------------------------------------------


def test_a_plugin_that_is_not_there_is_an_error_that_names_the_flag(capsys):
    assert main(["info", "--plugins", "no_such_plugin"]) == 2
    last = capsys.readouterr().err
    assert last.startswith("hf-distill info: `--plugins` has 'no_such_plugin', which cannot be imported (No module")
    assert last.count("\n") == 1


def test_its_flag_is_in_the_help_of_all_flags(capsys):
    with pytest.raises(SystemExit):
        main(["corpus", "--help_all"])
    assert "--plugins MODULE" in capsys.readouterr().out


def test_a_plugin_is_imported_once_and_named_once(my_plugin):
    parsing.load_plugins([my_plugin, my_plugin])
    parsing.load_plugins([my_plugin])
    assert parsing.loaded_plugins() == [my_plugin]
