"""MLQA's normalisation: Unicode punctuation, articles of each language, Chinese by characters."""

import pytest

from hf_distill.tasks.metrics.answers import squad_scores
from hf_distill.tasks.metrics.answers_mlqa import MLQA_LANGUAGES, mlqa_scores, normalize_answer


@pytest.mark.parametrize(
    ("language", "text", "normalised"),
    [
        ("en", "The “cat”, a dog", "cat dog"),
        ("es", "¿La casa de las flores y un río?", "casa de flores y río"),
        ("es", "the unas", "the"),
        ("de", "Das Haus des Königs – eine Straße", "haus königs straße"),
        ("vi", "Những cái nhà của là tôi", "nhà tôi"),
        ("hi", "यह एक घर है।", "यह एक घर है"),
        ("zh", "《北京》 XML 2008年，", "北 京 xml 2008 年"),
        ("en", "$5 €3 <x>", "5 €3 x"),
    ],
)
def test_normalisation_per_language(language, text, normalised):
    assert normalize_answer(text, language) == normalised


def test_the_arabic_article_goes_wherever_its_letters_stand():
    assert normalize_answer("الكتاب", "ar") == "كتاب"
    assert normalize_answer("والكتاب", "ar") == "و كتاب"


def test_articles_of_another_language_stay():
    assert normalize_answer("the la der", "en") == "la der"
    assert normalize_answer("the la der", "zh") == "the la der"


def test_chinese_f1_counts_a_bag_of_characters():
    scores = mlqa_scores({"q": "京北大学"}, {"q": ["北京大学"]}, "zh")
    assert scores == {"exact_match": 0.0, "f1": 1.0}


def test_english_equals_squad_where_punctuation_is_ascii():
    predictions = {"a": "the big cat", "b": "a dog!", "c": ""}
    references = {"a": ["big Cat.", "cat"], "b": ["cat"], "c": ["the"], "d": ["dog"]}
    assert mlqa_scores(predictions, references, "en") == squad_scores(predictions, references)


@pytest.mark.parametrize("language", MLQA_LANGUAGES)
def test_an_answer_equals_itself_in_every_language(language):
    texts = {"1": "Berlin 1976", "2": "北京", "3": "दिल्ली"}
    scores = mlqa_scores(texts, {question: [text] for question, text in texts.items()}, language)
    assert scores == {"exact_match": 1.0, "f1": 1.0}


def test_a_language_that_mlqa_lacks_is_an_error():
    with pytest.raises(ValueError, match="no language 'fr'; allowed are en, es, hi, vi, de, ar, zh"):
        mlqa_scores({"q": "x"}, {"q": ["x"]}, "fr")
