"""Without objectives `DistillationTrainer` is `Trainer`: the same weights, logs, files and errors, bit by bit.

Each scenario is run with `Trainer`, with `DistillationTrainer` and plain `TrainingArguments`, and with
`DistillationTrainer` and `DistillationArguments`. Those marked `taught` are run with an objective too: the loss of the
labels gives the weights of `Trainer`, and with a teacher steps, rates, epochs and files are those of `Trainer`.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conformance_cases import FAILING, MODELS, SCENARIOS, TEXT_ROWS, padded, rows_of
from transformers import Trainer, TrainingArguments, set_seed

from hf_distill import DistillationArguments, DistillationTrainer

# What depends on the clock.
TIMES = ("runtime", "per_second", "preparation_time")


# ---- What must be equal


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def plain(value, folder):
    """Anything a trainer gives, in a form that can be compared exactly."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.detach().to(torch.float64).numpy().tobytes())
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, Mapping):
        return {
            str(name): plain(one, folder)
            for name, one in value.items()
            if not any(time in str(name) for time in TIMES)
        }
    if isinstance(value, (list, tuple)):
        return [plain(one, folder) for one in value]
    if isinstance(value, str):
        return value.replace(str(folder), "OUT")
    return "nan" if isinstance(value, float) and np.isnan(value) else value


def files(folder):
    """Every file of a run with what is in it."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            found[name] = plain(json.loads(path.read_text()), folder)
        elif path.is_file() and path.name != "training_args.bin":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.is_file():
            found[name] = ""
    return found


def run(scenario, trainer_class, args_class, folder, **more):
    """Everything that a run leaves behind."""
    base = {
        "max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 0.05, "logging_steps": 1,
        "report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }  # fmt: skip

    def make(given=None, **values):
        settings = {name: value for name, value in (base | dict(scenario.args) | values).items() if value is not None}
        args = args_class(output_dir=str(folder), **settings | more.get("args", {}))
        set_seed(11)
        found = {"model": MODELS[scenario.model]()} | scenario.given() | (given or {})
        found = {"train_dataset": rows_of(scenario.model), "eval_dataset": rows_of(scenario.model, 7, 5)} | found
        if scenario.model in TEXT_ROWS:
            found = {"data_collator": padded} | found
        return trainer_class(found.pop("model"), args, **found, **more.get("given", {}))

    try:
        trainer, result = scenario.act(make)
    except Exception as error:
        return {
            "error": (
                type(error).__name__,
                str(error).replace("DistillationTrainer", "Trainer").replace(str(folder), "OUT"),
            )
        }
    state = trainer.state
    return plain(
        {
            "weights": weights(getattr(trainer, "student", trainer.model)),
            "logs": state.log_history,
            "result": result,
            "state": [
                state.global_step,
                state.epoch,
                state.max_steps,
                state.num_train_epochs,
                state.best_metric,
                state.best_model_checkpoint,
            ],
            # The generators that everybody draws from.
            "chance": [torch.get_rng_state(), np.random.get_state()[1], random.getstate()[1][:5]],  # noqa: NPY002
            "files": files(folder),
        },
        folder,
    )


def test_there_are_enough_behaviours():
    assert len(SCENARIOS) >= 120


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_objectives_it_is_trainer(name, tmp_path):
    scenario = SCENARIOS[name]
    stock = run(scenario, Trainer, TrainingArguments, tmp_path / "stock")
    assert ("error" in stock) == (name in FAILING), stock.get("error")
    for args_class in (TrainingArguments, DistillationArguments):
        ours = run(scenario, DistillationTrainer, args_class, tmp_path / args_class.__name__)
        assert ours.keys() == stock.keys(), (ours.get("error"), stock.get("error"))
        for part in stock:
            assert ours[part] == stock[part], (part, args_class.__name__)


def course(found):
    """When what was logged, at which rate."""
    return [{key: entry[key] for key in ("step", "epoch", "learning_rate") if key in entry} for entry in found["logs"]]


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.taught])
def test_with_objectives_it_runs_the_course_of_trainer(name, tmp_path):
    scenario = SCENARIOS[name]
    stock = run(scenario, Trainer, TrainingArguments, tmp_path / "stock")
    teacher = MODELS[scenario.model]()
    for more in ({"objectives": ["labels"]}, {"objectives": ["logits"], "teacher_model": teacher}):
        folder = tmp_path / more["objectives"][0]
        ours = run(scenario, DistillationTrainer, TrainingArguments, folder, given=more)
        if "labels" not in more["objectives"] and scenario.args.get("label_smoothing_factor"):
            assert "`--label_smoothing_factor` 0.2 would have no effect" in ours["error"][1]
            continue
        assert "error" not in ours, ours
        assert course(ours) == course(stock)
        assert [ours["state"][index] for index in (0, 1, 2, 3)] == [stock["state"][index] for index in (0, 1, 2, 3)]
        if "labels" in more["objectives"] or not scenario.args.get("metric_for_best_model", "best" in name):
            assert set(stock["files"]) <= set(ours["files"])
        for mine, theirs in zip(ours["logs"], stock["logs"], strict=True):
            assert set(theirs) <= set(mine)
        # A stock classifier divides the sum of an update by its micro-batches, not by its rows.
        if more["objectives"] == ["labels"] and "gradient_accumulation_steps" not in scenario.args:
            assert ours["weights"].keys() == stock["weights"].keys()
            for key, values in stock["weights"].items():
                torch.testing.assert_close(numbers(ours["weights"][key]), numbers(values), rtol=1e-3, atol=1e-4)


def numbers(value):
    """What `plain` made of a tensor, as numbers."""
    return torch.from_numpy(np.frombuffer(value[2]).copy())
