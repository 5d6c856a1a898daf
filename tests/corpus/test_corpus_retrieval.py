"""Choosing an engine, saving an index, and the handle that `Dataset.map` pickles."""

import json
import pickle

import numpy as np
import pytest
from datasets.fingerprint import Hasher

from hf_distill.corpus import retrieval
from hf_distill.corpus.analysis import Analyzer
from hf_distill.corpus.engines import _retriv_import
from hf_distill.corpus.ranking import Hits, top_hits
from hf_distill.corpus.retrieval import IndexHandle, choose_engine, find_index, make_engine, save_index

SETTINGS = {"engine": "bm25s", "k1": 1.2, "b": 0.75}
STREAMS = Analyzer().encode([["red fox", "blue dog", "red dog"]])


@pytest.fixture
def retriv_is_there(monkeypatch):
    def say(there):
        monkeypatch.setattr(_retriv_import, "is_installed", lambda: there)
        monkeypatch.setattr(_retriv_import, "sparse_retriever_module", lambda: None)

    return say


def test_auto_takes_retriv_for_a_corpus_that_it_holds(retriv_is_there):
    retriv_is_there(True)
    choice = choose_engine("auto", 1_000_000)
    assert choice.name == "retriv"
    assert choice.why == "retriv is installed and 1,000,000 rows are within its bound of 1,000,000"


def test_auto_takes_bm25s_for_a_larger_corpus_and_says_why(retriv_is_there):
    retriv_is_there(True)
    choice = choose_engine("auto", 1_000_001)
    assert choice.name == "bm25s"
    assert "1,000,001 rows are more than" in choice.why


def test_auto_takes_bm25s_without_retriv_and_says_how_to_get_it(retriv_is_there):
    retriv_is_there(False)
    choice = choose_engine("auto", 10)
    assert choice.name == "bm25s"
    assert "pip install --no-deps retriv" in choice.why


def test_auto_takes_bm25s_where_retriv_is_broken_and_says_why(monkeypatch):
    def broken():
        raise ImportError("no module named indxr")

    monkeypatch.setattr(_retriv_import, "is_installed", lambda: True)
    monkeypatch.setattr(_retriv_import, "sparse_retriever_module", broken)
    assert choose_engine("auto", 10) == retrieval.EngineChoice("bm25s", "no module named indxr")
    with pytest.raises(ImportError, match="indxr"):
        choose_engine("retriv", 10)


def test_a_named_engine_is_taken_whatever_the_size():
    assert choose_engine("bm25s", 10**9) == retrieval.EngineChoice("bm25s", "asked for")


@pytest.mark.parametrize("ask", [lambda name: choose_engine(name, 10), lambda name: make_engine(name, "nowhere")])
def test_an_unknown_engine_is_an_error_that_lists_the_engines(ask):
    with pytest.raises(ValueError, match=r"`--engine` is 'lucene'; allowed are \['auto', 'retriv', 'bm25s'\]"):
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
    (tmp_path / "index.partial").mkdir()
    (tmp_path / "index.partial" / "old.npy").write_bytes(b"half")
    assert find_index(tmp_path / "index", SETTINGS) is None
    save_index(STREAMS, tmp_path / "index", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert not (tmp_path / "index" / "old.npy").exists()


def test_a_damaged_index_is_refused(tmp_path):
    save_index(STREAMS, tmp_path / "index", SETTINGS)
    (tmp_path / "index" / "data.csc.index.npy").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"is damaged: 'data.csc.index.npy'"):
        IndexHandle(tmp_path / "index")
    assert find_index(tmp_path / "index", SETTINGS) is None


def test_an_index_of_another_format_is_refused(tmp_path):
    save_index(STREAMS, tmp_path / "index", SETTINGS)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    (tmp_path / "index" / "manifest.json").write_text(json.dumps({**manifest, "format": 0}))
    with pytest.raises(ValueError, match="has format 0; this version reads 1"):
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
