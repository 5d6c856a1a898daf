"""Builds a contextualized corpus: general sentences that are similar to the sentences of a task.

anchors -> keyword queries -> BM25 over general text -> union -> removal of evaluation texts and duplicates
(Contextualized Corpus, section 2). A step with a marker in the work folder is finished, so a killed build continues
after it and gives the same corpus.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, IterableDataset, Value
from datasets.arrow_writer import ArrowWriter
from datasets.utils import logging

from ...settings.corpus import CorpusArguments
from ...storage.files import remove
from ...storage.steps import in_turn, measured, total_seconds
from ..search.retrieval import (
    EngineChoice,
    IndexHandle,
    choose_engine,
    engine_class,
    find_index,
    save_index,
    settings_key,
)
from ..search.streams import write_streams
from ..text.analysis import Analyzer, TokenStreams
from ..text.rows import (
    UsableRows,
    UsableTexts,
    checksum_of_column,
    describe_rows,
    fetch_texts,
    find_usable_rows,
    processes_for,
    read_arrow,
    several_texts,
    source_names,
    table_of,
    units_of,
)
from .anchors import (
    Anchors,
    collect_anchors,
    describe_queries,
    find_text_columns,
    make_queries,
    search_queries,
    task_texts,
)
from .duplicates import EvaluationTexts
from .loading import corpus_label, mapped_rows, work_folder
from .selection import Candidates, Selection, choose_rows, merge_hits, rank_limit, write_dropped

logger = logging.get_logger(__name__)

# Increase it when any step changes: finished steps of older code are then refused.
BUILDER_VERSION = 5
DEFAULT_TOP_K = 100
# Costs of a step, which are not facts about the corpus.
_COSTS = ("seconds", "disk_bytes", "peak_memory_mb")

CORPUS_FEATURES = Features(
    {
        "text": Value("string"),
        "rank": Value("int32"),
        "score": Value("float32"),
        "anchors": Value("int32"),
        "source": Value("string"),
    }
)


@dataclass(frozen=True)
class CorpusResult:
    """A built corpus.

    Attributes:
        dataset: Columns `text`; `rank`, the best rank over all anchors, 0 = first; `score`, the best score; `anchors`,
            the number of anchors that retrieved the row; `source`. Ordered by rank, then score descending, then row of
            the general corpus.
        statistics: Facts as JSON values: what was read and dropped and why, which engine and why, settings, seconds.
        dropped: With `write_dropped`, the rows that were read or found but are not in the corpus: `row` of the general
            corpus, `text`, `reason`, and `instead`, the row that is kept in place of a duplicate.
    """

    dataset: Dataset
    statistics: dict[str, Any]
    dropped: Dataset | None = None


def build_contextualized_corpus(
    anchors: Iterable[str | None] | Dataset,
    corpus: Dataset | IterableDataset,
    args: CorpusArguments | None = None,
    *,
    evaluation_texts: Iterable[str | None] = (),
    anchor_columns: Sequence[str] | None = None,
    corpus_name: str | None = None,
    work_dir: str | Path | None = None,
    **overrides: Any,
) -> CorpusResult:
    """Build the corpus for some anchors.

    Args:
        anchors: Sentences of the task, or its training rows. None, empty and repeated ones are counted and dropped.
        corpus: General text with a text column and optionally a source column; the rows of a stream are stored in the
            work folder, which must then be given.
        args: Settings; by default those of `CorpusArguments`.
        evaluation_texts: Texts of validation and test sets, which must not be in the result.
        anchor_columns: Text columns of `anchors` if it is a data set; by default its string columns except labels and
            ids (see `find_text_columns`).
        corpus_name: Value of the column `source` if the corpus has none.
        work_dir: Folder of finished steps; by default that of the arguments, else a folder in the `datasets` cache for
            exactly these data and settings.
        overrides: Fields of `CorpusArguments` to override.

    Returns:
        The corpus and its statistics.

    Raises:
        TypeError: If anchors, evaluation texts or the corpus have another type, such as `DatasetDict`.
        ValueError: If the corpus is empty, lacks its text column, nothing is found, or the work folder belongs to
            other settings.
        ImportError: If the engine is not installed.
    """
    args = replace(args or CorpusArguments(), **overrides)
    found = collect_anchors(_anchor_texts(anchors, anchor_columns), args.max_anchors)
    rows = mapped_rows(corpus, args.max_corpus_rows, work_dir or args.work_dir)
    name = corpus_name or corpus_label(args.corpus or corpus.info.dataset_name or "corpus")
    documents = len(rows)
    rows = units_of(rows, args)
    usable = find_usable_rows(rows, args)
    build = CorpusBuild(args, found, rows, documents, usable, evaluation_texts, name, work_dir)
    with build.work.alone():
        return build.run()


def index_settings(args: CorpusArguments, choice: EngineChoice, analyzer: Analyzer, **content: Any) -> dict[str, Any]:
    """Return everything that distinguishes an index from others; `content` describes what is in it."""
    engine = {"engine": choice.name, "engine_version": engine_class(choice.name).version()}
    return {**engine, "k1": args.bm25_k1, "b": args.bm25_b, "analysis": analyzer.settings(), **content}


def engine_options(args: CorpusArguments, choice: EngineChoice) -> dict[str, Any]:
    """Return the options that only this engine has and that do not affect the hits."""
    return {"url": args.elasticsearch_url} if choice.name == "elasticsearch" else {}


class CorpusBuild:
    """One build: the data, the settings, and the steps."""

    def __init__(
        self,
        args: CorpusArguments,
        anchors: Anchors,
        corpus: Dataset,
        documents: int,
        usable: UsableRows,
        evaluation_texts: Iterable[str | None],
        name: str,
        work_dir: str | Path | None,
    ) -> None:
        self.args, self.anchors, self.corpus, self.documents, self.name = args, anchors, corpus, documents, name
        self.usable = usable
        self.evaluation = EvaluationTexts(
            () if args.decontaminate == "none" else evaluation_texts,
            contains=args.decontaminate == "contains",
            ngram=args.decontaminate_ngram,
        )
        self.analyzer = Analyzer(args.language, stem=args.stem, token_analysis=args.token_analysis)
        self.choice = self._choose_engine()
        logger.info(f"BM25 engine: {self.choice.name} ({self.choice.why}).")
        asked = args.top_k or DEFAULT_TOP_K
        self.k = min(asked, len(self.usable.rows))
        self.k_asked = asked
        if self.k < asked:
            warnings.warn(
                f"`--top_k` is {asked}, but the general corpus has only {self.k} usable rows: top_k becomes {self.k}.",
                stacklevel=4,
            )
        self.index_settings = index_settings(args, self.choice, self.analyzer, corpus=self.usable.checksum)
        self.terms_settings = {name: self.index_settings[name] for name in ("analysis", "corpus")}
        self.settings = self._settings()
        self.work = work_folder(work_dir or args.work_dir, "hf_distill_corpus", self.settings)
        # Indexes whose content was verified in this process, and the damage that was found in others.
        self._verified: set[str] = set()
        self._said: set[str] = set()

    def run(self) -> CorpusResult:
        """Do all steps, and return the corpus with its statistics."""
        steps = {
            "queries": self.work.step("queries", self._make_queries),
            "index": self.work.step("index", self._make_index),
            "hits": self.work.step("hits", self._search),
            "selection": self.work.step("selection", self._select),
            "rows": self.work.step("rows", self._write),
        }
        dropped = None
        if self.args.write_dropped:
            # It contains texts that affect nothing else, namely those of unusable rows.
            name = f"dropped-{checksum_of_column(self.corpus, self.args.text_column)}"
            self.work.step(name, self._write_dropped)
            dropped = read_arrow(self.work.folder(name))
        return CorpusResult(read_arrow(self.work.folder("rows")), self._statistics(steps), dropped)

    def _choose_engine(self) -> EngineChoice:
        return choose_engine(self.args.engine, len(self.usable.rows))

    def _settings(self) -> dict[str, Any]:
        """Return everything that affects the corpus."""
        args = self.args
        return {
            "builder": BUILDER_VERSION,
            **{f"index_{name}": value for name, value in self.index_settings.items() if name != "corpus"},
            "corpus": self.usable.checksum,
            "corpus_name": self.name,
            "sources": checksum_of_column(self.corpus, args.source_column),
            "anchors": self.anchors.checksum(),
            "evaluation_texts": self.evaluation.checksum,
            "top_k": self.k,
            **{
                name: getattr(args, name)
                for name in ("top_share", "query", "max_phrases", "deduplicate", "decontaminate", "source_column")
            },
            "decontaminate_ngram": args.decontaminate_ngram,
            "near_duplicate_threshold": args.near_duplicate_threshold if args.deduplicate == "near" else None,
        }

    def _index_dir(self) -> Path:
        root = Path(self.args.index_dir).expanduser() if self.args.index_dir else self.work.folder("indexes")
        return root / f"{self.choice.name}-{settings_key(self.index_settings)}"

    def _make_queries(self, folder: Path) -> dict[str, Any]:
        """Turn the anchors into terms."""
        return describe_queries(
            make_queries(
                self.anchors.texts,
                self.args.query,
                self.args.max_phrases,
                self.analyzer,
                folder / "queries.arrow",
                num_proc=processes_for(self.args.num_proc, len(self.anchors.texts)),
            )
        )

    def _make_index(self, _: Path) -> dict[str, Any]:
        """Index the general text, unless an index with the same settings exists."""
        handle = self._find_index()
        parts: dict[str, dict[str, Any]] = {}
        if handle is None:
            terms = self._index_dir().with_name(f"terms-{settings_key(self.terms_settings)}")
            # Builds for other tasks may share the folder.
            with in_turn(f"{terms}.lock", f"The index in {str(terms.parent)!r}"):
                handle = self._find_index()
                if handle is None:
                    parts["terms"] = measured(lambda: self._write_terms(terms), terms)
                    options = engine_options(self.args, self.choice)
                    handle = save_index(self._streams(terms), self._index_dir(), self.index_settings, **options)
                    self._verified.add(handle.checksum)
                    remove(terms)
        facts = {"rows": handle.num_rows, "terms": handle.num_terms, "bytes": handle.size(), "reused": not parts}
        return {**facts, "parts": parts}

    def _write_terms(self, folder: Path) -> dict[str, Any]:
        """Turn the general text into terms, on all cores."""
        streams = self._streams(folder)
        return {"rows": streams.num_texts, "terms": len(streams.ids)}

    def _streams(self, folder: Path) -> TokenStreams:
        texts = UsableTexts(self.corpus, self.args.text_column, self.usable.rows)
        num_texts, settings = len(self.usable.rows), self.terms_settings
        return write_streams(self.analyzer, texts, num_texts, folder, settings, num_proc=self.args.num_proc)

    def _find_index(self) -> IndexHandle | None:
        """Return the index if it exists; once per process its content is verified."""
        handle = find_index(self._index_dir(), self.index_settings)
        if handle is not None and handle.checksum not in self._verified:
            try:
                handle.verify(**engine_options(self.args, self.choice))
            except ValueError as error:
                if str(error) not in self._said:
                    logger.warning(f"{error} That is done now.")
                self._said.add(str(error))
                return None
            self._verified.add(handle.checksum)
        return handle

    def _search(self, folder: Path) -> dict[str, Any]:
        """Search the terms of all anchors."""
        queries = read_arrow(self.work.folder("queries"))
        handle = self._find_index()
        if handle is None:
            # The index was deleted or damaged after its step was finished.
            self._make_index(folder)
            handle = IndexHandle(self._index_dir())
        hits = search_queries(
            queries,
            handle,
            self.k,
            folder / "hits.arrow",
            num_proc=processes_for(self.args.num_proc, len(queries)),
            batch_size=self.args.search_batch_size,
        )
        if len(hits) == 0:
            raise ValueError(f"None of the {len(queries)} anchors shares a word with the general corpus.")
        with_hits = len(np.unique(hits.with_format("arrow")["anchor"][:].to_numpy()))
        return {"hits": len(hits), "queries_without_hits": len(queries) - with_hits}

    def _select(self, folder: Path) -> dict[str, Any]:
        """Choose the rows of the corpus from the hits."""
        selection = choose_rows(
            merge_hits(read_arrow(self.work.folder("hits"))),
            lambda rows: fetch_texts(
                self.corpus, self.args.text_column, self.usable.rows[rows], "Comparing the texts"
            ),
            self.evaluation,
            limit=rank_limit(self.args.top_share, self.k),
            deduplicate=self.args.deduplicate,
            near_threshold=self.args.near_duplicate_threshold,
        )
        num_rows, dropped = len(selection.fates), selection.dropped()
        if sum(dropped.values()) == num_rows:
            raise ValueError(f"Nothing is left of {num_rows} retrieved rows: {dropped} were dropped.")
        np.savez(
            folder / "selection.npz", fates=selection.fates, instead=selection.instead, **vars(selection.candidates)
        )
        return {"retrieved_rows": num_rows, "dropped": dropped}

    def _selection(self) -> Selection:
        with np.load(self.work.folder("selection") / "selection.npz") as arrays:
            fields = dict(arrays)
        fates, instead = fields.pop("fates"), fields.pop("instead")
        return Selection(Candidates(**fields), fates, instead)

    def _write_dropped(self, folder: Path) -> dict[str, Any]:
        """Write the dropped rows, with the reasons."""
        file = folder / "dropped.arrow"
        return {"rows": write_dropped(file, self.corpus, self.args, self.usable, self._selection())}

    def _write(self, folder: Path) -> dict[str, Any]:
        """Write the chosen rows with their texts."""
        chosen = self._selection().chosen()
        rows = self.usable.rows[chosen.rows]
        sources = self._sources(rows)
        done = 0
        with ArrowWriter(path=str(folder / "rows.arrow"), features=CORPUS_FEATURES) as writer:
            for texts in fetch_texts(self.corpus, self.args.text_column, rows, "Writing the corpus"):
                part = slice(done, done + len(texts))
                columns = [texts, chosen.ranks[part], chosen.scores[part], chosen.anchors[part], sources(part)]
                writer.write_table(table_of(dict(zip(CORPUS_FEATURES, columns, strict=True)), CORPUS_FEATURES))
                done += len(texts)
            writer.finalize()
        return describe_rows(read_arrow(folder))

    def _sources(self, rows: np.ndarray) -> Any:
        """Return a function from a slice of `rows` to their sources."""
        column = self.args.source_column
        if column not in self.corpus.column_names:
            return lambda part: [self.name] * len(rows[part])
        data = self.corpus.select_columns([column]).with_format("arrow")
        kind = self.corpus.features[column]
        return lambda part: source_names(data[rows[part].tolist()][column], kind, self.name)

    def _statistics(self, steps: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the facts of all steps together."""
        return describe_build(
            steps,
            anchors=self.anchors.counts,
            top_k={"asked": self.k_asked, "used": self.k},
            top_share=self.args.top_share,
            evaluation_texts=self.evaluation.num_texts,
            general_corpus={
                "name": self.name,
                "unit": self.args.unit,
                "documents": self.documents,
                **self.usable.counts,
                "bytes": self.usable.bytes,
                "checksum": self.usable.checksum,
            },
            engine={
                "name": self.choice.name,
                "asked": self.args.engine,
                "why": self.choice.why,
                "version": self.index_settings["engine_version"],
            },
            settings=self.settings,
        )


def kept_share(rows: int, hits: int) -> float:
    """Divide the rows of the corpus by the hits of all anchors (0.24 to 0.69 in Contextualized Corpus)."""
    return round(rows / hits, 4) if hits else 0.0


def describe_build(steps: Mapping[str, Mapping[str, Any]], **facts: Any) -> dict[str, Any]:
    """Return the statistics of a build.

    Args:
        steps: Facts of the steps, by name.
        facts: Facts that belong to no step: anchors, top_k, general_corpus, engine, settings, ...
    """
    rows, hits, selection, index = (steps[name] for name in ("rows", "hits", "selection", "index"))
    engine = {**facts.pop("engine"), "index_bytes": index["bytes"], "index_terms": index["terms"]}
    return {
        **_without_costs(rows),
        "kept_share": kept_share(rows["rows"], hits["hits"]),
        "hits": hits["hits"],
        "retrieved_rows": selection["retrieved_rows"],
        "dropped": selection["dropped"],
        "queries": {**_without_costs(steps["queries"]), "without_hits": hits["queries_without_hits"]},
        **facts,
        "engine": engine,
        "seconds": total_seconds(steps),
        "costs": costs(steps),
    }


def _without_costs(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in _COSTS}


def costs(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows, seconds, bytes and peak memory of every step, and of the `parts` that a step reports."""
    told: dict[str, dict[str, Any]] = {}
    for name, facts in steps.items():
        told |= costs(facts.get("parts", {}))
        told[name] = {key: facts[key] for key in ("rows", *_COSTS) if key in facts}
    return told


def _anchor_texts(anchors: Iterable[str | None] | Dataset, columns: Sequence[str] | None) -> Iterable[str | None]:
    if not isinstance(anchors, Dataset):
        return several_texts(anchors, "anchors")
    if columns is None:
        return task_texts(anchors, find_text_columns(anchors))
    return task_texts(anchors, [columns] if isinstance(columns, str) else list(columns))
