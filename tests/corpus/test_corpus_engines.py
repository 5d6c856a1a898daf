"""The engines bm25s and retriv against their own libraries, and against each other on real text."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from corpus_oracle import assert_same_up_to_ties
from engine_cases import Indexer, needs_retriv

from hf_distill.corpus.build.anchors import make_query
from hf_distill.corpus.search.engines import retriv
from hf_distill.corpus.search.retrieval import save_index
from hf_distill.corpus.text.analysis import Analyzer

REAL_TEXT = Path(__file__).parents[2] / "examples" / "data" / "general_corpus" / "train.parquet"


def real_sentences(count, start=0):
    return pq.read_table(REAL_TEXT, columns=["text"])["text"].slice(start, count).to_pylist()


@needs_retriv
@pytest.mark.parametrize("k", [10, 100])
def test_retriv_and_bm25s_agree_on_real_text(k, tmp_path):
    analyzer = Analyzer()
    texts = real_sentences(4000)
    anchors = real_sentences(300, start=20_000)
    queries = [analyzer.tokens(make_query(text, "rake", analyzer.stop_words)) for text in anchors]
    first = Indexer("retriv", tmp_path)(texts, analyzer).search(queries, k)
    second = Indexer("bm25s", tmp_path)(texts, analyzer).search(queries, k)
    same = 0
    for one, other in zip(first, second, strict=True):
        assert_same_up_to_ties(one, other)
        same += np.array_equal(one[0], other[0])
    # Not only up to ties: rounding separates a handful of queries at most.
    assert same >= 0.98 * len(queries)
    assert len(first.rows) > 20 * len(queries) * k / 100


@needs_retriv
def test_retriv_is_given_what_its_own_indexing_makes(tmp_path):
    streams = Analyzer().encode([real_sentences(300)])
    ours = save_index(streams, tmp_path / "index", {"engine": "retriv", "k1": 1.2, "b": 0.75}).open()
    steps = (
        "lowercasing ampersand_normalization special_chars_normalization acronyms_normalization punctuation_removal"
    )
    own = retriv.sparse_retriever_module().SparseRetriever(
        tokenizer="whitespace", stemmer=None, stopwords=None, **{f"do_{step}": False for step in steps.split()}
    )
    with retriv.base_path(tmp_path):
        own.index([{"id": row, "text": " ".join(t)} for row, t in enumerate(streams.texts())], show_progress=False)
    assert own.vocabulary == set(streams.vocabulary)
    np.testing.assert_allclose(ours._retriever.relative_doc_lens, own.relative_doc_lens, rtol=1e-6)
    for term in streams.vocabulary:
        for part in ("doc_ids", "tfs"):
            assert np.array_equal(ours._retriever.inverted_index[term][part], own.inverted_index[term][part])
            assert ours._retriever.inverted_index[term][part].dtype == own.inverted_index[term][part].dtype


def test_bm25s_is_given_what_its_own_indexing_makes(tmp_path):
    import bm25s

    streams = Analyzer().encode([real_sentences(300)])
    index = save_index(streams, tmp_path / "index", {"engine": "bm25s", "k1": 1.2, "b": 0.75})
    ours = bm25s.BM25.load(index.path, show_progress=False)
    own = bm25s.BM25(method="atire", idf_method="lucene", k1=1.2, b=0.75)
    own.index(list(streams.texts()), show_progress=False, create_empty_token=False)
    for term in streams.vocabulary:
        rows, scores = column(ours, term)
        own_rows, own_scores = column(own, term)
        assert np.array_equal(rows, own_rows)
        np.testing.assert_allclose(scores, own_scores, rtol=1e-6)
    query = streams.vocabulary[:5]
    ((_, scores),) = index.open().search([query], 5)
    np.testing.assert_allclose(scores, own.retrieve([query], k=5, show_progress=False)[1][0], rtol=1e-6)


def column(model, term):
    """Rows and scores that a bm25s model keeps for a term."""
    number = model.vocab_dict[term]
    span = slice(model.scores["indptr"][number], model.scores["indptr"][number + 1])
    return model.scores["indices"][span], model.scores["data"][span]


@needs_retriv
def test_importing_retriv_loads_no_dense_half_and_touches_no_environment(tmp_path):
    code = (
        "import os, sys; before = dict(os.environ)\n"
        "from hf_distill.corpus.search.engines.retriv import sparse_retriever_module\n"
        "sparse_retriever_module()\n"
        "print(sorted({'torch', 'faiss', 'autofaiss', 'ranx', 'optuna', 'krovetzstemmer'} & set(sys.modules)))\n"
        "print(dict(os.environ) == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]


@needs_retriv
def test_retriv_refuses_a_word_that_it_cannot_count(tmp_path):
    with pytest.raises(ValueError, match="at most 32767 times per row, but one occurs 40000 times"):
        Indexer("retriv", tmp_path)(["fox " * 40_000])


def test_a_missing_retriv_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(retriv.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"`--engine retriv` needs .*pip install --no-deps retriv"):
        retriv.sparse_retriever_module.__wrapped__()


@pytest.mark.usefixtures("one_thread")
def test_the_threads_of_torch_are_read_before_numba_sets_those_of_the_process(monkeypatch):
    class Numba:
        """numba on OpenMP: the first question for its threads sets those of the process."""

        config = SimpleNamespace(NUMBA_NUM_THREADS=2)

        @staticmethod
        def get_num_threads():
            torch.set_num_threads(2)
            return 2

        set_num_threads = staticmethod(torch.set_num_threads)

    monkeypatch.setitem(sys.modules, "numba", Numba)
    with retriv._numba_threads(2):
        pass
    assert torch.get_num_threads() == 1
