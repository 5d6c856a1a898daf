"""A disk that is full at any moment of a corpus job is one line that says so, and the next try goes on."""

import shutil
import subprocess
from itertools import count

import pytest
from datasets import load_dataset

from hf_distill.cli import main

TASK = {"train": ["a fine film", "a dull film", "the plot of a river"], "validation": ["the plot is thin"]}
GENERAL = [f"Film {row} has a fine plot and river {row % 7}." for row in range(60)]
# A file takes whole pages of four kilobytes, an empty folder none.
PAGES = 5


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own, and a function that gives the disk so many pages."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(pages, *options):
        given = ["-o", ",".join([*options, f"size={4 * pages}k"])]
        return subprocess.run(["mount", "-t", "tmpfs", *given, "tmpfs", folder], capture_output=True, check=False)

    if shutil.which("mount") is None or mount(PAGES).returncode:
        pytest.skip("no small disk can be mounted here")
    yield folder, lambda pages: mount(pages, "remount").check_returncode()
    subprocess.run(["umount", "-l", folder], check=True)


SHARDS = [f"--num_shards 2 {which}" for which in ("--shard 0", "--shard 1", "--shard 0", "--merge")]


@pytest.mark.parametrize("jobs", [["--engine blocks"], SHARDS], ids=["one index", "shards"])
def test_a_corpus_job_on_a_full_disk_says_so_and_goes_on_when_there_is_room(data, small_disk, capsys, jobs):
    folder, resize = small_disk
    task = f"corpus --task glue/sst2 --data_dir {data / 'sst2'} --corpus {data / 'general.txt'} --top_k 3".split()
    said = []
    for pages in count(PAGES, PAGES):
        resize(pages)
        ends = (main([*task, *job.split(), "--corpus_dir", str(folder / "out")]) for job in jobs)
        status = next(filter(None, ends), 0)
        if not status:
            break
        said.append(capsys.readouterr().err.splitlines()[-1])
        assert status == 2
    assert len(said) > 1
    for line in said:
        assert line.startswith("hf-distill corpus: [Errno 28] The disk is full: ")
        assert "Make room and start again" in line
        assert str(folder / "out") in line
    assert main([*task, "--engine", "blocks", "--corpus_dir", str(data / "whole")]) == 0
    found, expected = (load_dataset(str(place), split="train").to_list() for place in (folder / "out", data / "whole"))
    assert found == expected
