"""Mixes a general corpus from several: split into units, deduplicated, sampled in chosen shares, shuffled.

It corresponds to the WikiBook of the Contextualized Corpus paper: general text of any size, to compare a task's corpus
with, or to distil on. The sampled rows depend only on their texts and the seed, so a larger sample contains the
smaller one, and the first rows of the result are a sample in the same shares.

Shape legend: N usable rows over all corpora, K rows of the result.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value
from datasets.arrow_writer import ArrowWriter
from datasets.utils import tqdm

from ...settings.general import GeneralCorpusArguments
from ...storage.steps import total_seconds
from ..compare.diversity import sample_order
from ..text.rows import (
    READ_BATCH,
    UsableRows,
    checksum_of_column,
    clean,
    describe_rows,
    find_usable_rows,
    read_arrow,
    source_names,
    table_of,
    units_of,
    usable_texts,
)
from .duplicates import first_of_equal, hash_texts, normalize
from .loading import work_folder

# Increase it when any step changes.
GENERAL_VERSION = 3
GENERAL_FEATURES = Features({"text": Value("string"), "source": Value("string")})


@dataclass(frozen=True)
class GeneralCorpus:
    """A mixed general corpus.

    Attributes:
        dataset: Columns `text` and `source`, in a pseudo-random order.
        statistics: Facts as JSON values: rows, bytes, rows from every corpus, reasons of dropped rows, settings,
            seconds.
    """

    dataset: Dataset
    statistics: dict[str, Any]


def build_general_corpus(
    corpora: Mapping[str, Dataset],
    args: GeneralCorpusArguments | None = None,
    *,
    work_dir: str | Path | None = None,
    **overrides: Any,
) -> GeneralCorpus:
    """Mix general corpora.

    Args:
        corpora: Name -> rows with a text column. Of equal texts, that of the first corpus is kept.
        args: Settings; by default those of `GeneralCorpusArguments`.
        work_dir: Folder of finished steps; by default that of the arguments, else a folder in the `datasets` cache for
            exactly these data and settings.
        overrides: Fields of `GeneralCorpusArguments` to override.

    Raises:
        TypeError: If a corpus is not a `Dataset`.
        ValueError: If there is no corpus, one lacks its text column or has no usable row, the number of row counts or
            weights differs from the number of corpora, or the work folder belongs to other settings.
        ImportError: If sentences are requested and sentencex is not installed.
    """
    args = replace(args or GeneralCorpusArguments(), **overrides)
    if not corpora:
        raise ValueError("Name at least one general corpus: `--corpora` FILE, FOLDER or Hub id.")
    for flag, values in (("rows", args.rows), ("weights", args.weights)):
        if values is not None and len(values) not in ({1, len(corpora)} if flag == "rows" else {len(corpora)}):
            raise ValueError(f"`--{flag}` has {len(values)} numbers for {len(corpora)} corpora {list(corpora)}.")
    build = _GeneralBuild(corpora, args, work_dir)
    with build.work.alone():
        return build.run()


def share_rows(total: int, weights: Sequence[float]) -> list[int]:
    """Return integers that sum to `total`, proportional to the weights (largest remainders; ties to the first)."""
    exact = [total * weight / sum(weights) for weight in weights]
    rows = [int(number) for number in exact]
    by_remainder = sorted(range(len(weights)), key=lambda place: (rows[place] - exact[place], place))
    for place in by_remainder[: total - sum(rows)]:
        rows[place] += 1
    return rows


class _GeneralBuild:
    """One build: the corpora as units, the settings, and the steps."""

    def __init__(
        self, corpora: Mapping[str, Dataset], args: GeneralCorpusArguments, work_dir: str | Path | None
    ) -> None:
        self.args, self.names = args, list(corpora)
        for name, corpus in corpora.items():
            if not isinstance(corpus, Dataset):
                raise TypeError(
                    f"The general corpus {name!r} must be a `Dataset`, but it is a {type(corpus).__name__}."
                )
        self.documents = [len(corpus) for corpus in corpora.values()]
        self.corpora: list[Dataset] = []
        self.usable: list[UsableRows] = []
        for name, corpus in corpora.items():
            try:
                self.corpora.append(units_of(corpus, args))
                self.usable.append(find_usable_rows(self.corpora[-1], args))
            except ValueError as error:
                raise ValueError(f"`--corpora`, {name!r}: {error}") from error
        self.settings = {
            "general": GENERAL_VERSION,
            "corpora": {name: usable.checksum for name, usable in zip(self.names, self.usable, strict=True)},
            "sources": {
                name: checksum_of_column(rows, args.source_column)
                for name, rows in zip(self.names, self.corpora, strict=True)
            },
            **{
                name: getattr(args, name)
                for name in ("rows", "weights", "deduplicate", "seed", "unit", "source_column")
            },
        }
        self.work = work_folder(work_dir or args.work_dir, "hf_distill_general", self.settings)

    def run(self) -> GeneralCorpus:
        """Do both steps, and return the corpus with its statistics."""
        steps = {"draw": self.work.step("draw", self._draw), "rows": self.work.step("rows", self._write)}
        described = {name: value for name, value in steps["rows"].items() if name in _DESCRIBED}
        corpora = {
            name: {"documents": documents, **usable.counts, "bytes": usable.bytes, **steps["draw"]["corpora"][name]}
            for name, documents, usable in zip(self.names, self.documents, self.usable, strict=True)
        }
        own = {"corpora": corpora, "settings": self.settings, "seconds": total_seconds(steps)}
        return GeneralCorpus(read_arrow(self.work.folder("rows")), {**described, **own})

    def _draw(self, folder: Path) -> dict[str, Any]:
        """Draw the rows of every corpus, and shuffle them."""
        exact, normalized = self._hashes()
        corpus_of = np.repeat(np.arange(len(self.names)), [len(usable.rows) for usable in self.usable])
        # For texts of one corpus that are equal only after normalisation, their order must not matter.
        priority = np.argsort(np.lexsort((exact, corpus_of)), kind="stable")
        single = np.arange(len(exact)) == first_of_equal(exact if normalized is None else normalized, priority)
        if self.args.deduplicate == "none":
            single[:] = True
        available = np.bincount(corpus_of[single], minlength=len(self.names)).tolist()
        asked = self._asked(available)
        drawn = []
        for number, wanted in enumerate(asked):
            own = np.flatnonzero(single & (corpus_of == number))
            drawn.append(own[sample_order(exact[own], self.args.seed)[:wanted]])
        chosen = np.concatenate(drawn)
        # Use another seed than for sampling: with the same one, corpora with few sampled rows would come first.
        chosen = chosen[sample_order(exact[chosen], self.args.seed + 1)]
        rows = np.concatenate([usable.rows for usable in self.usable])
        np.savez(folder / "draw.npz", corpus=corpus_of[chosen], row=rows[chosen])
        counts = np.bincount(corpus_of, minlength=len(self.names)).tolist()
        return {
            "corpora": {
                name: {"duplicates": count - left, "asked": wanted, "drawn": min(left, wanted)}
                for name, count, left, wanted in zip(self.names, counts, available, asked, strict=True)
            }
        }

    def _hashes(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return (N,) hashes of the texts, and of their normalised forms if these define duplicates."""
        exact, normalized = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for corpus, usable, name in zip(self.corpora, self.usable, self.names, strict=True):
            for texts in usable_texts(corpus, self.args.text_column, usable.rows, f"Comparing the texts of {name}"):
                exact.append(hash_texts(texts))
                if self.args.deduplicate == "normalized":
                    normalized.append(hash_texts(map(normalize, texts)))
        return np.concatenate(exact), np.concatenate(normalized) if self.args.deduplicate == "normalized" else None

    def _asked(self, available: list[int]) -> list[int]:
        """Return the number of rows requested from every corpus; warns about a corpus that has fewer."""
        args = self.args
        if args.rows is None:
            return available
        if len(args.rows) == len(self.names) and args.weights is None:
            asked = list(args.rows)
        else:
            asked = share_rows(args.rows[0], args.weights or available)
        for name, wanted, left in zip(self.names, asked, available, strict=True):
            if wanted > left:
                warnings.warn(
                    f"{wanted:,} rows of {name!r} are asked for (--rows, --weights), but only {left:,} different ones "
                    "can be used: all of them are taken.",
                    stacklevel=6,
                )
        return asked

    def _write(self, folder: Path) -> dict[str, Any]:
        """Write the sampled rows with their texts and sources."""
        with np.load(self.work.folder("draw") / "draw.npz") as arrays:
            corpus_of, rows = arrays["corpus"], arrays["row"]
        with (
            ArrowWriter(path=str(folder / "rows.arrow"), features=GENERAL_FEATURES) as writer,
            tqdm(total=len(rows), desc="Writing the corpus", unit=" rows", unit_scale=True) as bar,
        ):
            for texts, sources in self._fetch(corpus_of, rows):
                writer.write_table(table_of({"text": texts, "source": sources}, GENERAL_FEATURES))
                bar.update(len(texts))
            writer.finalize()
        return describe_rows(read_arrow(folder))

    def _fetch(self, corpus_of: np.ndarray, rows: np.ndarray) -> Iterator[tuple[list[str], list[str]]]:
        """Yield cleaned texts and sources in batches, in the order of `rows`."""
        column, by = self.args.text_column, self.args.source_column
        readers = []
        for corpus in self.corpora:
            names = [column, *([by] if by in corpus.column_names else [])]
            readers.append(corpus.select_columns(names).with_format("arrow"))
        for start in range(0, len(rows), READ_BATCH):
            part = slice(start, start + READ_BATCH)
            texts = np.empty(len(rows[part]), dtype=object)
            sources = np.empty(len(rows[part]), dtype=object)
            for number, reader in enumerate(readers):
                own = np.flatnonzero(corpus_of[part] == number)
                if len(own):
                    table = reader[rows[part][own].tolist()]
                    texts[own] = [clean(text) for text in table[column].to_pylist()]
                    sources[own] = self.names[number]
                    if by in table.column_names:
                        kind = self.corpora[number].features[by]
                        sources[own] = source_names(table[by], kind, self.names[number])
            yield texts.tolist(), sources.tolist()


_DESCRIBED = ("rows", "bytes", "mean_words", "sources")
