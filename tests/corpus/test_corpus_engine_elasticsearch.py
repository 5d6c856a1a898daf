"""The engine on a search server, against a server of our own that speaks the same endpoints over HTTP."""

import base64
import contextlib
import json

import numpy as np
import pytest
from engine_cases import PLAIN, QUERIES, Indexer, random_texts
from search_server_double import SearchServerDouble

from hf_distill.corpus.search.engines import elasticsearch
from hf_distill.corpus.search.engines.search_server import SearchServer
from hf_distill.corpus.search.retrieval import IndexHandle, save_index

TEXTS = random_texts(seed=31, count=120, longest=60)
SETTINGS = {"engine": "elasticsearch", "k1": 1.2, "b": 0.75}


@pytest.fixture
def server(monkeypatch):
    for name in ("ELASTICSEARCH_API_KEY", "ELASTICSEARCH_USER", "ELASTICSEARCH_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    server = SearchServerDouble()
    yield server
    server.close()


def index(server, folder, texts=TEXTS, **settings):
    return save_index(PLAIN.encode([texts]), folder / "index", {**SETTINGS, **settings}, url=server.url)


def assert_as_bm25s(engine, folder, k=7):
    expected, got = Indexer("bm25s", folder)(TEXTS).search(QUERIES, k), engine.search(QUERIES, k)
    assert np.array_equal(got.rows, expected.rows)
    assert np.array_equal(got.scores, expected.scores)


@pytest.mark.parametrize("with_factor", [True, False])
@pytest.mark.parametrize("num_shards", [1, 4])
def test_hits_do_not_depend_on_the_server_s_shards_and_version(with_factor, num_shards, tmp_path):
    server = SearchServerDouble(with_factor, num_shards)
    assert_as_bm25s(index(server, tmp_path).open(), tmp_path)
    server.close()


def test_searches_ask_for_statistics_of_the_whole_index_and_for_the_total_order(server, tmp_path, monkeypatch):
    engine = index(server, tmp_path).open()
    asked = []
    search = server.search
    monkeypatch.setattr(server, "search", lambda header, body: (asked.append((header, body)), search(header, body))[1])
    engine.search([["w1", "w2", "w1"]], 4)
    ((header, body),) = asked
    assert header["search_type"] == "dfs_query_then_fetch"
    assert body["sort"] == [{"_score": "desc"}, {"row": "asc"}]
    weights = {c["term"]["terms"]["value"]: c["term"]["terms"]["boost"] for c in body["query"]["bool"]["should"]}
    assert weights["w1"] / weights["w2"] == pytest.approx(2, abs=0.3)


def test_a_search_goes_on_after_the_last_hit_of_a_page(server, tmp_path, monkeypatch):
    monkeypatch.setattr(elasticsearch, "_PAGE", 5)
    server.max_window = 5
    assert_as_bm25s(index(server, tmp_path).open(), tmp_path, k=23)


def test_many_searches_are_sent_together_and_few_with_many_hits(server, tmp_path, monkeypatch):
    engine = index(server, tmp_path).open()
    server.calls.clear()
    engine.search([["w1"]] * 30, 3)
    assert server.calls == [("POST", "/_msearch")]
    monkeypatch.setattr(elasticsearch, "_HITS_PER_CALL", 200)
    server.calls.clear()
    engine.search([["w1"]] * 30, 3)
    assert len(server.calls) == 3


def test_rows_are_sent_in_batches(server, tmp_path, monkeypatch):
    monkeypatch.setattr(elasticsearch, "_ROWS_PER_CALL", 50)
    handle = index(server, tmp_path)
    assert sum(path.endswith("_bulk") for _, path in server.calls) == 3
    assert_as_bm25s(handle.open(), tmp_path)


def test_progress_is_shown_while_rows_are_sent(server, tmp_path, monkeypatch):
    shown = []

    class Bar(contextlib.nullcontext):
        def __init__(self, **options):
            super().__init__(self)
            shown.append(options)

        def update(self, rows):
            shown.append(rows)

    monkeypatch.setattr(elasticsearch, "_ROWS_PER_CALL", 50)
    monkeypatch.setattr(elasticsearch, "tqdm", Bar)
    index(server, tmp_path)
    assert (shown[0]["total"], shown[0]["desc"]) == (120, "Indexing (elasticsearch)")
    assert shown[1:] == [50, 50, 20]


def test_a_complete_index_on_the_server_is_used_again(server, tmp_path):
    index(server, tmp_path / "a")
    server.calls.clear()
    handle = index(server, tmp_path / "b")
    assert not [path for _, path in server.calls if path.endswith("_bulk")]
    assert_as_bm25s(handle.open(), tmp_path)


def test_other_parameters_are_another_index(server, tmp_path):
    index(server, tmp_path / "a")
    index(server, tmp_path / "b", b=0.5)
    assert len(server.indices) == 2


def test_an_index_whose_building_was_broken_off_is_made_anew(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SearchServer, "note", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            index(server, tmp_path)
    ((name, kept),) = server.indices.items()
    kept["shards"][0].rows.clear()
    assert_as_bm25s(index(server, tmp_path).open(), tmp_path)
    assert server.indices[name]["mappings"]["_meta"] == {"hf_distill_complete": True}


def test_an_index_that_another_build_takes_away_is_never_called_complete(server, tmp_path, monkeypatch):
    add = SearchServer.add

    def taken_away(self, documents):
        add(self, documents)
        monkeypatch.setattr(SearchServer, "add", add)
        (kept,) = server.indices.values()
        kept["mappings"]["_meta"] = {**kept["mappings"]["_meta"], "hf_distill_builder": "another"}

    monkeypatch.setattr(SearchServer, "add", taken_away)
    with pytest.raises(RuntimeError, match=r"was deleted while it was filled.*Start again when that build has ended"):
        index(server, tmp_path)
    assert_as_bm25s(index(server, tmp_path).open(), tmp_path)


def test_an_index_to_which_others_have_written_is_made_anew(server, tmp_path):
    index(server, tmp_path / "a")
    (kept,) = server.indices.values()
    kept["shards"][0].rows[999] = ["w1"]
    assert_as_bm25s(index(server, tmp_path / "b").open(), tmp_path)


def test_a_strange_index_of_the_same_name_is_never_deleted(server, tmp_path):
    index(server, tmp_path / "a")
    (kept,) = server.indices.values()
    kept["mappings"]["_meta"] = {"owner": "somebody"}
    with pytest.raises(RuntimeError, match="that hf_distill did not make: delete or rename it"):
        index(server, tmp_path / "b")
    assert server.indices


def test_the_folder_holds_address_and_statistics_but_no_rows(server, tmp_path):
    handle = index(server, tmp_path)
    where = json.loads((tmp_path / "index" / "server.json").read_text())
    assert where["url"] == server.url
    assert where["index"] in server.indices
    assert IndexHandle(tmp_path / "index").open().num_rows == handle.num_rows == 120


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.answers_to_give_first = [(429, {}), (503, {})]
    server.busy_items = 130
    assert_as_bm25s(index(server, tmp_path).open(), tmp_path)


def test_a_server_that_stays_busy_is_an_error(server, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_distill.corpus.search.engines.search_server._WAITS", (0, 0))
    server.busy_items = 10**6
    with pytest.raises(RuntimeError, match="is too busy: it refused 120 rows"):
        index(server, tmp_path)


def test_a_refused_row_is_an_error_with_the_server_s_reason(server, tmp_path):
    with pytest.raises(RuntimeError, match=r"refused a row: .*immense term"):
        index(server, tmp_path, texts=["\u00e9x" * 15_000])


def test_a_failing_search_is_an_error_never_an_empty_result(server, tmp_path):
    engine = index(server, tmp_path).open()
    server.max_window = 1
    with pytest.raises(RuntimeError, match="Result window is too large"):
        engine.search([["w1"]], 3)
    server.max_window = 10_000
    server.answers_to_give_first = [
        (200, {"responses": [{"_shards": {"failed": 1}, "timed_out": False, "hits": {"hits": []}}]})
    ]
    with pytest.raises(RuntimeError, match='"failed": 1'):
        engine.search([["w1"]], 3)


def test_a_server_with_another_similarity_is_refused(server, tmp_path, monkeypatch):
    score = server.score

    def halved(*args):
        for hit in score(*args):
            yield {**hit, "sort": [hit["sort"][0] / 3, hit["sort"][1]]}

    monkeypatch.setattr(server, "score", halved)
    with pytest.raises(RuntimeError, match="changes the similarity"):
        index(server, tmp_path)


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({}, None),
        ({"ELASTICSEARCH_API_KEY": "secret"}, "ApiKey secret"),
        (
            {"ELASTICSEARCH_USER": "me", "ELASTICSEARCH_PASSWORD": "secret"},
            "Basic " + base64.b64encode(b"me:secret").decode(),
        ),
    ],
)
def test_credentials_come_from_the_environment_and_end_in_no_file(server, tmp_path, monkeypatch, variables, header):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    index(server, tmp_path)
    assert {headers.get("Authorization") for headers in server.headers} == {header}
    assert not [f for f in (tmp_path / "index").iterdir() if b"secret" in f.read_bytes()]


def test_a_missing_address_is_an_error_that_names_the_flag(tmp_path):
    with pytest.raises(ValueError, match=r"needs the address of a server: `--elasticsearch_url`"):
        save_index(PLAIN.encode([TEXTS]), tmp_path / "index", SETTINGS)


@pytest.mark.parametrize(
    ("url", "message"),
    [("localhost:9200", "must look like https://host:9200"), ("http://me:secret@host:1", "ELASTICSEARCH_PASSWORD")],
)
def test_a_wrong_address_is_an_error(url, message):
    with pytest.raises(ValueError, match=message) as caught:
        SearchServer(url, "index")
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_an_error(server, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_distill.corpus.search.engines.search_server._RETRIES", 0)
    server.close()
    with pytest.raises(ConnectionError, match=r"\(--elasticsearch_url\) does not answer"):
        index(server, tmp_path)
