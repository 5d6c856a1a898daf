"""ROUGE, BLEU and METEOR as `evaluate.Metric` modules with the inputs of the Hub's; no script to download.

Import this module only where `evaluate` is wanted; it is slow to import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import datasets
import evaluate

from hf_distill.tasks.metrics.text_scores import bleu_scores, meteor_scores, rouge_scores

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
