"""Writes the folder of a corpus: parquet files, statistics, and a card that shows the settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from hf_distill.commands.folders import check_room
from hf_distill.commands.results import command_line
from hf_distill.corpus.build.loading import corpus_label, named_corpora
from hf_distill.hub.dataset_card import CorpusCardFacts, write_dataset_card
from hf_distill.hub.disclosure import public
from hf_distill.settings.parsing import changed_arguments, write_arguments
from hf_distill.storage.files import new_folder, remove, write_json

if TYPE_CHECKING:
    from hf_distill.corpus.augment.builder import AugmentedCorpus
    from hf_distill.corpus.build.builder import CorpusResult
    from hf_distill.corpus.build.general import GeneralCorpus

STATISTICS_FILE = "statistics.json"

_BYTES_PER_FILE = 500_000_000
# Settings that name data: the card shows the last part of their path. Other local folders are not shown at all.
_DATA = frozenset({"task", "corpus", "masked_lm", "embeddings"})
_PRIVATE = frozenset({"data_dir", "corpus_dir", "work_dir", "index_dir", "elasticsearch_url"})


def write_corpus(
    verb: str,
    folder: Path,
    built: CorpusResult | AugmentedCorpus | GeneralCorpus,
    settings: Sequence[Any],
    *,
    name: str,
    packages: Sequence[str] = ("datasets", "numpy"),
    **facts: Any,
) -> dict[str, Any]:
    """Write a corpus with its statistics, its card and the arguments of the run.

    Args:
        verb: The verb that built the corpus, for the command on the card.
        folder: Folder of the corpus: `data/train-*.parquet`, readable by `load_dataset` and `load_general_corpus`,
            `statistics.json`, `README.md` and `arguments.yaml`.
        built: The corpus; `bytes` (of the text) in its statistics determines the number of files.
        settings: The arguments of the run.
        name: Title of the card.
        packages: Packages whose versions the card lists.
        facts: Other fields of `CorpusCardFacts`.

    Returns:
        The results of the verb: `job`, `corpus_dir`, `rows` and `statistics`.

    Raises:
        FileExistsError: If `data` holds files that no earlier build wrote; files of an earlier build are replaced.
    """
    from hf_distill import __version__

    write_rows(folder, built.dataset, built.statistics)
    write_arguments(folder, *settings)
    shown = shown_settings(*settings)
    card = CorpusCardFacts(
        name,
        built.statistics,
        settings=shown,
        command=command_line(verb, shown),
        versions={"hf_distill": __version__, **{package: version(package) for package in packages}},
        **facts,
    )
    write_dataset_card(folder, card)
    return {"job": verb, "corpus_dir": str(folder), "rows": len(built.dataset), "statistics": built.statistics}


def corpus_summary(results: dict[str, Any]) -> str:
    """Report the number of rows, the time, and the folder."""
    return f"{results['rows']:,} rows in {results['seconds']:.0f} s; corpus in {results['corpus_dir']}"


def write_rows(folder: Path, rows: Dataset, statistics: dict[str, Any]) -> None:
    """Write `data/train-*.parquet` and `statistics.json`; see `write_corpus`."""
    check_room(folder)
    num_files = max(1, math.ceil(statistics["bytes"] / _BYTES_PER_FILE))
    with new_folder(folder / "data") as data:
        for index in range(num_files):
            part = rows.shard(num_files, index, contiguous=True)
            part.to_parquet(str(data / f"train-{index:05d}-of-{num_files:05d}.parquet"))
        # The statistics of an earlier build do not describe these rows.
        remove(folder / STATISTICS_FILE)
    write_json(folder / STATISTICS_FILE, public(statistics))


def is_built_folder(folder: Path) -> bool:
    """Whether a folder holds a corpus that was built here, with its card."""
    return (folder / STATISTICS_FILE).is_file() and (folder / "README.md").is_file() and (folder / "data").is_dir()


def shown_settings(*arguments: Any) -> dict[str, Any]:
    """Settings for a public card: local folders are removed, names of data are kept."""
    changed = {name: value for name, value in changed_arguments(*arguments).items() if name not in _PRIVATE}
    if "corpora" in changed:
        named = named_corpora(changed["corpora"], "--corpora")
        changed["corpora"] = [f"{name}={corpus_label(where)}" for name, where in named.items()]
    return {name: corpus_label(value) if name in _DATA else value for name, value in changed.items()}
