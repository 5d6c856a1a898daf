"""Mixes general corpora: writes a folder with parquet files, card and statistics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hf_distill.commands.corpus_folder import corpus_summary, write_corpus
from hf_distill.commands.folders import writes_folder
from hf_distill.corpus.build.general import build_general_corpus
from hf_distill.corpus.build.loading import load_general_corpus, named_corpora, split_config
from hf_distill.settings import GeneralCorpusArguments


@writes_folder("data", "work")
def run(arguments: GeneralCorpusArguments) -> dict[str, Any]:
    """Mix general corpora into one.

    Writes to `corpus_dir`: `data/*.parquet` (readable by `--corpus`, `--textbook` and `load_dataset`), `README.md`
    (the card), `statistics.json`, `arguments.yaml`, and `work/` (finished steps, unless another folder is named).
    A killed run is continued by the same command.

    Args:
        arguments: The corpora, their shares, and the definition of a row.

    Returns:
        `corpus_dir`, `rows`, `statistics`, `seconds`.

    Raises:
        FileNotFoundError: If a corpus does not exist.
        ValueError: If no corpus is named, or data and settings do not match.
    """
    started = time.perf_counter()
    named = named_corpora(arguments.corpora or (), "--corpora")
    corpora = {
        name: load_general_corpus(*split_config(where), split=arguments.corpus_split, flag="--corpora")
        for name, where in named.items()
    }
    folder = Path(arguments.corpus_dir).expanduser()
    result = build_general_corpus(corpora, arguments, work_dir=arguments.work_dir or folder / "work")
    written = write_corpus(
        "general",
        folder,
        result,
        [arguments],
        name=f"General corpus of {', '.join(result.statistics['corpora'])}",
        kind="general",
        corpus_licence=arguments.corpus_licence,
        language=None,
        citations=("contextualized_corpus",),
    )
    return {**written, "seconds": round(time.perf_counter() - started, 2)}


summary = corpus_summary
