"""Settings of a grid: many fine-tunings of many models."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..storage.folders import safe_name
from ..storage.plain_values import check_range
from ..tasks.catalogue.registry import registered_tasks
from .task import ColumnArguments
from .values import MOST, check_least, json_mapping, setting

# What a grid searches.
SEARCHED = ("learning_rates", "epochs", "batch_sizes")


def unknown_tasks(named: Iterable[str], tasks: Collection[str]) -> list[str]:
    """The tasks that settings of a grid name although it does not have them.

    Registered ones do not count: a file for all tasks of a paper may be run with `--tasks` for some of them.

    Args:
        named: Tasks that settings name.
        tasks: Tasks of the grid.
    """
    return [task for task in named if task not in tasks and task not in registered_tasks()]


@dataclass
class GridArguments(ColumnArguments):
    """A grid of models, tasks, shares of the training rows, seeds and settings."""

    tasks: list[str] = field(
        metadata={
            "help": "Registered tasks (glue/rte ...), your own files (reviews.csv), or folders with a task.yaml; "
            "each is a column of the tables. The flags of columns hold for all files, and for folders "
            "without a task.yaml."
        }
    )
    models: list[str] = setting(
        [],
        "Models, each as NAME=PATH (a Hub id or folder) or just a path; each is a row of the tables. "
        "`{task}` in a path stands for the task.",
    )
    students: str | None = setting(
        None,
        "Students to distil first, which are rows of the tables too: NAME: {settings of `hf-distill "
        "distill`} as YAML or JSON. `teacher_model` and `student_model` may be the name of an earlier "
        "student, `{task}` stands for the task, `only_tasks: [...]` restricts a student to these "
        "tasks, `of_task: {TASK: {...}}` changes settings for one task. As a flag it changes only the "
        "settings that it names and keeps the others of the file; null removes a setting.",
    )
    distill: str | None = setting(
        None, "Settings that all --students share, in the same form (teacher_model, textbook …)."
    )
    data_dir: str | None = setting(
        None, "Local files of the tasks: a parent folder with a folder for each name. Default: the Hub."
    )
    fractions: list[float] = setting([1.0], "Shares of the training rows; each has a table (MITKD: 0.01 0.1 0.5 1).")
    seeds: list[int] = setting([42], "Seeds of the fine-tuning; means and standard deviations are over them.")
    distillation_seeds: list[int] | None = setting(
        None,
        "Seeds of the distillation: every student is distilled with each of them, and means and "
        "standard deviations are over these too. Default: once, with the seed of its settings.",
    )
    fine_tune: bool = setting(
        True, "Fine-tune models and students before they are scored; --no_fine_tune scores them without."
    )
    fraction_seed: int = setting(
        42, "Seed of the rows that are drawn for shares below 1: the same rows for every model and seed."
    )
    learning_rates: list[float] | None = setting(None, "Learning rates to try. Default: the task's.")
    epochs: list[float] | None = setting(None, "Numbers of epochs to try. Default: the task's.")
    batch_sizes: list[int] | None = setting(None, "Batch sizes to try. Default: the task's.")
    task_settings: str | None = setting(
        None,
        "Lists for single tasks that replace the three settings above, as YAML or JSON: TASK: {epochs: "
        "[...], learning_rates: [...], batch_sizes: [...]}.",
    )
    warmup_steps: float | None = setting(
        None, "Linear warm-up: a number of steps, or a share of all steps if below 1. Default: the task's."
    )
    max_eval_samples: int | None = setting(None, "Number of evaluation rows of each split. Default: all.")
    max_length: int | None = setting(None, "Largest number of tokens in a row. Default: the task's.")
    bf16: bool = setting(False, "Train in bfloat16 autocast.")
    use_cpu: bool = setting(False, "Use the CPU even if there is a GPU.")
    output_dir: str = setting(
        "outputs/grid",
        "Folder of the fine-tunings, `grid.json` and `grid.md`; finished fine-tunings are not repeated.",
    )

    def __post_init__(self) -> None:
        """Check the grid.

        Raises:
            ValueError: If a list is empty or repeats itself, a share is not in (0, 1], or two models have one name.
        """
        if not self.models and not self.student_changes():
            raise ValueError("There is nothing to compare: give `--models`, `--students` or both.")
        for name in ("tasks", "fractions", "seeds", "distillation_seeds", *SEARCHED):
            value = getattr(self, name)
            if value is not None and (not value or len(set(value)) < len(value)):
                raise ValueError(f"`--{name}` is {value}; it must have at least one entry, each once.")
        self._check_numbers()
        self._check_task_settings()
        searched = [name for name in (*SEARCHED, "task_settings", "warmup_steps") if getattr(self, name) is not None]
        if not self.fine_tune and (searched or self.fractions != [1.0]):
            raise ValueError(
                f"`--no_fine_tune` trains nothing, but `--{(searched or ['fractions'])[0]}` is given: leave one out."
            )
        if self.warmup_steps is not None and not 0 <= self.warmup_steps < math.inf:
            raise ValueError(f"`--warmup_steps` is {self.warmup_steps}; it must be at least 0 and finite.")
        wrong = [share for share in self.fractions if not 0 < share <= 1]
        if wrong:
            raise ValueError(f"`--fractions` has {wrong}; shares are above 0 and at most 1.")
        names = [*(name for name, _ in self.named_models()), *self.student_changes()]
        for name in names:
            safe_name(name, "`--models` and `--students`: a name")
        if len(set(names)) < len(names):
            raise ValueError(
                f"`--models` and `--students` have the names {names}; give each one of its own (NAME=PATH)."
            )

    def _check_numbers(self) -> None:
        for name in SEARCHED:
            for value in getattr(self, name) or ():
                check_range(value, f"`--{name}`", above=0)
        for name in ("seeds", "distillation_seeds"):
            for value in getattr(self, name) or ():
                check_range(value, f"`--{name}`", least=0, most=MOST["seed"])
        check_least(self, 1, "max_length", "max_eval_samples")

    def _check_task_settings(self) -> None:
        for task, settings in json_mapping(self.task_settings, "--task_settings").items():
            if unknown_tasks([task], self.tasks):
                raise ValueError(f"`--task_settings` has {task!r}, which is none of the `--tasks` {self.tasks}.")
            for name, values in json_mapping(settings, f"--task_settings {task}").items():
                if name not in SEARCHED:
                    raise ValueError(f"`--task_settings {task}` has {name!r}; allowed are {', '.join(SEARCHED)}.")
                numbers = isinstance(values, list) and all(
                    isinstance(value, (int, float)) and 0 < value < math.inf for value in values
                )
                if not numbers or not values or len(set(values)) < len(values):
                    raise ValueError(
                        f"`--task_settings {task}`: {name} is {values!r}; it must be a list of numbers above 0, each "
                        "once."
                    )

    def settings_of(self, task: str) -> tuple[list[Any] | None, ...]:
        """Learning rates, epochs and batches to try on one task, by its name in `tasks`; `None` are the task's own."""
        own = json_mapping(json_mapping(self.task_settings, "--task_settings").get(task), f"--task_settings {task}")
        return tuple(own.get(name, getattr(self, name)) for name in SEARCHED)

    def student_changes(self) -> dict[str, dict[str, Any]]:
        """Student -> settings of its own."""
        return {
            name: json_mapping(settings, f"--students {name}")
            for name, settings in json_mapping(self.students, "--students").items()
        }

    def named_models(self) -> list[tuple[str, str]]:
        """Name and path of every model."""
        found = []
        for entry in self.models:
            name, sign, path = entry.partition("=")
            found.append((name, path) if sign else (entry.rstrip("/").split("/")[-1], entry))
        return found
