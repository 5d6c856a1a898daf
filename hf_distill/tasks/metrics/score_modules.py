"""The scores as `evaluate.Metric` modules: no script to download, no network.

Import this module only where `evaluate` is wanted ; it is slow to import.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.metrics.compute import compute_scores
from hf_distill.tasks.metrics.scores import SCORES
from hf_distill.tasks.metrics.structured_modules import SCRIPTS
from hf_distill.tasks.metrics.text_modules import TEXT_SCRIPTS
from hf_distill.tasks.spec import TaskSpec

_CITATIONS = {
    "accuracy": "",
    "f1": "van Rijsbergen, Information Retrieval, 1979",
    "f1_macro": "van Rijsbergen, Information Retrieval, 1979",
    "matthews_correlation": "Matthews, Biochimica et Biophysica Acta 405(2), 1975; Gorodkin, 2004 (many classes)",
    "pearson": "Pearson, Proceedings of the Royal Society of London 58, 1895",
    "spearman": "Spearman, American Journal of Psychology 15(1), 1904",
}
_REGRESSION = ("pearson", "spearman")
_INPUTS = "predictions: one per row. references: labels, one per row."


def _info(value_type: str, scores: tuple[str, ...]) -> evaluate.MetricInfo:
    """Return the description of a metric that `evaluate` asks for."""
    return evaluate.MetricInfo(
        description="; ".join(str(SCORES[name].__doc__).split("\n")[0] for name in scores),
        citation="; ".join(filter(None, (_CITATIONS[name] for name in scores))),
        inputs_description=_INPUTS,
        features=datasets.Features(
            {"predictions": datasets.Value(value_type), "references": datasets.Value(value_type)}
        ),
    )


class ScoreMetric(evaluate.Metric):
    """One bundled score by name, as `evaluate.load(name)` would give it.

    Rows with the hidden label -1 do not count in classification scores.
    """

    def __init__(self, score: str, **options: Any) -> None:
        self.score = score
        super().__init__(config_name=score, **options)

    def _info(self) -> evaluate.MetricInfo:
        return _info("float64" if self.score in _REGRESSION else "int64", (self.score,))

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        shown = ~np.isnan(references) if self.score in _REGRESSION else references >= 0
        if not shown.any():
            raise ValueError(f"Metric {self.score!r}: all {len(references)} references are hidden (-1).")
        return {self.score: SCORES[self.score](predictions[shown], references[shown])}


class TaskMetric(evaluate.Metric):
    """All scores of a task, as `evaluate.load("glue", "sst2")` would give them. Hidden labels do not count."""

    def __init__(self, spec: TaskSpec, **options: Any) -> None:
        self.spec = spec
        super().__init__(config_name=spec.name.replace("/", "_"), **options)

    def _info(self) -> evaluate.MetricInfo:
        return _info("float64" if self.spec.label_names is None else "int64", self.spec.metrics)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return compute_scores(self.spec, np.asarray(predictions), np.asarray(references))


def load_metric(name: str | TaskSpec, **options: Any) -> evaluate.Metric:
    """A bundled `evaluate.Metric`: of one score, of a task, or of an official script.

    Args:
        name: Name of a score (`accuracy`, `matthews_correlation`, ...), of a script for entities or answers
            (`seqeval`, `squad`, `squad_v2`, `cmrc2018`, `drcd`, and `mlqa` with the option `language`), for generated
            text (`rouge`, `bleu`, `meteor`; their `compute` takes `language` and other options), of a task
            (`glue/mrpc`), or a spec.
        options: Passed to `evaluate.Metric` (`experiment_id`, `num_process`, `process_id`, `keep_in_memory`, ...).

    Raises:
        ValueError: If it is none of them.
    """
    if isinstance(name, str) and name in SCORES:
        return ScoreMetric(name, **options)
    scripts = SCRIPTS | TEXT_SCRIPTS
    if isinstance(name, str) and name in scripts:
        return scripts[name](**options)
    try:
        spec = name if isinstance(name, TaskSpec) else get_task(name)
    except ValueError as error:
        raise ValueError(
            f"There is no metric {name!r}; scores are {sorted(SCORES)}, scripts {sorted(scripts)}. {error}"
        ) from None
    if spec.is_of_rows:
        return TaskMetric(spec, **options)
    script = spec.answer_scorer if spec.is_span else "seqeval"
    return SCRIPTS[script](**({"language": spec.language} if script == "mlqa" else {}) | options)
