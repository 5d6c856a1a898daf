"""Every engine against a float64 oracle, against its own library, and against the other engine on real text."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_oracle import assert_hits_are_right, assert_in_total_order, assert_same_up_to_ties, bm25_scores

from hf_distill.corpus.analysis import Analyzer
from hf_distill.corpus.engines import _retriv_import
from hf_distill.corpus.keywords import make_query
from hf_distill.corpus.retrieval import ENGINES, save_index

needs_retriv = pytest.mark.skipif(
    not _retriv_import.is_installed(), reason=f"retriv is not installed: {_retriv_import.INSTALL}"
)
engines = pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=needs_retriv if name == "retriv" else ()) for name in ENGINES]
)

REAL_TEXT = Path(__file__).parents[2] / "examples" / "data" / "general_corpus" / "train.parquet"
PLAIN = Analyzer("none")


def open_index(texts, engine, folder, analyzer=PLAIN, k1=1.2, b=0.75):
    streams = analyzer.encode([texts])
    return save_index(streams, folder / f"{engine}-{k1}-{b}", {"engine": engine, "k1": k1, "b": b}).open()


def random_texts(seed, count=60, words=12, longest=9):
    """Short texts over few words: full of ties and repeats."""
    random = np.random.default_rng(seed)
    return [" ".join(f"w{w}" for w in random.integers(0, words, random.integers(0, longest))) for _ in range(count)]


QUERIES = [
    [],
    ["w1"],
    ["w1", "w1", "w1"],
    ["w2", "w5", "w1", "w9"],
    ["unknown"],
    ["w3", "unknown", "w3"],
    [f"w{index}" for index in range(12)],
    [],
]


@engines
@pytest.mark.parametrize("k", [1, 3, 10, 60, 500])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_hits_are_those_of_the_oracle(engine, k, num_threads, tmp_path):
    texts = random_texts(seed=3)
    hits = open_index(texts, engine, tmp_path).search(QUERIES, k, num_threads=num_threads)
    assert len(hits) == len(QUERIES)
    for query, (rows, scores) in zip(QUERIES, hits, strict=True):
        assert_hits_are_right(rows, scores, bm25_scores([text.split() for text in texts], query), k)


@engines
@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.0), (2.0, 1.0), (0.0, 0.75)])
def test_the_parameters_of_bm25_are_used(engine, k1, b, tmp_path):
    texts = random_texts(seed=4)
    hits = open_index(texts, engine, tmp_path, k1=k1, b=b).search(QUERIES, 7)
    for query, (rows, scores) in zip(QUERIES, hits, strict=True):
        assert_hits_are_right(rows, scores, bm25_scores([text.split() for text in texts], query, k1, b), 7)


@engines
def test_a_tie_at_the_cut_is_settled_by_the_row(engine, tmp_path):
    # 3000 equal rows, more than any engine is asked for at a time, behind one better row.
    texts = ["fox dog"] * 3000 + ["fox fox"]
    for k in (1, 5, 100):
        ((rows, scores),) = open_index(texts, engine, tmp_path).search([["fox"]], k)
        assert rows.tolist() == [3000, *range(k - 1)]
        assert_in_total_order(rows, scores)


@engines
def test_equal_rows_are_all_found(engine, tmp_path):
    ((rows, _),) = open_index(["red fox", "x", "red fox", "red fox"], engine, tmp_path).search([["fox", "red"]], 10)
    assert rows.tolist() == [0, 2, 3]


@engines
def test_rows_without_the_query_s_words_are_never_hits(engine, tmp_path):
    ((rows, scores),) = open_index(["red fox", "blue dog", ""], engine, tmp_path).search([["fox"]], 3)
    assert rows.tolist() == [0]
    assert (scores > 0).all()


@engines
def test_a_word_that_every_row_has_still_scores(engine, tmp_path):
    ((rows, scores),) = open_index(["fox a", "fox", "fox b c"], engine, tmp_path).search([["fox"]], 3)
    assert rows.tolist() == [1, 0, 2]
    assert (scores > 0).all()


@engines
def test_words_of_any_script(engine, tmp_path):
    index = open_index(["na\u00efve caf\u00e9", "\u4e2d\u6587 \u6587\u672c", "\u041c\u0438\u0440"], engine, tmp_path)
    queries = [PLAIN.tokens(text) for text in ("cafe\u0301", "\u4e2d\u6587", "\u043c\u0438\u0440")]
    assert [rows.tolist() for rows, _ in index.search(queries, 2)] == [[0], [1], [2]]


@engines
def test_no_query_at_all_and_one_row_only(engine, tmp_path):
    index = open_index(["fox"], engine, tmp_path)
    assert len(index.search([], 5)) == 0
    assert [rows.tolist() for rows, _ in index.search([["fox"], ["dog"]], 5)] == [[0], []]


@engines
def test_a_corpus_without_any_word(engine, tmp_path):
    assert [rows.tolist() for rows, _ in open_index(["", "!!"], engine, tmp_path).search([["fox"], []], 5)] == [[], []]


@engines
def test_batches_and_threads_do_not_change_a_bit(engine, tmp_path):
    index = open_index(random_texts(seed=5, count=400), engine, tmp_path)
    queries = [text.split() for text in random_texts(seed=6, count=50)]
    whole = index.search(queries, 20, num_threads=2)
    alone = [next(iter(index.search([query], 20, num_threads=1))) for query in queries]
    for (rows, scores), (own_rows, own_scores) in zip(whole, alone, strict=True):
        assert np.array_equal(rows, own_rows)
        assert np.array_equal(scores, own_scores)


def test_more_rows_than_one_block_of_the_kernel(tmp_path, monkeypatch):
    from hf_distill.corpus.engines import bm25s

    texts = random_texts(seed=7, count=300)
    whole = open_index(texts, "bm25s", tmp_path).search(QUERIES, 9)
    monkeypatch.setattr(bm25s, "_BLOCK", 16)
    blocked = open_index(texts, "bm25s", tmp_path).search(QUERIES, 9)
    assert np.array_equal(whole.rows, blocked.rows)
    assert np.array_equal(whole.scores, blocked.scores)


def real_sentences(count, start=0):
    return pq.read_table(REAL_TEXT, columns=["text"])["text"].slice(start, count).to_pylist()


@needs_retriv
@pytest.mark.parametrize("k", [10, 100])
def test_retriv_and_bm25s_agree_on_real_text(k, tmp_path):
    analyzer = Analyzer()
    texts = real_sentences(4000)
    anchors = real_sentences(300, start=20_000)
    queries = [analyzer.tokens(make_query(text, "rake", analyzer.stop_words)) for text in anchors]
    first = open_index(texts, "retriv", tmp_path, analyzer).search(queries, k)
    second = open_index(texts, "bm25s", tmp_path, analyzer).search(queries, k)
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
    own = _retriv_import.sparse_retriever_module().SparseRetriever(
        tokenizer="whitespace", stemmer=None, stopwords=None, **{f"do_{step}": False for step in steps.split()}
    )
    with _retriv_import.base_path(tmp_path):
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
        "from hf_distill.corpus.engines._retriv_import import sparse_retriever_module\n"
        "sparse_retriever_module()\n"
        "print(sorted({'torch', 'faiss', 'autofaiss', 'ranx', 'optuna', 'krovetzstemmer'} & set(sys.modules)))\n"
        "print(dict(os.environ) == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]


@needs_retriv
def test_retriv_refuses_a_word_that_it_cannot_count(tmp_path):
    with pytest.raises(ValueError, match="at most 32767 times per row, but one occurs 40000 times"):
        open_index(["fox " * 40_000], "retriv", tmp_path)


def test_a_missing_retriv_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(_retriv_import.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"`--engine retriv` needs .*pip install --no-deps retriv"):
        _retriv_import.sparse_retriever_module.__wrapped__()
