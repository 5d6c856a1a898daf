"""Shards of a general corpus: whatever they are, the corpus is that of one index, row for row and score for score."""

import shutil

import pytest
from builder_cases import ANCHORS, GENERAL, build, rows_of
from datasets import Dataset
from engine_cases import engine_cases
from search_server_double import SearchServerDouble
from shard_cases import FOUND, build_sharded, prepare_all, search_all, search_of, shards_of

from hf_distill.corpus.build.anchors import collect_anchors
from hf_distill.corpus.shards import first_pass as shards_module
from hf_distill.corpus.shards.merging import merge_shards

# Rows that cannot be used stand together, so that shards are unequal: some are all but empty, one is quite.
UNEQUAL = Dataset.from_dict(
    {
        "text": [*[None] * 60, *GENERAL["text"][:100], *[""] * 80, *GENERAL["text"][100:], *["fox river"] * 10],
        "source": ["a", None] * 200,
    }
)


def facts_that_must_agree(result):
    """Statistics without what shards change: seconds, checksums, the size of the indexes."""
    left_out = {"seconds", "costs", "settings", "num_shards", "engine", "general_corpus"}
    general = {name: value for name, value in result.statistics["general_corpus"].items() if name != "checksum"}
    return {name: value for name, value in result.statistics.items() if name not in left_out} | general


@pytest.mark.parametrize("engine", engine_cases("bm25s", "tantivy", "blocks"))
@pytest.mark.parametrize("num_shards", [1, 2, 4, 7])
def test_any_number_of_shards_gives_the_corpus_of_one_index(tmp_path, engine, num_shards):
    settings = {"engine": engine, "corpus": UNEQUAL, "top_share": 0.75, "write_dropped": True}
    held_out = [GENERAL["text"][3].upper(), GENERAL["text"][120]]
    whole = build(tmp_path / "whole", evaluation_texts=held_out, **settings)
    sharded = build_sharded(tmp_path / "shards", num_shards, evaluation_texts=held_out, **settings)
    assert rows_of(sharded) == rows_of(whole)
    assert sharded.dropped.to_list() == whole.dropped.to_list()
    assert facts_that_must_agree(sharded) == facts_that_must_agree(whole)
    assert sharded.statistics["num_shards"] == num_shards
    assert sharded.statistics["engine"]["index_terms"] == whole.statistics["engine"]["index_terms"]


def test_shards_on_a_search_server_give_the_corpus_of_one_index(tmp_path):
    server = SearchServerDouble()
    settings = {"engine": "elasticsearch", "elasticsearch_url": server.url}
    sharded = build_sharded(tmp_path / "shards", 3, **settings)
    assert rows_of(sharded) == rows_of(build(tmp_path / "whole"))
    # A server that was set up anew has nothing.
    server.indices.clear()
    for folder in [*(tmp_path / "shards" / "shards").glob("hits-*"), tmp_path / "shards" / "hits"]:
        shutil.rmtree(folder)
    again = build_sharded(tmp_path / "shards", 3, **settings)
    server.close()
    assert rows_of(again) == rows_of(sharded)


@pytest.mark.parametrize("deduplicate", ["none", "exact", "near"])
def test_duplicates_in_different_shards_are_found(tmp_path, deduplicate):
    if deduplicate == "near":
        pytest.importorskip("datasketch")
    settings = {"corpus": UNEQUAL, "deduplicate": deduplicate, "decontaminate_ngram": 3, "top_k": 40}
    held_out = ["the fox river plot scene garden"]
    whole = build(tmp_path / "whole", evaluation_texts=held_out, **settings)
    assert rows_of(build_sharded(tmp_path / "s", 4, evaluation_texts=held_out, **settings)) == rows_of(whole)


def test_more_hits_asked_for_than_a_shard_has_rows(tmp_path):
    whole = build(tmp_path / "whole", top_k=200)
    assert rows_of(build_sharded(tmp_path / "shards", 7, top_k=200)) == rows_of(whole)


def test_more_hits_asked_for_than_there_are_rows(tmp_path):
    with pytest.warns(UserWarning, match=r"`--top_k` is 900, but the general corpus has only 250 usable rows"):
        result = build_sharded(tmp_path, 3, top_k=900)
    assert result.statistics["top_k"] == {"asked": 900, "used": 250}


def test_more_shards_than_rows(tmp_path):
    corpus = Dataset.from_dict({"text": ["fox dog", "dog", "river"]})
    anchors = ["fox", "dog river"]
    whole = build(tmp_path / "whole", anchors, corpus, top_k=2)
    assert rows_of(build_sharded(tmp_path / "s", 5, collect_anchors(anchors), corpus=corpus, top_k=2)) == rows_of(
        whole
    )


@pytest.mark.parametrize("unit", ["sentence", "passage"])
def test_documents_are_split_shard_by_shard(tmp_path, unit):
    pytest.importorskip("sentencex")
    texts = GENERAL["text"][:]
    documents = [None, *(" ".join(texts[start : start + 5]) for start in range(0, 250, 5)), ""]
    corpus = Dataset.from_dict({"text": documents, "source": [f"d{row % 4}" for row in range(len(documents))]})
    settings = {"corpus": corpus, "unit": unit, "passage_words": 12, "write_dropped": True}
    whole = build(tmp_path / "whole", **settings)
    sharded = build_sharded(tmp_path / "shards", 4, **settings)
    assert rows_of(sharded) == rows_of(whole)
    assert sharded.dropped.to_list() == whole.dropped.to_list()
    assert facts_that_must_agree(sharded) == facts_that_must_agree(whole)


def test_processes_threads_and_batches_do_not_change_it(tmp_path):
    sharded = build_sharded(tmp_path / "shards", 2, num_proc=2, search_batch_size=7)
    assert rows_of(sharded) == rows_of(build(tmp_path / "whole"))


def test_hits_are_merged_a_few_anchors_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_distill.corpus.shards.merging._TOGETHER", 100)
    monkeypatch.setattr("hf_distill.corpus.shards.merging._READ", 7)
    anchors = ["zebra", *ANCHORS, "!!"]
    sharded = build_sharded(tmp_path / "shards", 4, collect_anchors(anchors))
    whole = build(tmp_path / "whole", anchors)
    assert rows_of(sharded) == rows_of(whole)
    assert sharded.statistics["queries"] == whole.statistics["queries"]


def test_shards_may_be_done_in_any_order_and_repeatedly(tmp_path):
    for shard in (2, 0, 1, 0):
        shards_of(tmp_path, 3).prepare(shard)
    for shard in (1, 2, 1, 0):
        search_of(tmp_path, 3).run(shard)
    assert rows_of(merge_shards(search_of(tmp_path, 3))) == rows_of(build(tmp_path / "whole"))


def test_finished_shards_are_only_read(tmp_path):
    search_all(tmp_path, 3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    search_all(tmp_path, 3)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_texts_and_indexes_are_shared_between_tasks(tmp_path):
    shared = {"index_dir": str(tmp_path / "indexes")}
    build_sharded(tmp_path / "a", 3, **shared)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "indexes").rglob("*") if path.is_file()}
    other = build_sharded(tmp_path / "b", 3, collect_anchors(ANCHORS[:7]), top_k=3, **shared)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "indexes").rglob("*") if path.is_file()} == before
    assert other.statistics["seconds"]["index"] == 0
    assert rows_of(other) == rows_of(build(tmp_path / "whole", ANCHORS[:7], top_k=3))


def test_the_engine_that_is_taken_can_score_by_the_statistics_of_all_shards(tmp_path):
    engine = build_sharded(tmp_path, 2, engine="auto").statistics["engine"]
    assert engine["name"] != "retriv"
    with pytest.raises(
        ValueError, match=r"`--engine retriv` cannot search shards: retriv scores by the statistics of"
    ):
        search_of(tmp_path, 2, engine="retriv")


def test_what_is_missing_is_named(tmp_path):
    shards_of(tmp_path, 4).prepare(1)
    with pytest.raises(
        ValueError, match=r"Shards \[0, 2, 3\] of 4 are not prepared.*`--shard I --num_shards 4` for each"
    ):
        search_of(tmp_path, 4)
    prepare_all(tmp_path, 4)
    search_of(tmp_path, 4).run(2)
    with pytest.raises(ValueError, match=r"Shards \[0, 1, 3\] of 4 are not searched"):
        merge_shards(search_of(tmp_path, 4))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_shards": 4}, "num_shards: 3 there, 4 now"),
        ({"corpus": GENERAL.select(range(200))}, "documents: 250 there, 200 now"),
        ({"corpus": GENERAL.map(lambda row: {"text": row["text"].upper()})}, "sample_of_texts: "),
        ({"max_words": 5}, "max_words: None there, 5 now"),
        ({"stem": False}, "analysis: "),
    ],
)
def test_shards_of_other_settings_are_refused_with_the_differences(tmp_path, change, named):
    prepare_all(tmp_path, 3)
    with pytest.raises(ValueError, match=r"belongs to a corpus with other settings .*--work_dir") as caught:
        shards_of(tmp_path, **{"num_shards": 3, **change})
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"top_k": 5}, "top_k: 8 there, 5 now"),
        ({"query": "text"}, "query: rake there, text now"),
        ({"bm25_k1": 0.9}, "k1: 1.2 there, 0.9 now"),
        ({"anchors": collect_anchors(ANCHORS[:5])}, "anchors: "),
    ],
)
def test_a_search_with_other_settings_is_refused_with_the_differences(tmp_path, change, named):
    search_all(tmp_path, 2)
    with pytest.raises(ValueError, match=r"belongs to a corpus with other settings .*--work_dir") as caught:
        search_of(tmp_path, 2, **{"anchors": FOUND, **change})
    assert named in str(caught.value)


def test_a_corpus_without_usable_rows_or_without_hits_is_an_error(tmp_path):
    prepare_all(tmp_path / "a", 2, corpus=Dataset.from_dict({"text": [None, "", " "]}))
    with pytest.raises(ValueError, match="No row of the general corpus can be used"):
        search_of(tmp_path / "a", 2, corpus=Dataset.from_dict({"text": [None, "", " "]}))
    with pytest.raises(ValueError, match="None of the 1 anchors shares a word"):
        build_sharded(tmp_path / "b", 3, collect_anchors(["zebra"]))
    with pytest.raises(ValueError, match="corpus is empty"):
        shards_of(tmp_path / "c", 2, corpus=Dataset.from_dict({"text": []}))


def test_shards_of_a_stream_are_those_of_its_rows(tmp_path):
    stream = GENERAL.to_iterable_dataset(num_shards=2)
    first, again = (shards_of(tmp_path / "stream", 3, stream) for _ in range(2))
    assert first.corpus.to_list() == GENERAL.to_list()
    assert first.settings == again.settings == shards_of(tmp_path / "rows", 3).settings


@pytest.mark.parametrize("column", ["text", "source"])
def test_a_prepared_shard_is_not_taken_for_one_of_other_rows(tmp_path, column, monkeypatch):
    monkeypatch.setattr(shards_module, "_SAMPLE", 2)
    prepare_all(tmp_path, 2)
    changed = GENERAL.map(lambda row, place: {column: "another one"} if place == 7 else {}, with_indices=True)
    with pytest.raises(ValueError, match=r"Shard 0 of 2 in .* was prepared from other rows"):
        shards_of(tmp_path, 2, corpus=changed).prepare(0)
    assert shards_of(tmp_path, 2, corpus=changed).prepare(1)["documents"] == 125
