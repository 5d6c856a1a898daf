"""Sentences indexed and queries answered per CPU-second, and peak memory, for every BM25 engine on the same text.

    python benchmarks/corpus_build.py --corpus general.parquet --task glue/sst2 --data_dir glue --rows 200000 \
        --num_anchors 2000 --output benchmarks/results/corpus_build.jsonl

In addition to the engines of the package (`retriv`, `bm25s`, `blocks`, `tantivy`), the bare libraries run on the same
text: `retriv_library`, `bm25s_library` and `tantivy_library` index and search only with the libraries' own functions.
Every engine runs in a separate process; CPU-seconds are user and system time including children, after a warm-up for
compilation. Peak memory includes mapped files, as reported by the system. One JSON line per engine, without local
paths, is printed and appended to the output. `engines.py` measures the same on synthetic text of any size.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datasets import Dataset, disable_progress_bars
from record import head_commit, report, script_command, script_parser

from hf_distill.corpus.build.anchors import collect_anchors, make_query, task_texts
from hf_distill.corpus.build.loading import corpus_label, load_general_corpus
from hf_distill.corpus.text.analysis import Analyzer
from hf_distill.corpus.text.rows import UsableTexts, find_usable_rows
from hf_distill.settings.corpus import CorpusArguments

Search = Callable[[Sequence[Sequence[str]], int], Any]
Index = Callable[[UsableTexts, Path, Analyzer], Search]


def cpu_seconds() -> float:
    """User and system time of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def memory_mb(peak: bool) -> float:
    """Resident memory of this process, now or at its peak."""
    field = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this system does not tell {field}")


def package_engine(name: str) -> Index:
    """Indexing by an engine of hf_distill, from text, as a build does it."""

    def index(texts: UsableTexts, folder: Path, analyzer: Analyzer) -> Search:
        from hf_distill.corpus.search.retrieval import save_index
        from hf_distill.corpus.search.streams import write_streams

        terms = folder.with_name(f"{folder.name}-terms")
        streams = write_streams(analyzer, texts, len(texts.rows), terms, {}, num_proc=1)
        engine = save_index(streams, folder, {"engine": name, "k1": 1.2, "b": 0.75}).open()
        return lambda queries, k: engine.search(queries, k, num_threads=1)

    return index


def bm25s_library(texts: UsableTexts, folder: Path, analyzer: Analyzer) -> Search:
    """Indexing by bm25s alone: its tokenizer with the same stemmer and stop words, its loops, its numba backend."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english") if analyzer.settings()["stemmed"] else None
    tokens = bm25s.tokenize(
        list(every(texts)), stopwords=sorted(analyzer.stop_words), stemmer=stemmer, show_progress=False
    )
    model = bm25s.BM25(method="atire", idf_method="lucene", k1=1.2, b=0.75, backend="numba")
    model.index(tokens, show_progress=False)
    model.save(folder, show_progress=False)
    return lambda queries, k: model.retrieve([list(q) for q in queries if q], k=k, show_progress=False, n_threads=1)


def retriv_library(texts: UsableTexts, folder: Path, analyzer: Analyzer) -> Search:
    """Indexing by retriv alone, given the terms of the analysis between blanks; one search after the other."""
    from hf_distill.corpus.search.engines import retriv

    steps = (
        "lowercasing ampersand_normalization special_chars_normalization acronyms_normalization punctuation_removal"
    )
    retriever = retriv.sparse_retriever_module().SparseRetriever(
        tokenizer="whitespace", stemmer=None, stopwords=None, **{f"do_{step}": False for step in steps.split()}
    )
    folder.mkdir(parents=True, exist_ok=True)
    with retriv.base_path(folder):
        collection = ({"id": str(row), "text": " ".join(analyzer.tokens(t))} for row, t in enumerate(every(texts)))
        retriever.index(collection, show_progress=False)
    return lambda queries, k: [retriever.search(" ".join(q), return_docs=False, cutoff=k) for q in queries if q]


def tantivy_library(texts: UsableTexts, folder: Path, analyzer: Analyzer) -> Search:
    """Indexing by tantivy alone: its tokenizer with the same stop words and stemmer, its scores, one thread."""
    import tantivy

    filters = [tantivy.Filter.lowercase(), tantivy.Filter.custom_stopword(sorted(analyzer.stop_words))]
    if analyzer.settings()["stemmed"]:
        filters.append(tantivy.Filter.stemmer("english"))
    tokenizer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for step in filters:
        tokenizer = tokenizer.filter(step)
    fields = tantivy.SchemaBuilder()
    fields.add_text_field("text", tokenizer_name="words", index_option="freq")
    fields.add_integer_field("row", fast=True)
    schema = fields.build()
    folder.mkdir(parents=True, exist_ok=True)
    index = tantivy.Index(schema, path=str(folder))
    index.register_tokenizer("words", tokenizer.build())
    writer = index.writer(heap_size=128_000_000, num_threads=1)
    for row, text in enumerate(every(texts)):
        document = tantivy.Document()
        document.add_integer("row", row)
        document.add_text("text", text)
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def search(query: Sequence[str], k: int) -> tuple[Any, Any]:
        clauses = [
            (tantivy.Occur.Should, tantivy.Query.term_query(schema, "text", term, index_option="freq"))
            for term in query
        ]
        hits = searcher.search(tantivy.Query.boolean_query(clauses), limit=k, count=False).hits
        return searcher.fast_field_values("row", [place for _, place in hits]), [score for score, _ in hits]

    return lambda queries, k: [search(query, k) for query in queries if query]


def every(texts: UsableTexts) -> Iterator[str]:
    """The texts one by one."""
    return (text for batch in texts(0, len(texts.rows)) for text in batch)


ENGINES: dict[str, Index] = {
    "retriv": package_engine("retriv"),
    "bm25s": package_engine("bm25s"),
    "blocks": package_engine("blocks"),
    "tantivy": package_engine("tantivy"),
    "retriv_library": retriv_library,
    "bm25s_library": bm25s_library,
    "tantivy_library": tantivy_library,
}


def measure(
    name: str,
    texts: UsableTexts,
    analyzer: Analyzer,
    queries: Sequence[Sequence[str]],
    ks: list[int],
    channel: Any,
) -> None:
    """Measure one engine in this process and send the figures."""
    num_texts = len(texts.rows)
    disable_progress_bars()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        warm = ENGINES[name](replace(texts, rows=texts.rows[:2000]), folder / "warm", analyzer)
        for k in ks:
            warm(queries[:20], min(k, 500))
        before = memory_mb(peak=False)
        start, clock = cpu_seconds(), time.perf_counter()
        search = ENGINES[name](texts, folder / "index", analyzer)
        spent, waited = cpu_seconds() - start, time.perf_counter() - clock
        figures: dict[str, Any] = {
            "index_cpu_seconds": round(spent, 2),
            "index_wall_seconds": round(waited, 2),
            "sentences_per_cpu_second": round(num_texts / spent),
            "index_bytes_per_sentence": round(
                sum(file.stat().st_size for file in (folder / "index").rglob("*") if file.is_file()) / num_texts, 1
            ),
            "index_peak_mb_above_text": round(memory_mb(peak=True) - before, 1),
        }
        search(queries[:20], ks[0])
        for k in ks:
            start = cpu_seconds()
            search(queries, k)
            figures[f"queries_per_cpu_second_k{k}"] = round(len(queries) / (cpu_seconds() - start))
        figures["peak_mb"] = round(memory_mb(peak=True), 1)
    channel.send(figures)


def measure_all(
    engines: Sequence[str],
    texts: UsableTexts,
    analyzer: Analyzer,
    queries: Sequence[Sequence[str]],
    ks: list[int],
    facts: dict[str, Any],
    output: str | None,
) -> None:
    """Measure every engine in a separate process; print and write a line for each.

    Args:
        engines: Names in `ENGINES`.
        texts: What to index.
        analyzer: From text to terms.
        queries: Terms of every query.
        ks: Hits per query.
        facts: Facts for every line: command, seed, data, commit, versions.
        output: File of JSON lines to append to.
    """
    context = multiprocessing.get_context("spawn")
    for engine in engines:
        machine = describe_machine()
        figures = from_own_process(context, measure, engine, texts, analyzer, queries, ks)
        report({"engine": engine, **figures, **facts, "machine": machine}, output, indent=None)


def from_own_process(context: Any, measure: Callable[..., None], *given: Any) -> dict[str, Any]:
    """Run a function in a separate process and return the figures that it sends."""
    receive, send = context.Pipe(duplex=False)
    worker = context.Process(target=measure, args=(*given, send))
    worker.start()
    send.close()
    try:
        return receive.recv()
    except EOFError as error:
        raise RuntimeError(f"{[x for x in given if isinstance(x, str)]} failed; the message is above") from error
    finally:
        worker.join()


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, load."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


def read_corpus(options: argparse.Namespace) -> Dataset:
    """The first rows of the general corpus."""
    corpus = load_general_corpus(options.corpus)
    return corpus.select(range(min(options.rows, len(corpus))))


def read_anchors(options: argparse.Namespace) -> tuple[list[str], str]:
    """The anchors drawn, and the name of their data."""
    if options.anchors is not None:
        rows = load_general_corpus(options.anchors)
        columns: Sequence[str] = [options.anchor_column]
        name = corpus_label(options.anchors)
    else:
        from hf_distill.tasks.loading import load_task

        loaded = load_task(options.task, options.data_dir)
        rows, columns, name = loaded.train, loaded.spec.text_columns, loaded.spec.name
    texts = collect_anchors(task_texts(rows, columns)).texts
    drawn = np.random.default_rng(options.seed).permutation(len(texts))[: options.num_anchors]
    return [texts[index] for index in sorted(drawn)], name


def corpus_parser(text: str | None) -> argparse.ArgumentParser:
    """The options of both scripts that build from a general corpus."""
    parser = script_parser(text)
    parser.add_argument("--corpus", required=True, help="general corpus: file, folder or Hub id")
    parser.add_argument("--rows", type=int, default=200_000, help="take the first rows of the corpus")
    anchors = parser.add_mutually_exclusive_group(required=True)
    anchors.add_argument("--anchors", help="file or folder with anchors")
    anchors.add_argument("--task", help="task whose training texts are the anchors")
    parser.add_argument("--data_dir", help="local files of the task")
    parser.add_argument("--anchor_column", default="text")
    parser.add_argument("--num_anchors", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="draws the anchors")
    return parser


def add_engines(parser: argparse.ArgumentParser) -> None:
    """The options of both scripts that compare engines."""
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))


def versions() -> dict[str, str]:
    """Of Python and of what is measured."""
    names = ("numpy", "numba", "bm25s", "retriv", "tantivy", "datasets", "pyarrow", "PyStemmer")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def main() -> None:
    """Measure every engine on the same text."""
    parser = corpus_parser(__doc__)
    parser.add_argument("--text_column", default="text")
    add_engines(parser)
    options = parser.parse_args()
    corpus = read_corpus(options)
    usable = find_usable_rows(corpus, CorpusArguments(text_column=options.text_column, max_chars=sys.maxsize))
    anchors, anchors_name = read_anchors(options)
    analyzer = Analyzer()
    queries = [analyzer.tokens(make_query(anchor, "rake", analyzer.stop_words)) for anchor in anchors]
    facts = {
        "benchmark": "corpus_build",
        "command": script_command("corpus_build", list(map(corpus_label, sys.argv[1:]))),
        "seed": options.seed,
        "data": {
            "corpus": corpus_label(options.corpus),
            "rows": len(usable.rows),
            "checksum": usable.checksum,
            "anchors": anchors_name,
            "num_anchors": len(anchors),
            "anchors_checksum": xxhash.xxh3_64_hexdigest("\n".join(anchors).encode()),
        },
        "commit": head_commit(),
        "versions": versions(),
    }
    texts = UsableTexts(corpus, options.text_column, usable.rows)
    measure_all(options.engines, texts, analyzer, queries, options.k, facts, options.output)


if __name__ == "__main__":
    main()
