"""A general corpus in shards compared with a single index: seconds, bytes, memory, and whether the rows agree.

    python benchmarks/corpus_shards.py --corpus general.parquet --task glue/sst2 --data_dir glue --rows 200000 \
        --num_shards 1 4 --k 10 --output benchmarks/results/corpus_shards.jsonl

Every job - the first and the second pass over each shard, the merge, the build with a single index - runs in a
separate process with one thread, as on a cluster, one after the other. CPU-seconds are user and system time including
children, after a warm-up for imports and compilation; memory is the peak of the largest job, listed beside that of the
warm-up. One JSON line per number of shards is printed and appended to the output.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xxhash
from corpus_build import (
    corpus_parser,
    cpu_seconds,
    describe_machine,
    from_own_process,
    memory_mb,
    read_anchors,
    read_corpus,
)
from datasets import Dataset, disable_progress_bars
from record import head_commit, report, script_command

from hf_distill.corpus.build.anchors import collect_anchors
from hf_distill.corpus.build.builder import CorpusResult, build_contextualized_corpus
from hf_distill.corpus.build.loading import corpus_label
from hf_distill.corpus.shards.first_pass import Shards
from hf_distill.corpus.shards.merging import merge_shards
from hf_distill.corpus.shards.second_pass import ShardSearch
from hf_distill.settings import CorpusArguments

Job = Callable[[], CorpusResult | None]


def jobs_of(
    corpus: Dataset, anchors: list[str], settings: CorpusArguments, num_shards: int | None, folder: Path
) -> dict[str, list[Job]]:
    """The jobs of a build by their step, in order; without shards there is one."""
    if num_shards is None:
        return {"build": [lambda: build_contextualized_corpus(anchors, corpus, settings, work_dir=folder)]}
    found = collect_anchors(anchors)

    def shards() -> Shards:
        return Shards(settings, corpus, num_shards, work_dir=folder)

    def prepare(shard: int) -> None:
        shards().prepare(shard, num_proc=1)

    def search(shard: int) -> None:
        ShardSearch(shards(), found).run(shard, num_threads=1)

    return {
        "prepare": [lambda shard=shard: prepare(shard) for shard in range(num_shards)],
        "search": [lambda shard=shard: search(shard) for shard in range(num_shards)],
        "merge": [lambda: merge_shards(ShardSearch(shards(), found))],
    }


def measure(
    options: argparse.Namespace, num_shards: int | None, step: str, place: int, folder: str, send: Any
) -> None:
    """Do one job in this process and send its figures."""
    disable_progress_bars()
    corpus, anchors, settings = read(options)
    few = corpus.select(range(2000))
    with tempfile.TemporaryDirectory() as warm:
        for jobs in jobs_of(few, anchors[:20], settings, num_shards, Path(warm)).values():
            for job in jobs:
                job()
    before, start, clock = memory_mb(peak=True), cpu_seconds(), time.perf_counter()
    result = jobs_of(corpus, anchors, settings, num_shards, Path(folder))[step][place]()
    figures: dict[str, Any] = {
        "cpu_seconds": cpu_seconds() - start,
        "seconds": time.perf_counter() - clock,
        "peak_mb": memory_mb(peak=True),
        "warm_mb": before,
    }
    if result is not None:
        text = json.dumps(result.dataset.to_list()).encode()
        figures |= {"statistics": result.statistics, "rows_checksum": xxhash.xxh3_64_hexdigest(text)}
    send.send(figures)


def read(options: argparse.Namespace) -> tuple[Dataset, list[str], CorpusArguments]:
    """General corpus, anchors and settings of all builds."""
    anchors, _ = read_anchors(options)
    return read_corpus(options), anchors, CorpusArguments(engine=options.engine, top_k=options.k, num_proc=1)


def run(options: argparse.Namespace, num_shards: int | None) -> dict[str, Any]:
    """All jobs of one build."""
    figures: dict[str, Any] = {"num_shards": num_shards or "one index"}
    # The fork server has imported everything, but has not run anything.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "numba"])
    with tempfile.TemporaryDirectory() as folder:
        for step, count in (
            [("build", 1)] if num_shards is None else [("prepare", num_shards), ("search", num_shards), ("merge", 1)]
        ):
            done = [
                from_own_process(context, measure, options, num_shards, step, place, folder) for place in range(count)
            ]
            figures[step] = {
                "cpu_seconds": round(sum(job["cpu_seconds"] for job in done), 2),
                "seconds": round(sum(job["seconds"] for job in done), 2),
                "largest_peak_mb": round(max(job["peak_mb"] for job in done), 1),
                "warm_mb": round(max(job["warm_mb"] for job in done), 1),
            }
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        figures["bytes"] = {"all": sum(file.stat().st_size for file in files)} | {
            name: sum(file.stat().st_size for file in files if any(part.startswith(start) for part in file.parts))
            for name, start in (("prepared", "prepared-"), ("indexes", f"{options.engine}-"), ("hits", "hits"))
        }
    statistics = done[0]["statistics"]
    figures["cpu_seconds"] = round(sum(figures[step]["cpu_seconds"] for step in figures if step in STEPS), 2)
    figures["step_seconds"] = statistics["seconds"]
    figures["rows"] = statistics["rows"]
    figures["usable_rows"] = statistics["general_corpus"]["kept"]
    figures["text_bytes"] = statistics["general_corpus"]["bytes"]
    figures["anchors"] = statistics["anchors"]["anchors"]
    figures["hits"] = statistics["hits"]
    return {**figures, "rows_checksum": done[0]["rows_checksum"]}


STEPS = ("build", "prepare", "search", "merge")


def main() -> None:
    """Measure one index, then every number of shards."""
    parser = corpus_parser(__doc__)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--engine", default="bm25s")
    parser.add_argument("--num_shards", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    facts = {
        "benchmark": "corpus_shards",
        "command": script_command("corpus_shards", list(map(corpus_label, sys.argv[1:]))),
        "engine": options.engine,
        "k": options.k,
        "corpus": corpus_label(options.corpus),
        "task": options.task,
        "seed": options.seed,
        "commit": head_commit(),
        "versions": {name: version(name) for name in ("numpy", "numba", options.engine, "datasets") if has(name)},
    }
    results: list[dict[str, Any]] = []
    for num_shards in (None, *options.num_shards):
        machine = describe_machine()
        results.append({**run(options, num_shards), **facts, "machine": machine})
        results[-1]["same_rows_as_one_index"] = results[-1]["rows_checksum"] == results[0]["rows_checksum"]
        report(results[-1], options.output, indent=None)


def has(package: str) -> bool:
    """Whether a package is installed: an engine may be this package's own."""
    try:
        return bool(version(package))
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
