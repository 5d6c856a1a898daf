"""The registry of tasks by name: the tasks in the YAML files of this folder, and tasks that a user registers.

A file has one mapping for each task, with the same fields as a user's own `task.yaml`. Names that begin with a dot
hold fields that several tasks of the file share.
"""

from __future__ import annotations

import difflib
import functools
from importlib.resources import files
from typing import Any

import yaml

from hf_distill.storage.files import close_path
from hf_distill.tasks.spec import TaskSpec

FAMILIES = (
    *("glue", "question_answering", "token_classification", "cross_lingual", "out_domain", "clue", "fewclue"),
    "many_tasks",
)


def read_family(name: str) -> dict[str, dict[str, Any]]:
    """Read a file of this folder: task name -> its fields."""
    text = (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")
    # PyYAML's parser in C, where it is installed, takes a tenth of the time.
    entries = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {task: {"name": task, **fields} for task, fields in entries.items() if not task.startswith(".")}


@functools.cache
def registered_tasks() -> dict[str, TaskSpec]:
    """Task name -> spec, in the order of registration; the files are read on the first call."""
    return {name: TaskSpec.from_dict(fields) for family in FAMILIES for name, fields in read_family(family).items()}


def register_task(spec: TaskSpec, *, replace: bool = False) -> TaskSpec:
    """Register a task under its name.

    Args:
        spec: The task.
        replace: Whether a task that already has the name may be replaced.

    Raises:
        ValueError: If another task has the name and `replace` is false.
    """
    tasks = registered_tasks()
    known = tasks.get(spec.name)
    if known is not None and known != spec and not replace:
        raise ValueError(
            f"There is already a task {spec.name!r}; choose another name or pass `replace=True` to `register_task`."
        )
    tasks[spec.name] = spec
    return spec


def list_tasks() -> list[str]:
    """The names of all registered tasks, sorted."""
    return sorted(registered_tasks())


def is_registered(name: str) -> bool:
    """Whether `name` (also without its family: `sst2`) is a registered task."""
    return _canonical(name) in registered_tasks()


def get_task(name: str, flag: str = "--task") -> TaskSpec:
    """Return the task of that name; the family may be left out where the name is unambiguous (`sst2`).

    Args:
        name: Its name.
        flag: The flag that gave the name, for the error message.

    Raises:
        ValueError: If there is no such task; the message lists close matches and all tasks.
    """
    tasks, canonical = registered_tasks(), _canonical(name)
    if canonical in tasks:
        return tasks[canonical]
    lowered = {known.lower(): known for known in tasks} | {spec.short_name: known for known, spec in tasks.items()}
    close = sorted(
        {lowered[match] for match in difflib.get_close_matches(canonical.lower(), lowered, n=3, cutoff=0.5)}
    )
    hint = close_path(name) or (f" Did you mean {' or '.join(map(repr, close))}?" if close else "")
    raise ValueError(
        f"`{flag}` {name!r} is neither a registered task nor a folder nor a file.{hint} For your own "
        "data give a file (reviews.csv), or a folder, with `--text_columns` and `--label_column` or a `task.yaml` in "
        f"it. Registered are {list_tasks()}."
    )


def _canonical(name: str) -> str:
    """The registered name: `sst2`, `SST-2` and `glue/SST2` all mean `glue/sst2`."""
    tasks = registered_tasks()
    if name in tasks:
        return name
    matches = [known for known, spec in tasks.items() if _plain(name) in (_plain(known), _plain(spec.short_name))]
    return matches[0] if len(matches) == 1 else name


def _plain(name: str) -> str:
    """A name in lower case, without hyphens and underscores."""
    return name.lower().replace("-", "").replace("_", "")
