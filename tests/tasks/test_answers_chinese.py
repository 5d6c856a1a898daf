"""CMRC's scores: mixed segmentation, longest common run, punctuation removed."""

import itertools
import random

import pytest

from hf_distill.tasks.metrics.answers_chinese import (
    cmrc_scores,
    exact_match,
    longest_common_run,
    mixed_segmentation,
    remove_punctuation,
    substring_f1,
    words,
)


def plain_longest_run(left, right):
    """Every run of one side, looked for in the other."""
    runs = lambda items: {tuple(items[i:j]) for i, j in itertools.combinations(range(len(items) + 1), 2)}  # noqa: E731
    return max((len(run) for run in runs(left) & runs(right)), default=0)


@pytest.mark.parametrize("seed", range(30))
def test_the_longest_common_run_equals_a_search_of_all_runs(seed):
    generator = random.Random(seed)
    left, right = (generator.choices("甲乙丙", k=generator.randint(0, 14)) for _ in range(2))
    assert longest_common_run(left, right) == plain_longest_run(left, right)
    assert longest_common_run(right, left) == plain_longest_run(left, right)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("北京大学", ["北", "京", "大", "学"]),
        ("2008年8月8日", ["2008", "年", "8", "月", "8", "日"]),
        ("《Windows XP》系统", ["windows", "xp", "系", "统"]),
        ("３－４　岁", ["３４", "岁"]),
        ("1998-2001年", ["19982001", "年"]),
        ("1,000人，约2.5%", ["1,000", "人", "约", "2.5", "%"]),
        (" S.K. Ito（伊藤） ", ["s.k.", "ito", "伊", "藤"]),
        ("等等……", ["等", "等", "……"]),
        ("，。！？", []),
        ("", []),
        ("㐀龥龦", ["㐀", "龥", "龦"]),
    ],
)
def test_mixed_segmentation(text, segments):
    assert mixed_segmentation(text) == segments


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("it is a test.", "it|is|a|test|."),
        ("u.s. army, 1,000 men", "u.s.|army|,|1,000|men"),
        ("s.k.", "s.k|."),
        ("(lionel richie)", "(|lionel|richie|)"),
        ('"the yes man"', "``|the|yes|man|''"),
        ('say "hello"!', "say|``|hello|''|!"),
        ("don't", "do|n't"),
        ("cats' and dog's", "cats|'|and|dog|'s"),
        ("we'll, they've", "we|'ll|,|they|'ve"),
        ("'allo", "'|allo"),
        ("cannot gonna wanna", "can|not|gon|na|wan|na"),
        ("nt$25,000", "nt|$|25,000"),
        ("100%", "100|%"),
        ("1—2", "1|—|2"),
        ("wait... what", "wait|...|what"),
        ("a.b.c", "a.b.c"),
        ("end.)", "end|.|)"),
        ("«oui» ‘non", "«|oui|»|‘|non"),
        ("  ", ""),
    ],
)
def test_words_follow_the_conventions_of_the_penn_treebank(text, tokens):
    assert words(text) == (tokens.split("|") if tokens else [])


def test_punctuation_of_the_list_goes_and_no_other():
    assert remove_punctuation(" A-B：C，D。 ") == "abcd"
    assert remove_punctuation("1.5, (a)!…‘") == "1.5, (a)!…‘"


def test_f1_comes_from_the_longest_run_and_not_from_the_bag():
    # Five of six characters are shared, but in runs of three and two.
    assert substring_f1("甲乙丙丁戊", "甲乙丙子丁戊") == pytest.approx(2 * (3 / 5) * (3 / 6) / (3 / 5 + 3 / 6))
    assert substring_f1("乙甲", "甲乙") == pytest.approx(0.5)
    assert substring_f1("甲", "乙") == 0.0


def test_exact_match_is_blind_to_case_and_listed_punctuation_only():
    assert exact_match("《ABC》，", "abc") == 1.0
    assert exact_match("a, b", "a b") == 0.0


def test_empty_answers_match_but_have_no_f1():
    assert cmrc_scores({"q": ""}, {"q": ["。"]}) == {"exact_match": 1.0, "f1": 0.0}


def test_the_best_answer_counts_and_missing_predictions_score_zero():
    references = {"a": ["北京市", "北京"], "b": ["上海"], "c": ["广州"]}
    scores = cmrc_scores({"a": "北京。", "b": "上海市", "extra": "x"}, references)
    assert scores["exact_match"] == pytest.approx(1 / 3)
    assert scores["f1"] == pytest.approx((1.0 + 0.8) / 3)


def test_what_cannot_be_scored_is_an_error():
    with pytest.raises(ValueError, match="no question"):
        cmrc_scores({}, {})
    with pytest.raises(ValueError, match="no gold answer"):
        cmrc_scores({"q": "甲"}, {"q": []})
