"""`make release`: what is checked before a student of `model_cards/` goes to the Hub, and what goes there."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import safetensors.torch
import yaml
from tiny_data import save_model

from hf_distill.hub.model_card import CardFacts, write_model_card
from hf_distill.students.sizes import count_parameters

ROOT = Path(__file__).parents[2]
EXAMPLE = Path(__file__).parent / "released_card" / "facts.yaml"
NAME = "small"
MODULES = ("release", "model_cards", "collect_run", "record")


@pytest.fixture
def scripts(monkeypatch):
    """`benchmarks/release.py` and `benchmarks/model_cards.py` as modules."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import release

    import model_cards

    yield Namespace(release=release, cards=model_cards)
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def ready(scripts, tmp_path, tiny_student, tiny_tokenizer):
    """A student with its card, ready for a release: `main(*words)`, its weights and its facts."""
    weights, card = tmp_path / "weights" / NAME, tmp_path / "cards" / NAME
    save_model(weights, tiny_student, tiny_tokenizer)
    card.mkdir(parents=True)
    count = count_parameters(tiny_student)
    known = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    known["student"] |= {"name": NAME, "num_layers": 2, "hidden_size": 12, "parameters": count.total}
    for score in known["scores"]:
        score["student"], score["majority"] = 0.7, 0.5
    results = {
        "job": "distill", "settings": {"per_device_train_batch_size": 64}, "first_weights": "random", "steps": 1200,
        "seed": 42, "training_seconds": 600.0, "environment": {"device": "x86_64", "cpus": 2, "threads": 1},
        "textbook_rows": 76800,
    }  # fmt: skip
    (weights / "results.json").write_text(json.dumps(results))
    write_model_card(str(weights), CardFacts.from_dict(known))
    facts = scripts.cards.with_student(known, weights)
    (card / "facts.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))
    scripts.cards.render_folder(card)

    def main(*words):
        return scripts.release.main(["--weights", str(weights.parent), "--cards", str(card.parent), *words])

    return Namespace(main=main, weights=weights, card=card, facts=facts, render=scripts.cards.render_folder)


def test_without_push_everything_is_shown_and_nothing_is_sent(ready, hub, capsys):
    assert ready.main("--owner", "anna") == 0
    said = capsys.readouterr()
    assert "not to be released" not in said.err
    assert "would be uploaded to anna/small (model):" in said.out
    assert "  model.safetensors" in said.out
    assert said.out.endswith("Nothing was sent; --push sends.\n")
    with pytest.raises(KeyError):
        hub.repo("anna/small")


def test_a_push_sends_the_weights_with_the_card_of_the_release(ready, hub, capsys):
    before = (ready.weights / "README.md").read_bytes()
    assert ready.main("small", "--owner", "anna", "--push") == 0
    files = hub.repo("anna/small").files("main")
    assert {"README.md", "distillation.json", "model.safetensors", "config.json", "results.json"} <= set(files)
    assert "anna/small is at" in capsys.readouterr().out
    assert (ready.weights / "README.md").read_bytes() == before, "the folder of the run stays as it is"


def spoil_card(ready):
    (ready.card / "README.md").write_text("another card")


def spoil_facts(ready):
    (ready.card / "facts.yaml").write_text(yaml.safe_dump(ready.facts | {"updates": 7}))
    ready.render(ready.card)


def spoil_weights(ready):
    path = ready.weights / "model.safetensors"
    values = safetensors.torch.load_file(path)
    values["classifier.bias"].fill_(float("nan"))
    safetensors.torch.save_file(values, path, {"format": "pt"})


def spoil_count(ready):
    student = ready.facts["student"] | {"parameters": 5}
    (ready.card / "facts.yaml").write_text(yaml.safe_dump(ready.facts | {"student": student}))
    ready.render(ready.card)
    facts = json.loads((ready.weights / "distillation.json").read_text())
    facts["student"]["parameters"] = 5
    (ready.weights / "distillation.json").write_text(json.dumps(facts))


def spoil_limits(ready):
    scores = [score | {"student": 0.4} for score in ready.facts["scores"]]
    (ready.card / "facts.yaml").write_text(yaml.safe_dump(ready.facts | {"scores": scores}))
    ready.render(ready.card)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_card, "README.md is not what facts.yaml says: python benchmarks/model_cards.py"),
        (spoil_facts, "its card and its run differ in updates"),
        (spoil_weights, "not finite"),
        (spoil_count, "its card says 5 parameters, its weights have"),
        (spoil_limits, "not above those of the most frequent label"),
        (lambda ready: (ready.weights / "config.json").unlink(), "there are no weights in"),
    ],
)
def test_what_stands_against_a_release_is_said_and_nothing_is_sent(ready, hub, capsys, spoil, message):
    spoil(ready)
    assert ready.main("--owner", "anna", "--push") == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not to be released: small: ")]
    assert [message in line for line in said] == [True]
    with pytest.raises(KeyError):
        hub.repo("anna/small")


def test_a_name_without_a_card_is_an_error(ready):
    with pytest.raises(ValueError, match=r"no cards of \['large'\].*there are \['small'\]"):
        ready.main("large")
