"""Tasks: their specs, where their rows come from, and how predictions are scored.

Models and trainings do not belong here. Names are loaded when they are first used: reading a spec costs neither torch
nor datasets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_distill._optional import lazy_names

_MODULE_OF = {
    "LoadedTask": "loading",
    "TaskSpec": "spec",
    "build_compute_metrics": "metrics.compute",
    "compute_scores": "metrics.compute",
    "get_task": "catalogue.registry",
    "list_tasks": "catalogue.registry",
    "load_metric": "metrics.evaluate_modules",
    "load_task": "loading",
    "register_task": "catalogue.registry",
    "tokenize_task": "rows.tokenizing",
}

__all__ = list(_MODULE_OF)

if TYPE_CHECKING:
    from hf_distill.tasks.catalogue.registry import (
        get_task as get_task,
        list_tasks as list_tasks,
        register_task as register_task,
    )
    from hf_distill.tasks.loading import LoadedTask as LoadedTask, load_task as load_task
    from hf_distill.tasks.metrics.compute import (
        build_compute_metrics as build_compute_metrics,
        compute_scores as compute_scores,
    )
    from hf_distill.tasks.metrics.evaluate_modules import load_metric as load_metric
    from hf_distill.tasks.rows.tokenizing import tokenize_task as tokenize_task
    from hf_distill.tasks.spec import TaskSpec as TaskSpec


__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
