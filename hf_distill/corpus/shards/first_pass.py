"""A general corpus in shards, if it is too large for one machine: the first pass over each shard.

BM25 needs the statistics of all rows, so there are two passes over a shard. The first, here, reads its text and finds
usable rows, terms and statistics. The second, `hf_distill.corpus.shards.second_pass`, indexes the shard with the
statistics of all shards and searches all anchors in it. `hf_distill.corpus.shards.merging` builds the corpus from the
hits. Passes write steps (`hf_distill.storage.steps.Step`), so any number of jobs on any machines with a common folder
can do them, in any order and more than once.

Shape legend: S shards, N usable rows of all shards.
"""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datasets import Dataset, IterableDataset, concatenate_datasets

from ...settings.corpus import CorpusArguments
from ...storage.files import write_arrays
from ...storage.steps import Step, WorkFolder
from ..build.builder import BUILDER_VERSION
from ..build.loading import corpus_label, mapped_rows
from ..search.retrieval import settings_key
from ..search.scoring import CorpusStatistics
from ..search.streams import write_streams
from ..text.analysis import Analyzer, TokenStreams
from ..text.rows import UsableTexts, check_corpus, checksum_of_column, find_usable_rows, read_arrow, units_of

# Number of sampled texts in the settings, by which another corpus of the same name and size is noticed.
_SAMPLE = 256


class Shards:
    """The general corpus of a build in S shards of consecutive documents, and the jobs on them.

    Args:
        args: Settings of the build.
        corpus: The whole general corpus; a job reads only its own shard.
        num_shards: S.
        name: Value of the column `source` if the corpus has none.
        work_dir: Folder that is shared by all jobs of this build.

    Raises:
        ValueError: If the corpus is empty or lacks its text column, or the folder belongs to shards with other
            settings; the message lists the differences.
    """

    def __init__(
        self,
        args: CorpusArguments,
        corpus: Dataset | IterableDataset,
        num_shards: int,
        *,
        name: str | None = None,
        work_dir: str | Path,
    ) -> None:
        rows = mapped_rows(corpus, args.max_corpus_rows, work_dir)
        check_corpus(rows, args.text_column)
        self.args, self.corpus, self.num_shards = args, rows, num_shards
        self.name = name or corpus_label(args.corpus or corpus.info.dataset_name or "corpus")
        self.root = Path(work_dir).expanduser()
        self.analyzer = Analyzer(args.language, stem=args.stem, token_analysis=args.token_analysis)
        self.settings = self._settings()
        WorkFolder(self.root / "shards", self.settings)
        indexes = Path(args.index_dir).expanduser() if args.index_dir else self.root / "indexes"
        self.folder = indexes / f"shards-{settings_key(self.settings)}"

    def _settings(self) -> dict[str, Any]:
        """Return everything that affects the text of the shards."""
        args = self.args
        rows = np.unique(np.linspace(0, len(self.corpus) - 1, _SAMPLE).astype(np.int64))
        columns = [name for name in (args.text_column, args.source_column) if name in self.corpus.column_names]
        texts = self.corpus.select_columns(columns).select(rows.tolist()).to_dict()
        return {
            "builder": BUILDER_VERSION,
            "num_shards": self.num_shards,
            "documents": len(self.corpus),
            "sample_of_texts": xxhash.xxh3_128_hexdigest(json.dumps(texts, default=str).encode()),
            "text_column": args.text_column,
            "source_column": args.source_column,
            "unit": args.unit,
            "passage_words": args.passage_words if args.unit == "passage" else None,
            "analysis": self.analyzer.settings(),
            **{name: getattr(args, name) for name in ("max_chars", "min_words", "max_words")},
        }

    def prepared(self, shard: int) -> Step:
        """Return the step of the first pass over a shard."""
        return self.step(self.folder, f"prepared-{shard:05d}-of-{self.num_shards:05d}", self.settings, shard)

    def prepare(self, shard: int, *, num_proc: int | None = None) -> dict[str, Any]:
        """Read a shard (usable rows, terms, statistics) and return facts; does nothing if it is finished.

        Args:
            shard: Index of the shard.
            num_proc: Number of processes that turn text into terms; by default that of the arguments, else all cores.

        Raises:
            OSError: If something cannot be written.
        """
        processes = num_proc or self.args.num_proc
        self.check_documents(shard)
        return self.prepared(shard).make(lambda folder: self._prepare(shard, folder, processes))

    def check_documents(self, shard: int) -> None:
        """Check that a prepared shard was prepared from the same rows that the corpus has now.

        Raises:
            ValueError: If not. The settings alone record only a sample of the rows.
        """
        facts = self.prepared(shard).facts()
        if facts is not None and facts["documents_checksum"] != self._documents_checksum(shard):
            raise ValueError(
                f"Shard {shard} of {self.num_shards} in {str(self.folder)!r} was prepared from other rows than the "
                "general corpus has now: give another `--work_dir` (and `--index_dir`), or delete these."
            )

    def _documents_checksum(self, shard: int) -> str:
        rows, args = self._documents(shard), self.args
        columns = (checksum_of_column(rows, name) for name in (args.text_column, args.source_column))
        return xxhash.xxh3_128_hexdigest(" ".join(map(str, columns)).encode())

    def streams(self, shard: int) -> TokenStreams:
        """Return the terms of a prepared shard, memory-mapped."""
        prepared = self.prepared(shard)
        prepared.check("terms")
        return self._streams(prepared.folder, self.units(shard), np.load(prepared.file("rows.npy")), 1)

    def _streams(self, folder: Path, units: Dataset, rows: np.ndarray, num_proc: int | None) -> TokenStreams:
        """Return the terms of a shard: written here, or opened if they exist."""
        texts = UsableTexts(units, self.args.text_column, rows)
        settings = {"shards": settings_key(self.settings)}
        return write_streams(self.analyzer, texts, len(rows), folder / "terms", settings, num_proc=num_proc)

    def unprepared(self) -> list[int]:
        """Return the shards whose first pass is not finished."""
        return [shard for shard in range(self.num_shards) if self.prepared(shard).facts() is None]

    def units(self, shard: int) -> Dataset:
        """Return the rows of a prepared shard as they are searched: its documents, or their sentences or passages."""
        if self.args.unit == "row" or not len(self._documents(shard)):
            return self._documents(shard)
        return checked_rows(self.prepared(shard), "units")

    def all_units(self) -> Dataset:
        """Return the rows of all shards."""
        if self.args.unit == "row":
            return self.corpus
        shards = [shard for shard in range(self.num_shards) if len(self._documents(shard))]
        return concatenate_datasets([self.units(shard) for shard in shards])

    def _documents(self, shard: int) -> Dataset:
        bounds = [len(self.corpus) * place // self.num_shards for place in (shard, shard + 1)]
        return self.corpus.select(range(*bounds))

    def _prepare(self, shard: int, folder: Path, num_proc: int | None) -> dict[str, Any]:
        args, documents = self.args, self._documents(shard)
        units = documents
        if args.unit != "row" and len(documents):
            (folder / "units").mkdir()
            units = units_of(documents, replace(args, num_proc=num_proc), file=folder / "units" / "units.arrow")
        usable = find_usable_rows(units, args, may_be_none=True)
        np.save(folder / "rows.npy", usable.rows)
        streams = self._streams(folder, units, usable.rows, num_proc)
        CorpusStatistics.of(streams).save(folder / "statistics.npz")
        return {
            "documents": len(documents),
            "units": len(units),
            "usable": len(usable.rows),
            "counts": usable.counts,
            "bytes": usable.bytes,
            "checksum": usable.checksum,
            "documents_checksum": self._documents_checksum(shard),
        }

    @cached_property
    def whole(self) -> Whole:
        """Return the facts about all shards together.

        Raises:
            ValueError: If one is not prepared, or no row can be used.
        """
        missing = self.unprepared()
        if missing:
            raise ValueError(f"Shards {missing} of {self.num_shards} are not prepared. {self.way_out()}")
        facts = [self.prepared(shard).facts() or {} for shard in range(self.num_shards)]
        return Whole.of(facts)

    def way_out(self, shard: int | None = None) -> str:
        """Return what to run if a shard is missing or damaged; by default for any shard."""
        flags = f"--shard {'I' if shard is None else shard} --num_shards {self.num_shards}"
        return f"Run it again with `{flags}`" + (" for each of them." if shard is None else ".")

    @cached_property
    def statistics(self) -> Step:
        """Return the step that merges the statistics of all shards; the first job that needs them does it."""
        step = self.step(self.folder, "statistics", {"shards": self.whole.checksum})
        step.make(self._merge_statistics)
        return step

    def _merge_statistics(self, folder: Path) -> dict[str, Any]:
        files = (self.prepared(shard).file("statistics.npz") for shard in range(self.num_shards))
        # Merge two at a time: the vocabularies of all shards together may not fit into memory when the merged one
        # does.
        merged = reduce(lambda one, two: CorpusStatistics.merged([one, two]), map(CorpusStatistics.load, files))
        merged.save(folder / "statistics.npz")
        return {"rows": merged.num_rows, "terms": len(merged.hashes), "checksum": merged.checksum()}

    def usable_rows(self) -> np.ndarray:
        """Return (N,) int64, memory-mapped: the indices of the usable units of all shards."""
        step = self.step(self.folder, "rows", {"shards": self.whole.checksum})
        step.make(self._merge_rows)
        return np.asarray(np.load(step.file("rows.npy"), mmap_mode="r"))

    def _merge_rows(self, folder: Path) -> dict[str, Any]:
        whole = self.whole
        header = io.BytesIO()
        shape = {"descr": "<i8", "fortran_order": False, "shape": (whole.num_usable,)}
        np.lib.format.write_array_header_1_0(header, shape)
        numbers = (
            (np.load(self.prepared(shard).file("rows.npy")) + whole.unit_bounds[shard]).astype("<i8")
            for shard in range(self.num_shards)
        )
        # Do not write into a memory map: if the disk is full, that ends the process without an error.
        write_arrays(folder / "rows.npy", itertools.chain([np.frombuffer(header.getvalue(), np.uint8)], numbers))
        return {"rows": whole.num_usable}

    def step(self, folder: Path, name: str, settings: dict[str, Any], shard: int | None = None) -> Step:
        """Return a step for one shard, or for all shards."""
        what = name if shard is None else f"Shard {shard} of {self.num_shards} ({name})"
        way_out = self.way_out(0 if shard is None else shard)
        return Step(folder / name, settings, what, way_out, flags="--work_dir, --index_dir")


def checked_rows(step: Step, folder: str) -> Dataset:
    """Read the Arrow files in a folder of a finished step, after verifying their content.

    Raises:
        DamagedStepError: If a file is missing or has changed.
    """
    step.check(folder)
    return read_arrow(step.folder / folder)


def total_cost(facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the costs of jobs: the sum of seconds and bytes on disk, and the largest memory (if known)."""
    cost = {name: round(sum(part.get(name, 0) for part in facts), 3) for name in ("seconds", "disk_bytes")}
    peaks = [part["peak_memory_mb"] for part in facts if "peak_memory_mb" in part]
    return {**cost, **({"peak_memory_mb": max(peaks)} if peaks else {})}


@dataclass(frozen=True)
class Whole:
    """The facts about S prepared shards together.

    Attributes:
        counts: Rows by fate, as for one corpus.
        bytes: UTF-8 bytes of the usable rows.
        checksums: Checksums of the usable rows of every shard.
        unit_bounds: (S + 1,) first unit of every shard in the whole corpus, and the number of units.
        usable_bounds: (S + 1,) first usable row of every shard in the whole corpus, and N.
        cost: Costs of the first passes: sum of seconds and bytes on disk, and the largest memory.
    """

    counts: dict[str, int]
    bytes: int
    checksums: tuple[str, ...]
    unit_bounds: tuple[int, ...]
    usable_bounds: tuple[int, ...]
    cost: dict[str, Any]

    @property
    def num_usable(self) -> int:
        """Return N."""
        return self.usable_bounds[-1]

    @property
    def largest(self) -> int:
        """Return the number of usable rows of the largest shard."""
        return int(np.diff(self.usable_bounds).max())

    @property
    def checksum(self) -> str:
        """Return a checksum of the usable rows of all shards."""
        return xxhash.xxh3_128_hexdigest(" ".join(self.checksums).encode())

    @classmethod
    def of(cls, facts: list[dict[str, Any]]) -> Whole:
        """Add up the facts of all shards, in order.

        Raises:
            ValueError: If no row is usable.
        """
        counts = {name: sum(part["counts"][name] for part in facts) for name in facts[0]["counts"]}
        if counts["kept"] == 0:
            raise ValueError(f"No row of the general corpus can be used: {counts}.")
        bounds = {name: np.cumsum([0, *(part[name] for part in facts)]).tolist() for name in ("units", "usable")}
        return cls(
            counts,
            sum(part["bytes"] for part in facts),
            tuple(part["checksum"] for part in facts),
            tuple(bounds["units"]),
            tuple(bounds["usable"]),
            total_cost(facts),
        )
