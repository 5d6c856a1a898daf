"""The scores as `evaluate.Metric` modules with the inputs of the Hub's, without a script to download.

Scores are fractions; the Hub's `squad` and `squad_v2` give percentages. Import this module only where `evaluate` is
wanted: it is slow to import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.metrics.answers import Predictions, References, squad_scores, squad_v2_scores
from hf_distill.tasks.metrics.answers_chinese import cmrc_scores
from hf_distill.tasks.metrics.answers_mlqa import check_language, mlqa_scores
from hf_distill.tasks.metrics.compute import compute_scores
from hf_distill.tasks.metrics.entities import entity_scores, entity_scores_by_type
from hf_distill.tasks.metrics.scores import SCORES
from hf_distill.tasks.metrics.text_scores import bleu_scores, meteor_scores, rouge_scores
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


_TEXT = datasets.Value("string")


class TextMetric(evaluate.Metric):
    """A score of generated text. `compute` takes the options of its function (`language="zh"`, ...)."""

    function: ClassVar[Callable[..., dict[str, Any]]]
    citation_text: ClassVar[str]

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(type(self).function.__doc__).split("\n")[0],
            citation=self.citation_text,
            inputs_description="predictions: texts. references: a text for each, or lists of texts.",
            features=[
                datasets.Features({"predictions": _TEXT, "references": datasets.List(_TEXT)}),
                datasets.Features({"predictions": _TEXT, "references": _TEXT}),
            ],
        )

    def _compute(self, predictions: list[str], references: list[Any], **options: Any) -> dict[str, Any]:
        return type(self).function(predictions, references, **options)


class RougeMetric(TextMetric):
    """F-measures of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-L over sentences; options `language`, `stemming`."""

    function = staticmethod(rouge_scores)
    citation_text = "Lin, Text Summarization Branches Out, 2004"


class BleuMetric(TextMetric):
    """BLEU-4 of the corpus; options `language`, `tokenized`, `lowercase`, `smoothing`."""

    function = staticmethod(bleu_scores)
    citation_text = "Papineni et al., ACL 2002; Post, WMT 2018 (sacrebleu)"


class MeteorMetric(TextMetric):
    """METEOR with exact and stem matches; options `language`, `synonyms`."""

    function = staticmethod(meteor_scores)
    citation_text = "Banerjee and Lavie, ACL workshop on evaluation measures, 2005"


TEXT_SCRIPTS: dict[str, Callable[..., evaluate.Metric]] = {
    "rouge": RougeMetric,
    "bleu": BleuMetric,
    "meteor": MeteorMetric,
}


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
