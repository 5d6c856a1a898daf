"""The metrics as `evaluate.Metric` modules, with the same inputs as the modules on the Hub and without a download.

Scores are fractions; the Hub's `squad` and `squad_v2` give percentages. Import this module only where `evaluate` is
needed: importing it is slow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import evaluate
import numpy as np
from datasets import Features, List, Value

from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.metrics.answers import squad_scores, squad_v2_scores
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
_TEXT = Value("string")


@dataclass(frozen=True)
class Score:
    """The description of a metric for `evaluate`, and the function that computes it.

    Attributes:
        description: One sentence.
        citation: Authors, venue and year.
        inputs: Description of predictions and references.
        features: Their `datasets` types; several if alternatives are accepted.
        compute: Function of `predictions`, `references` and options.
    """

    description: str
    citation: str
    inputs: str
    features: Features | list[Features]
    compute: Callable[..., dict[str, Any]]


class BundledMetric(evaluate.Metric):
    """A metric of this package; `compute` takes `predictions`, `references`, and the options of its function.

    Attributes:
        score: Name of the metric or of the task.
    """

    def __init__(self, name: str, score: Score, **options: Any) -> None:
        self.score, self._score = name, score
        super().__init__(config_name=name.replace("/", "_"), **options)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self._score.description,
            citation=self._score.citation,
            inputs_description=self._score.inputs,
            features=self._score.features,
        )

    def _compute(self, **inputs: Any) -> dict[str, Any]:
        return self._score.compute(**inputs)


# --- rows with a label ----------------------------------------------------------------------------------------------


def _of_rows(names: Sequence[str], regression: bool, compute: Callable[..., dict[str, Any]]) -> Score:
    value = Value("float64" if regression else "int64")
    return Score(
        "; ".join(_first_line(SCORES[name]) for name in names),
        "; ".join(filter(None, (_CITATIONS[name] for name in names))),
        "predictions: one per row. references: labels, one per row.",
        Features({"predictions": value, "references": value}),
        compute,
    )


def _first_line(function: Callable[..., Any]) -> str:
    return str(function.__doc__).split("\n")[0]


def _one_score(predictions: Any, references: Any, *, name: str) -> dict[str, float]:
    """One score over the rows with a known label (not -1, or not NaN)."""
    predictions, references = np.asarray(predictions), np.asarray(references)
    shown = ~np.isnan(references) if name in _REGRESSION else references >= 0
    if not shown.any():
        raise ValueError(f"Metric {name!r}: all {len(references)} references are hidden (-1).")
    return {name: SCORES[name](predictions[shown], references[shown])}


def _task_scores(predictions: Any, references: Any, *, spec: TaskSpec) -> dict[str, float]:
    """All scores of a task; hidden labels are ignored."""
    return compute_scores(spec, np.asarray(predictions), np.asarray(references))


# --- entities, answers, texts ---------------------------------------------------------------------------------------


def _entities(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """`overall_precision` and so on, and for every type its `precision`, `recall`, `f1` and `number`."""
    overall = entity_scores(predictions, references)
    return entity_scores_by_type(predictions, references) | {f"overall_{key}": overall[key] for key in overall}


def _by_id(side: str, rows: list[dict[str, Any]], field: str) -> dict[str, Any]:
    """Map the id of every row to one field of the row; ids must be unique."""
    values = {row["id"]: row[field] for row in rows}
    if len(values) != len(rows):
        raise ValueError(f"The {side} have {len(rows)} rows, but only {len(values)} different ids.")
    return values


def _answers(
    predictions: list[dict[str, Any]],
    references: list[dict[str, Any]],
    *,
    script: Callable[..., dict[str, float]],
    **options: Any,
) -> dict[str, float]:
    """Scores of answers by an official script."""
    texts = _by_id("predictions", predictions, "prediction_text")
    golds = {question: answers["text"] for question, answers in _by_id("references", references, "answers").items()}
    return script(texts, golds, **options)


def _squad_v2(
    predictions: list[dict[str, Any]], references: list[dict[str, Any]], no_answer_threshold: float = 1.0
) -> dict[str, float]:
    """Scores of SQuAD 2.0, with the names that its script uses."""
    given = {row["id"]: row["no_answer_probability"] for row in predictions}
    options = {"no_answer_probabilities": given, "no_answer_threshold": no_answer_threshold}
    return _answers(predictions, references, script=squad_v2_scores, **options)


def _answer_score(description: str, citation: str, compute: Callable[..., Any], **prediction_fields: Any) -> Score:
    gold = {"text": List(_TEXT), "answer_start": List(Value("int32"))}
    return Score(
        description,
        citation,
        "predictions: `id` and `prediction_text` per question. references: `id` and `answers` (`text`, "
        "`answer_start`); the starts are not used.",
        Features(
            {
                "predictions": {"id": _TEXT, "prediction_text": _TEXT} | prediction_fields,
                "references": {"id": _TEXT, "answers": gold},
            }
        ),
        compute,
    )


def _text_score(function: Callable[..., dict[str, Any]], citation: str) -> Score:
    return Score(
        _first_line(function),
        citation,
        "predictions: texts. references: a text for each, or lists of texts.",
        [Features({"predictions": _TEXT, "references": kind}) for kind in (List(_TEXT), _TEXT)],
        function,
    )


_CMRC = _answer_score(
    "Exact match and longest-common-run F1 of CMRC 2018.",
    "Cui et al., EMNLP 2019",
    partial(_answers, script=cmrc_scores),
)
SCRIPTS: dict[str, Score] = {
    "seqeval": Score(
        "Precision, recall and F1 over entities, accuracy over tokens.",
        "Tjong Kim Sang and De Meulder, CoNLL-2003 (conlleval)",
        "predictions: tags (IOB, IOBES, BILOU, BMES) of every sentence. references: gold tags.",
        Features({"predictions": List(_TEXT), "references": List(_TEXT)}),
        _entities,
    ),
    "squad": _answer_score(
        "Exact match and F1 of SQuAD 1.1.", "Rajpurkar et al., EMNLP 2016", partial(_answers, script=squad_scores)
    ),
    "squad_v2": _answer_score(
        "Exact match and F1 of SQuAD 2.0, for questions with and without an answer, and at the best threshold.",
        "Rajpurkar et al., ACL 2018",
        _squad_v2,
        no_answer_probability=Value("float64"),
    ),
    "cmrc2018": _CMRC,
    "drcd": _CMRC,
    "mlqa": _answer_score(
        "Exact match and F1 of MLQA in one language.", "Lewis et al., ACL 2020", partial(_answers, script=mlqa_scores)
    ),
    "rouge": _text_score(rouge_scores, "Lin, Text Summarization Branches Out, 2004"),
    "bleu": _text_score(bleu_scores, "Papineni et al., ACL 2002; Post, WMT 2018 (sacrebleu)"),
    "meteor": _text_score(meteor_scores, "Banerjee and Lavie, ACL workshop on evaluation measures, 2005"),
}


def load_metric(name: str | TaskSpec, **options: Any) -> evaluate.Metric:
    """Return a bundled `evaluate.Metric`: of one score, of a task, or of an official script.

    Args:
        name: Name of a score (`accuracy`, `matthews_correlation`, ...), of a script for entities or answers
            (`seqeval`, `squad`, `squad_v2`, `cmrc2018`, `drcd`, and `mlqa` with the option `language`), of a metric
            for generated text (`rouge`, `bleu`, `meteor`; their `compute` takes `language` and other options), of a
            task (`glue/mrpc`), or a spec.
        options: Passed to `evaluate.Metric` (`experiment_id`, `num_process`, `process_id`, `keep_in_memory`, ...).

    Raises:
        ValueError: If the name is unknown, or MLQA does not have the language.
    """
    if isinstance(name, str) and name in SCORES:
        return BundledMetric(name, _of_rows([name], name in _REGRESSION, partial(_one_score, name=name)), **options)
    if isinstance(name, str) and name in SCRIPTS:
        return _of_script(name, **options)
    try:
        spec = name if isinstance(name, TaskSpec) else get_task(name)
    except ValueError as error:
        raise ValueError(
            f"There is no metric {name!r}; scores are {sorted(SCORES)}, scripts {sorted(SCRIPTS)}. {error}"
        ) from None
    if spec.is_of_rows:
        score = _of_rows(spec.metrics, spec.label_names is None, partial(_task_scores, spec=spec))
        return BundledMetric(spec.name, score, **options)
    script = spec.answer_scorer if spec.is_span else "seqeval"
    return _of_script(script, **({"language": spec.language} if script == "mlqa" else {}) | options)


def _of_script(name: str, language: str | None = None, **options: Any) -> BundledMetric:
    score = SCRIPTS[name]
    if name == "mlqa":
        compute = partial(score.compute, language=check_language(str(language)))
        return BundledMetric(f"mlqa_{language}", dataclasses.replace(score, compute=compute), **options)
    return BundledMetric(name, score, **options)
