"""The registry of tasks by name."""

from __future__ import annotations

import difflib

from hf_distill.tasks.catalogue.clue import CLUE_TASKS
from hf_distill.tasks.catalogue.cross_lingual import CROSS_LINGUAL_TASKS
from hf_distill.tasks.catalogue.fewclue import FEWCLUE_TASKS
from hf_distill.tasks.catalogue.glue import GLUE_TASKS
from hf_distill.tasks.catalogue.out_domain import OUT_DOMAIN_TASKS
from hf_distill.tasks.catalogue.question_answering import QUESTION_ANSWERING_TASKS
from hf_distill.tasks.catalogue.token_classification import TOKEN_CLASSIFICATION_TASKS
from hf_distill.tasks.spec import TaskSpec

_TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        *GLUE_TASKS,
        *QUESTION_ANSWERING_TASKS,
        *TOKEN_CLASSIFICATION_TASKS,
        *CROSS_LINGUAL_TASKS,
        *OUT_DOMAIN_TASKS,
        *CLUE_TASKS,
        *FEWCLUE_TASKS,
    )
}


def register_task(spec: TaskSpec, *, replace: bool = False) -> TaskSpec:
    """Make a task known under its name.

    Args:
        spec: The task.
        replace: Allow another task of the same name to be replaced.

    Raises:
        ValueError: If another task has the name and `replace` is false.
    """
    known = _TASKS.get(spec.name)
    if known is not None and known != spec and not replace:
        raise ValueError(
            f"There is already a task {spec.name!r}; choose another name or pass `replace=True` to `register_task`."
        )
    _TASKS[spec.name] = spec
    return spec


def list_tasks() -> list[str]:
    """Names of all registered tasks, sorted."""
    return sorted(_TASKS)


def is_registered(name: str) -> bool:
    """Whether `name` (or `glue/name`) is a registered task."""
    return _canonical(name) in _TASKS


def get_task(name: str) -> TaskSpec:
    """The task of that name; the family may be left out where that is unambiguous (`sst2`).

    Raises:
        ValueError: If there is no such task; the message lists close matches and all tasks.
    """
    canonical = _canonical(name)
    if canonical in _TASKS:
        return _TASKS[canonical]
    lowered = {known.lower(): known for known in _TASKS} | {spec.short_name: known for known, spec in _TASKS.items()}
    close = sorted(
        {lowered[match] for match in difflib.get_close_matches(canonical.lower(), lowered, n=3, cutoff=0.5)}
    )
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ValueError(
        f"`--task` {name!r} is neither a registered task nor a folder.{hint} Registered are {list_tasks()}; "
        "for your own data give a folder, with `--text_columns` and `--label_column` or a `task.yaml` in it."
    )


def _canonical(name: str) -> str:
    """`sst2`, `SST-2` and `glue/SST2` all mean `glue/sst2`."""
    if name in _TASKS:
        return name
    matches = [known for known, spec in _TASKS.items() if _plain(name) in (_plain(known), _plain(spec.short_name))]
    return matches[0] if len(matches) == 1 else name


def _plain(name: str) -> str:
    """A name without case, hyphens and underscores."""
    return name.lower().replace("-", "").replace("_", "")
