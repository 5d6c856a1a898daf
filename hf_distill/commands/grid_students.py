"""The students that a grid distils: one for each name, and for each task and seed if these make a difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_distill.settings import GridArguments
from hf_distill.settings.grid import unknown_tasks
from hf_distill.settings.values import json_mapping
from hf_distill.tasks.loading import takes_columns

STUDENTS = "students"
TASK_MARK = "{task}"
# Settings of a student that only the grid uses.
ONLY_TASKS, OF_TASK = "only_tasks", "of_task"
# Settings of a distillation that may name an earlier student.
MODELS = ("teacher_model", "teacher_models", "student_model")


@dataclass(frozen=True)
class Student:
    """One distillation.

    Attributes:
        name: Its name, which is a row of the tables.
        tasks: The tasks that it is scored on, as given.
        seed: Seed of the distillation; `None` takes the seed of its settings.
        settings: Settings of `hf-distill distill`, with the folder.
    """

    name: str
    tasks: tuple[str, ...]
    seed: int | None
    settings: dict[str, Any]

    @property
    def folder(self) -> str:
        """The folder of the student."""
        return str(self.settings["output_dir"])


def plan_students(arguments: GridArguments, names: Mapping[str, str]) -> list[Student]:
    """Every distillation of a grid, in the order of execution.

    A student is distilled once for all tasks, or once for each task if its settings contain `{task}`, have `of_task`,
    or name a student of the latter kind as teacher or starting point.

    Args:
        arguments: The grid.
        names: Task as given -> its name.

    Raises:
        ValueError: If `only_tasks` or `of_task` names a task that is not in the grid or the catalogue.
    """
    folder = Path(arguments.output_dir, STUDENTS)
    shared = {
        "use_cpu": arguments.use_cpu,
        **({} if arguments.data_dir is None else {"data_dir": arguments.data_dir}),
        **json_mapping(arguments.distill, "--distill"),
    }
    planned: list[Student] = []
    # Name of a student -> whether there is one for each task.
    per_task: dict[str, bool] = {}
    for name, changes in arguments.student_changes().items():
        settings = {**shared, **changes}
        tasks = _only_tasks(name, settings.pop(ONLY_TASKS, None), names)
        of_task = {
            task: json_mapping(own, f"--students {name}: {OF_TASK} {task}")
            for task, own in json_mapping(settings.pop(OF_TASK, None), f"--students {name}: {OF_TASK}").items()
        }
        _check_tasks(name, OF_TASK, of_task, names)
        named = [one for field in MODELS for one in _as_list(settings.get(field)) if one in per_task]
        per_task[name] = (
            bool(of_task) or any(TASK_MARK in text for text in _texts(settings)) or any(per_task[one] for one in named)
        )
        seeds: list[Any] = list(arguments.distillation_seeds or ()) or [None]
        if not tasks:
            continue  # The grid has none of its tasks.
        for seed in seeds:
            for group in [(task,) for task in tasks] if per_task[name] else [tasks]:
                own = {**settings, **(of_task.get(group[0], {}) if per_task[name] else {})}
                if per_task[name]:
                    own = _filled(own, group[0], names[group[0]])
                texts = [*_as_list(own.get("textbook")), own.get("eval_task")]
                if any(text in names and takes_columns(text) for text in texts):
                    own = {**arguments.column_settings(), **own}
                for field in MODELS:
                    if field in own:
                        own[field] = _renamed(own[field], lambda one, s=seed, g=group: _folder_of(planned, one, s, g))
                if seed is not None:
                    own["seed"] = seed
                parts = [name, *([names[group[0]].replace("/", "_")] if per_task[name] else [])]
                parts += [] if seed is None else [f"seed{seed}"]
                planned.append(Student(name, group, seed, {**own, "output_dir": str(folder.joinpath(*parts))}))
    return planned


def for_task(path: str, given: str, name: str) -> str:
    """A path with `{task}` filled in: by the task as given if `{task}` is the whole path, else by the task's name."""
    return given if path == TASK_MARK else path.replace(TASK_MARK, name)


def _only_tasks(name: str, wanted: Any, names: Mapping[str, str]) -> tuple[str, ...]:
    if wanted is None:
        return tuple(names)
    _check_tasks(name, ONLY_TASKS, _as_list(wanted), names)
    return tuple(task for task in names if task in _as_list(wanted))


def _check_tasks(student: str, setting: str, tasks: Any, names: Mapping[str, str]) -> None:
    unknown = unknown_tasks(tasks, names)
    if unknown:
        raise ValueError(f"`--students {student}`: {setting} has {unknown}, but the `--tasks` are {list(names)}.")


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _texts(value: Any) -> Iterator[str]:
    """Every string in the settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    else:
        for one in _as_list(value) if isinstance(value, (list, tuple)) else []:
            yield from _texts(one)


def _filled(value: Any, given: str, name: str) -> Any:
    if isinstance(value, str):
        return for_task(value, given, name)
    if isinstance(value, Mapping):
        return {key: _filled(one, given, name) for key, one in value.items()}
    return [_filled(one, given, name) for one in value] if isinstance(value, (list, tuple)) else value


def _renamed(value: Any, folder_of: Any) -> Any:
    return [folder_of(one) for one in value] if isinstance(value, (list, tuple)) else folder_of(value)


def _folder_of(planned: list[Student], model: str, seed: int | None, tasks: tuple[str, ...]) -> str:
    """The folder of an earlier student with the same seed and task; any other model is returned unchanged."""
    for one in planned:
        if (one.name, one.seed) == (model, seed) and set(tasks) <= set(one.tasks):
            return one.folder
    return model
