"""The folder that a corpus is written to: parquet files, statistics, and what its card shows of the settings."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_distill.corpus.build.loading import corpus_label, named_corpora
from hf_distill.hub.disclosure import public, public_command
from hf_distill.settings.parsing import changed_arguments
from hf_distill.storage.files import new_folder, remove, write_json

STATISTICS_FILE = "statistics.json"

_BYTES_PER_FILE = 500_000_000
_BUILT_FILE = re.compile(r"train-\d{5}-of-\d{5}\.parquet")
# What names data: its last part is shown. Folders that only this machine has are not shown at all.
_DATA = frozenset({"task", "corpus", "masked_lm", "embeddings"})
_PRIVATE = frozenset({"data_dir", "corpus_dir", "work_dir", "index_dir", "elasticsearch_url"})


def write_rows(folder: Path, rows: Dataset, statistics: dict[str, Any]) -> None:
    """Write `data/train-*.parquet`, which `load_dataset` and `load_general_corpus` open, and the statistics.

    Args:
        folder: Folder of the corpus.
        rows: Its rows.
        statistics: JSON-able; `bytes` (of the text) decides the number of files.

    Raises:
        FileExistsError: If `data` holds anything but the files of an earlier build, which are replaced.
    """
    _check_room(folder)
    num_files = max(1, math.ceil(statistics["bytes"] / _BYTES_PER_FILE))
    with new_folder(folder / "data") as data:
        for index in range(num_files):
            part = rows.shard(num_files, index, contiguous=True)
            part.to_parquet(str(data / f"train-{index:05d}-of-{num_files:05d}.parquet"))
        # Those of an earlier build say nothing of these rows.
        remove(folder / STATISTICS_FILE)
    write_json(folder / STATISTICS_FILE, public(statistics))


def is_built_folder(folder: Path) -> bool:
    """Whether a folder holds a corpus that was built here, with its card."""
    return (folder / STATISTICS_FILE).is_file() and (folder / "README.md").is_file() and (folder / "data").is_dir()


def _check_room(folder: Path) -> None:
    """Only a `data` folder that an earlier build wrote is replaced."""
    data = folder / "data"
    strange = sorted(f.name for f in data.iterdir() if not _BUILT_FILE.fullmatch(f.name)) if data.is_dir() else []
    if strange:
        raise FileExistsError(
            f"`--corpus_dir` is {str(folder)!r}, whose folder `data` holds files that no build wrote ({strange[:3]}); "
            "name another folder."
        )


def shown_settings(*arguments: Any) -> dict[str, Any]:
    """Settings for a card that others read: folders of this machine go, names of data stay."""
    changed = {name: value for name, value in changed_arguments(*arguments).items() if name not in _PRIVATE}
    if "corpora" in changed:
        named = named_corpora(changed["corpora"], "--corpora")
        changed["corpora"] = [f"{name}={corpus_label(where)}" for name, where in named.items()]
    return {name: corpus_label(value) if name in _DATA else value for name, value in changed.items()}


def command_line(verb: str, settings: dict[str, Any]) -> str:
    """The command line that these settings stand for."""
    words = ["hf-distill", verb]
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return public_command(words)
