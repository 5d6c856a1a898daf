"""The arithmetic of BM25, and the statistics that shards share."""

import math
from itertools import pairwise

import numpy as np
import pytest
from corpus_oracle import bm25_scores

from hf_distill.corpus.search.scoring import (
    CorpusStatistics,
    document_frequencies,
    hash_terms,
    inverse_document_frequency,
    length_norms,
    relative_lengths,
    row_scores,
)
from hf_distill.corpus.text.analysis import Analyzer

PLAIN = Analyzer("none")
TEXTS = ["fox dog fox", "dog", "", "cat dog dog", "fox"]
STREAMS = PLAIN.encode([TEXTS])


def test_idf_is_lucene_s():
    assert inverse_document_frequency(np.array([3]), 5)[0] == pytest.approx(math.log(1 + 2.5 / 3.5))
    assert (inverse_document_frequency(np.arange(1, 6), 5) > 0).all()


def test_norms_grow_with_the_length_as_b_says():
    lengths = np.array([0, 2, 4])
    assert length_norms(lengths, 2.0, 1.2, 0.0).tolist() == [1.2, 1.2, 1.2]
    np.testing.assert_allclose(length_norms(lengths, 2.0, 1.2, 1.0), [0.0, 1.2, 2.4])
    assert relative_lengths(np.array([0, 0]), 0.0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.0, 0.75), (2.0, 0.0)])
def test_scores_of_rows_are_those_of_the_textbook(k1, b):
    query = ["dog", "fox", "dog"]
    distinct = ["dog", "fox"]
    counts = np.array([[text.split().count(term) for text in TEXTS] for term in distinct])
    lengths = np.array([len(text.split()) for text in TEXTS])
    statistics = CorpusStatistics.of(STREAMS)
    norms = length_norms(lengths, statistics.mean_length, k1, b)
    scores = row_scores(counts, [0, 1, 0], statistics.idf_of(distinct), norms, k1)
    np.testing.assert_allclose(scores, bm25_scores([text.split() for text in TEXTS], query, k1, b), rtol=1e-6)
    assert scores.dtype == np.float32


def test_a_row_counts_once_for_a_term_that_it_repeats():
    assert document_frequencies(STREAMS).tolist() == [2, 3, 1]  # fox, dog, cat


def test_counting_in_parts_gives_the_same_and_leaves_the_streams_alone(monkeypatch):
    before = STREAMS.checksum()
    monkeypatch.setattr("hf_distill.corpus.search.scoring._CHUNK", 2)
    assert document_frequencies(STREAMS).tolist() == [2, 3, 1]
    assert STREAMS.checksum() == before


def test_a_term_repeated_more_often_than_a_byte_counts_is_counted():
    assert document_frequencies(PLAIN.encode([["fox " * 256, "dog"]])).tolist() == [1, 1]


def test_statistics_know_rows_lengths_and_terms():
    statistics = CorpusStatistics.of(STREAMS)
    assert (statistics.num_rows, statistics.num_terms) == (5, 8)
    assert statistics.mean_length == 8 / 5
    assert statistics.frequencies_of(["dog", "zebra", "fox"]).tolist() == [3, 0, 2]
    assert statistics.frequencies_of([]).tolist() == []


@pytest.mark.parametrize("cuts", [[2], [0, 1, 1, 4], [5]])
def test_merged_statistics_of_parts_are_those_of_the_whole_in_any_order(cuts):
    bounds = [0, *cuts, 5]
    parts = [CorpusStatistics.of(PLAIN.encode([TEXTS[start:stop]])) for start, stop in pairwise(bounds)]
    for order in (parts, parts[::-1]):
        assert CorpusStatistics.merged(order).checksum() == CorpusStatistics.of(STREAMS).checksum()


def test_statistics_are_saved_and_loaded(tmp_path):
    statistics = CorpusStatistics.of(STREAMS)
    statistics.save(tmp_path / "statistics.npz")
    loaded = CorpusStatistics.load(tmp_path / "statistics.npz")
    assert loaded.checksum() == statistics.checksum()
    assert loaded.checksum() != CorpusStatistics.of(PLAIN.encode([TEXTS[:4]])).checksum()


def test_statistics_that_lack_a_term_of_the_rows_are_an_error():
    with pytest.raises(ValueError, match="lack the term 'cat', which a row has: merge those of all shards"):
        CorpusStatistics.of(PLAIN.encode([TEXTS[:2]])).idf_of(["fox", "cat"])


def test_statistics_of_nothing():
    statistics = CorpusStatistics.of(PLAIN.encode([[]]))
    assert (statistics.num_rows, statistics.mean_length) == (0, 0.0)
    assert statistics.frequencies_of(["fox"]).tolist() == [0]


def test_hashes_are_the_same_in_every_process():
    assert len(hash_terms(["fox", "\ud800"])) == 2
    assert hash_terms(["fox"])[0] == 0xC1CFEE97854B92CF
