"""BM25 by retriv's SparseRetriever.

The fields of the retriever (postings, relative lengths) are given to it memory-mapped, instead of being made by its
`index`, which tokenizes again in a process pool, copies the corpus to JSON lines and pickles everything; a test shows
that they are the same. The search is retriv's own. What retriv leaves open is fixed here: the order of ties, ties at
the cutoff, results keyed by query id, and the parallel region that breaks forked workers.

Only the sparse half of retriv is imported. `pip install retriv` replaces torch and breaks numpy 2, and `import retriv`
loads torch, transformers, faiss, ranx and optuna, overwrites two environment variables and takes ten seconds. Its BM25
needs none of that: a package object without retriv's own `__init__` is enough. A program that uses the rest of retriv
must import it before this engine.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ....storage.files import write_text
from ...text.analysis import TokenStreams
from ..retrieval import Engine
from ..scoring import CorpusStatistics, Hits, available_cores, build_postings, relative_lengths, top_hits

# retriv stores term frequencies in 16 bits.
_MAX_COUNT = np.iinfo(np.int16).max
# Queries per call of retriv: limits the typed lists that are passed to its compiled code.
_BATCH = 1000


@contextmanager
def _numba_threads(count: int) -> Iterator[None]:
    """Set the number of numba's threads within this context.

    If numba runs on OpenMP, its number is that of the whole process; PyTorch's number, if it is imported, is restored.
    It is read first, because numba sets the number of the process as soon as it is asked for its own.
    """
    torch = sys.modules.get("torch")
    threads_of_torch = torch.get_num_threads() if torch is not None else None
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        numba.set_num_threads(before)
        if torch is not None:
            torch.set_num_threads(threads_of_torch)


class RetrivEngine(Engine):
    """Builds and searches a BM25 index with retriv."""

    name = "retriv"
    # Above this, retriv's cost per query, which grows with k times the postings, is several times that of bm25s.
    max_rows = 1_000_000

    def __init__(self, folder: Path) -> None:
        # Copy-on-write maps: retriv's compiled code is typed for writable arrays, but nothing writes to them.
        self._rows = _load(folder, "rows")
        self._counts = _load(folder, "counts")
        self._indptr = _load(folder, "indptr")
        self._relative_lengths = _load(folder, "relative_lengths")
        k1, b = np.load(folder / "parameters.npy")
        terms = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
        self._vocabulary = {term: index for index, term in enumerate(terms) if term}
        self.num_rows = len(self._relative_lengths)
        self._retriever = self._make_retriever(float(k1), float(b))

    @staticmethod
    def check() -> None:
        """Raise ImportError with the install command if retriv's sparse half cannot be imported."""
        sparse_retriever_module()

    @staticmethod
    def build(
        streams: TokenStreams, folder: Path, *, k1: float, b: float, statistics: CorpusStatistics | None = None
    ) -> None:
        """Index token streams into `folder`.

        Raises:
            ValueError: If a term occurs more often in a row than retriv can count, or statistics are given.
        """
        if statistics is not None:
            raise ValueError(
                "`--engine retriv` scores by the statistics of its own rows, so it cannot search a shard of a larger "
                "corpus. Engines that can: bm25s, blocks, tantivy."
            )
        postings = build_postings(streams)
        if len(postings.counts) and postings.counts.max() > _MAX_COUNT:
            raise ValueError(
                f"`--engine retriv` counts a word at most {_MAX_COUNT} times per row, but one occurs "
                f"{postings.counts.max()} times. Lower `--max_chars` or take `--engine bm25s`."
            )
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "rows.npy", postings.rows)
        np.save(folder / "counts.npy", postings.counts.astype(np.int16))
        np.save(folder / "indptr.npy", postings.indptr)
        lengths = relative_lengths(postings.lengths, postings.mean_length)
        np.save(folder / "relative_lengths.npy", lengths.astype(np.float32))
        np.save(folder / "parameters.npy", np.array([k1, b]))
        write_text(folder / "vocabulary.txt", "\n".join(streams.vocabulary))

    def search(self, queries: Sequence[Sequence[str]], k: int, *, num_threads: int | None = None) -> Hits:
        """Let retriv search, and sort its hits in the total order; see `Engine.search`."""
        threads = num_threads or available_cores()
        # A few more hits than requested: usually enough to see where a tie at the cutoff ends.
        cutoff = min(k + max(16, k // 8), max(1, self.num_rows))
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            with warnings.catch_warnings():
                # numba, while compiling retriv's kernel: a loop counter of type uint64 indexes a list. Numba colours
                # its messages if colorama is installed.
                warnings.filterwarnings("ignore", message=".*unsafe cast from uint64 to int64")
                results = self._search(batch, cutoff, threads)
            for query, result in zip(batch, results, strict=True):
                found.append(self._settle(query, result, k, cutoff))
        return Hits.from_lists([rows for rows, _ in found], [scores for _, scores in found])

    def _make_retriever(self, k1: float, b: float) -> Any:
        off = {
            f"do_{step}": False
            for step in (
                "lowercasing",
                "ampersand_normalization",
                "special_chars_normalization",
                "acronyms_normalization",
                "punctuation_removal",
            )
        }
        retriever = sparse_retriever_module().SparseRetriever(
            tokenizer="whitespace", stemmer=None, stopwords=None, hyperparams={"b": b, "k1": k1}, **off
        )
        retriever.inverted_index = _InvertedIndex(self._vocabulary, self._indptr, self._rows, self._counts)
        retriever.vocabulary = self._vocabulary
        retriever.relative_doc_lens = self._relative_lengths
        retriever.doc_count = self.num_rows
        retriever.id_mapping = range(self.num_rows)
        return retriever

    def _search(self, queries: Sequence[Sequence[str]], cutoff: int, threads: int) -> list[dict[int, float]]:
        """Search with retriv's `msearch`; ids are positions, because retriv merges queries with the same id.

        With one thread, queries are searched one by one: `msearch` would start other threads.
        """
        if threads == 1:
            return [self._retriever.search(" ".join(query), return_docs=False, cutoff=cutoff) for query in queries]
        with _numba_threads(threads):
            named = [{"id": str(index), "text": " ".join(query)} for index, query in enumerate(queries)]
            return list(self._retriever.msearch(named, cutoff=cutoff).values())

    def _settle(
        self, query: Sequence[str], result: dict[int, float], k: int, cutoff: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the first k hits in the total order, from the first `cutoff` hits in any order."""
        rows = np.fromiter(result.keys(), dtype=np.int64, count=len(result))
        scores = np.fromiter(result.values(), dtype=np.float32, count=len(result))
        cut_inside_tie = len(scores) == cutoff and cutoff < self.num_rows and scores.min() == np.sort(scores)[-k]
        if cut_inside_tie:
            rows, scores = self._all_scores(query)
        return top_hits(rows, scores, k)

    def _all_scores(self, query: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return every matching row with its score, computed as in retriv's kernel (float64 terms, float32 sums)."""
        b, k1 = np.float64(self._retriever.hyperparams["b"]), np.float64(self._retriever.hyperparams["k1"])
        sums = np.zeros(self.num_rows, dtype=np.float32)
        for term in query:
            index = self._vocabulary.get(term)
            if index is None:
                continue
            span = slice(int(self._indptr[index]), int(self._indptr[index + 1]))
            rows, counts = self._rows[span], self._counts[span].astype(np.float64)
            idf = np.float32(np.log(1.0 + (self.num_rows - len(rows) + 0.5) / (len(rows) + 0.5)))
            norms = k1 * (1.0 - b + b * self._relative_lengths[rows])
            sums[rows] += np.float64(idf) * (counts * (k1 + 1.0) / (counts + norms))
        rows = np.flatnonzero(sums)
        return rows, sums[rows]


class _InvertedIndex:
    """Behaves like retriv's dict of postings, but reads from the memory-mapped arrays."""

    def __init__(self, vocabulary: dict[str, int], indptr: np.ndarray, rows: np.ndarray, counts: np.ndarray) -> None:
        self._vocabulary, self._indptr, self._rows, self._counts = vocabulary, indptr, rows, counts

    def __contains__(self, term: object) -> bool:
        return term in self._vocabulary

    def __len__(self) -> int:
        return len(self._vocabulary)

    def __getitem__(self, term: str) -> dict[str, np.ndarray]:
        index = self._vocabulary[term]
        span = slice(int(self._indptr[index]), int(self._indptr[index + 1]))
        return {"doc_ids": self._rows[span], "tfs": self._counts[span]}


def _load(folder: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c"))


# --- the sparse half of retriv ---------------------------------------------------------------------------------------

INSTALL = "pip install 'hf_distill[retriv]' && pip install --no-deps retriv==0.2.3"


@lru_cache(maxsize=1)
def sparse_retriever_module() -> ModuleType:
    """Return the module `retriv.sparse_retriever.sparse_retriever`.

    Raises:
        ImportError: If retriv or a dependency of its sparse half is missing; the message says what to install.
    """
    spec = importlib.util.find_spec("retriv")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(
            f"`--engine retriv` needs the package `retriv`, which is not installed. Install it with: {INSTALL}"
        )
    if hasattr(sys.modules.get("retriv"), "SparseRetriever"):
        return importlib.import_module("retriv.sparse_retriever.sparse_retriever")
    for name in [name for name in sys.modules if name == "retriv" or name.startswith("retriv.")]:
        del sys.modules[name]  # left over from a failed `import retriv`
    package = ModuleType("retriv")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    # These stay in `sys.modules`: numba finds retriv's compiled functions by the names of their modules.
    sys.modules["retriv"] = package
    sys.modules["retriv.autotune"] = _stub("retriv.autotune", "tune_bm25", "tune_merger")
    without_krovetz = importlib.util.find_spec("krovetzstemmer") is None
    if without_krovetz:
        sys.modules["krovetzstemmer"] = _stub("krovetzstemmer", "Stemmer")
    try:
        return importlib.import_module("retriv.sparse_retriever.sparse_retriever")
    except ImportError as error:
        del sys.modules["retriv"], sys.modules["retriv.autotune"]
        raise ImportError(
            f"`--engine retriv`: retriv is installed, but its sparse half cannot be imported ({error}). "
            f"Install what it needs with: {INSTALL}"
        ) from error
    finally:
        if without_krovetz:
            del sys.modules["krovetzstemmer"]


@contextmanager
def base_path(folder: Path) -> Iterator[None]:
    """Let retriv write its files into `folder` within this context; its own indexing functions always write some."""
    before = os.environ.get("RETRIV_BASE_PATH")
    os.environ["RETRIV_BASE_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["RETRIV_BASE_PATH"]
        else:
            os.environ["RETRIV_BASE_PATH"] = before


def _stub(name: str, *callables: str) -> ModuleType:
    """Return a module whose callables can be constructed at import time but not used."""

    class Unavailable:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __call__(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError(f"{name} is not part of the sparse half of retriv that hf_distill loads.")

    module = ModuleType(name)
    for attribute in callables:
        setattr(module, attribute, Unavailable)
    return module
