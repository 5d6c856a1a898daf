"""The engine of our own: the bits of bm25s, builds that go on after a kill, and nothing half-written counts."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from engine_cases import PLAIN, QUERIES, Indexer, full_disk, random_texts

from hf_distill.corpus.search.engines import _blocks_kernel, blocks
from hf_distill.corpus.search.retrieval import IndexHandle, find_index, save_index
from hf_distill.corpus.search.scoring import CorpusStatistics
from hf_distill.corpus.text.analysis import TokenStreams

TEXTS = [*random_texts(seed=21, count=200, longest=60), "", *random_texts(seed=22, count=99)]
STREAMS = PLAIN.encode([TEXTS])
SETTINGS = {"engine": "blocks", "k1": 1.2, "b": 0.75}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_ROWS", 64)


def assert_same_bits(got, expected):
    assert np.array_equal(got.offsets, expected.offsets)
    assert np.array_equal(got.rows, expected.rows)
    assert np.array_equal(got.scores, expected.scores)


@pytest.fixture
def expected(tmp_path):
    return Indexer("bm25s", tmp_path)(TEXTS).search(QUERIES, 9)


@pytest.mark.parametrize("block_rows", [1, 7, 64, 300])
@pytest.mark.parametrize("window", [5, 64])
def test_blocks_and_windows_of_any_size_give_the_same_bits(tmp_path, monkeypatch, expected, block_rows, window):
    monkeypatch.setattr(blocks, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(_blocks_kernel, "WINDOW", window)
    assert_same_bits(Indexer("blocks", tmp_path)(TEXTS).search(QUERIES, 9), expected)


def test_a_block_ends_early_where_rows_are_long(tmp_path, monkeypatch, expected):
    monkeypatch.setattr(blocks, "_BLOCK_TOKENS", 100)
    engine = Indexer("blocks", tmp_path)(TEXTS)
    assert len(engine._blocks) > 30
    assert_same_bits(engine.search(QUERIES, 9), expected)


def test_more_pairs_of_occurrences_and_lengths_than_32_bits_hold(tmp_path):
    # 300 lengths times 300 numbers of occurrences, beside 16 bits for the rows.
    texts = [*(" ".join(["fox"] * n) for n in range(1, 301)), *["dog cat"] * 40_000]
    engine = Indexer("blocks", tmp_path)(texts)
    assert engine._blocks[0][0].wide
    queries = [["fox"], ["dog", "fox"], ["cat"]]
    assert_same_bits(engine.search(queries, 500), Indexer("bm25s", tmp_path)(texts).search(queries, 500))


def test_more_hits_than_are_kept_at_a_time(tmp_path):
    # The best rows come last: every one of them pushes another out.
    texts = [" ".join(["fox", *["dog"] * (6000 - row)]) for row in range(0, 6000, 2)]
    engine = Indexer("blocks", tmp_path)(texts)
    for k in (1, 10, 400):
        assert next(iter(engine.search([["fox"]], k)))[0].tolist() == list(range(2999, 2999 - k, -1))


def test_statistics_come_in_at_search_and_nothing_is_built_again(tmp_path):
    index = Indexer("blocks", tmp_path)
    shard, rest = PLAIN.encode([TEXTS[:100]]), PLAIN.encode([TEXTS[100:]])
    statistics = CorpusStatistics.merged([CorpusStatistics.of(shard), CorpusStatistics.of(rest)])
    engine = index.streams(shard)
    before = engine.search(QUERIES, 9)
    assert_same_bits(
        engine.with_statistics(statistics).search(QUERIES, 9),
        index.streams(shard, statistics=statistics).search(QUERIES, 9),
    )
    assert_same_bits(engine.search(QUERIES, 9), before)
    with pytest.raises(ValueError, match=r"lack .* terms that the index has: merge those of all shards"):
        engine.with_statistics(CorpusStatistics.of(PLAIN.encode([["w1"]])))


def test_streams_in_read_only_memory_are_indexed_as_they_are(tmp_path, expected):
    np.save(tmp_path / "ids.npy", STREAMS.ids)
    np.save(tmp_path / "offsets.npy", STREAMS.offsets)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("ids", "offsets")]
    streams = TokenStreams(*mapped, STREAMS.vocabulary)
    assert_same_bits(save_index(streams, tmp_path / "index", SETTINGS).open().search(QUERIES, 9), expected)


def bytes_of(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_corpus_engine_blocks import SETTINGS, STREAMS
from hf_distill.corpus.search.engines import blocks
from hf_distill.corpus.search.retrieval import save_index

blocks._BLOCK_ROWS = 64
real = blocks._write_block

def write_and_die(streams, start, stop, file, scratch):
    if file.name == "000003.bin":
        file.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return real(streams, start, stop, file, scratch)

blocks._write_block = write_and_die
save_index(STREAMS, sys.argv[1], SETTINGS)
"""


def test_a_killed_build_goes_on_after_the_last_finished_block_and_ends_in_the_same_bytes(
    tmp_path, monkeypatch, small_blocks
):
    script = tmp_path / "build.py"
    script.write_text(textwrap.dedent(SCRIPT.format(tests=os.path.dirname(__file__))))
    path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(ValueError, match=r"is not a complete index: .* was not finished"):
        IndexHandle(tmp_path / "killed")
    written, real = [], blocks._write_block
    monkeypatch.setattr(blocks, "_write_block", lambda *given: written.append(given[3].name) or real(*given))
    save_index(STREAMS, tmp_path / "killed", SETTINGS)
    assert written == ["000003.bin", "000004.bin"]
    save_index(STREAMS, tmp_path / "whole", SETTINGS)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


@pytest.fixture
def stopped(tmp_path, monkeypatch, small_blocks):
    """An unfinished build whose first two blocks are there."""
    real = blocks._write_block

    def stop(streams, start, end, file, *rest):
        if file.name == "000002.bin":
            raise KeyboardInterrupt
        return real(streams, start, end, file, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "_write_block", stop)
        with pytest.raises(KeyboardInterrupt):
            save_index(STREAMS, tmp_path / "index", SETTINGS)
    return tmp_path / "index"


@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda data: data[:8] + b"\xff" + data[9:], None])
def test_a_damaged_block_of_an_unfinished_build_is_written_again(tmp_path, stopped, damage, expected):
    block = stopped / "blocks" / "000001.bin"
    if damage is None:
        (stopped / "blocks" / "_finished.json").write_text("{")
    else:
        block.write_bytes(damage(block.read_bytes()))
    assert_same_bits(save_index(STREAMS, tmp_path / "index", SETTINGS).open().search(QUERIES, 9), expected)


@pytest.mark.parametrize("other", [{**SETTINGS, "b": 0.5}, None])
def test_what_another_build_left_is_not_gone_on_with(tmp_path, stopped, other):
    before = (stopped / "blocks" / "000000.bin").stat().st_mtime_ns
    streams = PLAIN.encode([TEXTS[:90]]) if other is None else STREAMS
    handle = save_index(streams, tmp_path / "index", other or SETTINGS)
    assert (tmp_path / "index" / "blocks" / "000000.bin").stat().st_mtime_ns > before
    assert handle.num_rows == streams.num_texts


def test_a_full_disk_is_an_error_that_says_what_to_do_and_the_build_goes_on_later(tmp_path, stopped, expected):
    said = r"disk is full: an index .*name a folder .*--index_dir"
    with full_disk("000002.bin"), pytest.raises(OSError, match=said) as caught:
        save_index(STREAMS, tmp_path / "index", SETTINGS)
    assert caught.value.errno == 28
    assert not (stopped / "blocks" / "000002.bin").exists()
    assert find_index(tmp_path / "index", SETTINGS) is None
    assert_same_bits(save_index(STREAMS, tmp_path / "index", SETTINGS).open().search(QUERIES, 9), expected)


def test_a_truncated_or_missing_block_is_refused_when_the_index_is_opened(tmp_path, small_blocks):
    handle = save_index(STREAMS, tmp_path / "index", SETTINGS)
    block = tmp_path / "index" / "blocks" / "000001.bin"
    block.write_bytes(block.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"is not a complete index: .*000001.bin' is damaged or cut short"):
        IndexHandle(tmp_path / "index")
    with pytest.raises(ValueError, match=r"The index is damaged: .*000001.bin' is damaged or cut short"):
        handle.open()
    block.unlink()
    with pytest.raises(ValueError, match=r"is not a complete index: .*000001.bin' is missing"):
        IndexHandle(tmp_path / "index")


def test_a_changed_byte_is_found_when_the_content_is_verified(tmp_path, small_blocks):
    handle = save_index(STREAMS, tmp_path / "index", SETTINGS)
    handle.verify()
    block = tmp_path / "index" / "blocks" / "000001.bin"
    data = bytearray(block.read_bytes())
    data[5] ^= 1
    block.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"000001.bin' is damaged: its content is not what was written"):
        handle.verify()


def test_a_damaged_note_of_a_block_is_refused(tmp_path, small_blocks):
    handle = save_index(STREAMS, tmp_path / "index", SETTINGS)
    marker = tmp_path / "index" / "blocks" / "_finished.json"
    marker.write_text(json.dumps({"files": {"000000.bin": {"rows": 3, "bytes": 1, "checksum": ""}}}))
    with pytest.raises(ValueError, match=r"The index in .*blocks' is damaged .*build it again"):
        handle.open()


def test_arrays_are_memory_maps_and_a_build_keeps_no_whole_corpus(tmp_path, small_blocks):
    engine = save_index(STREAMS, tmp_path / "index", SETTINGS).open()
    for _, arrays in engine._blocks:
        assert isinstance(arrays.postings.base.base, np.memmap) or isinstance(arrays.postings.base, np.memmap)
