"""Reads the score of a model from the results beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_distill.hub.model_card import FACTS_FILE, read_facts
from hf_distill.storage.files import read_json

RESULTS_FILE = "results.json"
ONNX_FOLDER = "onnx"
EXPORT_FILE = "export.json"


@dataclass(frozen=True)
class Quality:
    """A score.

    Attributes:
        task: Name of the task.
        metric: Name of the headline metric.
        score: Its value, a fraction.
        by_engine: The scores of exported files: `onnx`, `onnx_int8`.
    """

    task: str
    metric: str
    score: float
    by_engine: dict[str, float] = field(default_factory=dict)

    def on(self, engine: str) -> float | None:
        """The score on an engine; PyTorch's engines share one, a file has its own or none."""
        return self.by_engine.get(engine) if engine.startswith("onnx") else self.score


def read_quality(folder: str | Path) -> Quality | None:
    """The score of the model in a folder; `None` where nobody scored it.

    It is that of `results.json` (teach and evaluate write one) or of the facts of the model card, with those of
    `onnx/export.json` for the same task.
    """
    path = Path(folder)
    found = _from_results(_read(path / RESULTS_FILE)) or _from_card(path)
    if found is None:
        return None
    task, metric, score = found
    exported = _read(path / ONNX_FOLDER / EXPORT_FILE)
    same = exported.get("task") == task and exported.get("metric") == metric
    scores = {name: value for name, value in exported.get("scores", {}).items() if name.startswith("onnx")}
    return Quality(task, metric, score, scores if same else {})


def _from_results(results: dict[str, Any]) -> tuple[str, str, float] | None:
    scored = results.get("student") if results.get("job") == "evaluate" else results
    if results.get("job") not in ("teach", "evaluate") or not isinstance(scored, dict):
        return None
    return results["task"], results["metric"], scored["score"]


def _from_card(folder: Path) -> tuple[str, str, float] | None:
    scores = read_facts(folder).scores if (folder / FACTS_FILE).is_file() else []
    return next(((s.task, s.metric, s.student) for s in scores if s.student is not None), None)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
