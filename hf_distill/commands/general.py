"""Mix general corpora: folder with parquet files, card and statistics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hf_distill.commands.corpus_folder import command_line, shown_settings, write_rows
from hf_distill.commands.folders import writes_folder
from hf_distill.corpus.build.general import build_general_corpus
from hf_distill.corpus.build.loading import load_general_corpus, named_corpora, split_config
from hf_distill.hub.dataset_card import CorpusCardFacts, write_dataset_card
from hf_distill.settings import GeneralCorpusArguments
from hf_distill.settings.parsing import write_arguments


@writes_folder("data", "work")
def run(arguments: GeneralCorpusArguments) -> dict[str, Any]:
    """Mixes general corpora into one.

    Writes to `corpus_dir`: `data/*.parquet` (which `--corpus`, `--textbook` and `load_dataset` open), `README.md` (the
    card), `statistics.json`, `arguments.yaml`, and `work/` (finished steps, unless another folder was named). A run
    that was killed is continued by the same command.

    Args:
        arguments: The corpora, their shares, and what a row is.

    Returns:
        `corpus_dir`, `rows`, `statistics`, `seconds`.

    Raises:
        FileNotFoundError: If a corpus is not there.
        ValueError: If none is named, or data and settings do not fit.
    """
    started = time.perf_counter()
    named = named_corpora(arguments.corpora or (), "--corpora")
    corpora = {
        name: load_general_corpus(*split_config(where), split=arguments.corpus_split, flag="--corpora")
        for name, where in named.items()
    }
    folder = Path(arguments.corpus_dir).expanduser()
    result = build_general_corpus(corpora, arguments, work_dir=arguments.work_dir or folder / "work")
    write_rows(folder, result.dataset, result.statistics)
    write_arguments(folder, arguments)
    _write_card(folder, result.statistics, arguments)
    return {
        "job": "general",
        "corpus_dir": str(folder),
        "rows": len(result.dataset),
        "statistics": result.statistics,
        "seconds": round(time.perf_counter() - started, 2),
    }


def summary(results: dict[str, Any]) -> str:
    """Say how many rows there are, how long they took and where they are."""
    return f"{results['rows']:,} rows in {results['seconds']:.0f} s; corpus in {results['corpus_dir']}"


def _write_card(folder: Path, statistics: dict[str, Any], arguments: GeneralCorpusArguments) -> None:
    from importlib.metadata import version

    from hf_distill import __version__

    settings = shown_settings(arguments)
    facts = CorpusCardFacts(
        name=f"General corpus of {', '.join(statistics['corpora'])}",
        kind="general",
        statistics=statistics,
        corpus_licence=arguments.corpus_licence,
        language=None,
        settings=settings,
        command=command_line("general", settings),
        versions={"hf_distill": __version__, **{name: version(name) for name in ("datasets", "numpy")}},
        citations=("contextualized_corpus",),
    )
    write_dataset_card(folder, facts)
