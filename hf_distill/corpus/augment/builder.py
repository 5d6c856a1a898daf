"""Builds an augmented corpus: the texts of a task, and for each text several samples with replaced words.

rows -> distinct texts -> candidates for their words -> samples (TinyBERT, data augmentation, Algorithm 1). Candidates
are found shard by shard. A shard with a marker in the work folder is finished, so a killed build continues after it
and gives the same corpus.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash
from datasets import Dataset, Features, List, Value, concatenate_datasets
from datasets.arrow_writer import ArrowWriter
from datasets.utils import tqdm

from ...settings.augment import AugmentationArguments
from ...storage.steps import WorkFolder, end_with
from ..build.loading import corpus_label
from ..text.analysis import count_words
from ..text.rows import read_arrow, table_of
from .candidates import COUNTS, CandidateFinder
from .sampler import Replacements, draw_row, random_of

# Increase it when any step changes: finished steps of older code are then refused.
AUGMENTER_VERSION = 3
# TinyBERT's N_a; its code uses other numbers for some tasks.
DEFAULT_NUM_SAMPLES = 20
TEXT_COLUMNS = ("text", "text_pair")

_CANDIDATES = Features({"words": List(Value("string")), "candidates": List(List(Value("string")))})
_READ = 1000


@dataclass(frozen=True)
class AugmentedCorpus:
    """An augmented corpus.

    Attributes:
        dataset: Columns `text`; `text_pair` if rows are pairs; `label`, copied, if a label column was named; and
            `row`, the index of the original row. In the order of the original rows, each original before its samples.
        statistics: Facts as JSON values: counts, model and embeddings, settings, seconds.
    """

    dataset: Dataset
    statistics: dict[str, Any]


def build_augmented_corpus(
    rows: Dataset,
    args: AugmentationArguments | None = None,
    *,
    masked_lm: Any = None,
    tokenizer: Any = None,
    columns: str | Sequence[str] = ("text",),
    label_column: str | None = None,
    work_dir: str | Path | None = None,
    **overrides: Any,
) -> AugmentedCorpus:
    """Augment the rows of a task.

    The result depends only on rows, model, embeddings and settings; not on the number of processes, on batches or on
    how often the build was killed (the assumptions are in `hf_distill.corpus.augment.masked_lm`).

    Args:
        rows: The task's training rows.
        args: Settings; `None` takes the defaults.
        masked_lm: A model with a masked-LM head in float32, instead of `args.masked_lm`. It stays on its device, and
            is frozen and converted to `args.masked_lm_dtype`.
        tokenizer: Its tokenizer.
        columns: The text column, or the two columns of a pair.
        label_column: Column to copy.
        work_dir: Folder for finished steps; `None` takes `args.work_dir` or `augmentation_work`.
        overrides: Fields of `args` to override.

    Raises:
        OSError: If model or embeddings do not exist, or a worker process dies.
        TypeError: If `rows` is not a `Dataset`.
        ValueError: If a column is missing, a text is None, or the work folder belongs to another corpus.
    """
    args = replace(args or AugmentationArguments(), **overrides)
    if masked_lm is not None and (args.num_proc or 1) > 1:
        raise ValueError(f"`--num_proc` is {args.num_proc}, but a model in memory is in one process only: name it.")
    columns = (columns,) if isinstance(columns, str) else tuple(columns)
    _check_rows(rows, columns, label_column)
    build = _Build(rows, args, masked_lm, tokenizer, columns, label_column, work_dir)
    with build.work.alone():
        return build.run()


class _Build:
    """One build: its inputs and its steps."""

    def __init__(
        self,
        rows: Dataset,
        args: AugmentationArguments,
        masked_lm: Any,
        tokenizer: Any,
        columns: tuple[str, ...],
        label_column: str | None,
        work_dir: str | Path | None,
    ) -> None:
        self.args = args
        self.columns = columns
        self.label_column = label_column
        # Other formats would turn labels into tensors, and missing labels into numbers.
        self.rows = rows.with_format(None).select_columns([*columns, *([label_column] if label_column else [])])
        self.num_samples = args.num_samples or DEFAULT_NUM_SAMPLES
        self.texts, checksum = _distinct_texts(self.rows, columns)
        self.finder = CandidateFinder(args, masked_lm, tokenizer)
        self.settings = self._settings(checksum)
        self.work = WorkFolder(work_dir or args.work_dir or "augmentation_work", self.settings)
        self.shards = {
            f"candidates-{number:05d}": slice(start, start + args.shard_texts)
            for number, start in enumerate(range(0, len(self.texts), args.shard_texts))
        }

    def run(self) -> AugmentedCorpus:
        """Do every unfinished step, and return the corpus."""
        shards = self._find_candidates()
        facts = self.work.step("rows", self._draw)
        counts = {name: sum(shard[name] for shard in shards) for name in COUNTS}
        seconds = {"candidates": sum(shard["seconds"] for shard in shards), "rows": facts["seconds"]}
        seconds["total"] = sum(seconds.values())
        statistics = {
            **{name: value for name, value in facts.items() if name != "seconds"},
            "source_rows": len(self.rows),
            "rows_per_source_row": round(facts["rows"] / len(self.rows), 2),
            "candidates": counts,
            "masked_lm": {
                "name": None if self.args.masked_lm is None else corpus_label(self.args.masked_lm),
                **self.finder.describe(),
            },
            "settings": self.settings,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }
        return AugmentedCorpus(read_arrow(self.work.folder("rows")), statistics)

    def _settings(self, checksum: str) -> dict[str, Any]:
        """Return everything that affects the corpus."""
        args = self.args
        return {
            "version": AUGMENTER_VERSION,
            "rows": checksum,
            "columns": list(self.columns),
            "label_column": self.label_column,
            "label": None if self.label_column is None else repr(self.rows.features[self.label_column]),
            **self.finder.describe(),
            "num_samples": self.num_samples,
            "replace_probability": args.replace_probability,
            "num_candidates": args.num_candidates,
            "language": args.language,
            "exclude_original": args.exclude_original,
            "exclude_special": args.excludes_special,
            "tinybert_compat": args.tinybert_compat,
            "seed": args.seed,
            "shard_texts": args.shard_texts,
        }

    def _find_candidates(self) -> list[dict[str, Any]]:
        """Return the facts of every shard; missing shards are made first."""
        todo = {name: self.texts[part] for name, part in self.shards.items() if not self.work.is_finished(name)}
        with tqdm(total=len(self.texts), unit=" texts", desc="Finding candidates") as bar:
            bar.update(len(self.texts) - sum(map(len, todo.values())))
            if (self.args.num_proc or 1) > 1 and len(todo) > 1:
                self._find_in_processes(todo, bar)
            for name, texts in todo.items():
                if not self.work.is_finished(name):
                    self.work.step(name, _Shard(self.finder, texts, bar.update))
        # A damaged shard is made again here.
        return [self.work.step(name, _Shard(self.finder, self.texts[part])) for name, part in self.shards.items()]

    def _find_in_processes(self, todo: dict[str, list[str]], bar: Any) -> None:
        """Find the candidates of shards in several processes."""
        import torch

        processes = min(self.args.num_proc or 1, len(todo))
        threads = max(1, torch.get_num_threads() // processes)
        # Spawn instead of fork: torch's threads and accelerators do not survive a fork.
        context = multiprocessing.get_context("spawn")
        start = (os.getpid(), self.args, str(self.work.path), self.settings, threads)
        try:
            with ProcessPoolExecutor(processes, context, _Worker.start, start) as pool:
                for count in pool.map(_Worker.find, todo.items()):
                    bar.update(count)
        except BrokenProcessPool as error:
            raise OSError(
                f"One of {processes} processes that find candidates has died: it was killed, or memory was short. "
                f"Finished shards are kept: start again, perhaps with a smaller `--num_proc`."
            ) from error

    def _draw(self, folder: Path) -> dict[str, Any]:
        """Draw all samples."""
        features = Features({name: Value("string") for name in TEXT_COLUMNS[: len(self.columns)]})
        if self.label_column is not None:
            features["label"] = self.rows.features[self.label_column]
        features["row"] = Value("int32")
        facts: Counter[str] = Counter(rows=0, bytes=0, words=0)
        with ArrowWriter(path=str(folder / "rows.arrow"), features=features) as writer:
            for batch in self._drawn():
                for name in TEXT_COLUMNS[: len(self.columns)]:
                    facts["bytes"] += sum(len(text.encode()) for text in batch[name])
                    facts["words"] += sum(map(count_words, batch[name]))
                facts["rows"] += len(batch["row"])
                writer.write_table(table_of(batch, features))
            writer.finalize()
        return {
            "rows": facts["rows"],
            "bytes": facts["bytes"],
            "mean_words": round(facts["words"] / max(1, facts["rows"]), 2),
        }

    def _drawn(self) -> Iterator[dict[str, list[Any]]]:
        """Yield the drawn rows in batches of columns."""
        found = concatenate_datasets([read_arrow(self.work.folder(name)) for name in self.shards])
        place = {text: index for index, text in enumerate(self.texts)}
        names = TEXT_COLUMNS[: len(self.columns)]
        with tqdm(total=len(self.rows), unit=" rows", desc="Drawing rows") as bar:
            for start in range(0, len(self.rows), _READ):
                batch = self.rows[start : start + _READ]
                sources = [self._replacements(batch[column], found, place) for column in self.columns]
                out: dict[str, list[Any]] = {name: [] for name in (*names, "label", "row")}
                for offset, texts in enumerate(zip(*sources, strict=True)):
                    drawn = draw_row(
                        texts,
                        self.num_samples,
                        self.args.replace_probability,
                        random_of(self.args.seed, start + offset),
                        keep_last=self.args.tinybert_compat,
                    )
                    for name, column in zip(names, zip(*drawn, strict=True), strict=True):
                        out[name].extend(column)
                    out["row"].extend([start + offset] * len(drawn))
                    if self.label_column is not None:
                        out["label"].extend([batch[self.label_column][offset]] * len(drawn))
                yield out
                bar.update(len(batch[self.columns[0]]))

    @staticmethod
    def _replacements(texts: Sequence[str], found: Dataset, place: dict[str, int]) -> list[Replacements]:
        rows = found[[place[text] for text in texts]]
        return [
            Replacements(text, words, candidates)
            for text, words, candidates in zip(texts, rows["words"], rows["candidates"], strict=True)
        ]


class _Shard:
    """One step: finds the candidates of some texts and writes them to an Arrow file."""

    def __init__(self, finder: CandidateFinder, texts: Sequence[str], progress: Any = lambda _: None) -> None:
        self.finder, self.texts, self.progress = finder, texts, progress

    def __call__(self, folder: Path) -> dict[str, Any]:
        found, counts = self.finder(self.texts, self.progress)
        columns = {name: [getattr(text, name) for text in found] for name in _CANDIDATES}
        with ArrowWriter(path=str(folder / "rows.arrow"), features=_CANDIDATES) as writer:
            writer.write_table(table_of(columns, _CANDIDATES))
            writer.finalize()
        return dict(counts)


class _Worker:
    """The candidate finder and the work folder, which a process keeps between shards."""

    finder: CandidateFinder
    work: WorkFolder

    @classmethod
    def start(
        cls, parent: int, args: AugmentationArguments, work_dir: str, settings: dict[str, Any], num_threads: int
    ) -> None:
        """Load the model."""
        import torch

        end_with(parent)
        torch.set_num_threads(num_threads)
        cls.finder = CandidateFinder(args)
        cls.work = WorkFolder(work_dir, settings)

    @classmethod
    def find(cls, shard: tuple[str, list[str]]) -> int:
        """Finish a shard and return the number of its texts."""
        name, texts = shard
        cls.work.step(name, _Shard(cls.finder, texts))
        return len(texts)


def _distinct_texts(rows: Dataset, columns: Sequence[str]) -> tuple[list[str], str]:
    """Return the distinct texts in order of first occurrence, and a checksum of all rows in order."""
    digest = xxhash.xxh3_128()
    seen: dict[str, None] = {}
    for batch in rows.iter(batch_size=_READ):
        digest.update(repr(batch).encode("utf-8", "surrogatepass"))
        for texts in zip(*(batch[column] for column in columns), strict=True):
            if not all(isinstance(text, str) for text in texts):
                raise ValueError(f"The columns {list(columns)} must hold a text in every row, but one has {texts}.")
            seen.update(dict.fromkeys(texts))
    return list(seen), digest.hexdigest()


def _check_rows(rows: Dataset, columns: Sequence[str], label_column: str | None) -> None:
    if not isinstance(rows, Dataset):
        raise TypeError(f"`rows` must be a `Dataset`, but it is a {type(rows).__name__}: give one of its splits.")
    if len(columns) not in (1, 2):
        raise ValueError(f"`--text_columns` is {list(columns)}: texts are single ones or pairs.")
    missing = [name for name in (*columns, label_column) if name is not None and name not in rows.column_names]
    if missing:
        raise ValueError(f"The rows have no columns {missing}; they have {rows.column_names}.")
    if len(rows) == 0:
        raise ValueError("There is no row to augment.")
