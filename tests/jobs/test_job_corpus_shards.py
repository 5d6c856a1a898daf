"""The corpus job in shards: one at a time by hand, all by processes or by Ray, and whatever can go wrong."""

import json

import pytest
from corpus_job_cases import arguments
from datasets import load_dataset

from hf_distill.cli import main
from hf_distill.commands.corpus import run as build_corpus, summary
from hf_distill.settings import ShardArguments

TASK = {"train": ["a fine film", "a dull film", "the plot of a river"], "validation": ["the plot is thin"]}
GENERAL = [
    *("The film was fine.", "The plot is thin!", "A dull plot of a film.", "Rivers run.", "Plot and film."),
    *("A river and a film.", "Nothing of it.", "Fine plots are dull.", "the film was fine", "A fine river."),
]


def rows_in(folder):
    return load_dataset(str(folder), split="train").to_list()


def test_shard_by_shard_then_merged_it_is_the_corpus_of_one_index(data):
    whole = build_corpus(*arguments(data, corpus_dir=str(data / "whole")))
    for shard, left in ((2, [0, 1]), (0, [1])):
        results = build_corpus(*arguments(data), ShardArguments(num_shards=3, shard=shard))
        assert (results["shard"], results["hits"], results["unprepared"]) == (shard, None, left)
        assert "Run the same command again" in summary(results)
    results = build_corpus(*arguments(data), ShardArguments(num_shards=3, shard=1))
    assert results["hits"] > 0
    assert summary(results).endswith("not searched yet: 0, 2.")
    for shard in (0, 2):
        results = build_corpus(*arguments(data), ShardArguments(num_shards=3, shard=shard))
    assert summary(results).startswith("shard 2 of 3 (counted from 0): 4 rows read, ")
    assert "all shards are searched. Now run it with `--merge`" in summary(results)
    merged = build_corpus(*arguments(data), ShardArguments(num_shards=3, merge=True))
    assert rows_in(data / "out") == rows_in(data / "whole")
    assert merged["rows"] == whole["rows"]
    assert merged["statistics"]["dropped"] == whole["statistics"]["dropped"]
    assert json.loads((data / "out" / "statistics.json").read_text())["num_shards"] == 3
    assert "--num_shards" not in (data / "out" / "README.md").read_text()


def test_all_shards_by_processes_of_this_machine_go_on_after_what_is_finished(data):
    build_corpus(*arguments(data, corpus_dir=str(data / "whole")))
    build_corpus(*arguments(data), ShardArguments(num_shards=2, shard=1))
    results = build_corpus(*arguments(data), ShardArguments(num_shards=2, shard_workers=2))
    assert results["statistics"]["num_shards"] == 2
    assert rows_in(data / "out") == rows_in(data / "whole")
    names = [path.name for path in (data / "out" / "work").rglob("*")]
    assert not [name for name in names if ".partial" in name]


def test_the_verb_does_one_shard_and_says_what_comes_next(data, capsys):
    words = [
        *("--task", "glue/sst2", "--data_dir", str(data / "sst2"), "--corpus", str(data / "general.txt")),
        *("--corpus_dir", str(data / "out"), "--engine", "bm25s", "--top_k", "3", "--num_shards", "2"),
    ]
    assert main(["corpus", *words, "--shard", "0"]) == 0
    assert "shard 0 of 2 (counted from 0): 5 rows read; the search needs" in capsys.readouterr().out
    assert main(["corpus", *words, "--shard", "1"]) == 0
    assert "not searched yet: 0." in capsys.readouterr().out
    assert main(["corpus", *words, "--merge"]) == 2
    assert "Shards [0] of 2 are not searched. Run it again with `--shard I --num_shards 2`" in capsys.readouterr().err
    assert main(["corpus", *words, "--shard", "0"]) == 0
    assert main(["corpus", *words, "--merge"]) == 0
    assert f"corpus in {data / 'out'}" in capsys.readouterr().out


def test_a_job_with_other_settings_is_refused(data):
    build_corpus(*arguments(data), ShardArguments(num_shards=3, shard=0))
    with pytest.raises(ValueError, match="max_words: None there, 4 now"):
        build_corpus(*arguments(data, max_words=4), ShardArguments(num_shards=3, shard=1))
    with pytest.raises(ValueError, match="num_shards: 3 there, 2 now"):
        build_corpus(*arguments(data), ShardArguments(num_shards=2, shard=1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_shards": 0}, "`--num_shards` is 0; it must be at least 1"),
        ({"num_shards": 4, "shard": 4}, "`--shard` is 4; of `--num_shards 4` it must be 0 to 3: .* counted from 0"),
        ({"num_shards": 4, "shard": -1}, "`--shard` is -1"),
        ({"shard": 1}, "need `--num_shards`"),
        ({"merge": True}, "need `--num_shards`"),
        ({"num_shards": 4, "shard": 1, "merge": True}, "give one of them"),
        ({"num_shards": 4, "runner": "slurm"}, r"`--runner` is 'slurm'; allowed are processes, ray"),
        ({"num_shards": 4, "shard_workers": 0}, "`--shard_workers` is 0"),
    ],
)
def test_flags_that_do_not_fit_are_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        ShardArguments(**fields)
