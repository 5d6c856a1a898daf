"""What can go wrong with shards ends in the right corpus or in an error with a way out, never in a wrong corpus."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from builder_cases import build, rows_of
from shard_cases import build_sharded, prepare_all, search_all, search_of, shards_of

from hf_distill.corpus.shards.merging import merge_shards
from hf_distill.storage.steps import DamagedStepError, Step

TESTS = Path(__file__).parent

# Where a process is killed: in the middle of each step of both passes and of the merge.
STEPS = [
    "corpus.shards.first_pass:write_streams",
    "corpus.shards.first_pass:CorpusStatistics.save",
    "corpus.shards.first_pass:Shards._merge_statistics",
    "corpus.shards.second_pass:make_queries",
    "corpus.shards.second_pass:save_index",
    "corpus.build.anchors:SearchHits.__call__",
    "storage.steps:finish",
    "corpus.shards.merging:merge_shard_hits",
    "corpus.build.builder:choose_rows",
    "corpus.build.builder:describe_rows",
]


def run_until_killed(work_dir, steps):
    """Starts the build again and again, each time with one of the steps deadly.

    Returns how each start ended, and how many unfinished folders there were then.
    """
    script = textwrap.dedent(
        """
        import importlib, os, pathlib, signal, sys
        from shard_cases import build_sharded
        work_dir, steps = sys.argv[1], sys.argv[2:]
        for step in steps:
            child = os.fork()
            if not child:
                module, _, path = step.partition(":")
                *owners, name = path.split(".")
                target = importlib.import_module(f"hf_distill.{module}")
                for owner in owners:
                    target = getattr(target, owner)
                def die(*words, real=getattr(target, name), **named):
                    done = real(*words, **named)
                    os.kill(os.getpid(), signal.SIGKILL)
                setattr(target, name, die)
                build_sharded(work_dir, 3)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            print(status, len(list(pathlib.Path(work_dir).rglob(".partial-*"))), flush=True)
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(work_dir), *steps],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parents[1])])},
        check=True,
    )
    return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]


def test_a_build_that_is_killed_in_every_step_ends_in_the_same_corpus(tmp_path):
    ends = run_until_killed(tmp_path / "shards", STEPS)
    assert [status for status, _ in ends] == [signal.SIGKILL] * len(STEPS)
    # What a killed process left behind is removed by the next.
    assert [left for _, left in ends][:2] == [1, 1]
    assert rows_of(build_sharded(tmp_path / "shards", 3)) == rows_of(build(tmp_path / "whole"))
    assert not list((tmp_path / "shards").rglob(".partial-*"))


@pytest.mark.parametrize(
    "failing", ["first_pass.write_streams", "second_pass.save_index", "second_pass.search_queries"]
)
def test_a_full_disk_is_an_error_that_names_the_shard_and_the_next_try_goes_on(tmp_path, monkeypatch, failing):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(f"hf_distill.corpus.shards.{failing}", full)
        with pytest.raises(
            OSError, match=r"disk is full: Shard 0 of 3 \(.*Make room and start again.*--work_dir"
        ) as caught:
            build_sharded(tmp_path / "shards", 3)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.rglob(".partial-*"))
    assert rows_of(build_sharded(tmp_path / "shards", 3)) == rows_of(build(tmp_path / "whole"))


def damage(path):
    """Changes one byte in the middle: the size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def one(folder, pattern):
    (path,) = folder.rglob(pattern)
    return path


@pytest.mark.parametrize("file", ["rows.npy", "terms/ids.bin", "terms/vocabulary.txt", "statistics.npz"])
def test_a_damaged_file_of_the_first_pass_is_found_and_made_anew(tmp_path, file):
    prepare_all(tmp_path / "shards", 3)
    damage(one(tmp_path / "shards", f"prepared-00001-of-00003/{file}"))
    message = r"^Shard 1 of 3 .*is not what was written. Run it again.*`--shard 1 "
    with pytest.raises(DamagedStepError, match=message) as caught:
        merge_shards(search_all(tmp_path / "shards", 3, first_pass=False))
    assert file in str(caught.value)
    shards_of(tmp_path / "shards", 3).prepare(1)
    assert rows_of(build_sharded(tmp_path / "shards", 3)) == rows_of(build(tmp_path / "whole"))


def test_damaged_hits_are_found_by_the_merge_and_made_anew_by_their_shard(tmp_path, caplog):
    search_all(tmp_path / "shards", 3)
    damage(one(tmp_path / "shards", "hits-00002-of-00003/**/hits.arrow"))
    with pytest.raises(
        DamagedStepError, match=r"^Shard 2 of 3 .*hits\.arrow' is damaged: its content is not .*`--shard 2 "
    ):
        merge_shards(search_of(tmp_path / "shards", 3))
    with caplog.at_level("WARNING", logger="hf_distill.storage.steps"):
        search_of(tmp_path / "shards", 3).run(2)
    assert "It is made again." in caplog.text
    assert rows_of(merge_shards(search_of(tmp_path / "shards", 3))) == rows_of(build(tmp_path / "whole"))


@pytest.mark.parametrize("pattern", ["shards-*/statistics/statistics.npz", "bm25s-*-00001-of-*/**/data.csc.index.npy"])
def test_damaged_statistics_and_indexes_are_made_anew(tmp_path, pattern):
    search_all(tmp_path / "shards", 3)
    damage(one(tmp_path / "shards", pattern))
    for marker in tmp_path.rglob("hits-*/_finished.json"):
        marker.unlink()
    assert rows_of(build_sharded(tmp_path / "shards", 3)) == rows_of(build(tmp_path / "whole"))


def test_a_missing_file_is_found_too(tmp_path):
    search_all(tmp_path, 3)
    one(tmp_path, "hits-00000-of-00003/**/hits.arrow").unlink()
    with pytest.raises(DamagedStepError, match=r"^Shard 0 of 3"):
        merge_shards(search_of(tmp_path, 3))


def test_hits_that_were_found_by_other_text_are_not_merged(tmp_path):
    """A shard that was made anew with other rows is another one: what others found by it does not count."""
    search = search_all(tmp_path, 3)
    part = search.hits(1)
    other = Step(part.folder, {**part.settings, "corpus": "another"}, part.what, part.way_out)
    assert other.facts() is None
    assert part.facts() is not None
