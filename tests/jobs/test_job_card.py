"""The card of a student: an example that its code prints, limits that follow, and what a visitor would miss."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_data import save_model
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    set_seed,
)

from hf_distill.cli import main
from hf_distill.commands.card import problems_of, run as make_card
from hf_distill.commands.student_facts import onnx_facts
from hf_distill.hub.disclosure import public
from hf_distill.hub.model_card import (
    CardFacts,
    ModelFacts,
    ScoreFacts,
    limits_of,
    read_facts,
    render_card,
    write_model_card,
)
from hf_distill.settings import CardArguments


@pytest.fixture
def student(tmp_path, monkeypatch, tiny_bert_config, tiny_tokenizer):
    """`student(kind, **config)`: the folder `small` of a student without a card, in the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(kind=BertForSequenceClassification, **config):
        set_seed(0)
        names = {"id2label": {0: "no", 1: "yes"}} if kind is BertForSequenceClassification else {}
        return save_model(tmp_path / "small", kind(tiny_bert_config(**names, **config)), tiny_tokenizer)

    return make


def card_of(folder: str) -> str:
    return Path(folder, "README.md").read_text(encoding="utf-8")


def first_code(card: str) -> str:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]


def header_of(card: str) -> dict:
    return yaml.safe_load(card.split("---")[1])


def numbers_of(text: str) -> list[float]:
    return [pytest.approx(float(number), abs=6e-5) for number in re.findall(r"\d\.\d+", text)]


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForTokenClassification, BertForMaskedLM])
def test_the_card_shows_what_its_code_prints(student, capsys, kind):
    folder = student(kind)
    make_card(CardArguments(folder))
    card, example = card_of(folder), read_facts(folder).example
    assert "***" not in card
    assert f"```text\n{example.printed}\n```" in card
    exec(compile(first_code(card), "card", "exec"), {})
    printed = capsys.readouterr().out.strip()
    assert [float(number) for number in re.findall(r"\d\.\d+", printed)] == numbers_of(example.printed)
    (widget,) = header_of(card)["widget"]
    assert {name: widget[name] for name in example.inputs} == example.inputs
    if kind is not BertForTokenClassification:
        scores = [answer["score"] for answer in widget["output"]]
        assert scores == sorted(scores, reverse=True)


def test_an_example_of_ones_own_and_the_repository_are_in_the_code(student):
    folder = student()
    assert main(["card", folder, "--repo", "me/small", "--example", "A day at the sea.", "--licence", "mit"]) == 0
    card = card_of(folder)
    assert 'pipeline("text-classification", model="me/small")\nprint(classify("A day at the sea."))' in card
    header = header_of(card)
    assert header["widget"][0]["text"] == "A day at the sea."
    assert {answer["label"] for answer in header["widget"][0]["output"]} == {"no", "yes"}
    assert header["license"] == "mit"
    assert "It answers with 2 labels: `no`, `yes`." in card
    # Rendered again, nothing is lost but the example, which is the package's again.
    make_card(CardArguments(folder))
    assert read_facts(folder).student.hub_id == "me/small"
    assert read_facts(folder).licence == "mit"


def test_a_bare_encoder_has_a_card_without_example(student):
    found = make_card(CardArguments(student(BertModel)))
    assert "there is no example with its output" not in found["problems"]
    assert "it has no scores" in found["problems"]


def test_results_beside_the_weights_are_on_the_card(student):
    folder = student()
    results = {
        "job": "adapt",
        "task": "mood",
        "metric": "accuracy",
        "split": "validation",
        "split_rows": 12,
        "seed": 3,
    }
    scores = {
        role: {"score": number / 10} for number, role in enumerate(("majority", "student", "baseline", "teacher"))
    }
    Path(folder, "results.json").write_text(json.dumps(results | scores), encoding="utf-8")
    make_card(CardArguments(folder))
    (score,) = read_facts(folder).scores
    assert (score.student, score.teacher, score.baseline, score.majority) == (0.1, 0.3, 0.2, 0.0)
    assert (score.rows, score.seed) == (12, 3)


def test_results_of_some_rows_are_partial_on_the_card(student):
    folder = student()
    results = {"job": "evaluate", "task": "mood", "metric": "accuracy", "split": "test", "split_rows": 12, "seed": 3}
    results |= {"score": 0.5, "majority": {"score": 0.5}, "constant": "no", "max_eval_samples": 12}
    Path(folder, "results.json").write_text(json.dumps(results), encoding="utf-8")
    make_card(CardArguments(folder))
    (score,) = read_facts(folder).scores
    assert (score.complete, score.constant, score.majority) == (False, "no", 0.5)
    assert "| mood | test (partial) | accuracy |" in card_of(folder)


def test_a_student_of_several_labels_shows_them_all(student, capsys):
    folder = student(problem_type="multi_label_classification")
    make_card(CardArguments(folder))
    card, facts = card_of(folder), read_facts(folder)
    assert "2 labels, of which a text may have several: `no`, `yes`." in card
    assert facts.limits[-1] == "It knows its 2 labels and no others."
    exec(compile(first_code(card), "card", "exec"), {})
    printed = capsys.readouterr().out.strip()
    assert [float(number) for number in re.findall(r"\d\.\d+", printed)] == numbers_of(facts.example.printed)
    assert facts.example.printed.count("label") == 2


def test_a_check_names_what_is_missing_and_writes_nothing(student, capsys):
    folder = student()
    assert main(["card", folder, "--check"]) == 2
    assert f"there is no README.md with its distillation.json; `hf-distill card {folder}`" in capsys.readouterr().err
    make_card(CardArguments(folder))
    before = card_of(folder)
    with pytest.raises(ValueError, match=r"names no licence \(`--licence`\); its header names no language"):
        make_card(CardArguments(folder, check=True))
    assert card_of(folder) == before


def test_a_complete_card_passes_the_check(student, capsys):
    folder = student()
    score = ScoreFacts("mood", "accuracy", "validation", 0.9, majority=0.5, seed=1, rows=5000)
    given = {"language": ["en"], "licence": "mit", "pipeline_tag": "text-classification", "labels": ["no", "yes"]}
    write_model_card(
        folder, CardFacts("small", [ModelFacts("big", "a/big")], ModelFacts("small"), scores=[score], **given)
    )
    assert main(["card", folder]) == 0
    assert capsys.readouterr().out.endswith(f"complete\ngo on with: hf-distill push {folder} USER/NAME --dry_run\n")
    assert main(["card", folder, "--check"]) == 0
    code = (
        f"import sys; from hf_distill.cli import main; assert main(['card', {folder!r}, '--check']) == 0\n"
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", "a check loads no model"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labels": ["LABEL_0", "LABEL_1"]}, "the labels have no names"),
        ({"scores": [ScoreFacts("mood", "accuracy", "test", 0.9, majority=0.5)]}, "do not say the seed"),
        ({"scores": [ScoreFacts("mood", "accuracy", "test", 0.9, seed=1)], "labels": ["a", "b"]}, "majority label"),
        ({"scores": [ScoreFacts("mood", "accuracy", "test", 0.4, majority=0.5, seed=1)]}, "are not above"),
    ],
)
def test_every_problem_is_found(tmp_path, change, problem):
    write_model_card(tmp_path, CardFacts("small", [], ModelFacts("small"), **change))
    assert any(problem in found for found in problems_of(tmp_path))


def test_a_folder_of_this_machine_in_a_card_is_a_problem(tmp_path):
    write_model_card(tmp_path, CardFacts("small", [], ModelFacts("small")))
    card = tmp_path / "README.md"
    place = "/home/somebody/data/reviews.csv"
    assert public(place) != place
    card.write_text(card.read_text(encoding="utf-8") + f"\nmade of {place}\n", encoding="utf-8")
    assert "it names a folder of this machine, or a secret" in problems_of(tmp_path)


def test_a_header_that_is_no_yaml_is_a_problem(tmp_path):
    write_model_card(tmp_path, CardFacts("small", [], ModelFacts("small")))
    (tmp_path / "README.md").write_text("---\ntags: [a\n---\n", encoding="utf-8")
    assert problems_of(tmp_path)[0].startswith("its header cannot be read")


def test_what_is_no_student_has_no_card(tmp_path):
    with pytest.raises(ValueError, match=r"holds no student: there is no config\.json"):
        make_card(CardArguments(str(tmp_path)))


def test_a_repository_that_cannot_have_its_name_is_refused(student):
    with pytest.raises(ValueError, match="`--repo` 'bad name' is not a valid name of a repository"):
        make_card(CardArguments(str(student), repo="bad name"))


def test_limits_follow_from_the_facts():
    facts = CardFacts("small", [], ModelFacts("small"))
    assert limits_of(facts) == ["Not scored on any task: measure its quality on your own task first."]
    facts.scores = [ScoreFacts("mood", "accuracy", "test", 0.9, rows=200, seed=seed) for seed in (1, 1)]
    facts.labels = ["no", "yes"]
    assert limits_of(facts) == [
        "One seed: differences of about a point are within what another seed gives.",
        "Scored on 200 rows of mood (test): a row is 0.5 points.",
        "It answers with one of its 2 labels, also where none of them fits.",
        "Made for texts like those of mood; other texts and other languages were not tried.",
    ]
    facts.scores[1].seed, facts.labels = 2, []
    assert not any("One seed" in limit for limit in limits_of(facts))


def test_onnx_files_have_a_table_and_code():
    exported = {
        "bytes": {"pytorch": 40_000_000, "onnx": 41_000_000, "onnx_int8": 10_500_000},
        **{"difference": 1e-6, "int8_difference": 0.25, "metric": "accuracy"},
        "scores": {"pytorch": 0.9, "onnx": 0.9, "onnx_int8": 0.875},
    }
    beside = CardFacts("small", [], ModelFacts("me/small"), pipeline_tag="text-classification")
    beside.onnx = onnx_facts(exported, "onnx/")
    card = render_card(beside)
    assert "| `onnx/model_quantized.onnx` | int8 | 10.5 | 0.875 |" in card.splitlines()
    assert 'model="me/small"' in first_code(card)
    assert 'InferenceSession("onnx/model_quantized.onnx")' in card
    assert "more than 1e-06 in fp32, by more than 0.25 in int8; in PyTorch the accuracy is 0.9." in card
    table = card.partition("## ONNX files\n\n")[2].partition("\n\n")[0].splitlines()
    assert [line.count("|") for line in table] == [5] * 4
    beside.onnx = onnx_facts(exported, "")
    assert 'InferenceSession("model_quantized.onnx")' in first_code(render_card(beside))
