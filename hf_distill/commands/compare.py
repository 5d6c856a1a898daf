"""Compares corpora with a task's own text: tables, figures, and optionally a section in their cards."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hf_distill.commands.corpus_folder import STATISTICS_FILE, is_built_folder
from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import finish
from hf_distill.corpus.build.anchors import task_texts
from hf_distill.corpus.build.loading import load_general_corpus, named_corpora, split_config
from hf_distill.corpus.compare.comparison import (
    EVALUATION,
    MeasuredCorpus,
    compare_corpora,
    measure_corpus,
)
from hf_distill.corpus.compare.figures import draw_overlap, draw_top_shares
from hf_distill.corpus.compare.report import format_comparison
from hf_distill.corpus.text.rows import TEXT_TYPES
from hf_distill.hub.dataset_card import FIGURES_FOLDER, write_section
from hf_distill.hub.disclosure import public
from hf_distill.settings import ComparisonArguments, TaskArguments
from hf_distill.settings.parsing import arguments_to_dict
from hf_distill.storage.files import copy_file, read_json, write_text
from hf_distill.storage.plain_values import did_you_mean
from hf_distill.tasks.loading import LoadedTask, load_task
from hf_distill.tasks.rows.text import PAIR_COLUMN

logger = logging.getLogger(__name__)

# The name of the task's own text.
TASK = "task"
RESULTS_FILE = "comparison.json"
REPORT_FILE = "comparison.md"
OVERLAP_FIGURE = "vocabulary_overlap.png"
SHARES_FIGURE = "top_shares.png"


@writes_folder()
def run(
    task: TaskArguments, comparison: ComparisonArguments, command: str = "", *, loaded: LoadedTask | None = None
) -> dict[str, Any]:
    """Compare corpora with the text of a task's training rows, and all of them with its validation and test texts.

    Writes to `comparison.output_dir`: `comparison.json`, `comparison.md`, and with matplotlib `vocabulary_overlap.png`
    and, if a corpus was retrieved, `top_shares.png`.

    Args:
        task: The task and the location of its rows.
        comparison: The corpora and the settings of the comparison.
        command: The command line that repeats the run.
        loaded: The task's rows if they are already loaded.

    Returns:
        The content of `comparison.json`: the result of `compare_corpora`, with the task, the figures and the machine.

    Raises:
        FileNotFoundError: If a corpus does not exist.
        ValueError: If two corpora have the same name, or one has no text.
    """
    started = time.perf_counter()
    named = named_corpora(comparison.corpora, "--corpora", taken=(TASK, EVALUATION))
    if loaded is None:
        loaded = load_task(task.task, task.data_dir, **task.spec_fields())
    language = comparison.language or loaded.spec.language or "en"
    rows = loaded.subset(task.max_train_samples, None, seed=comparison.seed).train
    columns = loaded.spec.text_columns
    corpora = {TASK: measure_corpus(task_texts(rows, columns), language, num_rows=len(rows))}
    for name, where in named.items():
        corpora[name] = _measure(where, comparison.text_column, language)
    settings = replace(comparison, language=language)
    compared = compare_corpora(corpora, settings, evaluation=_evaluation(loaded, language))
    folder = Path(comparison.output_dir)
    figures = _draw(compared, loaded.spec.name, folder)
    facts = {
        "job": "compare",
        "task": loaded.spec.name,
        "output_dir": str(folder),
        **compared,
        "figures": list(figures.values()),
        "command": command,
        "arguments": arguments_to_dict(task, comparison),
    }
    finish(folder, facts, started, name=RESULTS_FILE)
    title = f"# Corpora for {loaded.spec.name}"
    write_text(folder / REPORT_FILE, f"{title}\n\n{format_comparison(public(compared), figures)}\n")
    if comparison.write_cards:
        for where in named.values():
            _write_card(Path(where).expanduser(), compared, figures, folder, loaded.spec.name)
    return facts


def summary(results: dict[str, Any]) -> str:
    """Report what was compared, and where the tables are."""
    return f"{', '.join(results['corpora'])}: compared in {results['seconds']:.0f} s; see {results['output_dir']}"


def _measure(where: str, column: str, language: str) -> MeasuredCorpus:
    """Measure a corpus, with its ranks and its top_k if it was retrieved."""
    rows = load_general_corpus(*split_config(where), flag="--corpora")
    if column not in rows.column_names:
        raise ValueError(
            f"`--corpora` {where!r} has no column {column!r} (`--text_column`): {rows.column_names}."
            + did_you_mean(column, rows.column_names)
        )
    columns = [name for name in (column, PAIR_COLUMN) if name in rows.column_names]
    for name in columns:
        # Words in a list are joined to a text.
        kind = getattr(rows.features[name], "feature", rows.features[name])
        if getattr(kind, "dtype", None) not in TEXT_TYPES:
            raise ValueError(
                f"`--corpora` {where!r}: the column {name!r} holds {rows.features[name]}, not text (`--text_column`)."
            )
    ranks = _ranks(rows) if len(columns) == 1 else None
    return measure_corpus(
        task_texts(rows, columns),
        language,
        num_rows=len(rows),
        ranks=ranks,
        top_k=None if ranks is None else _top_k(Path(where).expanduser()),
    )


def _ranks(rows: Dataset) -> np.ndarray | None:
    """The ranks of a retrieved corpus; `None` if it has none, or not in every row."""
    if "rank" not in rows.column_names:
        return None
    ranks = rows.with_format("arrow")["rank"][:]
    return np.asarray(ranks.to_numpy()) if pa.types.is_integer(ranks.type) and not ranks.null_count else None


def _top_k(folder: Path) -> int | None:
    """The number of rows retrieved for an anchor, from the statistics of a built corpus."""
    try:
        return int(read_json(folder / STATISTICS_FILE)["top_k"]["used"])
    except (OSError, KeyError):
        return None


def _evaluation(loaded: LoadedTask, language: str) -> MeasuredCorpus | None:
    """The texts of the available validation and test splits."""
    splits = [split for split in (*loaded.spec.evaluation_splits, *loaded.spec.test_splits) if split in loaded.dataset]
    texts = (text for split in splits for text in task_texts(loaded.dataset[split], loaded.spec.text_columns))
    return measure_corpus(texts, language) if splits else None


def _draw(compared: Mapping[str, Any], task: str, folder: Path) -> dict[str, str]:
    """Draw the figures and return title -> file; empty if matplotlib is missing."""
    overlap, curves = compared["overlap"], compared["top_shares"]
    names, percent = overlap["names"], f"{compared['settings']['top_words']:,} most frequent words"
    figures = {f"Words in common between corpora for {task}": OVERLAP_FIGURE}
    try:
        draw_overlap(overlap["share"], names, names, folder / OVERLAP_FIGURE, title=f"{task}: {percent}")
    except ImportError as error:
        logger.warning(str(error))
        return {}
    if curves:
        shown = {point["name"] for curve in curves.values() for point in curve}
        others = [name for name in names if name not in shown and name != compared["reference"]]
        levels = {name: overlap["share"][names.index(compared["reference"])][names.index(name)] for name in others}
        draw_top_shares(curves, levels, folder / SHARES_FIGURE, title=f"{task}: {percent}")
        figures[f"Words in common with {task} over the top share of the corpus"] = SHARES_FIGURE
    return figures


def _write_card(
    corpus: Path, compared: Mapping[str, Any], figures: Mapping[str, str], folder: Path, task: str
) -> None:
    """Write the comparison as a section into a corpus's card, and put the figures beside it."""
    if not is_built_folder(corpus):
        logger.warning(f"`--write_cards`: {corpus} is not a folder that was built here; its card is left unchanged.")
        return
    copies = {}
    for shown, file in figures.items():
        copy_file(folder / file, corpus / FIGURES_FOLDER / file)
        copies[shown] = f"{FIGURES_FOLDER}/{file}"
    text = f"## Beside other corpora\n\nCompared with the training text of {task} (`hf-distill compare`).\n\n"
    write_section(corpus, "comparison", text + format_comparison(compared, copies, level=3))
