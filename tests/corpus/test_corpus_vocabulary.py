"""Words in common are those of the most frequent words, as plain counting finds them."""

import random
from collections import Counter

import numpy as np
import pytest

from hf_distill.corpus.compare.comparison import frequent_words, overlap_jaccard, overlap_share
from hf_distill.corpus.text.analysis import Analyzer


def encode(texts):
    return Analyzer("english", stem=False, stopwords=()).encode([texts])


def draw_texts(seed, words=50):
    draw = random.Random(seed)
    return [" ".join(f"w{min(draw.randrange(words), draw.randrange(words))}" for _ in range(6)) for _ in range(40)]


@pytest.mark.parametrize("top", [1, 7, 20, 1000])
def test_the_most_frequent_words_are_those_of_plain_counting(top):
    texts = draw_texts(0)
    counts = Counter(word for text in texts for word in text.split() if word not in {"w1", "w3"})
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:top]
    assert frequent_words(encode(texts), top, {"w1", "w3"}) == expected


def test_words_of_equal_counts_come_in_alphabetical_order_whatever_the_rows():
    assert frequent_words(encode(["d b", "c a"]), 3) == frequent_words(encode(["a c", "b d"]), 3) == ["a", "b", "c"]


def test_only_the_words_of_chosen_texts_count():
    streams = encode(["a a b", "", "c", "b d"])
    assert frequent_words(streams, 9, texts=np.array([False, True, True, True])) == ["b", "c", "d"]
    assert frequent_words(streams, 9, texts=np.zeros(4, dtype=bool)) == []


def test_words_are_lower_cased_and_not_stemmed():
    assert frequent_words(encode(["Films film FILM"]), 5) == ["film", "films"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_share_and_jaccard_are_their_definitions(seed):
    first, second = (frequent_words(encode(draw_texts(seed + shift)), 25) for shift in (0, 10))
    k = min(len(first), len(second))
    a, b = set(first[:k]), set(second[:k])
    assert overlap_share(first, second) == pytest.approx(100 * len(a & b) / k)
    assert overlap_jaccard(first, second) == pytest.approx(100 * len(a & b) / len(a | b))


@pytest.mark.parametrize("measure", [overlap_share, overlap_jaccard])
def test_a_corpus_has_all_words_in_common_with_itself_and_none_with_a_strange_one(measure):
    words = ["a", "b", "c"]
    assert measure(words, words) == 100
    assert measure(words, ["x", "y", "z"]) == 0
    assert measure(words, []) == measure([], []) == 0


@pytest.mark.parametrize("measure", [overlap_share, overlap_jaccard])
def test_it_is_the_same_both_ways(measure):
    first, second = ["a", "b", "c", "d", "e"], ["b", "x", "a"]
    assert measure(first, second) == measure(second, first)


def test_as_many_words_of_the_longer_list_are_compared():
    assert overlap_share(["a", "b", "c", "d"], ["a", "d"]) == 50
    assert overlap_jaccard(["a", "b", "c", "d"], ["a", "d"]) == pytest.approx(100 / 3)
