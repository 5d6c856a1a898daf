"""What is the same as another text: equal, nearly equal, or a text of a validation or test set."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hf_distill.corpus.build.duplicates import (
    EvaluationTexts,
    find_near_duplicates,
    first_of_equal,
    hash_texts,
    jaccard,
    ngram_hashes,
    normalize,
    rows_per_band,
    shingles,
)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Fox, runs!", "the fox runs"),
        ("  the   fox\truns ", "the fox runs"),
        ("\uff34he fox-runs_", "the fox runs"),
        ("STRASSE", "strasse"),
        ("Stra\u00dfe", "strasse"),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940, \u092e\u0947\u0902",
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
        ),
        ("\u597d\uff0c\u7684\u3002", "\u597d\u7684"),
        ("\u597d \u7684 Python \u597d", "\u597d\u7684python\u597d"),
        ("co\u00adoperate", "cooperate"),
        ("it does n't work -LRB- ca n't it -RRB-", "it doesn t work can t it"),
        ("It doesn't work (can't it)", "it doesn t work can t it"),
        ("You can not, you CANNOT; can notes?", "you cannot you cannot can notes"),
        ("I love it \u2764\ufe0f!", "i love it"),
        ("\u2764\ufe0fI love\u2764\ufe0f it", "i love it"),
        ("don\u00b4t", "don t"),
        ("don\u2019t", "don t"),
        ("\ufe0f\u0301a", "a"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("!!!", "!!!"),
        ("\u2764\ufe0f", "\u2764\ufe0f"),
        ("", ""),
    ],
)
def test_normalisation_keeps_the_words_only(text, normalized):
    assert normalize(text) == normalized


def test_texts_without_words_are_not_all_the_same():
    assert normalize("!!!") != normalize("???")


def test_hashes_are_those_of_the_bytes():
    hashes = hash_texts(["a", "b", "a", "\ud800"])
    assert hashes.dtype == np.uint64
    assert hashes[0] == hashes[2] != hashes[1]


def test_the_text_of_lowest_priority_stays_whatever_the_order():
    hashes = np.array([7, 8, 7, 7, 9], dtype=np.uint64)
    priority = np.array([5, 1, 2, 9, 0])
    stays = first_of_equal(hashes, priority)
    assert stays.tolist() == [2, 1, 2, 2, 4]
    order = np.random.default_rng(0).permutation(5)
    assert np.array_equal(order[first_of_equal(hashes[order], priority[order])], stays[order])


def test_nothing_in_nothing_out():
    assert first_of_equal(np.empty(0, np.uint64), np.empty(0, np.int64)).tolist() == []


pytest.importorskip("datasketch", reason="pip install 'hf_distill[near_duplicates]'")


WORDS = "fox dog river movie actor plot scene music bridge garden winter story city train letter sea".split()


def find(texts, threshold=0.7, size=7):
    def texts_of(positions):
        for start in range(0, len(positions), size):
            yield [texts[position] for position in positions[start : start + size].tolist()]

    return find_near_duplicates(len(texts), texts_of, threshold)


def all_pairs(texts, threshold):
    """The same by comparing every text with every one that was kept."""
    sets, kept, nearly = [shingles(text) for text in texts], [], []
    for position, own in enumerate(sets):
        nearest = next((other for other in kept if jaccard(own, sets[other]) >= threshold), -1)
        nearly.append(nearest)
        if nearest < 0:
            kept.append(position)
    return nearly


def variants(seed, count):
    """Texts of 20 words, many of them another one with words changed at its end."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS, 20)) for _ in range(count // 3)]
    for _ in range(count - len(texts)):
        words = texts[random.integers(len(texts))].split()
        kept = 20 - random.integers(0, 6)
        texts.append(" ".join([*words[:kept], *random.choice(WORDS, 20 - kept)]))
    return [texts[place] for place in random.permutation(len(texts))]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 1.0])
def test_what_is_found_is_what_comparing_all_pairs_finds(threshold):
    texts = variants(seed=1, count=240)
    expected, found = all_pairs(texts, threshold), find(texts, threshold).tolist()
    assert sum(place >= 0 for place in expected) > 10
    different = sum(one != other for one, other in zip(expected, found, strict=True))
    assert different <= 0.02 * len(texts)  # a pair at the threshold is overlooked once in a hundred


def test_nothing_is_dropped_that_is_not_similar_enough():
    texts = variants(seed=2, count=240)
    sets = [shingles(text) for text in texts]
    for position, nearest in enumerate(find(texts, 0.6).tolist()):
        assert nearest < 0 or (nearest < position and jaccard(sets[position], sets[nearest]) >= 0.6)


def test_the_first_texts_alone_give_the_same_for_them():
    texts = variants(seed=3, count=150)
    whole = find(texts)
    for count in (1, 40, 149):
        assert np.array_equal(find(texts[:count]), whole[:count])


def test_batches_do_not_matter():
    texts = variants(seed=4, count=60)
    assert np.array_equal(find(texts, size=1), find(texts, size=60))


def test_a_text_that_was_dropped_does_not_drop_another():
    # Each is similar to the one before it only.
    words = [f"w{number}" for number in range(40)]
    texts = [" ".join(words[start : start + 20]) for start in (0, 3, 6)]
    sets = [shingles(text) for text in texts]
    assert jaccard(sets[0], sets[1]) == jaccard(sets[1], sets[2]) > 0.7 > jaccard(sets[0], sets[2])
    assert find(texts).tolist() == [-1, 0, -1]


def test_shingles_are_three_words_in_a_row_without_case_and_punctuation():
    assert np.array_equal(shingles("The red, fox runs"), shingles("the RED fox runs!"))
    assert len(shingles("the red fox runs")) == 2
    assert len(shingles("red fox")) == 1
    assert len(shingles("!!!")) == 1
    assert len(shingles("\u6211\u559c\u6b22\u7535\u5f71")) == 3


def test_short_texts_are_near_duplicates_only_of_equal_ones():
    assert find(["red fox", "red dog", "Red fox!"]).tolist() == [-1, -1, 0]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 0.99])
def test_bands_find_a_pair_at_the_threshold_in_99_of_100_cases(threshold):
    rows = rows_per_band(threshold)
    assert rows == 1 or 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99


def test_no_text_at_all():
    assert find([]).tolist() == []


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(ImportError, match=r"`--deduplicate near` needs .*pip install 'hf_distill\[near_duplicates\]'"):
        find(["a"])


def equal(evaluation, texts):
    return evaluation.equal(hash_texts(normalize(text) for text in texts)).tolist()


def test_evaluation_texts_are_found_without_case_and_punctuation():
    evaluation = EvaluationTexts(["A fine film .", None, "", "dull"])
    assert evaluation.num_texts == 2
    assert equal(evaluation, ["a FINE film", "fine film", "Dull!"]) == [True, False, True]


@pytest.mark.parametrize(
    ("of_task", "of_corpus"),
    [
        ("it does n't work , really not .", "It doesn't work, really not."),
        ("\u6211 \u7231 \u5317 \u4eac \u3002", "\u6211\u7231\u5317\u4eac\u3002"),
        ("\u4f7f\u7528Python\u7f16\u7a0b", "\u4f7f\u7528 Python \u7f16\u7a0b"),
        ("-lrb- good -rrb-", "(good)"),
    ],
)
def test_evaluation_texts_that_were_split_into_words_are_found_in_running_text(of_task, of_corpus):
    assert equal(EvaluationTexts([of_task]), [of_corpus]) == [True]
    around = "one two three four five six seven", "eight"
    evaluation = EvaluationTexts([" ".join([around[0], of_task, around[1]])], contains=True, ngram=9)
    row = normalize(f"So: {around[0]} {of_corpus} {around[1]}, yes")
    assert evaluation.contained([row]).tolist() == [True]
    assert evaluation.shared([row]).tolist() == [True]


def test_without_evaluation_texts_nothing_is_found():
    assert equal(EvaluationTexts([]), ["a", "b"]) == [False, False]


def test_the_checksum_does_not_depend_on_order_and_repeats():
    assert EvaluationTexts(["a b", "c"]).checksum == EvaluationTexts(["C", "a b", "a, b"]).checksum
    assert EvaluationTexts(["a b"]).checksum != EvaluationTexts(["c"]).checksum


LONG = "one two three four five six seven eight nine"


def test_long_evaluation_texts_are_found_inside_longer_rows():
    evaluation = EvaluationTexts([LONG, "a short one"], contains=True)
    texts = [f"He said: {LONG}, twice.", f"{LONG}teen and more", "this is a short one too", LONG.upper(), "x"]
    assert evaluation.contained([normalize(text) for text in texts]).tolist() == [True, False, False, True, False]


def test_containment_is_not_looked_for_unless_asked():
    assert EvaluationTexts([LONG]).contained([f"x {LONG} y"]).tolist() == [False]


def test_in_scripts_without_spaces_characters_are_the_words():
    evaluation = EvaluationTexts(
        ["\u6211\u975e\u5e38\u559c\u6b22\u8fd9\u90e8\u7535\u5f71\u3002", "\u7535\u5f71"], contains=True
    )
    texts = [
        "\u4ed6\u8bf4\u6211\u975e\u5e38\u559c\u6b22\u8fd9\u90e8\u7535\u5f71\u4e86",
        "\u7535\u5f71\u597d",
        "\u6211\u559c\u6b22",
    ]
    assert evaluation.contained([normalize(text) for text in texts]).tolist() == [True, False, False]


def plain_ngrams(text, n):
    words = normalize(text).split()
    return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}


@pytest.mark.parametrize("n", [1, 3, 5, 13])
def test_shared_ngrams_are_those_of_a_plain_loop(n):
    random = np.random.default_rng(n)
    evaluation = [" ".join(random.choice(list("abcdef"), random.integers(1, 20))) for _ in range(30)]
    texts = [" ".join(random.choice(list("ABCDEF"), random.integers(0, 25))) for _ in range(200)]
    known = set().union(*(plain_ngrams(text, n) for text in evaluation))
    expected = [bool(plain_ngrams(text, n) & known) for text in texts]
    found = EvaluationTexts(evaluation, ngram=n).shared([normalize(text) for text in texts])
    assert found.tolist() == expected
    assert n == 13 or any(expected)


def test_an_ngram_never_reaches_into_the_next_text():
    evaluation = EvaluationTexts(["a b c d"], ngram=3)
    assert evaluation.shared(["x a b", "c d x", "", "b c d"]).tolist() == [False, False, False, True]


def test_evaluation_texts_shorter_than_an_ngram_are_only_compared_as_a_whole():
    evaluation = EvaluationTexts(["a fine film"], ngram=5)
    assert evaluation.shared(["it is a fine film indeed"]).tolist() == [False]
    assert equal(evaluation, ["A fine film!"]) == [True]


def test_ngrams_are_not_looked_for_unless_asked():
    assert EvaluationTexts([LONG]).shared([LONG]).tolist() == [False]
    assert EvaluationTexts([], ngram=3).shared([LONG]).tolist() == [False]


def test_the_order_of_the_words_counts():
    hashes, owners = ngram_hashes(["a b", "b a", "a b c"], 2)
    assert owners.tolist() == [0, 1, 2, 2]
    assert hashes[0] == hashes[2] != hashes[1]
