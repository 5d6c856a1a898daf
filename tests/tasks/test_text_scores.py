"""Scores of generated text agree with values counted by hand; nothing is scored where there is nothing to score."""

import dataclasses
import math

import pytest

from hf_distill.tasks.catalogue.generation import GenerationSpec
from hf_distill.tasks.metrics.evaluate_modules import load_metric
from hf_distill.tasks.metrics.text_scores import (
    bleu_scores,
    characters,
    meteor_scores,
    rouge_scores,
    score_generated,
)

PREDICTION = "the cat sat on the mat"
REFERENCE = "the cat is on the mat"


def f1(shared, predicted, gold):
    return 2 * shared / (predicted + gold)


def test_rouge_counts_shared_words_pairs_and_the_longest_common_subsequence():
    scores = rouge_scores([PREDICTION], [REFERENCE])
    # Words: the, cat, on, the, mat. Pairs: "the cat", "on the", "the mat". Subsequence: the cat on the mat.
    assert scores["rouge1"] == pytest.approx(f1(5, 6, 6))
    assert scores["rouge2"] == pytest.approx(f1(3, 5, 5))
    assert scores["rougeL"] == scores["rougeLsum"] == pytest.approx(f1(5, 6, 6))
    swapped = rouge_scores(["mat the on"], ["on the mat"])
    assert (swapped["rouge1"], swapped["rouge2"]) == (1.0, 0.0)
    assert swapped["rougeL"] == pytest.approx(f1(1, 3, 3))


def test_rouge_of_sentences_takes_the_union_over_lines():
    predictions, references = ["a b\nc d"], ["c d\na b"]
    scores = rouge_scores(predictions, references)
    assert scores["rougeL"] == pytest.approx(f1(2, 4, 4))
    assert scores["rougeLsum"] == 1.0


def test_the_best_of_several_references_counts_and_rows_are_averaged():
    one = rouge_scores([PREDICTION], [[REFERENCE]])["rouge1"]
    assert rouge_scores([PREDICTION], [["dogs", REFERENCE]])["rouge1"] == one
    assert rouge_scores([PREDICTION, "dog"], [REFERENCE, "cat"])["rouge1"] == pytest.approx(one / 2)


def test_stems_match_where_they_are_asked_for():
    assert rouge_scores(["running dogs"], ["runs dog"])["rouge1"] == 0.0
    assert rouge_scores(["running dogs"], ["runs dog"], stemming=True)["rouge1"] == 1.0


def test_chinese_is_counted_by_characters():
    assert characters("我爱BERT-2，北京。") == ["我", "爱", "bert", "2", "北", "京"]
    scores = rouge_scores(["我爱北京"], ["我爱天安门"], language="zh")
    assert scores["rouge1"] == pytest.approx(f1(2, 4, 5))
    assert scores["rouge2"] == pytest.approx(f1(1, 3, 4))
    assert rouge_scores(["我爱北京"], ["我爱北京"])["rouge1"] == 0.0, "ROUGE's own tokens are ASCII"
    assert bleu_scores(["我爱北京天"], ["我爱北京天"], language="zh")["bleu"] == pytest.approx(1.0)
    # All of it matches, in one piece: the penalty is 0.5 * (1 / 4) ** 3.
    assert meteor_scores(["我爱北京"], ["我爱北京"], language="zh")["meteor"] == pytest.approx(1 - 0.5 / 64)


@pytest.mark.parametrize(
    ("text", "other"), [("кошка сидит дома", "кошка спит дома"), ("القط في البيت", "القط على البيت")]
)
def test_words_of_other_letters_are_words(text, other):
    assert rouge_scores([text], [text], language="")["rouge1"] == 1.0
    assert rouge_scores([other], [text], language="")["rouge1"] == pytest.approx(2 / 3)
    # Latin words with marks are read as by ROUGE's script.
    assert rouge_scores(["das häuschen"], ["das haus hen"], language="de")["rouge1"] == pytest.approx(1 / 3)


def test_chinese_of_a_task_whose_language_nobody_said_is_counted_by_characters():
    spec = GenerationSpec("mine", "{text}", "title", metrics=("rougeL", "bleu", "meteor"), language="")
    gold = "北京今天下雨了"
    right = score_generated(spec, [gold], [[gold]])
    assert right["bleu"] == pytest.approx(1.0)
    known = dataclasses.replace(spec, language="zh")
    for said in (gold, "北京昨天下雨", "rain in Beijing"):
        assert score_generated(spec, [said], [[gold]]) == score_generated(known, [said], [[gold]])


def test_bleu_is_the_geometric_mean_of_clipped_precisions_over_the_corpus():
    predictions = [PREDICTION, "a dog and a cat sleep here"]
    references = [REFERENCE, "a dog and the cat sleep there"]
    # Matches of one to four words: 5 + 5 of 13, 3 + 3 of 11, 1 + 1 of 9, 0 + 0 of 7.
    scores = bleu_scores(predictions, references, smoothing="none")
    assert scores["bleu"] == 0.0
    # The first order without a match counts as half a match.
    precisions = [10 / 13, 6 / 11, 2 / 9, 0.5 / 7]
    scores = bleu_scores(predictions, references)
    assert scores["precisions"] == pytest.approx(precisions)
    assert scores["bleu"] == pytest.approx(math.prod(precisions) ** 0.25)


def test_a_short_text_pays_the_brevity_penalty_of_its_nearest_reference():
    scores = bleu_scores(["one two three four"], [["one two three four five", "one two three four five six seven"]])
    assert scores["bleu"] == pytest.approx(math.exp(1 - 5 / 4))
    assert bleu_scores(["one two three four"], [["one two three four", "x"]])["bleu"] == pytest.approx(1.0)
    rows = bleu_scores(
        ["one two three four", "five six seven eight"], [["one two three four"], ["x", "five six seven eight"]]
    )
    assert rows["bleu"] == pytest.approx(1.0), "rows may have different numbers of references"


def test_bleu_of_words_that_are_parted_already_leaves_them_alone():
    row = "where is the well-known co. , really ?"
    assert bleu_scores([row.upper()], [row], tokenized=True, lowercase=True)["bleu"] == pytest.approx(1.0)
    assert "tok:none" in bleu_scores([row], [row], tokenized=True)["signature"]


def test_meteor_weighs_recall_and_pays_for_pieces():
    # Five of six words match in two pieces ("the cat", "on the mat"): mean 5/6, penalty 0.5 * (2/5) ** 3.
    assert meteor_scores([PREDICTION], [REFERENCE])["meteor"] == pytest.approx(5 / 6 * (1 - 0.5 * 0.4**3))
    # Precision 1, recall 1/2: the harmonic mean with weight 0.9 on recall is 1 / (0.1 / 1 + 0.9 / 0.5)^-1.
    mean = 1 * 0.5 / (0.9 * 1 + 0.1 * 0.5)
    assert meteor_scores(["one two"], ["one two three four"])["meteor"] == pytest.approx(mean * (1 - 0.5 * 0.5**3))
    assert meteor_scores(["runs"], ["running"])["meteor"] == pytest.approx(0.5), "stems match; one word is one piece"
    assert meteor_scores(["dog"], [["cat", "dog"]])["meteor"] == pytest.approx(0.5)


@pytest.mark.parametrize("score", [rouge_scores, bleu_scores, meteor_scores])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_empty_texts_score_nothing_and_break_nothing(score, language):
    for prediction, reference in (("", "a cat"), ("a cat", ""), ("", ""), ("...", "。"), (" \n", "a")):
        values = score([prediction], [reference], language=language)
        assert all(value == 0.0 for name, value in values.items() if name in ("rouge1", "rougeL", "bleu", "meteor")), (
            prediction,
            reference,
        )


@pytest.mark.parametrize("score", [rouge_scores, bleu_scores, meteor_scores])
def test_rows_that_do_not_fit_are_errors(score):
    for predictions, references in (([], []), (["a"], []), (["a"], ["a", "b"])):
        with pytest.raises(ValueError, match="do not fit"):
            score(predictions, references)
    with pytest.raises(ValueError, match="1 rows have no reference, the first is row 1"):
        score(["a", "b"], [["a"], []])


def test_synonyms_without_their_data_are_an_error_that_says_how_to_get_them(monkeypatch, tmp_path):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(LookupError, match=r"nltk.downloader wordnet.*synonyms=False"):
        meteor_scores(["a"], ["a"], synonyms=True)


def test_metric_modules_take_one_reference_or_several():
    for name in ("rouge", "bleu", "meteor"):
        module = load_metric(name, keep_in_memory=True)
        one = module.compute(predictions=[PREDICTION], references=[REFERENCE])
        assert module.compute(predictions=[PREDICTION], references=[[REFERENCE]]) == one
    chinese = load_metric("rouge", keep_in_memory=True).compute(
        predictions=["我爱"], references=["我爱"], language="zh"
    )
    assert chinese["rouge2"] == 1.0
