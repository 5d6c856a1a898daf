"""Exact hits from inexact candidates: the bound holds, and nothing is settled before it must be."""

import numpy as np
import pytest
from engine_cases import Indexer, engine_cases
from search_server_double import SearchServerDouble, stored_length

from hf_distill.corpus.search.scoring import score_slack, settled_hits


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
