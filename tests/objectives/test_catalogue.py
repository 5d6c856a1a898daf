"""What people read about objectives."""

import pytest
import torch

from hf_distill.hub.citations import CITATIONS
from hf_distill.objectives import Objective, base, list_objectives, register_objective
from hf_distill.objectives.catalogue import catalogue

ENTRIES = {entry.name: entry for entry in catalogue()}


def test_every_objective_is_there():
    assert [entry.name for entry in catalogue()] == list(list_objectives())


@pytest.mark.parametrize("name", ENTRIES)
def test_every_objective_says_what_it_computes_in_one_line(name):
    assert ENTRIES[name].formula
    assert "\n" not in ENTRIES[name].formula
    assert ENTRIES[name].summary.endswith(".")


@pytest.mark.parametrize("name", ENTRIES)
def test_every_citation_has_an_entry(name):
    assert ENTRIES[name].citation in {"", *CITATIONS}


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("labels", ("labels", "logits")),
        ("annealed", ("teacher", "labels", "logits")),
        ("logits", ("teacher", "logits")),
        ("relation", ("teacher", "queries, keys and values")),
        ("hidden", ("teacher", "hidden states")),
        ("attention", ("teacher", "attention scores")),
        ("tinybert", ("teacher", "hidden states", "attention scores")),
    ],
)
def test_needs_are_those_of_the_default_settings(name, needs):
    assert ENTRIES[name].needs == needs


def test_settings_are_the_parameters_that_a_user_may_set():
    assert ENTRIES["attention"].settings == {"layers": "uniform", "loss": "mse"}
    assert ENTRIES["relation"].settings["relation_heads"] == "auto"
    assert "problem_type" not in ENTRIES["logits"].settings


def test_an_objective_that_cannot_do_without_settings_is_listed_all_the_same(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @register_objective("constant")
    class Constant(Objective):
        """Always the same."""

        needs_teacher = False

        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, student, teacher, labels=None):
            return {"value": torch.tensor(self.value)}

    (entry,) = (entry for entry in catalogue() if entry.name == "constant")
    assert (entry.summary, entry.needs, entry.formula) == ("Always the same.", (), "")
    assert Constant.registered_name == "constant"
