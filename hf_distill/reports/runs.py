"""Reads curves, settings and scores of a run from the folder that it wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hf_distill.hub.selection import RESULTS_FILE
from hf_distill.storage.files import read_mapping
from hf_distill.storage.plain_values import as_hint

Curve = list[tuple[int, float]]
REPORT_FILE, ARGUMENTS_FILE = "report.json", "arguments.yaml"
STATE_FILE = "trainer_state.json"


@dataclass(frozen=True)
class _Best:
    """The best evaluation of a training."""

    metric: str
    value: float
    step: int
    loaded: bool = False


# Facts that each training of a run has.
_OF_ONE_TRAINING = ("steps", "training_seconds")
ROLES = ("teacher", "student", "baseline", "majority")
# Name of the student in int8 in the report of a pipeline.
INT8 = "int8"
# Values of a log that are not curves: counters, and totals over a whole training.
NO_CURVES = ("epoch", "step", "total_flos", "num_input_tokens_seen")
NO_CURVE_ENDINGS = ("runtime", "_per_second", "_preparation_time")


# Allowed types of the fields of results, reports and trainer states.
_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("history", "log_history", "evaluations"), list[dict[str, Any]]),
    **dict.fromkeys(("environment", "settings", "evaluation", "latency", "majority", INT8), dict[str, Any]),
    **dict.fromkeys(("student", "baseline"), str | dict[str, Any]),
    # Several teachers of a student are a list.
    "teacher": str | list[str] | dict[str, Any],
    **dict.fromkeys(("score", "seconds", "training_seconds"), float),
    **dict.fromkeys(("steps", "global_step", "parameters", "seed"), int),
    "objectives": dict[str, dict[str, Any]],
    "best": _Best,
    "task": str,
    "metric": str,
    "split": str,
    "model": str,
}


@dataclass
class Run:
    """One run.

    Attributes:
        name: Its name on the page.
        folder: Folder of the run.
        job: `distill`, `teach`, `adapt`, `evaluate`, `generate`, `pipeline`, or `training` for an unfinished one.
        facts: General facts from its results: label -> value.
        settings: Resolved arguments as `<stage>.<name>`.
        curves: Stage -> name in the log -> points.
        scores: One mapping for every scored model: `role`, `task`, `metric`, `split`, `score`, ...
        left_out: Name of a curve -> number of its values that were not finite.
    """

    name: str
    folder: Path
    job: str
    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, dict[str, Curve]] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def add_history(self, stage: str, history: Iterable[Mapping[str, Any]]) -> None:
        """Add the curves of a trainer's log history."""
        curves = self.curves.setdefault(stage, {})
        for entry in history:
            for name, value in entry.items():
                if not _is_curve(name) or entry.get("step") is None:
                    continue
                if not isinstance(value, (int, float)) or not math.isfinite(value):
                    self.left_out[f"{stage}: {name}"] = self.left_out.get(f"{stage}: {name}", 0) + 1
                    continue
                curves.setdefault(name, []).append((int(entry["step"]), float(value)))
        for name, points in curves.items():
            # The evaluation at the end may repeat the last one during training.
            curves[name] = sorted(dict(points).items())
        if not curves:
            del self.curves[stage]


def read_runs(folders: Sequence[str | Path], names: Sequence[str] | None = None) -> list[Run]:
    """Read the runs in some folders.

    Args:
        folders: Folders that `distill`, `teach`, `adapt`, `evaluate`, `generate` or `pipeline` wrote, or any folder
            with a `trainer_state.json` in it or in its checkpoints, such as that of an unfinished training.
        names: Names of the runs; by default the parts of their paths that distinguish them.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If a folder is not that of a run, or the number of names is wrong.
    """
    if not folders:
        raise ValueError("`--runs` is empty: name the folder of at least one run.")
    paths = [Path(folder).expanduser() for folder in folders]
    if names is not None and len(names) != len(paths):
        raise ValueError(f"`--names` has {len(names)} names, but there are {len(paths)} runs; give one for each.")
    called = list(names) if names is not None else short_names(paths)
    if len(set(called)) < len(called):
        raise ValueError(f"Two runs have one name: {called}. Name every folder once, or tell them apart by `--names`.")
    return [read_run(path, name) for path, name in zip(paths, called, strict=True)]


def read_run(folder: Path, name: str) -> Run:
    """Read the run of one folder; see `read_runs`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"`--runs`: there is no folder {str(folder)!r}.")
    if (folder / REPORT_FILE).is_file():
        report = _read(folder / REPORT_FILE)
        if "teacher" in report and "student" in report:
            return _pipeline(folder, name, report)
    results = _read(folder / RESULTS_FILE) if (folder / RESULTS_FILE).is_file() else {}
    readers = {
        **{"distill": _distillation, "teach": _teaching, "adapt": _adaptation},
        **{"evaluate": _evaluation, "generate": _generation},
    }
    job = results.get("job")
    if isinstance(job, str) and job in readers:
        run = Run(name, folder, job, settings=_settings(folder, job, results))
        readers[job](run, results)
        return run
    state = _last_state(folder)
    if state is not None:
        history = state.get("log_history") or []
        distils = any(key.startswith("loss/") for entry in history for key in entry)
        stage = "distill" if distils else "fine-tuning"
        run = Run(name, folder, "training", {"steps": state.get("global_step")}, _settings(folder, stage, {}))
        run.add_history(stage, history)
        return run
    raise ValueError(_no_run(folder, results.get("job")))


def _read(path: Path) -> dict[str, Any]:
    """Read a file of results, and check the types of its fields.

    Raises:
        ValueError: If a field has a wrong type.
    """
    values = read_mapping(path)
    for name, hint in _FIELDS.items():
        as_hint(values.get(name), hint | None, f"{str(path)!r}: `{name}`")
    for role in (*ROLES, INT8):
        if isinstance(values.get(role), dict):
            for name in ("score", "parameters", "history"):
                as_hint(values[role].get(name), _FIELDS[name] | None, f"{str(path)!r}: `{role}.{name}`")
    for entry in (
        *(values.get("history") or ()),
        *(values.get("log_history") or ()),
        *(values.get("evaluations") or ()),
    ):
        as_hint(entry.get("step"), int | None, f"{str(path)!r}: a step of its history")
    for item in (values.get("objectives") or {}).values():
        as_hint(item.get("weight", 1), float | str, f"{str(path)!r}: the weight of an objective")
    return values


def short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest endings of paths that distinguish them."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _distillation(run: Run, results: Mapping[str, Any]) -> None:
    run.facts = _picked(results, "teacher", "student_shape", "student_parameters", "teacher_parameters", "steps")
    if isinstance(run.facts.get("teacher"), list):
        run.facts["teacher"] = ", ".join(run.facts["teacher"])
    run.facts |= _picked(results, "textbook_rows", "training_seconds", "seed") | _machine(results)
    objectives = results.get("objectives") or {}
    run.facts["objectives"] = ", ".join(
        f"{name} x {_weight(item.get('weight', 1))}" for name, item in objectives.items()
    )
    best = results.get("best")
    if best:
        run.facts["best"] = f"{best['metric']} {best['value']:.4g} at step {best['step']}"
    at_end = {**(results.get("evaluation") or {}), "step": results.get("steps")}
    evaluations = results.get("evaluations") or ([at_end] if at_end["step"] is not None else [])
    run.add_history("distill", [*(results.get("history") or []), *evaluations])


def _weight(value: Any) -> str:
    """A weight as a number, or a description of its schedule."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


Reader = Callable[[Run, Mapping[str, Any]], None]


def _fine_tuning(run: Run, results: Mapping[str, Any], *, role: str, stage: str) -> None:
    """Read the results of a verb that fine-tunes one model."""
    run.facts = {role: results.get("base_model")} | _picked(results, "task", "steps", "training_seconds", "seed")
    run.facts |= _machine(results)
    run.scores = [_score(role, results, results)]
    if isinstance(results.get("majority"), dict):
        run.scores.append(_score("majority", results["majority"], results) | {"teacher_score": results.get("score")})
    run.add_history(stage, results.get("history") or [])


_teaching: Reader = partial(_fine_tuning, role="teacher", stage="teach")
_generation: Reader = partial(_fine_tuning, role="student", stage="generate")


def _adaptation(run: Run, results: Mapping[str, Any]) -> None:
    run.facts |= _picked(results, "task", "seconds", "seed") | _machine(results)
    roles = {role: results[role] for role in ROLES if isinstance(results.get(role), dict)}
    teacher = roles.get("teacher", {})
    for role, stage in zip(ROLES, (None, "adapt", "baseline", None), strict=True):
        model = roles.get(role)
        if model:
            run.scores.append(_score(role, model, results) | {"teacher_score": teacher.get("score")})
            if stage is not None:
                run.add_history(stage, model.get("history") or [])


def _evaluation(run: Run, results: Mapping[str, Any]) -> None:
    run.facts = _picked(results, "model", "task", "seconds", "seed") | _machine(results)
    run.scores = [_score("model", results, results)]
    if isinstance(results.get("majority"), dict):
        run.scores.append(_score("majority", results["majority"], results))


def _pipeline(folder: Path, name: str, report: Mapping[str, Any]) -> Run:
    """Read all stages of a pipeline as one run."""
    run = Run(name, folder, "pipeline")
    readers = {"teacher": _teaching, "distilled": _distillation, "student": _adaptation}
    facts: dict[str, Any] = {}
    for stage, part in {"teach": "teacher", "corpus": "corpus", "distill": "distilled", "adapt": "student"}.items():
        path = folder / part
        run.settings |= _settings(path, stage, {})
        if part in readers and (path / RESULTS_FILE).is_file():
            readers[part](run, _read(path / RESULTS_FILE))
            # Facts that both trainings have get a prefix for the teacher: the page is about the student.
            own = {f"teacher {key}" if key in _OF_ONE_TRAINING else key: value for key, value in run.facts.items()}
            facts = (own if part == "teacher" else run.facts) | facts
    run.facts = facts | _picked(report, "task", "seconds", "command", "seed") | _machine(report)
    roles = {role: report[role] for role in (*ROLES, INT8) if isinstance(report.get(role), dict)}
    teacher, latency = roles.get("teacher", {}), report.get("latency") or {}
    speedups = {"teacher": 1.0, "majority": None, INT8: latency.get("int8_speedup")}
    run.scores = [
        _score(role, model, report)
        | {"teacher_score": teacher.get("score"), "speedup": speedups.get(role, latency.get("speedup"))}
        for role, model in roles.items()
    ]
    return run


def _score(role: str, model: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "role": role,
        **{key: results.get(key) for key in ("task", "metric", "split")},
        **{key: model.get(key) for key in ("score", "parameters", "constant")},
    }


def _picked(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the named values that exist."""
    return {name: values[name] for name in names if values.get(name) is not None}


def _machine(results: Mapping[str, Any]) -> dict[str, Any]:
    environment = results.get("environment") or {}
    versions = ", ".join(f"{name} {environment[name]}" for name in ("torch", "transformers") if name in environment)
    device = environment.get("device")
    threads = f", {environment['threads']} threads" if environment.get("threads") else ""
    return ({"device": f"{device}{threads}"} if device else {}) | ({"versions": versions} if versions else {})


def _settings(folder: Path, stage: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved arguments beside a result, or those in the result itself."""
    path = folder / ARGUMENTS_FILE
    values = read_mapping(path) if path.is_file() else results.get("settings") or {}
    return {f"{stage}.{name}": value for name, value in values.items()}


def _last_state(folder: Path) -> dict[str, Any] | None:
    """The state of a trainer, from the folder itself or from its last checkpoint."""
    if (folder / STATE_FILE).is_file():
        return _read(folder / STATE_FILE)
    found = [path for path in folder.glob(f"checkpoint-*/{STATE_FILE}") if path.parent.name[11:].isdigit()]
    return _read(max(found, key=lambda path: int(path.parent.name[11:]))) if found else None


def _no_run(folder: Path, job: Any) -> str:
    """Explain why a folder is not that of a run, and list the folders in it that are."""
    files = (RESULTS_FILE, REPORT_FILE, f"checkpoint-*/{STATE_FILE}", f"*/{RESULTS_FILE}")
    *own, below = files
    inside = sorted({str(path.parent) for path in folder.glob(below)})
    hint = f" There are runs in it: {', '.join(inside)}." if inside else ""
    if job is not None:
        told = "a report is about distill, teach, adapt, evaluate, generate and pipeline."
        return f"`--runs`: {str(folder)!r} is of the job {job!r}; {told}{hint}"
    return f"`--runs`: {str(folder)!r} is not the folder of a run: it has none of {', '.join(own)}.{hint}"


def _is_curve(name: str) -> bool:
    return name not in NO_CURVES and not name.endswith(NO_CURVE_ENDINGS) and not name.startswith("train_")
