"""Token streams on disk: those of one pass in memory, for any parts and processes, and after a kill at any moment."""

import os
import signal

import numpy as np
import pytest
from datasets import Dataset
from engine_cases import Indexer, engine_cases, full_disk, random_texts

from hf_distill.corpus.search import streams as module
from hf_distill.corpus.search.streams import write_streams
from hf_distill.corpus.text.analysis import Analyzer
from hf_distill.corpus.text.rows import UsableTexts, find_usable_rows
from hf_distill.settings.corpus import CorpusArguments
from hf_distill.storage.steps import MARKER, read_marker

ANALYZER = Analyzer()
TEXTS = [*random_texts(seed=31, count=90, words=70), "", "!!", "The red foxes", "caf\u00e9 \u4e2d\u6587\u597d"]
EXPECTED = ANALYZER.encode([TEXTS])
SETTINGS = {"corpus": "abc"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "PART_TEXTS", 20)


def read(start, stop):
    middle = (start + stop) // 2
    yield TEXTS[start:middle]
    yield TEXTS[middle:stop]


def write(folder, reader=read, settings=SETTINGS, **options):
    return write_streams(ANALYZER, reader, len(TEXTS), folder, settings, **options)


def assert_same(streams):
    assert streams.checksum() == EXPECTED.checksum()
    assert streams.vocabulary == EXPECTED.vocabulary
    assert list(streams.texts()) == list(EXPECTED.texts())


@pytest.mark.parametrize("part", [1, 20, 94, 1000])
@pytest.mark.parametrize("num_proc", [1, 2])
def test_they_are_the_streams_of_one_pass_in_memory(tmp_path, monkeypatch, part, num_proc):
    monkeypatch.setattr(module, "PART_TEXTS", part)
    assert_same(write(tmp_path / "streams", num_proc=num_proc))


def test_they_are_memory_mapped(tmp_path):
    streams = write(tmp_path / "streams")
    assert isinstance(streams.ids.base, np.memmap)
    assert isinstance(streams.offsets.base, np.memmap)


def test_finished_streams_are_only_opened(tmp_path):
    write(tmp_path / "streams")

    def never(start, stop):
        raise AssertionError("read again")

    assert_same(write(tmp_path / "streams", never))


@pytest.mark.parametrize("num_texts", [0, 2])
def test_texts_without_terms(tmp_path, num_texts):
    streams = write_streams(ANALYZER, lambda start, stop: [["", "!!"]], num_texts, tmp_path / "streams", SETTINGS)
    assert (streams.num_texts, len(streams.ids), streams.vocabulary) == (num_texts, 0, [])


def killed_after(folder, num_texts, leave_more):
    """What is in a folder when a build is killed while it appends the part that begins at `num_texts`."""
    child = os.fork()
    if child == 0:
        real = module.note

        def note_and_die(folder, marker, *, facts):
            if facts["texts"] > num_texts and leave_more:
                os.kill(os.getpid(), signal.SIGKILL)
            real(folder, marker, facts=facts)
            if facts["texts"] > num_texts - 20 and not leave_more:
                os.kill(os.getpid(), signal.SIGKILL)

        module.note = note_and_die
        write(folder, num_proc=1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("num_texts", [0, 20, 80])
@pytest.mark.parametrize("leave_more", [True, False])
def test_a_killed_build_goes_on_with_the_next_part(tmp_path, num_texts, leave_more):
    if num_texts == 0 and not leave_more:
        pytest.skip("nothing is noted before the first part")
    killed_after(tmp_path / "streams", num_texts, leave_more)
    starts = []

    def noting(start, stop):
        starts.append(start)
        return read(start, stop)

    assert_same(write(tmp_path / "streams", noting, num_proc=1))
    assert starts == list(range(num_texts, len(TEXTS), 20))
    whole = write(tmp_path / "whole")
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "streams" / file.name).read_bytes() == file.read_bytes()
    assert_same(whole)


@pytest.mark.parametrize("damage", ["ids.bin", "offsets.bin", "vocabulary.txt", MARKER])
def test_what_is_shorter_than_noted_is_made_anew(tmp_path, damage):
    write(tmp_path / "streams")
    file = tmp_path / "streams" / damage
    file.write_bytes(file.read_bytes()[:-3])
    assert_same(write(tmp_path / "streams"))


def test_streams_of_other_settings_are_made_anew(tmp_path):
    write(tmp_path / "streams")
    assert_same(write(tmp_path / "streams", settings={"corpus": "another"}))
    assert read_marker(tmp_path / "streams")["settings"]["corpus"] == "another"


def die(start, stop):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_an_error_and_the_build_goes_on_later(tmp_path):
    with pytest.raises(RuntimeError, match=r"process that turned text into terms died .*Start again"):
        write(
            tmp_path / "streams",
            lambda start, stop: die(start, stop) if start == 60 else read(start, stop),
            num_proc=2,
        )
    assert_same(write(tmp_path / "streams"))


def test_a_full_disk_is_an_error_that_says_what_to_do_and_the_build_goes_on_later(tmp_path):
    killed_after(tmp_path / "streams", 40, leave_more=True)
    said = r"disk is full: token streams .*streams.*--work_dir"
    with full_disk("vocabulary.txt"), pytest.raises(OSError, match=said):
        write(tmp_path / "streams", num_proc=1)
    assert read_marker(tmp_path / "streams")["facts"]["texts"] == 40
    assert_same(write(tmp_path / "streams"))


@pytest.mark.parametrize("engine", engine_cases("retriv", "bm25s", "blocks", "tantivy"))
def test_every_engine_reads_them(tmp_path, engine):
    index, queries = Indexer(engine, tmp_path), [["w1", "w2"], ["fox"], []]
    mapped, whole = index.streams(write(tmp_path / "streams")), index.streams(EXPECTED)
    for (rows, scores), (own_rows, own_scores) in zip(
        mapped.search(queries, 9), whole.search(queries, 9), strict=True
    ):
        assert np.array_equal(rows, own_rows)
        assert np.array_equal(scores, own_scores)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_usable_texts_of_a_corpus(tmp_path, num_proc):
    corpus = Dataset.from_dict(
        {"text": [text for pair in zip(TEXTS, [None] * len(TEXTS), strict=True) for text in pair]}
    )
    rows = find_usable_rows(corpus, CorpusArguments()).rows
    streams = write_streams(
        ANALYZER, UsableTexts(corpus, "text", rows), len(rows), tmp_path / "streams", SETTINGS, num_proc=num_proc
    )
    assert list(streams.texts()) == [ANALYZER.tokens(corpus["text"][row]) for row in rows.tolist()]
