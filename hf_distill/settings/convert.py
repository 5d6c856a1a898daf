"""TextBrewer's `DistillationConfig` as arguments of a `DistillationTrainer`.

What TextBrewer computes is kept, its defects are not: `docs/convert.md` and the warnings of a conversion say
where the two differ. The losses of start and end are added, as there; the loss on the labels is the model's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hf_distill.storage.files import read_json
from hf_distill.storage.plain_values import as_mapping, did_you_mean

from .values import setting

FIELDS = {
    "temperature": 4,
    "temperature_scheduler": "none",
    "hard_label_weight": 0,
    "hard_label_weight_scheduler": "none",
    "kd_loss_type": "ce",
    "kd_loss_weight": 1,
    "kd_loss_weight_scheduler": "none",
    "probability_shift": False,
    "intermediate_matches": None,
    "is_caching_logits": False,
}
MATCH_FIELDS = ("layer_T", "layer_S", "feature", "loss", "weight", "proj")
# TextBrewer's name -> feature, objective here, its settings.
MATCH_LOSSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "hidden_mse": ("hidden", "hidden", {}),
    "cos": ("hidden", "cosine", {}),
    "pkd": ("hidden", "pkd", {}),
    "fsp": ("hidden", "fsp", {}),
    "gram": ("hidden", "fsp", {}),
    "nst": ("hidden", "nst", {}),
    "mmd": ("hidden", "nst", {}),
    "attention_mse": ("attention", "attention", {"loss": "mse"}),
    "attention_mse_sum": ("attention", "attention", {"loss": "mse_sum"}),
    "attention_ce": ("attention", "attention", {"loss": "ce"}),
    "attention_ce_mean": ("attention", "attention", {"loss": "ce_mean"}),
}
PROJECTIONS = ("linear", "relu", "tanh")
# With the factor that they begin with.
WEIGHT_SCHEDULES = {"linear_decay": 1.0, "linear_growth": 0.0}
# Positional options of the builders, in TextBrewer's order.
TEMPERATURE_OPTIONS = {"flsw": ("beta", "gamma", "eps"), "cwsm": ("beta",), "constant": ()}
PROJECTION_SETTINGS = {"lr": "projection_learning_rate", "weight_decay": "projection_weight_decay"}


@dataclass
class ConversionArguments:
    """Another library's configuration."""

    library: str = field(
        metadata={"help": "Whose configuration it is: textbrewer. It can also be given as the first word."}
    )
    config: str = field(
        metadata={"help": "JSON file of a DistillationConfig; it can also be given as the second word."},
    )
    output: str | None = setting(None, "YAML file to write. Default: show it.")

    def __post_init__(self) -> None:
        """Check the library."""
        if self.library != "textbrewer":
            raise ValueError(f"`--library` is {self.library!r}; allowed is textbrewer.")


@dataclass
class Conversion:
    """The result of converting a configuration.

    Attributes:
        arguments: Fields of `DistillationArguments`.
        warnings: Where the result is not what a user of TextBrewer may expect, one sentence each.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_yaml(self) -> str:
        """A configuration file for `hf-distill distill`, warnings as comments above."""
        comments = "".join(f"# {warning}\n" for warning in self.warnings)
        return comments + yaml.safe_dump(self.arguments, sort_keys=False, width=110)


def convert_file(path: str | Path) -> Conversion:
    """Convert a JSON file that TextBrewer's `DistillationConfig.from_json_file` reads.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As `convert_config`, or if the file holds no JSON mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {str(path)!r}.")
    config = read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"{str(path)!r} must hold `name: value` pairs, but holds {type(config).__name__}.")
    return convert_config(config)


def convert_config(config: Mapping[str, Any]) -> Conversion:
    """Convert the fields of a `DistillationConfig`; missing ones take TextBrewer's defaults.

    Raises:
        ValueError: If a field or value is unknown to TextBrewer, or has no counterpart here.
    """
    config = as_mapping(config, "The configuration")
    _check_names(config, FIELDS, "The configuration")
    values = {**FIELDS, **config}
    for name in ("probability_shift", "is_caching_logits"):
        if not isinstance(values[name], bool):
            raise ValueError(f"`{name}` is {values[name]!r}; allowed are true and false.")
    done = Conversion()
    objectives = [*_predictions(values, done), *_labels(values), *_matches(values, done)]
    if not objectives:
        raise ValueError("The configuration gives every loss the weight 0: nothing would be learnt.")
    done.arguments = {"objectives": objectives, **done.arguments}
    if values["is_caching_logits"]:
        done.warnings.append(
            "is_caching_logits has no counterpart in the training: run `hf-distill precompute` once, and distil from "
            "its folder; rows are then mixed anew in every epoch."
        )
    return done


def _predictions(values: Mapping[str, Any], done: Conversion) -> list[dict[str, Any]]:
    """The loss on the logits."""
    loss, temperature = values["kd_loss_type"], _number("temperature", values["temperature"])
    if loss not in ("ce", "mse"):
        raise ValueError(f"`kd_loss_type` is {loss!r}; allowed are 'ce' and 'mse'.")
    if not temperature > 0:
        raise ValueError(f"`temperature` is {temperature:g}; it must be above 0.")
    placed = _place("kd_loss_weight", values)
    if placed is None:
        return []
    item: dict[str, Any] = {"objective": "logits", **placed, "logits_loss": loss, "span_reduction": "sum"}
    schedule = _temperature_schedule(values["temperature_scheduler"], done)
    if loss == "mse":
        if schedule is not None:
            raise ValueError(
                "`kd_loss_type` mse with a `temperature_scheduler` has no counterpart: here the squared error has no "
                "temperature."
            )
        # TextBrewer divides the logits by the temperature here too.
        item["weight"] = _over_square(item["weight"], temperature)
    else:
        item |= {"temperature": temperature, "scale_by_squared_temperature": False}
        item |= {} if schedule is None else {"temperature_schedule": schedule}
    return [item | ({"probability_shift": True} if values["probability_shift"] else {})]


def _over_square(weight: float, temperature: float) -> float:
    """`weight / temperature^2`, which must be a weight still."""
    scaled = weight / temperature / temperature
    if not 0 < scaled < math.inf:
        raise ValueError(f"`temperature` is {temperature:g}: the loss divided by its square is not a number above 0.")
    return scaled


def _labels(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    placed = _place("hard_label_weight", values)
    return [] if placed is None else [{"objective": "labels", **placed}]


def _place(name: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Weight and schedule of a loss; `None` where the weight is 0.

    A schedule of TextBrewer replaces the weight after the first step, which still has the configured one.
    """
    weight, schedule = _weight(name, values[name]), values[f"{name}_scheduler"]
    if schedule in ("none", None):
        return {"weight": weight} if weight else None
    if not isinstance(schedule, str) or schedule not in WEIGHT_SCHEDULES:
        raise ValueError(f"`{name}_scheduler` is {schedule!r}; allowed are 'none', {', '.join(WEIGHT_SCHEDULES)}.")
    if weight == WEIGHT_SCHEDULES[schedule]:
        return {"weight": 1.0, "schedule": schedule}
    return {"weight": 1.0, "schedule": {"name": schedule, "first": weight}}


def _weight(name: str, value: Any) -> float:
    weight = _number(name, value)
    if weight < 0:
        raise ValueError(f"`{name}` is {weight:g}; it must be at least 0.")
    return weight


def _number(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        ValueError: If it is none.
    """
    try:
        number = math.nan if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"`{name}` is {value!r}; it must be a finite number.")
    return number


def _temperature_schedule(scheduler: Any, done: Conversion) -> dict[str, Any] | None:
    if scheduler in ("none", "constant", None):
        return None
    if not isinstance(scheduler, Sequence) or isinstance(scheduler, str) or not scheduler:
        raise ValueError(
            f"`temperature_scheduler` is {scheduler!r}; write 'none', 'constant', [\"flsw\", beta, gamma] or "
            '["cwsm", beta].'
        )
    name, *options = scheduler
    if not isinstance(name, str) or name not in TEMPERATURE_OPTIONS:
        raise ValueError(f"`temperature_scheduler` is {name!r}; allowed are {', '.join(TEMPERATURE_OPTIONS)}.")
    known = TEMPERATURE_OPTIONS[name]
    if len(options) == 1 and isinstance(options[0], Mapping):
        _check_names(options[0], known, f"`temperature_scheduler` {name}")
        given = dict(options[0])
    elif len(options) <= len(known):
        given = dict(zip(known, options, strict=False))
    else:
        raise ValueError(f"`temperature_scheduler` {name} has the options {list(known)}, but is given {options}.")
    if name == "constant":
        return None
    missing = [option for option in known if option != "eps" and option not in given]
    if missing:
        raise ValueError(f"`temperature_scheduler` {name} lacks {missing}.")
    read = {option: _number(f"temperature_scheduler {name} {option}", value) for option, value in given.items()}
    if read.pop("eps", 1e-4) != 1e-4:
        done.warnings.append("eps of flsw is 0.0001 here.")
    done.warnings.append(f"{name}: no temperature falls below 0.1 here; TextBrewer's may become 0 or negative.")
    return {"name": name, **read}


def _matches(values: Mapping[str, Any], done: Conversion) -> list[dict[str, Any]]:
    """One objective for all matches that differ in their layers only."""
    groups: dict[tuple[str, int], dict[str, Any]] = {}
    settings: list[dict[str, float]] = []
    given = values["intermediate_matches"]
    if given is not None and (not isinstance(given, Sequence) or isinstance(given, str)):
        raise ValueError(f"`intermediate_matches` is {given!r}; it must be a list of mappings.")
    for index, match in enumerate(given or []):
        item, pair, own = _match(match, f"intermediate_matches[{index}]")
        settings += own
        if not item["weight"]:
            done.warnings.append(f"intermediate_matches[{index}] has the weight 0 and is left out.")
            continue
        # The same match twice counts twice there; an objective has each match once.
        key, times = json.dumps(item, sort_keys=True), 0
        while pair in groups.get((key, times), {"layers": []})["layers"]:
            times += 1
        groups.setdefault((key, times), {**item, "layers": []})["layers"].append(pair)
    _projection_settings(settings, done)
    objectives = list(groups.values())
    _give_names(objectives)
    for item in objectives:
        item["layers"] = ",".join(item["layers"])
    if any(item["objective"] == "attention" for item in objectives):
        done.warnings.append(
            "Attention matches are taken as indices of the list of attentions of Hugging Face models, index 0 being "
            "layer 1; TextBrewer's own examples (L4_attention_mse …) count from 1 and need one less."
        )
        done.warnings.append("Attention is compared by its scores before softmax and dropout, never by probabilities.")
    if any(item["objective"] in ("nst", "fsp", "attention") for item in objectives):
        done.warnings.append(
            "nst, fsp and attention give every row the same weight here; in TextBrewer's nst and attention losses "
            "long rows weigh more."
        )
    return objectives


def _match(match: Any, name: str) -> tuple[dict[str, Any], str, list[dict[str, float]]]:
    """One match as objective without layers, its pair of layers, and the settings of its projection."""
    if not isinstance(match, Mapping):
        raise ValueError(f"`{name}` is {match!r}; it must be a mapping with {', '.join(MATCH_FIELDS)}.")
    _check_names(match, MATCH_FIELDS, f"`{name}`")
    missing = [key for key in ("layer_T", "layer_S", "feature", "loss") if key not in match]
    if missing:
        raise ValueError(f"`{name}` lacks {missing}.")
    if not isinstance(match["loss"], str) or match["loss"] not in MATCH_LOSSES:
        raise ValueError(
            f"`{name}` has the loss {match['loss']!r}; allowed are {', '.join(MATCH_LOSSES)}."
            + did_you_mean([str(match["loss"])], MATCH_LOSSES)
        )
    feature, objective, options = MATCH_LOSSES[match["loss"]]
    if match["feature"] != feature:
        raise ValueError(
            f"`{name}`: the loss {match['loss']!r} needs the feature {feature!r}, not {match['feature']!r}."
        )
    item = {"objective": objective, "weight": _weight(f"{name}: weight", match.get("weight", 1)), **options}
    kind, own = _projection(match.get("proj"), name)
    if feature == "hidden":
        item["projection"] = kind
    elif kind != "identity":
        raise ValueError(f"`{name}`: attention has no width to project; leave `proj` out.")
    return item, _pair(match, objective, feature, name), own


def _pair(match: Mapping[str, Any], objective: str, feature: str, name: str) -> str:
    """`student:teacher`, or `a+b:c+d` where two layers of a side are related to each other."""
    sides = []
    for key in ("layer_S", "layer_T"):
        layers = [match[key]] if _is_layer(match[key]) else match[key]
        if not isinstance(layers, Sequence) or isinstance(layers, str) or not all(map(_is_layer, layers)):
            raise ValueError(f"`{name}`: {key} is {match[key]!r}; it must be a number or two of them.")
        if len(layers) != 1 and (objective not in ("fsp", "nst") or len(layers) != 2):
            number = "one layer or two of them" if objective in ("fsp", "nst") else "one layer"
            raise ValueError(f"`{name}`: {key} is {match[key]!r}; {match['loss']} takes {number}.")
        # Index 0 of the attentions belongs to layer 1; from the end both count alike.
        sides.append([layer + 1 if feature == "attention" and layer >= 0 else layer for layer in layers])
    if all(len(set(side)) == 1 for side in sides):
        sides = [side[:1] for side in sides]
    elif len(sides[0]) != len(sides[1]):
        raise ValueError(f"`{name}` relates two layers on one side and has one on the other.")
    return ":".join("+".join(map(str, side)) for side in sides)


def _is_layer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _projection(proj: Any, name: str) -> tuple[str, list[dict[str, float]]]:
    """Kind of projection, and its optimizer settings; widths are those of the models."""
    if proj is None:
        return "identity", []
    if not isinstance(proj, Sequence) or isinstance(proj, str) or len(proj) not in (3, 4):
        raise ValueError(f"`{name}`: proj is {proj!r}; write [kind, width of the student, width of the teacher].")
    if not isinstance(proj[0], str) or proj[0] not in PROJECTIONS:
        raise ValueError(f"`{name}`: the projection is {proj[0]!r}; allowed are {', '.join(PROJECTIONS)}.")
    own = proj[3] if len(proj) == 4 else {}
    if not isinstance(own, Mapping):
        raise ValueError(f"`{name}`: the settings of proj are {own!r}; they must be a mapping such as {{lr: 0.001}}.")
    _check_names(own, PROJECTION_SETTINGS, f"The projection of `{name}`")
    return str(proj[0]), [{key: _weight(f"{name}: {key} of proj", value) for key, value in own.items()}]


def _projection_settings(settings: Sequence[Mapping[str, float]], done: Conversion) -> None:
    """Optimizer settings of the projections: one for all here."""
    for key, argument in PROJECTION_SETTINGS.items():
        found = {own.get(key) for own in settings}
        if len(found) > 1:
            raise ValueError(
                f"The projections have different values of {key} ({sorted(map(str, found))}); here all share "
                f"`--{argument}`."
            )
        value = found.pop() if found else None
        if value is not None:
            done.arguments[argument] = value


def _give_names(objectives: Iterable[dict[str, Any]]) -> None:
    """Two items of one objective need names of their own."""
    seen: dict[str, int] = {}
    for item in objectives:
        count = seen[item["objective"]] = seen.get(item["objective"], 0) + 1
        if count > 1:
            item["name"] = f"{item['objective']}_{count}"


def _check_names(given: Iterable[Any], known: Iterable[str], what: str) -> None:
    known = list(known)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"{what} has the unknown names {unknown}; TextBrewer knows {known}." + did_you_mean(unknown, known)
        )
