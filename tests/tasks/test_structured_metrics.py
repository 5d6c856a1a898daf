"""Metric modules take what the Hub's take and give what the plain functions give."""

import pytest

from hf_distill.tasks.metrics.answers import squad_scores, squad_v2_scores
from hf_distill.tasks.metrics.answers_chinese import cmrc_scores
from hf_distill.tasks.metrics.answers_mlqa import mlqa_scores
from hf_distill.tasks.metrics.evaluate_modules import load_metric

GOLDS = {"a": ["the big cat", "cat"], "b": ["北京大学"], "c": ["1976"]}
TEXTS = {"a": "big cat", "b": "北京", "c": "in 1976"}
REFERENCES = [
    {"id": key, "answers": {"text": texts, "answer_start": [0] * len(texts)}} for key, texts in GOLDS.items()
]
PREDICTIONS = [{"id": key, "prediction_text": text} for key, text in TEXTS.items()]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("squad", {}, squad_scores(TEXTS, GOLDS)),
        ("cmrc2018", {}, cmrc_scores(TEXTS, GOLDS)),
        ("mlqa", {"language": "zh"}, mlqa_scores(TEXTS, GOLDS, "zh")),
    ],
)
def test_answer_metrics_give_the_scores_of_their_functions(name, options, expected):
    module = load_metric(name, keep_in_memory=True, **options)
    assert module.compute(predictions=PREDICTIONS, references=REFERENCES) == expected
    module.add_batch(predictions=PREDICTIONS[:2], references=REFERENCES[:2])
    module.add(prediction=PREDICTIONS[2], reference=REFERENCES[2])
    assert module.compute() == expected


def test_squad_2_takes_probabilities_and_a_threshold():
    references = [*REFERENCES, {"id": "d", "answers": {"text": [], "answer_start": []}}]
    probabilities = {"a": 0.1, "b": 0.2, "c": 0.9, "d": 0.7}
    texts = TEXTS | {"d": "cat"}
    predictions = [
        {"id": key, "prediction_text": text, "no_answer_probability": probabilities[key]}
        for key, text in texts.items()
    ]
    golds = GOLDS | {"d": []}
    module = load_metric("squad_v2", keep_in_memory=True)
    expected = squad_v2_scores(texts, golds, probabilities)
    assert module.compute(predictions=predictions, references=references) == expected
    expected = squad_v2_scores(texts, golds, probabilities, 0.5)
    assert module.compute(predictions=predictions, references=references, no_answer_threshold=0.5) == expected


def test_entities_are_scored_overall_and_per_type():
    predictions = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    references = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    module = load_metric("seqeval", keep_in_memory=True)
    assert module.compute(predictions=predictions, references=references) == {
        "MISC": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 1},
        "PER": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1},
        "overall_precision": 0.5,
        "overall_recall": 0.5,
        "overall_f1": 0.5,
        "overall_accuracy": 0.8,
    }


def test_an_id_that_stands_twice_is_an_error():
    with pytest.raises(ValueError, match="predictions have 4 rows, but only 3 different ids"):
        load_metric("squad", keep_in_memory=True).compute(
            predictions=[*PREDICTIONS, PREDICTIONS[0]], references=[*REFERENCES, REFERENCES[0]]
        )


def test_a_language_that_mlqa_lacks_is_an_error():
    with pytest.raises(ValueError, match="no language 'fr'"):
        load_metric("mlqa", language="fr")
