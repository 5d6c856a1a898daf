"""Distinct-n is counted as its definition says; samples are whole texts of the wanted size, whatever the order."""

import random

import numpy as np
import pytest

from hf_distill.corpus.build.duplicates import hash_texts
from hf_distill.corpus.compare.diversity import distinct, sample_order, sampled_distinct, take_words, words_of
from hf_distill.corpus.text.analysis import Analyzer


def texts_of(seed, count=60, words=40):
    draw = random.Random(seed)
    return [" ".join(f"w{draw.randrange(words)}" for _ in range(draw.randrange(0, 9))) for _ in range(count)]


def encode(texts):
    return Analyzer("english", stem=False, stopwords=()).encode([texts])


def slow_distinct(texts, n):
    """The definition with sets of tuples."""
    grams = [tuple(words[i : i + n]) for words in map(str.split, texts) for i in range(len(words) - n + 1)]
    return 100 * len(set(grams)) / len(grams) if grams else 0.0


def fast_distinct(texts, n):
    streams = encode(texts)
    return distinct(streams.ids, np.diff(streams.offsets), n)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distinct_n_is_that_of_plain_counting(n, seed):
    texts = texts_of(seed)
    assert fast_distinct(texts, n) == pytest.approx(slow_distinct(texts, n), abs=1e-12)


def test_no_n_gram_goes_from_one_text_to_the_next():
    assert fast_distinct(["a b", "c d", "a b"], 2) == pytest.approx(100 * 2 / 3)


def test_stop_words_and_case_count_as_the_words_they_are():
    assert fast_distinct(["The cat", "the Cat"], 1) == 50


@pytest.mark.parametrize("texts", [[], [""], ["a", "b"]])
def test_without_any_n_gram_it_is_zero(texts):
    assert fast_distinct(texts, 2) == 0


def test_the_order_of_rows_changes_nothing():
    texts = texts_of(3)
    shuffled = random.Random(0).sample(texts, len(texts))
    for n in (1, 2, 3):
        assert fast_distinct(texts, n) == fast_distinct(shuffled, n)


def test_n_below_one_is_refused():
    with pytest.raises(ValueError, match="n of at least 1, but it is 0"):
        fast_distinct(["a b"], 0)


# --- samples --------------------------------------------------------------------------------------------------------


def test_a_sample_depends_on_texts_and_seed_and_not_on_the_order_of_rows():
    texts = texts_of(4)
    shuffled = random.Random(1).sample(texts, len(texts))
    for seed in (0, 7, -1, 2**70 + 3):
        first = [texts[row] for row in sample_order(hash_texts(texts), seed)]
        second = [shuffled[row] for row in sample_order(hash_texts(shuffled), seed)]
        assert first == second
        assert sorted(first) == sorted(texts)
    assert first != [texts[row] for row in sample_order(hash_texts(texts), 0)]


def test_equal_texts_do_not_come_together():
    texts = ["same"] * 500 + [f"other {number}" for number in range(500)]
    order = sample_order(hash_texts(texts), 42)
    same = (order < 500).astype(int)
    assert 400 < np.abs(np.diff(same)).sum() < 600  # as often as in a fair shuffle: 500 expected
    assert 180 < same[:400].sum() < 220


def test_every_text_is_drawn_as_often_as_any_other():
    texts = [f"text {number}" for number in range(20)]
    first = [sample_order(hash_texts(texts), seed)[:5] for seed in range(4000)]
    drawn = np.bincount(np.concatenate(first), minlength=20)
    assert drawn.sum() == 20_000
    assert np.abs(drawn - 1000).max() < 150  # five standard deviations


@pytest.mark.parametrize("wanted", [1, 17, 100])
def test_whole_texts_are_drawn_until_there_are_enough_words(wanted):
    lengths = np.array([3, 0, 5, 8, 1, 9, 4, 100])
    order = np.array([6, 1, 0, 2, 3, 4, 5, 7])
    taken = take_words(order, lengths, wanted)
    assert list(taken) == list(order[: len(taken)])
    assert lengths[taken].sum() >= wanted
    assert lengths[taken[:-1]].sum() < wanted


def test_all_texts_are_taken_where_there_are_not_enough_words():
    assert list(take_words(np.array([1, 0]), np.array([2, 3]), 6)) == [1, 0]


def test_the_words_of_chosen_texts_are_theirs_in_order():
    texts = ["a b c", "", "d", "e f"]
    streams = encode(texts)
    ids, lengths = words_of(streams, np.array([3, 1, 0]))
    assert [streams.vocabulary[word] for word in ids] == ["e", "f", "a", "b", "c"]
    assert list(lengths) == [2, 0, 3]


def test_a_sample_of_the_whole_size_is_the_corpus_and_has_no_spread():
    texts = texts_of(5)
    streams = encode(texts)
    found = sampled_distinct(streams, hash_texts(texts), len(streams.ids), orders=(1, 2), seeds=[1, 2, 3])
    assert found["words"] == {"mean": len(streams.ids), "spread": 0}
    for n in (1, 2):
        assert found[str(n)] == {"mean": pytest.approx(slow_distinct(texts, n), abs=5e-4), "spread": 0}


def test_mean_and_spread_are_those_of_the_samples():
    texts = texts_of(6, count=200)
    streams, hashes = encode(texts), hash_texts(texts)
    found = sampled_distinct(streams, hashes, 100, orders=(1, 2), seeds=[1, 2, 3, 4])
    lengths = np.diff(streams.offsets)
    samples = [[texts[row] for row in take_words(sample_order(hashes, s), lengths, 100)] for s in (1, 2, 3, 4)]
    for n in (1, 2):
        values = [slow_distinct(sample, n) for sample in samples]
        assert found[str(n)]["mean"] == pytest.approx(np.mean(values), abs=5e-4)
        assert found[str(n)]["spread"] == pytest.approx(np.std(values), abs=5e-4)
    assert 100 <= found["words"]["mean"] < 108


def test_the_longer_a_sample_the_lower_its_distinct_n():
    texts = texts_of(7, count=2000)
    streams, hashes = encode(texts), hash_texts(texts)
    sizes = [
        sampled_distinct(streams, hashes, size, orders=(1,), seeds=[1, 2])["1"]["mean"] for size in (50, 500, 5000)
    ]
    assert sizes == sorted(sizes, reverse=True)
