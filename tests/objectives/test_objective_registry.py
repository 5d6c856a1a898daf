"""Names, weights and a user's own objective."""

import json

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


def test_a_mapping_or_its_json_sets_place_and_settings_of_one_objective():
    hot = {"objective": "logits", "name": "hot", "weight": 0.5, "schedule": "linear_decay", "temperature": 8}
    cold, first, second = build_objectives(["logits", hot, json.dumps(hot | {"name": "hotter", "teacher": 1})])
    assert (cold.name, cold.objective.temperature, cold.schedule, cold.teacher) == ("logits", 1.0, None, None)
    assert (first.name, first.weight, first.objective.temperature) == ("hot", 0.5, 8)
    assert first.schedule(0.25) == 0.75
    assert (second.name, second.teacher) == ("hotter", 1)


def test_settings_of_one_objective_win_over_those_of_all():
    (item,) = build_objectives([{"objective": "logits", "temperature": 2}], {"temperature": 8, "logits_loss": "kl"})
    assert (item.objective.temperature, item.objective.logits_loss) == (2, "kl")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [{"objective": "logits", "temprature": 2}],
            r"'logits' has no settings \['temprature'\]; it has .*temperature",
        ),
        ([{"weight": 2}], "does not say which `objective`"),
        (['{"objective": logits}'], "is not JSON"),
        ([{"objective": "logits", "weight": 0}], "above 0"),
        ([{"objective": "logits", "name": "a.b"}], r"named 'a\.b'; allowed are letters"),
        ([{"objective": "logits", "schedule": "slow"}], "`schedule` is 'slow'; allowed are constant"),
        (["relatoin"], r"--objectives.*'relatoin'.*labels, listwise, logits, .*relation.*Did you mean 'relation'"),
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


def test_a_mapping_is_names_and_their_weights():
    built = build_objectives({"relation": 5, "logits": {"weight": 2, "temperature": 4}})
    assert [(item.name, item.weight) for item in built] == [("relation", 5.0), ("logits", 2.0)]
    assert built[1].objective.temperature == 4
    assert [item.name for item in build_objectives("relation")] == ["relation"]
    with pytest.raises(ValueError, match="`--objectives` is 5; it must be a list"):
        build_objectives(5)
