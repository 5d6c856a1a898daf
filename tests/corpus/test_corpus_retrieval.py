"""Choosing an engine, saving an index, and the handle that `Dataset.map` pickles."""

import pickle

import numpy as np
import pytest
from datasets.fingerprint import Hasher

from hf_distill.corpus.search import retrieval
from hf_distill.corpus.search.retrieval import (
    IndexHandle,
    choose_engine,
    engine_class,
    find_index,
    make_engine,
    save_index,
)
from hf_distill.corpus.search.scoring import Hits, top_hits
from hf_distill.corpus.text.analysis import Analyzer
from hf_distill.storage.steps import begin, finish

SETTINGS = {"engine": "bm25s", "k1": 1.2, "b": 0.75}
STREAMS = Analyzer().encode([["red fox", "blue dog", "red dog"]])


@pytest.fixture
def installed(monkeypatch):
    """`installed("tantivy")`: of the optional engines only these are there."""

    def say(*names):
        for name in ("retriv", "tantivy", "elasticsearch"):
            monkeypatch.setattr(engine_class(name), "check", staticmethod(lambda n=name: check(n)))

        def check(name):
            if name not in names:
                raise ImportError(f"{name} is missing: pip install it")

    return say


@pytest.mark.parametrize(
    ("num_rows", "there", "taken", "reason"),
    [
        (1_000_000, ["retriv", "tantivy"], "retriv", "retriv is installed and 1,000,000 rows are within its bound"),
        (1_000_001, ["retriv", "tantivy"], "blocks", "1,000,001 rows are more than retriv is taken for (1,000,000)"),
        (10, ["tantivy"], "blocks", "retriv is missing: pip install it; blocks is installed and 10 rows are within"),
        (4_000_000_000, [], "blocks", "4,000,000,000 rows are within its bound of 4,000,000,000"),
    ],
)
def test_auto_picks_by_size_and_by_what_is_installed_and_says_why(installed, num_rows, there, taken, reason):
    installed(*there)
    choice = choose_engine("auto", num_rows)
    assert choice.name == taken
    assert reason in choice.why


def test_more_rows_than_any_engine_holds_are_refused(installed):
    installed("tantivy")
    said = r"No engine holds 4,000,000,001 rows \(.*more than blocks is taken for.*`--num_shards`"
    with pytest.raises(ValueError, match=said):
        choose_engine("auto", 4_000_000_001)


def test_a_named_engine_is_taken_whatever_the_size(installed):
    installed("elasticsearch")
    for name in ("bm25s", "elasticsearch"):
        assert choose_engine(name, 10**9) == retrieval.EngineChoice(name, "asked for")


def test_a_named_engine_that_is_not_installed_is_an_error_never_another_engine(installed):
    installed()
    with pytest.raises(ImportError, match="tantivy is missing"):
        choose_engine("tantivy", 10)


def test_a_broken_retriv_is_passed_over_and_the_reason_said(monkeypatch):
    def broken():
        raise ImportError("no module named indxr")

    monkeypatch.setattr("hf_distill.corpus.search.engines.retriv.sparse_retriever_module", broken)
    choice = choose_engine("auto", 10)
    assert choice.name == "blocks"
    assert choice.why.startswith("no module named indxr; ")


@pytest.mark.parametrize("ask", [lambda name: choose_engine(name, 10), lambda name: make_engine(name, "nowhere")])
def test_an_unknown_engine_is_an_error_that_lists_the_engines(ask):
    known = r"\['auto', 'retriv', 'bm25s', 'blocks', 'tantivy', 'elasticsearch'\]"
    with pytest.raises(ValueError, match=f"`--engine` is 'lucene'; allowed are {known}"):
        ask("lucene")


def test_an_index_is_found_again_only_for_the_same_settings(tmp_path):
    made = save_index(STREAMS, tmp_path / "index", SETTINGS)
    found = find_index(tmp_path / "index", SETTINGS)
    assert found is not None
    assert found.checksum == made.checksum
    assert (found.num_rows, found.num_terms) == (3, 4)
    assert find_index(tmp_path / "index", {**SETTINGS, "k1": 0.9}) is None
    assert find_index(tmp_path / "nothing", SETTINGS) is None


def test_an_unfinished_index_is_not_found_and_built_anew(tmp_path):
    begin(tmp_path / "index", SETTINGS)
    (tmp_path / "index" / "old.npy").write_bytes(b"half")
    assert find_index(tmp_path / "index", SETTINGS) is None
    save_index(STREAMS, tmp_path / "index", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert not (tmp_path / "index" / "old.npy").exists()


def test_a_damaged_index_is_refused(tmp_path):
    save_index(STREAMS, tmp_path / "index", SETTINGS)
    (tmp_path / "index" / "data.csc.index.npy").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"is not a complete index: .*data.csc.index.npy' is damaged or cut short"):
        IndexHandle(tmp_path / "index")
    assert find_index(tmp_path / "index", SETTINGS) is None


def test_an_index_of_another_format_is_refused(tmp_path):
    save_index(STREAMS, tmp_path / "index", SETTINGS)
    finish(tmp_path / "index", SETTINGS, {"format": 0})
    with pytest.raises(ValueError, match="has format 0; this version reads 3"):
        IndexHandle(tmp_path / "index")


def test_a_handle_travels_without_its_index(tmp_path):
    handle = save_index(STREAMS, tmp_path / "index", SETTINGS)
    before = Hasher.hash(handle)
    engine = handle.open()
    assert Hasher.hash(handle) == before
    assert len(pickle.dumps(handle)) < 2000
    copy = pickle.loads(pickle.dumps(handle))
    assert copy.open() is engine
    other = save_index(Analyzer().encode([["red fox"]]), tmp_path / "other", SETTINGS)
    assert other.checksum != handle.checksum


def test_top_hits_are_in_the_total_order():
    rows, scores = top_hits(np.array([5, 1, 9, 3, 7]), np.array([1, 2, 1, 0, 1], dtype=np.float32), 3)
    assert rows.tolist() == [1, 5, 7]
    assert scores.tolist() == [2, 1, 1]


def test_hits_know_their_ranks():
    hits = Hits.from_lists(
        [np.array([4, 2]), np.array([], dtype=int), np.array([7])],
        [np.array([2.0, 1.0]), np.array([]), np.array([3.0])],
    )
    assert hits.ranks().tolist() == [0, 1, 0]
    assert [rows.tolist() for rows, _ in hits] == [[4, 2], [], [7]]
