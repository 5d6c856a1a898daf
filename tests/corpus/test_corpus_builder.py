"""The whole builder: what comes out, that it is always the same, and that nothing is lost in silence."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import numpy as np
import pytest
from builder_cases import ANCHORS, GENERAL, build, rows_of
from corpus_oracle import bm25_scores
from datasets import ClassLabel, Dataset, DatasetDict, Value
from engine_cases import engine_cases, full_disk, needs_retriv
from search_server_double import SearchServerDouble

from hf_distill.corpus.build import builder
from hf_distill.corpus.build.anchors import Anchors, MakeQueries, make_query
from hf_distill.corpus.build.builder import CorpusBuild
from hf_distill.corpus.build.duplicates import normalize
from hf_distill.corpus.build.selection import rank_limit
from hf_distill.corpus.search.retrieval import engine_class
from hf_distill.corpus.text.analysis import Analyzer
from hf_distill.corpus.text.rows import DROP_REASONS


def plain_reference(anchors, texts, k, share=1.0, evaluation=()):
    """The corpus as a loop over everything, by the float64 oracle."""
    analyzer = Analyzer()
    terms = [analyzer.tokens(text) for text in texts]
    found = {}
    for anchor in dict.fromkeys(anchors):
        scores = bm25_scores(terms, analyzer.tokens(make_query(anchor, "rake", analyzer.stop_words)))
        # Rounded as the engine's float32: equal scores must tie here too.
        scores = scores.astype(np.float32).round(4)
        order = [row for row in np.lexsort((np.arange(len(scores)), -scores)) if scores[row] > 0][:k]
        for rank, row in enumerate(order):
            best = found.setdefault(int(row), [rank, scores[row], 0])
            best[0], best[1], best[2] = min(best[0], rank), max(best[1], scores[row]), best[2] + 1
    kept, seen = [], {normalize(text) for text in evaluation}
    for row in sorted((row for row in found if found[row][0] < rank_limit(share, k)), key=lambda r: (found[r][0], r)):
        if normalize(texts[row]) not in seen:
            seen.add(normalize(texts[row]))
            kept.append(row)
    return {texts[row]: (found[row][0], float(found[row][1]), found[row][2]) for row in kept}


def test_the_corpus_is_that_of_a_plain_loop_over_everything(tmp_path):
    evaluation = [GENERAL["text"][3].upper(), "something else"]
    result = build(tmp_path, evaluation_texts=evaluation, top_share=0.5)
    expected = plain_reference(ANCHORS, GENERAL["text"][:], 8, 0.5, evaluation)
    got = {row["text"]: (row["rank"], row["score"], row["anchors"]) for row in rows_of(result)}
    assert set(got) == set(expected)
    for text, (rank, score, anchors) in expected.items():
        assert got[text][0] == rank
        assert got[text][1] == pytest.approx(score, abs=2e-4)
        assert got[text][2] == anchors


def test_columns_and_order(tmp_path):
    result = build(tmp_path)
    assert result.dataset.column_names == ["text", "rank", "score", "anchors", "source"]
    keys = [(row["rank"], -row["score"]) for row in rows_of(result)]
    assert keys == sorted(keys)
    source_of = dict(zip(GENERAL["text"], GENERAL["source"], strict=True))
    assert len(result.dataset) == result.statistics["rows"] > 50
    assert all(row["source"].startswith("s") for row in rows_of(result))
    assert sum(row["source"] == source_of[row["text"]] for row in rows_of(result)) > 0.9 * len(result.dataset)


def test_the_source_is_the_corpus_s_name_where_it_has_none(tmp_path):
    corpus = GENERAL.select_columns(["text"])
    assert set(build(tmp_path / "a", corpus=corpus, corpus_name="books").dataset["source"]) == {"books"}
    partly = Dataset.from_dict({"text": ["fox dog", "dog fox"], "source": ["s", None]})
    rows = rows_of(build(tmp_path / "b", ["fox dog"], partly, corpus_name="books", top_k=2))
    assert [row["source"] for row in rows] == ["s", "books"]


def test_every_row_is_accounted_for(tmp_path):
    repeated = Dataset.from_dict(
        {"text": [*GENERAL["text"][:], None, "", "FOX dog!", "fox dog", "fox dog", "x" * 9000]}
    )
    result = build(
        tmp_path, corpus=repeated, evaluation_texts=[GENERAL["text"][0]], anchors=[*ANCHORS, "fox dog", None]
    )
    statistics = result.statistics
    general, dropped = statistics["general_corpus"], statistics["dropped"]
    assert general["rows"] == 256
    assert general["kept"] + sum(general[reason] for reason in DROP_REASONS) == 256
    assert (general["none"], general["empty"], general["too_long"]) == (1, 1, 1)
    assert statistics["rows"] == statistics["retrieved_rows"] - sum(dropped.values()) == len(result.dataset)
    assert dropped["exact_duplicate"] > 0
    assert dropped["normalized_duplicate"] > 0
    anchors = statistics["anchors"]
    assert anchors["texts"] == anchors["anchors"] + anchors["none"] + anchors["empty"] + anchors["duplicates"]
    assert statistics["kept_share"] == round(statistics["rows"] / statistics["hits"], 4)
    assert statistics["bytes"] == sum(len(text.encode()) for text in result.dataset["text"])
    assert sum(statistics["sources"].values()) == statistics["rows"]


def test_anchors_without_terms_and_without_hits_are_counted(tmp_path):
    result = build(tmp_path, ["the fox", "it is", "zebra quagga", "!!"])
    queries = result.statistics["queries"]
    assert queries["queries"] == 4
    assert queries["without_terms"] == 2
    assert queries["without_hits"] == 3


def test_an_anchor_without_keywords_is_searched_by_its_text():
    # For RAKE "it's" is one word of the list; the analysis takes it apart.
    make = MakeQueries("rake", 20, Analyzer(stopwords=["it's"]))
    assert make({"anchor": ["it's", "It's a fox"]}) == {
        "terms": [["it", "s"], ["a", "fox"]],
        "fallback": [True, False],
    }


def test_evaluation_texts_are_not_in_the_corpus(tmp_path):
    held_out = build(tmp_path / "a").dataset["text"][:10]
    result = build(tmp_path / "b", evaluation_texts=[text.upper() for text in held_out])
    assert not set(held_out) & set(result.dataset["text"])
    assert result.statistics["dropped"]["equals_evaluation_text"] >= 10
    kept = build(tmp_path / "c", evaluation_texts=held_out, decontaminate="none")
    assert set(held_out) <= set(kept.dataset["text"])


def test_smaller_top_shares_are_part_of_larger_ones(tmp_path):
    before = set()
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        result = build(tmp_path / str(share), top_share=share)
        now = {(row["text"], row["rank"]) for row in rows_of(result)}
        assert before < now
        assert max(result.dataset["rank"]) < rank_limit(share, 8)
        before = now


def test_the_order_of_the_anchors_does_not_matter(tmp_path):
    shuffled = [ANCHORS[index] for index in np.random.default_rng(5).permutation(len(ANCHORS))]
    assert rows_of(build(tmp_path / "a")) == rows_of(build(tmp_path / "b", anchors=shuffled))


@pytest.mark.parametrize("engine", engine_cases("bm25s", "retriv"))
def test_one_process_and_two_build_the_same(tmp_path, engine):
    one = build(tmp_path / "a", engine=engine)
    two = build(tmp_path / "b", engine=engine, num_proc=2, search_batch_size=7)
    assert rows_of(one) == rows_of(two)
    assert comparable(one) == comparable(two)


def comparable(result):
    """Statistics without what may differ between two builds of the same corpus."""
    return {name: value for name, value in result.statistics.items() if name not in {"seconds", "costs"}}


@needs_retriv
def test_both_engines_build_the_same_corpus(tmp_path):
    first, second = build(tmp_path / "a"), build(tmp_path / "b", engine="retriv")
    # Rows of one rank are ordered by score, whose last bit is each engine's own.
    assert {(row["text"], row["rank"]) for row in rows_of(first)} == {
        (row["text"], row["rank"]) for row in rows_of(second)
    }
    assert second.statistics["engine"]["name"] == "retriv"


def test_engine_auto_says_what_it_took_and_why(tmp_path, monkeypatch, caplog):
    def missing():
        raise ImportError("retriv is not installed")

    monkeypatch.setattr(engine_class("retriv"), "check", staticmethod(missing))
    with caplog.at_level("INFO", logger="hf_distill.corpus.build.builder"):
        engine = build(tmp_path, engine="auto").statistics["engine"]
    assert (engine["name"], engine["asked"]) == ("blocks", "auto")
    assert engine["why"].startswith("retriv is not installed; blocks is installed and 250 rows are within")
    assert [record.message for record in caplog.records if "engine" in record.message] == [
        f"BM25 engine: blocks ({engine['why']})."
    ]


@pytest.mark.parametrize("engine", engine_cases("blocks", "tantivy", "elasticsearch"))
def test_engines_with_exact_scores_build_the_very_same_corpus(tmp_path, engine):
    server = SearchServerDouble()
    options = {"elasticsearch_url": server.url} if engine == "elasticsearch" else {}
    one = build(tmp_path / "a", engine=engine, **options)
    two = build(tmp_path / "b", engine=engine, num_proc=2, search_batch_size=7, **options)
    server.close()
    assert rows_of(one) == rows_of(two) == rows_of(build(tmp_path / "c"))


STEPS = ["_make_queries", "_make_index", "_search", "_select", "_write"]


@pytest.mark.parametrize("step", STEPS)
def test_a_build_that_failed_in_a_step_continues_there_and_ends_in_the_same_corpus(tmp_path, monkeypatch, step):
    whole = build(tmp_path / "whole")
    work = getattr(CorpusBuild, step)

    def fail_at_the_end(self, folder):
        work(self, folder)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(CorpusBuild, step, fail_at_the_end)
        with pytest.raises(OSError, match="disk full"):
            build(tmp_path / "broken")

    done = []
    for name in STEPS:
        real = getattr(CorpusBuild, name)
        monkeypatch.setattr(
            CorpusBuild, name, lambda self, folder, n=name, r=real: (done.append(n), r(self, folder))[1]
        )
    continued = build(tmp_path / "broken")
    assert done == STEPS[STEPS.index(step) :]
    assert rows_of(continued) == rows_of(whole)


def test_a_killed_build_continues_and_ends_in_the_same_corpus(tmp_path):
    script = tmp_path / "build.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys
            from datasets import Dataset
            from hf_distill.corpus.build.builder import build_contextualized_corpus
            from hf_distill.corpus.build.anchors import SearchHits

            def search_and_die(self, batch, indices):
                os.kill(os.getpid(), signal.SIGKILL)

            SearchHits.__call__ = search_and_die
            build_contextualized_corpus(
                {ANCHORS!r}, Dataset.from_dict({GENERAL.to_dict()!r}), work_dir=sys.argv[1], engine="bm25s", top_k=8
            )
            """
        )
    )
    path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "work")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = sorted(marker.parent.name for marker in (tmp_path / "work").glob("*/_finished.json"))
    assert finished == ["index", "queries"]
    assert rows_of(build(tmp_path / "work")) == rows_of(build(tmp_path / "whole"))


def test_a_finished_build_is_only_read(tmp_path):
    first = build(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")}
    second = build(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")} == before
    assert second.statistics == first.statistics
    assert rows_of(second) == rows_of(first)


def test_a_search_after_the_index_was_deleted_makes_it_again(tmp_path):
    build(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "indexes")
    shutil.rmtree(tmp_path / "b" / "hits")
    assert rows_of(build(tmp_path / "b")) == rows_of(build(tmp_path / "a"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"top_k": 5}, "top_k: 8 there, 5 now"),
        ({"query": "text"}, "query: rake there, text now"),
        ({"anchors": ANCHORS[:5]}, "anchors: "),
        ({"corpus": GENERAL.select(range(100))}, "corpus: "),
        ({"evaluation_texts": ["fox"]}, "evaluation_texts: "),
        ({"bm25_k1": 0.9}, "index_k1: 1.2 there, 0.9 now"),
        ({"stem": False}, "index_analysis: "),
        ({"decontaminate_ngram": 13}, "decontaminate_ngram: None there, 13 now"),
        ({"deduplicate": "near"}, "near_duplicate_threshold: None there, 0.7 now"),
    ],
)
def test_a_work_folder_of_other_settings_is_refused_with_the_differences(tmp_path, change, named):
    build(tmp_path)
    with pytest.raises(ValueError, match=r"belongs to a corpus with other settings .*--work_dir") as caught:
        build(tmp_path, **change)
    assert named in str(caught.value)


def test_an_index_is_shared_between_builds(tmp_path):
    shared = {"index_dir": str(tmp_path / "indexes")}
    first = build(tmp_path / "a", **shared)
    (folder,) = (tmp_path / "indexes").iterdir()
    before = (folder / "_finished.json").stat().st_mtime_ns
    build(tmp_path / "b", anchors=ANCHORS[:7], **shared)
    assert (folder / "_finished.json").stat().st_mtime_ns == before
    build(tmp_path / "c", bm25_b=0.3, **shared)
    assert len(list((tmp_path / "indexes").iterdir())) == 2
    assert rows_of(first) == rows_of(build(tmp_path / "d"))


def test_an_index_that_another_build_makes_at_the_same_time_is_waited_for(tmp_path, monkeypatch):
    shared, real = {"index_dir": str(tmp_path / "indexes")}, builder.in_turn

    @contextmanager
    def after_another(path, what):
        monkeypatch.setattr(builder, "in_turn", real)
        build(tmp_path / "other", anchors=ANCHORS[:7], **shared)
        (folder,) = (tmp_path / "indexes").iterdir()
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with real(path, what):
            yield
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    monkeypatch.setattr(builder, "in_turn", after_another)
    result = build(tmp_path / "a", **shared)
    assert builder.in_turn is real
    assert rows_of(result) == rows_of(build(tmp_path / "b"))


def test_an_index_that_the_search_server_has_lost_is_made_again(tmp_path, caplog):
    server, other = SearchServerDouble(), SearchServerDouble()
    settings = {"engine": "elasticsearch", "elasticsearch_url": server.url}
    whole = rows_of(build(tmp_path, **settings))
    for change, said in ((server.indices.clear, "has no complete index"), (server.close, f"not on {other.url!r}")):
        change()
        for step in ("hits", "selection", "rows"):
            shutil.rmtree(tmp_path / step)
        assert rows_of(build(tmp_path, **settings)) == whole
        assert said in caplog.text
        settings["elasticsearch_url"] = other.url
        if change == server.indices.clear:
            assert server.indices
    other.close()


def test_an_index_whose_content_was_damaged_is_made_again_and_said_so(tmp_path, caplog):
    shared = {"index_dir": str(tmp_path / "indexes"), "engine": "blocks"}
    first = build(tmp_path / "a", **shared)
    block = next((tmp_path / "indexes").rglob("*.bin"))
    content = block.read_bytes()
    block.write_bytes(content[:9] + bytes([content[9] ^ 255]) + content[10:])
    with caplog.at_level("WARNING", logger="hf_distill.corpus.build.builder"):
        again = build(tmp_path / "b", **shared)
    assert "000000.bin' is damaged: its content is not what was written" in caplog.text
    assert rows_of(first) == rows_of(again)
    assert block.read_bytes() == content


def test_what_every_step_cost_is_told(tmp_path):
    result = build(tmp_path, engine="blocks")
    costs = result.statistics["costs"]
    assert list(costs) == ["queries", "terms", "index", "hits", "selection", "rows"]
    for step in costs.values():
        assert step["seconds"] >= 0
        assert step["peak_memory_mb"] > 10
        assert step["disk_bytes"] >= 0
    assert costs["terms"]["rows"] == costs["index"]["rows"] == 250
    assert costs["terms"]["disk_bytes"] > 4 * 250
    assert not list(tmp_path.rglob("ids.bin"))  # the terms go once the index is there


@pytest.mark.parametrize("engine", engine_cases("bm25s", "blocks", "tantivy"))
@pytest.mark.parametrize("prefix", ["ids.bin", "_finished.json"])
def test_a_full_disk_is_an_error_and_the_build_goes_on_later(tmp_path, engine, prefix):
    whole = build(tmp_path / "whole", engine=engine)
    said = r"The disk is full: .*Nothing unfinished is taken for finished"
    with full_disk(prefix), pytest.raises(OSError, match=said):
        build(tmp_path / "full", engine=engine)
    assert not (tmp_path / "full" / "index.json").exists()
    assert rows_of(build(tmp_path / "full", engine=engine)) == rows_of(whole)


def test_without_a_work_folder_steps_are_kept_in_the_cache_per_settings(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    first, other = build(None), build(None, top_k=5)
    assert len(list((tmp_path / "hf_distill_corpus").iterdir())) == 2
    assert len(first.dataset) > len(other.dataset)
    assert build(None).statistics == first.statistics


def test_more_hits_asked_for_than_there_are_rows(tmp_path):
    with pytest.warns(UserWarning, match=r"`--top_k` is 900, but the general corpus has only 250 usable rows"):
        result = build(tmp_path, top_k=900)
    assert result.statistics["top_k"] == {"asked": 900, "used": 250}


def test_limits_on_corpus_and_anchors(tmp_path):
    result = build(tmp_path, max_corpus_rows=50, max_anchors=3)
    assert result.statistics["general_corpus"]["rows"] == 50
    assert result.statistics["anchors"]["anchors"] == 3
    assert set(result.dataset["text"]) <= set(GENERAL["text"][:50])


def test_anchors_from_the_rows_of_a_task(tmp_path):
    rows = Dataset.from_dict({"premise": ANCHORS[:20], "hypothesis": ANCHORS[20:], "label": [0] * 20})
    assert rows_of(build(tmp_path / "a", rows)) == rows_of(build(tmp_path / "b"))
    only = build(tmp_path / "c", rows, anchor_columns=["premise"])
    assert only.statistics["anchors"]["texts"] == 20
    with pytest.raises(ValueError, match=r"no column \['text'\]"):
        build(tmp_path / "d", rows, anchor_columns=["text"])
    with pytest.raises(ValueError, match=r"no text column; it has \['label'\]"):
        build(tmp_path / "d", rows.select_columns(["label"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": Dataset.from_dict({"text": []})}, "corpus is empty"),
        ({"text_column": "body"}, r"no column 'body' .*\['text', 'source'\]"),
        ({"anchors": []}, "no anchors"),
        ({"engine": "lucene"}, "`--engine` is 'lucene'"),
        ({"top_share": 0}, "`--top_share` is 0"),
        ({"near_duplicate_threshold": 1.5}, r"`--near_duplicate_threshold` is 1\.5"),
        ({"max_words": 2, "min_words": 5}, r"`--max_words` \(2\) is below `--min_words` \(5\)"),
        ({"decontaminate": "none", "decontaminate_ngram": 13}, "`--decontaminate none` looks for no evaluation text"),
        ({"unit": "word"}, "`--unit` is 'word'"),
        ({"engine": "elasticsearch"}, "needs the address of a server: `--elasticsearch_url`"),
        ({"anchors": ["zebra"]}, "None of the 1 anchors shares a word"),
        ({"anchors": ["fox"], "evaluation_texts": GENERAL["text"][:]}, "Nothing is left of"),
    ],
)
def test_bad_input_is_an_error(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **change)


SPLITS = DatasetDict(train=Dataset.from_dict({"text": ["fox dog"]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": "the fox"}, "`anchors` must be several texts, but it is a str"),
        ({"anchors": SPLITS}, r"`anchors` must be several texts, but it is a DatasetDict: .* rows\['text'\]"),
        ({"evaluation_texts": "the fox"}, "`evaluation_texts` must be several texts, but it is a str"),
        ({"evaluation_texts": SPLITS}, "`evaluation_texts` must be several texts, but it is a DatasetDict"),
        ({"evaluation_texts": SPLITS["train"]}, "A text must be a string, but one is dict"),
        ({"evaluation_texts": [["fox"]]}, "A text must be a string, but one is list"),
        ({"corpus": SPLITS}, "must be a `Dataset` or an `IterableDataset`, but it is a DatasetDict"),
    ],
)
def test_letters_and_names_of_splits_are_not_taken_for_texts(tmp_path, change, message):
    with pytest.raises(TypeError, match=message):
        build(tmp_path, **change)


def test_one_column_of_anchors_may_be_named_without_a_list(tmp_path):
    anchors = Dataset.from_dict({"text": ["zebra"], "title": ["fox dog"]})
    assert len(build(tmp_path, anchors=anchors, anchor_columns="title").dataset) > 0


def test_labels_as_sources_are_shown_by_their_names(tmp_path):
    kinds = ClassLabel(names=["web", "books"])
    rows = Dataset.from_dict({"text": ["fox", "fox dog", "dog"], "source": [1, None, 0]}).cast_column("source", kinds)
    result = build(tmp_path / "a", ["fox dog"], rows, corpus_name="mine", top_k=3)
    assert {row["text"]: row["source"] for row in rows_of(result)} == {"fox": "books", "fox dog": "mine", "dog": "web"}
    other = rows.cast_column("source", Value("int64")).cast_column("source", ClassLabel(names=["web", "news"]))
    with pytest.raises(ValueError, match="sources"):
        build(tmp_path / "a", ["fox dog"], other, corpus_name="mine", top_k=3)


def test_lists_are_no_sources(tmp_path):
    rows = Dataset.from_dict({"text": ["fox"], "source": [["web"]]})
    with pytest.raises(ValueError, match=r"column 'source' \(--source_column\) .* holds List\(.*not names"):
        build(tmp_path, ["fox"], rows)


def test_the_text_may_be_its_own_source(tmp_path):
    pytest.importorskip("sentencex")
    rows = Dataset.from_dict({"text": ["A fox. A dog."]})
    found = rows_of(build(tmp_path, ["fox"], rows, top_k=1, unit="sentence", source_column="text"))
    assert [(row["text"], row["source"]) for row in found] == [("A fox.", "A fox.")]


def test_control_characters_are_not_in_the_corpus(tmp_path):
    corpus = Dataset.from_dict({"text": ["fox\x00 dog\t", "fox\nriver", "winter"]})
    result = build(tmp_path, ["fox"], corpus, top_k=3)
    assert set(result.dataset["text"]) == {"fox  dog", "fox river"}
    assert result.statistics["general_corpus"]["control_characters"] == 2


def test_steps_of_other_sources_are_not_taken(tmp_path):
    build(tmp_path)
    renamed = GENERAL.map(lambda row: {"source": row["source"].upper()})
    with pytest.raises(ValueError, match=r"with other settings .sources: "):
        build(tmp_path, corpus=renamed)
    assert {row["source"] for row in rows_of(build(tmp_path / "new", corpus=renamed))} == {"S0", "S1", "S2"}


def test_dropped_rows_are_those_of_the_corpus_that_is_given(tmp_path):
    def with_unusable(text):
        return Dataset.from_dict({"text": [text, *GENERAL["text"]], "source": ["s", *GENERAL["source"]]})

    def dropped(result):
        return [row["text"] for row in result.dropped if row["reason"] == "too_few_words"]

    settings = {"write_dropped": True, "min_words": 2}
    assert dropped(build(tmp_path, corpus=with_unusable("one"), **settings)) == ["one"]
    assert dropped(build(tmp_path, corpus=with_unusable("another"), **settings)) == ["another"]


def test_anchors_with_line_breaks_are_not_taken_for_others():
    assert Anchors(["a\nb"], {}).checksum() != Anchors(["a", "b"], {}).checksum()
