"""What every engine must do, against a float64 oracle that allows for ties: scores, ranking, and all the odd cases."""

import multiprocessing

import numpy as np
import pytest
import torch
from corpus_oracle import assert_hits_are_right, assert_in_total_order, bm25_scores
from engine_cases import PLAIN, QUERIES, Indexer, engine_cases, random_texts
from search_server_double import SearchServerDouble

from hf_distill.corpus.search.retrieval import IndexHandle
from hf_distill.corpus.search.scoring import CorpusStatistics
from hf_distill.corpus.text.analysis import Analyzer


@pytest.fixture(scope="module")
def search_server():
    server = SearchServerDouble()
    yield server
    server.close()


@pytest.fixture(params=engine_cases())
def index(request, tmp_path, search_server):
    return Indexer(request.param, tmp_path, search_server.url)


def assert_right(index, texts, queries, k, k1=1.2, b=0.75, **options):
    hits = index(texts, k1=k1, b=b).search(queries, k, **options)
    assert len(hits) == len(queries)
    for query, (rows, scores) in zip(queries, hits, strict=True):
        assert_hits_are_right(rows, scores, bm25_scores([text.split() for text in texts], query, k1, b), k)


@pytest.mark.parametrize("k", [1, 3, 10, 60, 500])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_hits_are_those_of_the_oracle(index, k, num_threads):
    assert_right(index, random_texts(seed=3), QUERIES, k, num_threads=num_threads)


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.0), (2.0, 1.0), (0.0, 0.75)])
def test_the_parameters_of_bm25_are_used(index, k1, b):
    assert_right(index, random_texts(seed=4), QUERIES, 7, k1, b)


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (2.0, 1.0)])
def test_long_rows_are_not_rounded(index, k1, b):
    # Lucene, and with it tantivy and the search servers, stores lengths above 40 inexactly.
    assert_right(index, random_texts(seed=8, count=150, words=40, longest=200), QUERIES, 5, k1, b)


def test_rows_of_one_term_beside_rows_of_hundreds(index):
    texts = [*random_texts(seed=9, count=40, words=12, longest=3), *random_texts(seed=10, count=6, longest=700)]
    assert_right(index, texts, QUERIES, 12)


def test_an_empty_query_may_be_the_first_the_last_or_the_only_one(index):
    engine = index(["red fox", "blue dog"])
    assert [rows.tolist() for rows, _ in engine.search([[], ["fox"], []], 2)] == [[], [0], []]
    assert [rows.tolist() for rows, _ in engine.search([[]], 2)] == [[]]


def test_unknown_words_are_ignored(index):
    engine = index(["red fox", "blue dog"])
    alone, beside, unknown = engine.search([["fox"], ["zebra", "fox", "quagga"], ["zebra"]], 2)
    assert [part.tolist() for part in alone] == [part.tolist() for part in beside]
    assert len(unknown[0]) == 0


def test_a_repeated_word_counts_as_often_as_it_is_asked_for(index):
    engine = index(["fox dog dog", "fox fox cat", "cat", "dog"])
    once, thrice = engine.search([["fox"], ["fox", "fox", "fox"]], 4)
    assert once[0].tolist() == thrice[0].tolist()
    np.testing.assert_allclose(thrice[1], 3 * once[1], rtol=1e-6)


def test_a_word_that_a_row_repeats_counts_more_but_ever_less(index):
    texts = ["fox", "fox fox", "fox fox fox", "dog " * 3]
    assert_right(index, texts, [["fox"]], 4, b=0.0)


def test_more_hits_asked_for_than_there_are_rows(index):
    ((rows, _),) = index(["fox", "fox dog", "cat"]).search([["fox"]], 1000)
    assert rows.tolist() == [0, 1]


def test_a_tie_at_the_cut_is_settled_by_the_row(index):
    # 3000 equal rows, more than any engine is asked for at a time, behind one better row.
    engine = index(["fox dog"] * 3000 + ["fox fox"])
    for k in (1, 5, 100):
        ((rows, scores),) = engine.search([["fox"]], k)
        assert rows.tolist() == [3000, *range(k - 1)]
        assert_in_total_order(rows, scores)


def test_equal_rows_are_all_found_in_their_order(index):
    ((rows, scores),) = index(["red fox", "x", "red fox", "fox red"]).search([["fox", "red"]], 10)
    assert rows.tolist() == [0, 2, 3]
    assert len(set(scores.tolist())) == 1


def test_rows_without_the_query_s_words_are_never_hits(index):
    ((rows, scores),) = index(["red fox", "blue dog", ""]).search([["fox"]], 3)
    assert rows.tolist() == [0]
    assert (scores > 0).all()


def test_a_word_that_every_row_has_still_scores(index):
    ((rows, scores),) = index(["fox a", "fox", "fox b c"]).search([["fox"]], 3)
    assert rows.tolist() == [1, 0, 2]
    assert (scores > 0).all()


def test_empty_rows_count_for_the_statistics(index):
    assert_right(index, ["fox dog", "", "fox", "", "dog cat cat"], [["fox"], ["cat", "dog"]], 6)


def test_words_of_any_script(index):
    engine = index(["na\u00efve caf\u00e9", "\u4e2d\u6587 \u6587\u672c", "\u041c\u0438\u0440", "\U0001f98a \u00b2"])
    queries = [PLAIN.tokens(text) for text in ("cafe\u0301", "\u4e2d\u6587", "\u043c\u0438\u0440", "2")]
    assert [rows.tolist() for rows, _ in engine.search(queries, 2)] == [[0], [1], [2], [3]]


CHINESE = ["这部电影的音响效果很好。", "今天天气不错，适合看电影。", "", "音响", "我喜欢这部电影，也喜欢它的音响！"]


@pytest.mark.parametrize("language", ["chinese", "none"])
def test_chinese_by_words_and_by_pairs_of_characters(index, language):
    pytest.importorskip("rjieba")
    analyzer = Analyzer(language)
    queries = [analyzer.tokens(text) for text in ("电影的音响", "天气", "北京", "音响音响")]
    hits = index(CHINESE, analyzer).search(queries, 4)
    texts = [analyzer.tokens(text) for text in CHINESE]
    for query, (rows, scores) in zip(queries, hits, strict=True):
        assert_hits_are_right(rows, scores, bm25_scores(texts, query), 4)


def test_very_long_words(index):
    word = "\u00e9x" * 2000
    assert [rows.tolist() for rows, _ in index(["fox", word, f"{word} fox"]).search([PLAIN.tokens(word)], 3)] == [
        [1, 2]
    ]


def test_no_query_at_all_and_one_row_only(index):
    engine = index(["fox"])
    assert len(engine.search([], 5)) == 0
    assert [rows.tolist() for rows, _ in engine.search([["fox"], ["dog"]], 5)] == [[0], []]


def test_a_corpus_without_any_word(index):
    assert [rows.tolist() for rows, _ in index(["", "!!"]).search([["fox"], []], 5)] == [[], []]


def test_batches_and_threads_do_not_change_a_bit(index):
    engine = index(random_texts(seed=5, count=300))
    queries = [text.split() for text in random_texts(seed=6, count=30)]
    whole = engine.search(queries, 20, num_threads=2)
    alone = [next(iter(engine.search([query], 20, num_threads=1))) for query in queries]
    for (rows, scores), (own_rows, own_scores) in zip(whole, alone, strict=True):
        assert np.array_equal(rows, own_rows)
        assert np.array_equal(scores, own_scores)


@pytest.mark.usefixtures("one_thread")
def test_a_search_leaves_torch_its_threads(index):
    index(random_texts(seed=5)).search([["fox"], ["dog"]], 5, num_threads=2)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("engine", engine_cases("blocks", "tantivy", "elasticsearch"))
@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4)])
def test_engines_that_compute_exact_scores_agree_to_the_last_bit(engine, k1, b, tmp_path, search_server):
    texts = [*random_texts(seed=11, count=200), *random_texts(seed=12, count=50, longest=120)]
    queries = [text.split() for text in random_texts(seed=13, count=40, words=14)]
    expected = Indexer("bm25s", tmp_path)(texts, k1=k1, b=b).search(queries, 15)
    got = Indexer(engine, tmp_path, search_server.url)(texts, k1=k1, b=b).search(queries, 15)
    assert np.array_equal(got.offsets, expected.offsets)
    assert np.array_equal(got.rows, expected.rows)
    assert np.array_equal(got.scores, expected.scores)


def merge(parts, starts, query, k):
    """Hits of one query over several shards, in the total order over all rows."""
    found = [hits for part in parts for hits in [list(part)[query]]]
    rows = np.concatenate([rows + start for (rows, _), start in zip(found, starts, strict=True)])
    scores = np.concatenate([scores for _, scores in found])
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


@pytest.mark.parametrize("engine", engine_cases("bm25s", "blocks", "tantivy", "elasticsearch"))
@pytest.mark.parametrize("cuts", [(), (70,), (1, 90), (0, 45, 45, 150), (9, 30, 60, 61, 120, 179)])
def test_shards_with_the_statistics_of_all_are_one_index_to_the_last_bit(engine, cuts, tmp_path, search_server):
    texts = [*random_texts(seed=14, count=120), *random_texts(seed=15, count=60, longest=90)]
    queries = [text.split() for text in random_texts(seed=16, count=25, words=13)]
    index = Indexer(engine, tmp_path, search_server.url)
    whole = list(index(texts).search(queries, 9))
    starts, stops = [0, *cuts], [*cuts, len(texts)]
    shards = [PLAIN.encode([texts[start:stop]]) for start, stop in zip(starts, stops, strict=True)]
    statistics = CorpusStatistics.merged([CorpusStatistics.of(shard) for shard in shards])
    parts = [index.streams(shard, statistics=statistics).search(queries, 9) for shard in shards]
    for number in range(len(queries)):
        rows, scores = merge(parts, starts, number, 9)
        assert np.array_equal(rows, whole[number][0])
        assert np.array_equal(scores, whole[number][1])


def _search(folder, connection):
    connection.send(IndexHandle(folder).open().search(QUERIES, 5, num_threads=1).rows.tolist())


@pytest.mark.parametrize("engine", engine_cases("blocks", "tantivy"))
def test_a_forked_process_searches_an_index_that_its_parent_opened(engine, tmp_path):
    expected = Indexer(engine, tmp_path)(random_texts(seed=3)).search(QUERIES, 5, num_threads=2).rows.tolist()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_search, args=(tmp_path / f"{engine}-1", there))
    process.start()
    assert here.poll(60)
    assert here.recv() == expected
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.parametrize("engine", engine_cases("retriv"))
def test_an_engine_that_cannot_take_statistics_says_so(engine, tmp_path):
    streams = PLAIN.encode([["fox"]])
    with pytest.raises(ValueError, match=r"cannot search a shard .*bm25s, blocks, tantivy"):
        Indexer(engine, tmp_path).streams(streams, statistics=CorpusStatistics.of(streams))
