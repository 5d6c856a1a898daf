"""The disk engine: what lies on the disk, that it is opened again, and that other processes may search it."""

import numpy as np
import pytest
from engine_cases import PLAIN, QUERIES, Indexer, engine_cases, random_texts

from hf_distill.corpus.search.retrieval import IndexHandle, choose_engine
from hf_distill.storage.steps import MARKER

pytestmark = [pytest.mark.parametrize("engine", engine_cases("tantivy"))]
TEXTS = random_texts(seed=21, count=200, longest=60)
PLAIN_STREAMS = PLAIN.encode([TEXTS])


def test_an_index_is_opened_again_from_its_folder(engine, tmp_path):
    first = Indexer(engine, tmp_path)(TEXTS).search(QUERIES, 9)
    handle = IndexHandle(tmp_path / "tantivy-1")
    again = handle.open().search(QUERIES, 9)
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.scores, again.scores)
    files = (file for file in (tmp_path / "tantivy-1").rglob("*") if file.is_file() and file.name != MARKER)
    assert handle.size() == sum(file.stat().st_size for file in files)


def test_the_arrays_beside_the_index_are_memory_maps(engine, tmp_path):
    opened = Indexer(engine, tmp_path)(TEXTS)
    for array in (opened._terms, opened._offsets, opened._hashes, opened._ids, opened._idf):
        assert isinstance(array.base, np.memmap)


def test_a_damaged_segment_is_refused(engine, tmp_path):
    Indexer(engine, tmp_path)(TEXTS)
    postings = next((tmp_path / "tantivy-1" / "tantivy").glob("*.idx"))
    postings.write_bytes(postings.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"\.idx' is damaged or cut short"):
        IndexHandle(tmp_path / "tantivy-1")


def test_a_writer_with_many_segments_gives_the_same_hits(engine, tmp_path, monkeypatch):
    from hf_distill.corpus.search.engines import tantivy

    index = Indexer(engine, tmp_path)
    whole = index(TEXTS).search(QUERIES, 9)
    real = tantivy._library()

    class CommittingIndex:
        """Closes a segment after every 40 rows."""

        def __init__(self, *args, **options):
            self._index = real.Index(*args, **options)
            self.register_tokenizer = self._index.register_tokenizer

        def writer(self, **options):
            writer, added = self._index.writer(**options), []

            class Writer:
                commit, wait_merging_threads = writer.commit, writer.wait_merging_threads

                def add_document(self, document):
                    writer.add_document(document)
                    added.append(document)
                    if len(added) % 40 == 0:
                        writer.commit()

            return Writer()

    class Library:
        Index = CommittingIndex
        SchemaBuilder, Document = real.SchemaBuilder, real.Document
        TextAnalyzerBuilder, Tokenizer = real.TextAnalyzerBuilder, real.Tokenizer

    with monkeypatch.context() as patch:
        patch.setattr(tantivy, "_library", lambda: Library)
        tantivy._write_index(PLAIN_STREAMS, tmp_path / "many")
    assert real.Index.open(str(tmp_path / "many")).searcher().num_segments > 1
    opened = IndexHandle(tmp_path / "tantivy-1").open()
    monkeypatch.setattr(opened, "_searcher", real.Index.open(str(tmp_path / "many")).searcher())
    again = opened.search(QUERIES, 9)
    assert np.array_equal(whole.rows, again.rows)
    assert np.array_equal(whole.scores, again.scores)


def test_a_word_of_every_row_is_found_although_tantivy_s_own_idf_of_it_is_rounded(engine, tmp_path):
    texts = ["fox"] * 3000 + ["fox dog"]
    ((rows, scores),) = Indexer(engine, tmp_path)(texts).search([["fox"]], 2)
    assert rows.tolist() == [0, 1]
    assert (scores > 0).all()


def test_without_the_library_the_error_says_how_to_install_it(engine, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tantivy", None)
    with pytest.raises(ImportError, match=r"`--engine tantivy` needs .*pip install 'hf_distill\[tantivy\]'"):
        choose_engine("tantivy", 10)
