"""Cards of released students: complete, equal to their facts, and gathered from what the runs wrote."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from tiny_data import save_model, write_task
from transformers import BertModel, set_seed

from hf_distill.cli import main as hf_distill
from hf_distill.hub.model_card import CardFacts

ROOT = Path(__file__).parents[2]
EXAMPLE = Path(__file__).parent / "released_card"
RELEASED = sorted(path.parent for path in (ROOT / "model_cards").glob("*/facts.yaml"))
QUICK = "--use_cpu --disable_tqdm true --report_to none --max_steps 2 --save_strategy no --max_length 16".split()


@pytest.fixture
def cards(monkeypatch):
    """`benchmarks/model_cards.py` as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("model_cards", ROOT / "benchmarks" / "model_cards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("collect_run", "commit"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("folder", [EXAMPLE, *RELEASED], ids=lambda folder: folder.name)
def test_the_card_is_what_its_facts_say(cards, folder):
    expected = cards.render_card(cards.read_card_facts(folder))
    assert (folder / "README.md").read_text(encoding="utf-8") == expected, (
        f"run: python benchmarks/model_cards.py {folder}"
    )
    assert ModelCard(expected).data.model_name


def test_every_folder_of_cards_has_its_facts():
    folders = [path for path in (ROOT / "model_cards").iterdir() if path.is_dir()]
    assert sorted(folders) == RELEASED


def test_the_scale_stands_above_the_scores_and_scores_say_how_they_were_made():
    card = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    scale = "**Scale.** 1200 updates of 64 rows, seed 42. An example: the paper makes 400,000 updates of 256 rows."
    assert scale in card
    assert card.index(scale) < card.index("## Scores")
    assert (
        "| task | split | metric | student | teacher | baseline | student / teacher | rows | seed | commit |" in card
    )
    assert "| glue/sst2 | validation | accuracy | 0.5 | 0.75 | 0.25 | 66.7 % | 872 | 42 | 0000000 |" in card


@pytest.mark.parametrize(
    ("leave_out", "message"),
    [
        (("scale",), "does not say: scale"),
        (("speed", "hardware"), "does not say: speed; hardware"),
        (("scores", 0, "seed"), r"does not say: scores \(glue/sst2\): seed"),
        (("student", "parameters"), "does not say: student: parameters"),
        (("corpus", "statistics", "rows"), "does not say: corpus: statistics: rows"),
    ],
)
def test_what_was_not_measured_is_an_error(cards, tmp_path, leave_out, message):
    values = yaml.safe_load((EXAMPLE / "facts.yaml").read_text(encoding="utf-8"))
    if leave_out == ("speed", "hardware"):
        del values["speed"], values["hardware"]
    else:
        inner = values
        for key in leave_out[:-1]:
            inner = inner[key]
        del inner[leave_out[-1]]
    (tmp_path / "facts.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=message):
        cards.read_card_facts(tmp_path)


def test_a_key_that_is_unknown_is_an_error(cards, tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "card")
    facts = tmp_path / "card" / "facts.yaml"
    facts.write_text(facts.read_text(encoding="utf-8") + "colour: red\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no fields \['colour'\]"):
        cards.main([str(tmp_path / "card")])


def test_the_page_names_every_key(cards):
    page = (ROOT / "model_cards" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in CardFacts.__dataclass_fields__)
    assert all(f"`{name}`" in page for name in cards.REQUIRED_OF_SCORES)


def test_facts_are_gathered_from_runs_and_what_was_written_by_hand_stays(
    cards, tmp_path, tiny_tokenizer, tiny_bert_config, sentences, capsys
):
    rows = [{"text": text, "label": ("no", "yes")[i % 2]} for i, text in enumerate(sentences)]
    write_task(tmp_path / "mood", rows)
    (tmp_path / "text.txt").write_text("\n".join(sentences))
    set_seed(0)
    save_model(tmp_path / "encoder", BertModel(tiny_bert_config()), tiny_tokenizer)
    task = ["--task", str(tmp_path / "mood"), "--text_columns", "text"]
    teacher, student = str(tmp_path / "encoder"), str(tmp_path / "student")
    shape = ["--student_shape", "2x12:2h:20", "--per_device_train_batch_size", "4"]
    words = ["--teacher_model", teacher, "--textbook", str(tmp_path / "text.txt"), "--output_dir", student]
    assert hf_distill(["distill", *QUICK, *shape, *words]) == 0
    words = ["--student_model", student, "--from_scratch", "--output_dir", str(tmp_path / "adapted")]
    assert hf_distill(["adapt", *QUICK, *task, *words]) == 0

    folder = tmp_path / "cards" / "mood-2x12"
    folder.mkdir(parents=True)
    by_hand = {
        "model_name": "mood-2x12",
        "teacher": [{"name": "a tiny encoder", "licence": "apache-2.0"}],
        "student": {"name": "mood-2x12", "hub_id": "me/mood-2x12"},
        "corpus": {"name": "Fifty sentences", "description": "made for a test", "licence": "apache-2.0"},
        "scale": "tiny, for a test",
        "limits": ["It knows nothing."],
        "language": ["en"],
        "licence": "apache-2.0",
    }
    (folder / "facts.yaml").write_text(yaml.safe_dump(by_hand))
    (tmp_path / "bench.json").write_text(
        json.dumps({"speed": {"speedup": 2.0, "num_batches": 3, "batch_size": 2, "seq_length": 8, "device": "cpu"}})
    )
    runs = ["--student", student, "--scores", str(tmp_path / "adapted"), "--commands", student]
    arguments = [str(folder), *runs, "--speed", str(tmp_path / "bench.json"), "--commit", "abc1234"]
    # No teacher was scored, so the card is not complete, and says so; the facts are written all the same.
    with pytest.raises(ValueError, match=r"does not say: scores \(mood\): teacher"):
        cards.main(arguments)
    facts = yaml.safe_load((folder / "facts.yaml").read_text())
    results = json.loads((tmp_path / "adapted" / "results.json").read_text())
    assert facts["scores"] == [
        {
            "task": "mood",
            "metric": "accuracy",
            "split": "validation",
            "seed": 42,
            "rows": len(rows) - 40,
            "commit": "abc1234",
            "task_type": "text-classification",
            "student": results["student"]["score"],
            "baseline": results["baseline"]["score"],
        }
    ]
    assert (facts["updates"], facts["rows_per_update"], facts["seed"]) == (2, 4, 42)
    assert facts["corpus"] == by_hand["corpus"] | {
        "statistics": {"rows": len(sentences), "rows of the whole textbook": len(sentences)}
    }
    assert facts["teacher"][0]["name"] == "a tiny encoder"
    assert (facts["teacher"][0]["num_layers"], facts["student"]["num_layers"]) == (3, 2)
    assert facts["student"]["bytes"] > 0
    assert facts["commands"][0].startswith("hf-distill distill --student_shape 2x12:2h:20")
    assert str(tmp_path) not in (folder / "facts.yaml").read_text()

    facts["scores"][0]["teacher"] = 0.75
    facts["speed"]["dtype"] = "float32"
    (folder / "facts.yaml").write_text(yaml.safe_dump(facts))
    capsys.readouterr()
    cards.main([str(folder)])
    assert capsys.readouterr().out == f"{folder / 'README.md'}\n"
    assert "**Scale.** 2 updates of 4 rows, seed 42. tiny, for a test." in (folder / "README.md").read_text()


def test_every_seed_is_a_row_and_a_baseline_joins_the_run_of_its_seed(cards):
    def result(seed, student, teacher=None, baseline=None):
        scores = {"student": student, "teacher": teacher, "baseline": baseline}
        roles = {role: None if score is None else {"score": score} for role, score in scores.items()}
        return {"task": "mood", "metric": "accuracy", "split": "validation", "seed": seed, "split_rows": 9, **roles}

    rows = cards.scores_of([result(1, 0.5, 0.75), result(2, 0.6), result(1, 0.1, None, 0.25)], "abc")
    assert [(row["seed"], row["student"], row.get("teacher"), row.get("baseline")) for row in rows] == [
        (1, 0.5, 0.75, 0.25),
        (2, 0.6, None, None),
    ]


def test_student_and_teacher_may_each_be_scored_as_they_are(cards):
    def result(score):
        told = {"task": "glue/stsb", "metric": "cosine_spearman", "split": "validation", "seed": 42, "split_rows": 9}
        return {"job": "evaluate", "kind": "vectors", "score": score, **told}

    (row,) = cards.scores_of([result(0.8)], "abc", [result(0.9)])
    assert (row["student"], row["teacher"], row["task_type"]) == (0.8, 0.9, "sentence-similarity")


def test_the_speed_of_a_comparison_is_that_of_the_student_that_was_named(cards):
    row = {"num_batches": 100, "batch_size": 32, "seq_length": 128}
    rows = [row | {"model": name, "speedup": speedup} for name, speedup in (("t", 1.0), ("a", 5.0), ("b", 9.0))]
    record = {"protocol": rows, "device": "cpu (2 threads)"}
    assert cards.speed_of(record, "b") == row | {"speedup": 9.0, "device": "cpu (2 threads)", "dtype": "float32"}
    assert cards.speed_of({**record, "protocol": rows[:2]}, None)["speedup"] == 5.0
    with pytest.raises(ValueError, match=r"`--speed_of` is None; allowed are \['a', 'b'\]"):
        cards.speed_of(record, None)
