"""The arithmetic of engines: scores, statistics, and exact hits of an index with rounded lengths."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from corpus_oracle import bm25_scores
from engine_cases import Indexer, engine_cases
from search_server_double import SearchServerDouble, stored_length

from hf_distill.corpus.search.scoring import (
    CorpusStatistics,
    document_frequencies,
    hash_terms,
    inverse_document_frequency,
    length_norms,
    relative_lengths,
    row_scores,
    score_slack,
    settled_hits,
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


def saturation(counts, lengths, mean, k1, b):
    return counts * (k1 + 1) / (counts + k1 * (1 - b + b * lengths / mean))


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (2.0, 1.0), (0.0, 0.5), (5.0, 0.0)])
@pytest.mark.parametrize("own_mean", [20.0, 27.0])
def test_no_exact_score_exceeds_the_rounded_one_by_more_than_the_slack(k1, b, own_mean):
    lengths = np.arange(1, 900)
    stored = np.array([stored_length(length) for length in lengths.tolist()])
    slack = score_slack(lengths, 20.0, k1, b, own_mean, 1.2, 0.75)
    for counts in (1, 2, 3, 10, lengths):
        exact = saturation(counts, lengths, 20.0, k1, b)
        own = saturation(counts, stored, own_mean, 1.2, 0.75)
        possible = counts <= lengths
        assert (exact[possible] <= slack * own[possible]).all()


def test_with_the_same_parameters_only_the_rounding_of_floats_is_left():
    assert score_slack(np.arange(300), 20.0, 1.2, 0.75, 20.0, 1.2, 0.75) == pytest.approx(1, abs=2e-5)
    assert score_slack(np.array([], int), 0.0, 1.2, 0.75, 0.0, 1.2, 0.75) == 1


ROWS, EXACT = np.array([7, 3, 9]), np.array([2.0, 3.0, 2.0], dtype=np.float32)


def test_hits_are_settled_when_no_other_row_can_reach_them():
    rows, scores = settled_hits(ROWS, EXACT, 1.9, 2, 1.01, complete=False)
    assert rows.tolist() == [3, 7]
    assert scores.tolist() == [3.0, 2.0]


def test_a_row_outside_that_could_tie_keeps_them_open():
    assert settled_hits(ROWS, EXACT, 2.0, 2, 1.0, complete=False) is None
    assert settled_hits(ROWS, EXACT, 2.0, 1, 1.0, complete=False)[0].tolist() == [3]


def test_too_few_candidates_keep_them_open_unless_there_are_no_more():
    assert settled_hits(ROWS, EXACT, 0.1, 4, 1.0, complete=False) is None
    assert settled_hits(ROWS, EXACT, 9.9, 4, 1.0, complete=True)[0].tolist() == [3, 7, 9]


@pytest.fixture(scope="module")
def search_server():
    server = SearchServerDouble(num_shards=1)
    yield server
    server.close()


@pytest.mark.parametrize("engine", engine_cases("tantivy", "elasticsearch"))
def test_the_best_rows_are_found_behind_hundreds_that_rounding_makes_equal(engine, tmp_path, search_server):
    # Lengths 48 and 49 are both stored as 48: the index puts the longer rows, whose numbers are lower, first.
    assert stored_length(48) == stored_length(49) == 48
    texts = ["fox " + "dog " * 48] * 700 + ["fox " + "dog " * 47] * 5
    index = Indexer(engine, tmp_path, search_server.url)
    for k in (1, 3, 5):
        ((rows, _),) = index(texts).search([["fox"]], k)
        assert rows.tolist() == list(range(700, 700 + k))


@pytest.mark.parametrize("engine", engine_cases("tantivy", "elasticsearch"))
def test_a_search_goes_on_until_it_is_settled(engine, tmp_path, search_server):
    texts = ["fox dog"] * 900 + ["fox"] * 40
    engine = Indexer(engine, tmp_path, search_server.url)(texts)
    for k in (1, 39, 41, 200):
        ((rows, _),) = engine.search([["fox"]], k)
        assert rows.tolist() == [*range(900, 940), *range(900)][:k]
