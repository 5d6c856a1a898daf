"""Entity and answer scores as `evaluate.Metric` modules with the inputs of the Hub's `seqeval`, `squad`, `squad_v2`.

Scores are fractions; the Hub's `squad` and `squad_v2` give percentages. Import this module only where `evaluate` is
wanted; it is slow to import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate

from hf_distill.tasks.metrics.answers import Predictions, References, squad_scores, squad_v2_scores
from hf_distill.tasks.metrics.answers_chinese import cmrc_scores
from hf_distill.tasks.metrics.answers_mlqa import check_language, mlqa_scores
from hf_distill.tasks.metrics.entities import entity_scores, entity_scores_by_type

_TAGS = datasets.List(datasets.Value("string"))
_ANSWERS = {"text": datasets.List(datasets.Value("string")), "answer_start": datasets.List(datasets.Value("int32"))}
_ANSWER_INPUTS = (
    "predictions: `id` and `prediction_text` per question. references: `id` and `answers` (`text`, `answer_start`), "
    "the starts are not read."
)


class EntityMetric(evaluate.Metric):
    """Entity scores in conlleval's sense under the names of the Hub's `seqeval`.

    `overall_precision`, `overall_recall`, `overall_f1`, `overall_accuracy`, and per type a dict of `precision`,
    `recall`, `f1` and `number`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Precision, recall and F1 over entities, accuracy over tokens.",
            citation="Tjong Kim Sang and De Meulder, CoNLL-2003 (conlleval)",
            inputs_description="predictions: tags (B-, I-, E-, O) of every sentence. references: gold tags.",
            features=datasets.Features({"predictions": _TAGS, "references": _TAGS}),
        )

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        overall = entity_scores(predictions, references)
        return entity_scores_by_type(predictions, references) | {f"overall_{key}": overall[key] for key in overall}


class SquadMetric(evaluate.Metric):
    """`exact_match` and `f1` of SQuAD 1.1."""

    def _info(self) -> evaluate.MetricInfo:
        return _answer_info("Exact match and F1 of SQuAD 1.1.", "Rajpurkar et al., EMNLP 2016")

    def _compute(self, predictions: list[dict[str, Any]], references: list[dict[str, Any]]) -> dict[str, float]:
        return squad_scores(_texts(predictions), _golds(references))


class SquadV2Metric(evaluate.Metric):
    """Scores of SQuAD 2.0 under the names of its script; `compute` takes `no_answer_threshold` (1.0) too."""

    def _info(self) -> evaluate.MetricInfo:
        return _answer_info(
            "Exact match and F1 of SQuAD 2.0, of questions with and without an answer, and at the best threshold.",
            "Rajpurkar et al., ACL 2018",
            no_answer_probability=datasets.Value("float64"),
        )

    def _compute(
        self,
        predictions: list[dict[str, Any]],
        references: list[dict[str, Any]],
        no_answer_threshold: float = 1.0,
    ) -> dict[str, float]:
        probabilities = {row["id"]: row["no_answer_probability"] for row in predictions}
        return squad_v2_scores(_texts(predictions), _golds(references), probabilities, no_answer_threshold)


class CmrcMetric(evaluate.Metric):
    """`exact_match` and `f1` of CMRC 2018 and DRCD."""

    def _info(self) -> evaluate.MetricInfo:
        return _answer_info("Exact match and longest-common-run F1 of CMRC 2018.", "Cui et al., EMNLP 2019")

    def _compute(self, predictions: list[dict[str, Any]], references: list[dict[str, Any]]) -> dict[str, float]:
        return cmrc_scores(_texts(predictions), _golds(references))


class MlqaMetric(evaluate.Metric):
    """`exact_match` and `f1` of MLQA for answers in one language (`MLQA_LANGUAGES`).

    Raises:
        ValueError: If MLQA does not have the language.
    """

    def __init__(self, language: str, **options: Any) -> None:
        self.language = check_language(language)
        super().__init__(config_name=f"mlqa_{language}", **options)

    def _info(self) -> evaluate.MetricInfo:
        return _answer_info(f"Exact match and F1 of MLQA ({self.language}).", "Lewis et al., ACL 2020")

    def _compute(self, predictions: list[dict[str, Any]], references: list[dict[str, Any]]) -> dict[str, float]:
        return mlqa_scores(_texts(predictions), _golds(references), self.language)


def _answer_info(description: str, citation: str, **prediction_fields: Any) -> evaluate.MetricInfo:
    """Return the description of a score of answers that `evaluate` asks for."""
    text = datasets.Value("string")
    return evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description=_ANSWER_INPUTS,
        features=datasets.Features(
            {
                "predictions": {"id": text, "prediction_text": text} | prediction_fields,
                "references": {"id": text, "answers": _ANSWERS},
            }
        ),
    )


def _texts(predictions: list[dict[str, Any]]) -> Predictions:
    """Id -> answer."""
    return _by_id("predictions", predictions, "prediction_text")


def _golds(references: list[dict[str, Any]]) -> References:
    """Id -> gold answers."""
    return {question: answers["text"] for question, answers in _by_id("references", references, "answers").items()}


def _by_id(side: str, rows: list[dict[str, Any]], field: str) -> dict[str, Any]:
    """One field of every row by the row's id, which only one row may have."""
    values = {row["id"]: row[field] for row in rows}
    if len(values) != len(rows):
        raise ValueError(f"The {side} have {len(rows)} rows, but only {len(values)} different ids.")
    return values


SCRIPTS: dict[str, Callable[..., evaluate.Metric]] = {
    "seqeval": EntityMetric,
    "squad": SquadMetric,
    "squad_v2": SquadV2Metric,
    "cmrc2018": CmrcMetric,
    "drcd": CmrcMetric,
    "mlqa": MlqaMetric,
}
