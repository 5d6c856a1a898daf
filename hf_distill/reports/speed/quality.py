"""Reads the score of a model from the result files in its folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hf_distill.hub.model_card import read_facts
from hf_distill.hub.selection import EXPORT_FILE, FACTS_FILE, RESULTS_FILE
from hf_distill.storage.files import read_json

ONNX_FOLDER = "onnx"


@dataclass(frozen=True)
class Quality:
    """A score.

    Attributes:
        task: Name of the task.
        metric: Name of the headline metric.
        score: Its value, as a fraction.
        by_engine: Scores of exported files: `onnx`, `onnx_int8`.
        majority: Score of always predicting the most frequent label, if known.
        constant: The only label that the model predicts; `None` if it predicts several.
    """

    task: str
    metric: str
    score: float
    by_engine: dict[str, float] = field(default_factory=dict)
    majority: float | None = None
    constant: str | float | None = None

    def on(self, engine: str) -> float | None:
        """The score on an engine; PyTorch's engines share one, and an ONNX file has its own or none."""
        return self.by_engine.get(engine) if engine.startswith("onnx") else self.score


def read_quality(folder: str | Path) -> Quality | None:
    """Read the score of the model in a folder; `None` if it has none.

    It comes from `results.json` (written by teach, adapt and evaluate) or from the facts of the model card, together
    with the scores in `onnx/export.json` for the same task.
    """
    path = Path(folder)
    found = _from_results(_read(path / RESULTS_FILE)) or _from_card(path)
    if found is None:
        return None
    exported = _read(path / ONNX_FOLDER / EXPORT_FILE)
    same = exported.get("task") == found.task and exported.get("metric") == found.metric
    scores = {name: value for name, value in exported.get("scores", {}).items() if name.startswith("onnx")}
    return replace(found, by_engine=scores if same else {})


def _from_results(results: dict[str, Any]) -> Quality | None:
    scored = results.get("student") if results.get("job") == "adapt" else results
    if results.get("job") not in ("teach", "adapt", "evaluate") or not isinstance(scored, dict):
        return None
    majority = (results.get("majority") or {}).get("score")
    return Quality(
        results["task"], results["metric"], scored["score"], majority=majority, constant=scored.get("constant")
    )


def _from_card(folder: Path) -> Quality | None:
    scores = read_facts(folder).scores if (folder / FACTS_FILE).is_file() else []
    found = next((score for score in scores if score.student is not None), None)
    if found is None or found.student is None:
        return None
    return Quality(found.task, found.metric, found.student, majority=found.majority, constant=found.constant)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
