"""The tables of the registered tasks in `tasks.md`: columns and scores, and the papers' fine-tuning settings.

`python docs/task_tables.py` prints them. A test keeps them equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from hf_distill.tasks.catalogue.registry import get_task, list_tasks
from hf_distill.tasks.spec import TaskSpec

MAX_SPLITS = 3


def task_tables(names: Iterable[str] | None = None) -> str:
    """Both tables, of all registered tasks or of those that are named."""
    specs = [get_task(name) for name in (list_tasks() if names is None else names)]
    tasks = [
        (
            f"`{spec.name}`",
            ", ".join(f"`{column}`" for column in (*spec.text_columns, *spec.choice_columns)),
            f"`{spec.label_column}`: {_labels(spec)}",
            _metrics(spec),
            _splits(spec),
            _source(spec),
        )
        for spec in specs
    ]
    head = ("task", "text", "label", "scores, the main one first", "evaluated on", "Hub data set")
    return f"{_table(head, tasks)}\n\n{_settings_table(specs)}"


def _settings_table(specs: Sequence[TaskSpec]) -> str:
    """Tasks of the same settings share a row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for spec in specs:
        own = spec.fine_tuning
        numbers = (own.epochs, own.learning_rate, own.batch_size, own.warmup, own.weight_decay, own.max_length)
        rows.setdefault((*(f"{number:g}" for number in numbers), own.source), []).append(f"`{spec.name}`")
    head = ("tasks", "epochs", "rate", "batch", "warm-up", "decay", "length", "where it stands")
    return _table(head, [(", ".join(names), *settings) for settings, names in rows.items()])


def _labels(spec: TaskSpec) -> str:
    """Describe the labels of a task in short."""
    if spec.is_span:
        return "answers, or none" if spec.may_have_no_answer else "answers"
    if spec.label_names is None:
        low, high = spec.label_range or (None, None)
        return "a number" if low is None else f"a number, {low:g} to {high:g}"
    if spec.kind == "token_classification":
        return f"tags of {len({name[2:] for name in spec.label_names if name[1:2] == '-'})} types"
    names = spec.label_names
    shown = ", ".join(names) if len(names) <= MAX_SPLITS else f"{len(names)} classes"
    return f"{shown} (names unverified)" if spec.names_unverified else shown


def _metrics(spec: TaskSpec) -> str:
    """The scores; of SQuAD 2.0 the first ones say enough."""
    names = [f"`{name}`" for name in (spec.headline, *(name for name in spec.metrics if name != spec.headline))]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _splits(spec: TaskSpec) -> str:
    """The evaluation splits."""
    splits = [f"`{split}`" for split in spec.evaluation_splits]
    if len(splits) <= MAX_SPLITS:
        return ", ".join(splits)
    return f"{splits[0]}, {splits[1]}, ... ({len(splits)})"


def _source(spec: TaskSpec) -> str:
    """The data set on the Hub, with its configuration."""
    if spec.hub_path is None:
        return "none: local files"
    return f"`{spec.hub_path}`" + (f" ({spec.hub_config})" if spec.hub_config else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(f"{task_tables()}\n")
