"""Names, weights and a user's own objective."""

import pytest
import torch

from hf_distill.objectives import (
    LogitsObjective,
    Objective,
    WeightedObjective,
    base,
    build_objectives,
    list_objectives,
    register_objective,
)


def test_items_are_names_weights_or_objects():
    mine = LogitsObjective("mse")
    built = build_objectives(["relation:2", "labels", mine, WeightedObjective("other", LogitsObjective(), 0.5)])
    assert [(item.name, item.weight) for item in built] == [
        ("relation", 2.0),
        ("labels", 1.0),
        ("logits_objective", 1.0),
        ("other", 0.5),
    ]
    assert built[2].objective is mine


def test_options_go_to_the_constructors_that_know_them():
    relation, logits = build_objectives(["relation", "logits"], {"relations": ["vv"], "temperature": 8.0})
    assert relation.objective.relations == {"vv": 1.0}
    assert logits.objective.temperature == 8.0


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["relatoin"], r"--objectives.*'relatoin'.*labels, logits, minilm, relation.*Did you mean 'relation'"),
        (["relation:x"], r"'relation:x'.*name:weight"),
        (["relation:-1"], "above 0"),
        (["relation", "relation:2"], "more than once"),
    ],
)
def test_unreadable_items_are_refused(items, message):
    with pytest.raises(ValueError, match=message):
        build_objectives(items)


def test_registering_makes_a_name_known(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @register_objective("constant")
    class Constant(Objective):
        """Always one."""

        def forward(self, student, teacher, labels=None):
            return {"one": torch.ones(())}

    assert build_objectives(["constant:3"])[0].weight == 3
    assert list_objectives()["constant"] == "Always one."
    with pytest.raises(ValueError, match="registered already"):
        register_objective("constant")(Constant)
