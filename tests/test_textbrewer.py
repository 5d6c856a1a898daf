"""TextBrewer's configurations become ours, and the sum of their losses stays what it was."""

import json

import pytest
import torch
import yaml
from torch.nn import functional as F

from hf_distill import DistillationArguments
from hf_distill.capture.signals import Signals
from hf_distill.cli import main
from hf_distill.objectives import build_objectives
from hf_distill.settings.convert import convert_config, convert_file

# Figure 3 of the paper: BERT-base to T4-tiny.
FIGURE_3 = {
    "temperature": 8,
    "temperature_scheduler": "none",
    "hard_label_weight": 0,
    "hard_label_weight_scheduler": "none",
    "kd_loss_type": "ce",
    "kd_loss_weight": 1,
    "kd_loss_weight_scheduler": "none",
    "probability_shift": False,
    "intermediate_matches": [
        *(
            {
                "layer_T": 3 * layer,
                "layer_S": layer,
                "feature": "hidden",
                "loss": "hidden_mse",
                "weight": 1,
                "proj": ["linear", 312, 768],
            }
            for layer in range(5)
        ),
        *(
            {
                "layer_T": [3 * layer, 3 * layer],
                "layer_S": [layer, layer],
                "feature": "hidden",
                "loss": "nst",
                "weight": 1,
            }
            for layer in range(5)
        ),
    ],
}
B, T, C, HEADS = 3, 5, 3, 2
SPANS = ("start_logits", "end_logits")
S_WIDTH, T_WIDTH, S_LAYERS, T_LAYERS = 4, 6, 4, 12


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sides():
    """Both models' signals for rows of one length."""
    made = []
    for start, width, depth in ((0, S_WIDTH, S_LAYERS), (1000, T_WIDTH, T_LAYERS)):
        made.append(
            Signals(
                attention_mask=torch.ones(B, T, dtype=torch.long),
                logits={"logits": 3 * draw(B, C, seed=start)},
                hidden_states={layer: draw(B, T, width, seed=start + 1 + layer) for layer in range(depth + 1)},
                attention_scores={
                    layer: draw(B, HEADS, T, T, seed=start + 100 + layer) for layer in range(1, depth + 1)
                },
            )
        )
    return made


def ours(config, sides, labels=None, progress=0.0):
    """The converted configuration's total loss, and its objectives."""
    arguments = DistillationArguments("out", use_cpu=True, **convert_config(config).arguments)
    items = build_objectives(arguments.objectives, arguments.objective_options())
    total = 0.0
    for item in items:
        item.objective.bind(S_LAYERS, T_LAYERS)
        item.objective.check(*sides)
        factor = item.schedule(progress) if item.schedule else 1.0
        total += item.weight * factor * sum(item.objective(*sides, labels).values())
    return total, {item.name: item.objective for item in items}


def kd_ce(student, teacher, temperature):
    """TextBrewer's cross-entropy: without the square of the temperature."""
    return -(F.softmax(teacher / temperature, -1) * F.log_softmax(student / temperature, -1)).sum(-1).mean()


def gram(first, second):
    return first @ second.transpose(1, 2) / first.shape[-1]


def test_the_papers_configuration_has_three_objectives():
    done = convert_config(FIGURE_3)
    assert done.arguments == {
        "objectives": [
            {
                "objective": "logits",
                "weight": 1.0,
                "logits_loss": "ce",
                "span_reduction": "sum",
                "temperature": 8.0,
                "scale_by_squared_temperature": False,
            },
            {"objective": "hidden", "weight": 1.0, "projection": "linear", "layers": "0:0,1:3,2:6,3:9,4:12"},
            {"objective": "nst", "weight": 1.0, "projection": "identity", "layers": "0:0,1:3,2:6,3:9,4:12"},
        ]
    }


def test_the_papers_configuration_gives_textbrewers_loss(sides):
    found, objectives = ours(FIGURE_3, sides)
    student, teacher = sides
    expected = kd_ce(student.logits["logits"], teacher.logits["logits"], 8)
    for layer in range(5):
        s, t = student.hidden_states[layer], teacher.hidden_states[3 * layer]
        expected += F.mse_loss(objectives["hidden"].projections(s, layer), t)
        expected += F.mse_loss(gram(s, s), gram(t, t))
    torch.testing.assert_close(found, expected)


def test_other_losses_and_weights_are_textbrewers(sides):
    config = {
        "temperature": 4,
        "kd_loss_type": "mse",
        "kd_loss_weight": 0.5,
        "hard_label_weight": 0.3,
        "intermediate_matches": [
            {"layer_T": 0, "layer_S": 0, "feature": "attention", "loss": "attention_ce", "weight": 0.2},
            {"layer_T": 11, "layer_S": 3, "feature": "attention", "loss": "attention_mse_sum", "weight": 0.7},
            {
                "layer_T": [0, 4],
                "layer_S": (0, 1),
                "feature": "hidden",
                "loss": "gram",
                "weight": 2,
                "proj": ["tanh", 4, 6],
            },
            {"layer_T": [0, 4], "layer_S": [0, 1], "feature": "hidden", "loss": "mmd", "weight": 1},
            {"layer_T": 12, "layer_S": 4, "feature": "hidden", "loss": "cos", "weight": 3, "proj": ["relu", 4, 6]},
            {"layer_T": 12, "layer_S": 4, "feature": "hidden", "loss": "pkd", "weight": 1, "proj": ["linear", 4, 6]},
        ],
    }
    labels = {"labels": torch.tensor([0, 2, 1])}
    found, objectives = ours(config, sides, labels)
    (student, teacher), logits = sides, [side.logits["logits"] for side in sides]
    expected = 0.5 * ((logits[0] - logits[1]) / 4).square().mean() + 0.3 * F.cross_entropy(logits[0], labels["labels"])
    scores = student.attention_scores[1], teacher.attention_scores[1]
    expected += 0.2 * -(scores[1].softmax(-1) * scores[0].log_softmax(-1)).sum(-1).mean()
    expected += 0.7 * F.mse_loss(student.attention_scores[4].sum(1), teacher.attention_scores[12].sum(1))
    s, t = [student.hidden_states[i] for i in (0, 1)], [teacher.hidden_states[i] for i in (0, 4)]
    projected = [objectives["fsp"].projections(x, 0) for x in s]
    flow = [a.transpose(1, 2) @ b / T for a, b in (projected, t)]
    expected += 2 * F.mse_loss(*flow) + F.mse_loss(gram(*s), gram(*t))
    last = teacher.hidden_states[12]
    close = objectives["cosine"].projections(student.hidden_states[4], 0)
    expected += 3 * (1 - F.cosine_similarity(close, last, -1)).mean()
    first = objectives["pkd"].projections(student.hidden_states[4], 0)[:, 0]
    expected += (F.normalize(first, dim=-1) - F.normalize(last[:, 0], dim=-1)).square().sum(-1).mean()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("spelling", [["flsw", 1, 2], ["flsw", {"beta": 1, "gamma": 2}], ["flsw", 1, 2, 1e-4]])
def test_temperatures_of_rows_are_kept(sides, spelling):
    found, _ = ours({"temperature": 4, "temperature_scheduler": spelling}, sides)
    student, teacher = (side.logits["logits"] for side in sides)
    weight = (1 - F.cosine_similarity(student, teacher, -1)).square()
    torch.testing.assert_close(
        found, kd_ce(student, teacher, (4 + weight.mean() - weight)[:, None]), rtol=1e-4, atol=0
    )


def test_schedules_replace_the_weight_as_they_do_there(sides):
    config = {"kd_loss_weight": 5, "kd_loss_weight_scheduler": "linear_decay", "temperature": 1}
    found, _ = ours(config, sides, progress=0.6)
    torch.testing.assert_close(found, 0.4 * kd_ce(*(side.logits["logits"] for side in sides), 1))
    growing = convert_config({"hard_label_weight": 0, "hard_label_weight_scheduler": "linear_growth"})
    assert growing.arguments["objectives"][1] == {"objective": "labels", "weight": 1.0, "schedule": "linear_growth"}


@pytest.mark.parametrize(
    ("weight", "scheduler", "weights"),
    [
        (5, "linear_decay", [5, 0.8, 0.6, 0.4, 0.2]),
        (1, "linear_decay", [1, 0.8, 0.6, 0.4, 0.2]),
        (0, "linear_decay", [0, 0.8, 0.6, 0.4, 0.2]),
        (1, "linear_growth", [1, 0.2, 0.4, 0.6, 0.8]),
        (0, "linear_growth", [0, 0.2, 0.4, 0.6, 0.8]),
    ],
)
def test_every_step_has_textbrewers_weight(weight, scheduler, weights):
    done = convert_config({"kd_loss_weight": weight, "kd_loss_weight_scheduler": scheduler})
    (item,) = build_objectives(done.arguments["objectives"])
    assert [item.weight * item.schedule(step / 5) for step in range(5)] == pytest.approx(weights)
    assert not done.warnings


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_start_and_end_are_added(loss):
    config = {"temperature": 4, "kd_loss_type": loss, "kd_loss_weight": 0.5}
    (item,) = build_objectives(convert_config(config).arguments["objectives"])
    spans = [
        Signals(
            torch.ones(B, T, dtype=torch.long),
            logits={name: draw(B, T, seed=seed + i) for i, name in enumerate(SPANS)},
        )
        for seed in (0, 10)
    ]
    pairs = [(spans[0].logits[name], spans[1].logits[name]) for name in SPANS]
    one = {"ce": lambda s, t: kd_ce(s, t, 4), "mse": lambda s, t: ((s - t) / 4).square().mean()}[loss]
    torch.testing.assert_close(item.weight * item.objective(*spans)["soft"], 0.5 * sum(one(s, t) for s, t in pairs))


def test_a_match_given_twice_counts_twice(sides):
    match = {"layer_T": 12, "layer_S": 4, "feature": "hidden", "loss": "nst", "weight": 2}
    once, _ = ours({"intermediate_matches": [match]}, sides)
    twice, objectives = ours({"intermediate_matches": [match, match]}, sides)
    without, _ = ours({}, sides)
    assert "nst_2" in objectives
    torch.testing.assert_close(twice - without, 2 * (once - without))


def test_defaults_are_textbrewers():
    (logits,) = convert_config({}).arguments["objectives"]
    assert (logits["temperature"], logits["logits_loss"], logits["weight"]) == (4, "ce", 1)
    (shifted,) = convert_config({"probability_shift": True}).arguments["objectives"]
    assert shifted["probability_shift"] is True


def test_matches_that_differ_in_more_than_layers_have_names_of_their_own():
    match = {"layer_T": 3, "layer_S": 1, "feature": "hidden", "loss": "hidden_mse"}
    items = convert_config({"intermediate_matches": [match, match | {"layer_T": 6, "layer_S": 2, "weight": 0.5}]})
    assert [(item.get("name"), item["layers"]) for item in items.arguments["objectives"][1:]] == [
        (None, "1:3"),
        ("hidden_2", "2:6"),
    ]


def test_settings_of_projections_become_flags():
    match = {"layer_T": 3, "layer_S": 1, "feature": "hidden", "loss": "hidden_mse"}
    one = match | {"proj": ["linear", 4, 6, {"lr": 1e-3}]}
    assert convert_config({"intermediate_matches": [one]}).arguments["projection_learning_rate"] == 1e-3
    other = match | {"layer_T": 6, "proj": ["linear", 4, 6, {"lr": 1e-2}]}
    with pytest.raises(ValueError, match=r"different values of lr.*--projection_learning_rate"):
        convert_config({"intermediate_matches": [one, other]})


def test_what_has_no_counterpart_is_named():
    attention = {"layer_T": 0, "layer_S": 0, "feature": "attention", "loss": "attention_mse"}
    done = convert_config({"is_caching_logits": True, "intermediate_matches": [attention, attention | {"weight": 0}]})
    text = "\n".join(done.warnings)
    assert "hf-distill precompute" in text
    assert "index 0 being layer 1" in text
    assert "intermediate_matches[1] has the weight 0" in text
    assert done.arguments["objectives"][1]["layers"] == "1:1"


MATCH = {"layer_T": 3, "layer_S": 1, "feature": "hidden", "loss": "hidden_mse"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"temprature": 8}, r"unknown names \['temprature'\].*Did you mean 'temperature'\?"),
        ({"kd_loss_type": "kl"}, r"`kd_loss_type` is 'kl'; allowed are 'ce' and 'mse'"),
        ({"kd_loss_weight": 0}, "every loss the weight 0"),
        ({"kd_loss_weight": -1}, "`kd_loss_weight` is -1; it must be at least 0"),
        ({"hard_label_weight": float("nan")}, "`hard_label_weight` is nan; it must be a finite number"),
        ({"kd_loss_type": "mse", "temperature": 1e-200}, "`temperature` is 1e-200: the loss divided by its square"),
        ({"kd_loss_type": "mse", "temperature": 1e200}, "the loss divided by its square is not a number above 0"),
        ({"temperature": 0}, "`temperature` is 0; it must be above 0"),
        ({"temperature": "8"}, "`temperature` is '8'; it must be a finite number"),
        ({"probability_shift": 1}, "`probability_shift` is 1; allowed are true and false"),
        ({"kd_loss_weight_scheduler": ["linear_decay"]}, r"`kd_loss_weight_scheduler` is \['linear_decay'\]"),
        ({"temperature_scheduler": ["flsw", 1, float("inf")]}, "temperature_scheduler flsw gamma` is inf"),
        ({"temperature_scheduler": [["flsw"], 1]}, r"`temperature_scheduler` is \['flsw'\]; allowed"),
        ({"intermediate_matches": 3}, "`intermediate_matches` is 3; it must be a list"),
        (
            {"intermediate_matches": [MATCH | {"weight": -2}]},
            r"intermediate_matches\[0\]: weight` is -2; it must be at least 0",
        ),
        ({"intermediate_matches": [MATCH | {"loss": ["nst"]}]}, r"has the loss \['nst'\]; allowed"),
        ({"intermediate_matches": [MATCH | {"layer_S": True}]}, "layer_S is True; it must be a number"),
        ({"intermediate_matches": [MATCH | {"proj": ["linear", 4, 6, 3]}]}, "settings of proj are 3"),
        ({"intermediate_matches": [MATCH | {"proj": ["linear", 4, 6, {"lr": "x"}]}]}, "lr of proj` is 'x'"),
        ({"kd_loss_weight_scheduler": "cosine"}, r"`kd_loss_weight_scheduler` is 'cosine'; allowed are 'none', lin"),
        ({"temperature_scheduler": "flsw"}, r"`temperature_scheduler` is 'flsw'; write"),
        ({"temperature_scheduler": ["flsw", 1]}, r"flsw lacks \['gamma'\]"),
        ({"temperature_scheduler": ["cwsm", 1, 2]}, r"cwsm has the options \['beta'\]"),
        ({"temperature_scheduler": ["warm", 1]}, r"'warm'; allowed are flsw, cwsm, constant"),
        ({"temperature_scheduler": ["cwsm", 1], "kd_loss_type": "mse"}, "has no counterpart"),
        ({"intermediate_matches": [MATCH | {"los": "x"}]}, r"unknown names \['los'\].*Did you mean 'loss'\?"),
        ({"intermediate_matches": [MATCH | {"loss": "hidden_mes"}]}, r"'hidden_mes'; allowed.*mean 'hidden_mse'\?"),
        ({"intermediate_matches": [MATCH | {"feature": "attention"}]}, r"needs the feature 'hidden', not 'attention'"),
        ({"intermediate_matches": [MATCH | {"layer_T": [0, 3]}]}, r"layer_T is \[0, 3\]; hidden_mse takes one layer"),
        ({"intermediate_matches": [MATCH | {"layer_T": "3"}]}, r"layer_T is '3'; it must be a number"),
        ({"intermediate_matches": [MATCH | {"proj": ["gelu", 4, 6]}]}, r"projection is 'gelu'; allowed are linear"),
        ({"intermediate_matches": [MATCH | {"proj": "linear"}]}, r"proj is 'linear'; write \[kind"),
        (
            {"intermediate_matches": [{"layer_T": 1}]},
            r"`intermediate_matches\[0\]` lacks \['layer_S', 'feature', 'loss'",
        ),
        ({"intermediate_matches": [3]}, r"`intermediate_matches\[0\]` is 3; it must be a mapping"),
        (
            {"intermediate_matches": [MATCH | {"loss": "nst", "layer_T": [0, 3], "layer_S": 1}]},
            "relates two layers on one side",
        ),
    ],
)
def test_a_configuration_that_cannot_be_converted_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        convert_config(config)


def test_the_verb_writes_a_file_that_distill_reads(tmp_path, capsys, caplog):
    source, target = tmp_path / "config.json", tmp_path / "distill.yaml"
    source.write_text(json.dumps(FIGURE_3 | {"is_caching_logits": True}))
    assert main(["convert", "textbrewer", str(source), "--output", str(target)]) == 0
    said = capsys.readouterr()
    first, then = said.out.splitlines()
    assert first == f"3 objectives written to {target}"
    assert then.startswith(f"go on with: hf-distill distill {target} --teacher_model ")
    assert "precompute" in caplog.text
    assert "\n# is_caching_logits" in target.read_text()
    assert yaml.safe_load(target.read_text()) == convert_file(source).arguments
    assert main(["convert", "textbrewer", str(source)]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == convert_file(source).arguments
    arguments = DistillationArguments("out", use_cpu=True, **yaml.safe_load(target.read_text()))
    assert len(build_objectives(arguments.objectives, arguments.objective_options())) == 3


def test_the_verb_refuses_what_is_no_configuration(tmp_path, capsys):
    assert main(["convert", "textbrewer", str(tmp_path / "none.json")]) == 2
    (tmp_path / "list.json").write_text("[]")
    assert main(["convert", "textbrewer", str(tmp_path / "list.json")]) == 2
    (tmp_path / "text.json").write_text("{'temperature': 8}")
    assert main(["convert", "textbrewer", str(tmp_path / "text.json")]) == 2
    said = capsys.readouterr().err
    assert "There is no configuration file" in said
    assert "must hold `name: value` pairs" in said
    assert "read as JSON" in said
