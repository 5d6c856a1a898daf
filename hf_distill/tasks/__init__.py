"""Tasks: their specs, the sources of their rows, and the scoring of predictions.

Models and trainings do not belong here. Names are imported on first use, so reading a spec imports neither torch nor
datasets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_distill._optional import lazy_names, names_of

if TYPE_CHECKING:
    from .catalogue.registry import (
        get_task as get_task,
        list_tasks as list_tasks,
        register_task as register_task,
    )
    from .loading import LoadedTask as LoadedTask, load_task as load_task
    from .metrics.compute import (
        build_compute_metrics as build_compute_metrics,
        compute_scores as compute_scores,
    )
    from .metrics.evaluate_modules import load_metric as load_metric
    from .rows.tokenizing import tokenize_task as tokenize_task
    from .spec import TaskSpec as TaskSpec

_MODULE_OF = names_of(__name__)
__all__ = list(_MODULE_OF)
__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
