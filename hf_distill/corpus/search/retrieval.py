"""Retrieval as a small protocol: index token streams once, search many queries, get rows and scores.

Every engine returns its hits in the total order of `hf_distill.corpus.search.scoring`, so engines are interchangeable.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import xxhash

from ...storage.files import disk_space
from ...storage.plain_values import did_you_mean
from ...storage.steps import begin, damage_of_step, differences, finish, go_on, read_marker
from ..text.analysis import TokenStreams
from .scoring import CorpusStatistics, Hits

logger = logging.getLogger(__name__)

# Part of every handle's pickled state: results that `Dataset.map` cached with older code are not reused.
FORMAT = 3

_ENGINES = {
    "retriv": ("hf_distill.corpus.search.engines.retriv", "RetrivEngine"),
    "bm25s": ("hf_distill.corpus.search.engines.bm25s", "Bm25sEngine"),
    "blocks": ("hf_distill.corpus.search.engines.blocks", "BlocksEngine"),
    "tantivy": ("hf_distill.corpus.search.engines.tantivy", "TantivyEngine"),
    "elasticsearch": ("hf_distill.corpus.search.engines.elasticsearch", "ElasticsearchEngine"),
}
ENGINES: tuple[str, ...] = tuple(_ENGINES)
# Engines that users have registered.
_REGISTERED: dict[str, type[Engine]] = {}

# Open engines of this process by folder and checksum: a memory map must never be part of a pickled function.
_OPEN: dict[tuple[str, str], Engine] = {}


class Engine(Protocol):
    """A searchable index. The class builds, an instance searches.

    Attributes:
        name: Its name for `--engine`.
        max_rows: Maximum number of rows for which `--engine auto` chooses it; 0 if it must be named.
        num_rows: Rows of the open index.
        continues: Whether `build` continues in the folder of a killed build; absent if it cannot.
        lost: Function of a folder and the options of `build`; returns what is missing from an index that is stored
            elsewhere, `None` if it is complete. Absent if everything is in the folder.
    """

    name: str
    max_rows: int
    num_rows: int

    def __init__(self, folder: Path) -> None:
        """Open the index in `folder`, memory-mapped."""

    @staticmethod
    def check() -> None:
        """Raise ImportError with the install command if the engine's library cannot be imported."""
        return  # By default only the dependencies of this package are needed.

    @classmethod
    def version(cls) -> str:
        """Return the version of the engine's library; by default that of the package with the engine's name."""
        return version(cls.name)

    @staticmethod
    def build(
        streams: TokenStreams, folder: Path, *, k1: float, b: float, statistics: CorpusStatistics | None = None
    ) -> None:
        """Index token streams into `folder`, with the statistics of the whole corpus if they are a shard of it."""

    def search(self, queries: Sequence[Sequence[str]], k: int, *, num_threads: int | None = None) -> Hits:
        """Return the k best rows of every query, in the total order.

        Args:
            queries: Terms of every query; unknown terms are ignored, repeated terms count repeatedly.
            k: Maximum number of hits for each query.
            num_threads: Threads; all cores by default. With 1 no other thread is started, as forked workers require.
        """


EngineClass = TypeVar("EngineClass", bound=Engine)


@dataclass(frozen=True)
class EngineChoice:
    """The chosen engine and the reason for the choice; statistics and card show both."""

    name: str
    why: str


def register_engine(engine: type[EngineClass]) -> type[EngineClass]:
    """Class decorator: register an engine for `--engine` under its `name`.

    `--engine auto` chooses it only if no engine of this package is suitable and the corpus has at most `max_rows`
    rows.

    Raises:
        ValueError: If another engine has the name.
    """
    known = _REGISTERED.get(engine.name)
    if engine.name in ("auto", *ENGINES) or (known is not None and known is not engine):
        raise ValueError(f"There is already an engine {engine.name!r}; there are {['auto', *list_engines()]}.")
    _REGISTERED[engine.name] = engine
    return engine


def list_engines() -> list[str]:
    """Return the names of all engines, those of this package first."""
    return [*ENGINES, *_REGISTERED]


def engine_class(name: str) -> type[Engine]:
    """Return the class of an engine.

    Raises:
        ValueError: If there is no engine of that name.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in _ENGINES:
        known = ["auto", *list_engines()]
        raise ValueError(f"`--engine` is {name!r}; allowed are {known}.{did_you_mean(name, known)}")
    module, attribute = _ENGINES[name]
    return cast("type[Engine]", getattr(importlib.import_module(module), attribute))


def make_engine(name: str, folder: str | Path) -> Engine:
    """Open the index that an engine saved in `folder`.

    Raises:
        ValueError: If there is no engine of that name.
        ImportError: If the engine's package is missing.
    """
    return engine_class(name)(Path(folder))


def choose_engine(name: str, num_rows: int) -> EngineChoice:
    """Return the engine for a corpus: the named one, or for `auto` the first installed one that allows so many rows.

    Raises:
        ValueError: If there is no engine of that name, or none for so many rows.
        ImportError: If the named engine is not installed.
    """
    if name != "auto":
        engine_class(name).check()
        return EngineChoice(name, "asked for")
    passed_over = []
    for candidate in list_engines():
        engine = engine_class(candidate)
        if num_rows > engine.max_rows:
            if engine.max_rows:
                passed_over.append(f"{num_rows:,} rows are more than {candidate} is taken for ({engine.max_rows:,})")
            continue
        try:
            engine.check()
        except ImportError as error:
            passed_over.append(str(error))
            continue
        reason = f"{candidate} is installed and {num_rows:,} rows are within its bound of {engine.max_rows:,}"
        return EngineChoice(candidate, "; ".join([*passed_over, reason]))
    raise ValueError(f"No engine holds {num_rows:,} rows ({'; '.join(passed_over)}): cut them up with `--num_shards`.")


class IndexHandle:
    """Refers to a saved index and opens it on first use, once per process.

    Its pickled state consists of the path, the index's checksum, its settings and this module's format. It is small,
    equal in every process, and different for another index, as the fingerprints of `Dataset.map` require.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the index's marker.

        Args:
            path: Folder written by `save_index`.

        Raises:
            ValueError: If the folder holds no complete index of this format, or a file is missing or has another size.
        """
        self.path = str(path)
        marker = read_marker(path) or {"facts": {}}
        self.format = FORMAT
        found = marker["facts"].get("format", FORMAT)
        if found != FORMAT:
            raise ValueError(f"The index {self.path!r} has format {found}; this version reads {FORMAT}.")
        self._check(content=False)
        self.settings: dict[str, Any] = marker["settings"]
        self.num_rows: int = marker["facts"]["rows"]
        self.num_terms: int = marker["facts"]["terms"]
        self.checksum = xxhash.xxh3_64_hexdigest(json.dumps(marker, sort_keys=True).encode())
        # A worker that did not inherit this process's imports registers the engine by importing its module.
        self.module = engine_class(self.settings["engine"]).__module__

    def open(self) -> Engine:
        """Return the engine, opened at most once in this process."""
        key = (self.path, self.checksum)
        if key not in _OPEN:
            importlib.import_module(self.module)
            _OPEN[key] = make_engine(self.settings["engine"], self.path)
        return _OPEN[key]

    def verify(self, **options: Any) -> None:
        """Verify the content of the index, once per process; opening it compares only sizes.

        Args:
            options: The options of `save_index`.

        Raises:
            ValueError: If a file is damaged, or the part that the engine stores elsewhere is missing.
        """
        self._check(content=True)
        look: Any = getattr(engine_class(self.settings["engine"]), "lost", None)
        lost = None if look is None else look(Path(self.path), **options)
        if lost is not None:
            raise ValueError(f"{self.path!r} is not a complete index: {lost}. Delete the folder to build it again.")

    def _check(self, *, content: bool) -> None:
        damage = damage_of_step(self.path, content=content)
        if damage is not None:
            raise ValueError(f"{self.path!r} is not a complete index: {damage}. Delete the folder to build it again.")

    def close(self) -> None:
        """Release the engine of this process, with its memory and its memory maps."""
        _OPEN.pop((self.path, self.checksum), None)

    def size(self) -> int:
        """Return the size in bytes on disk."""
        files = (read_marker(self.path) or {"files": {}})["files"]
        return sum(noted["bytes"] for noted in files.values())


def save_index(
    streams: TokenStreams,
    path: str | Path,
    settings: dict[str, Any],
    *,
    statistics: CorpusStatistics | None = None,
    **options: Any,
) -> IndexHandle:
    """Index token streams and save the index, which counts as existing only once it is complete.

    Args:
        streams: The streams to index.
        path: Destination folder.
        settings: `engine`, `k1`, `b`, and anything else that distinguishes this index from others, as JSON values. If
            statistics are given, their checksum belongs here, because they make another index.
        statistics: Statistics of the whole corpus if the streams are a shard of it; by default their own.
        options: Options that only this engine has and that do not affect the hits (`url` of a search server).
    """
    path = Path(path)
    engine = engine_class(settings["engine"])
    with disk_space(path, "an index", "--index_dir, --work_dir"):
        if not getattr(engine, "continues", False) or go_on(path, settings)["finished"]:
            begin(path, settings)
        engine.build(streams, path, k1=settings["k1"], b=settings["b"], statistics=statistics, **options)
        finish(path, settings, {"format": FORMAT, "rows": streams.num_texts, "terms": len(streams.vocabulary)})
    handle = IndexHandle(path)
    # A rebuilt index has the same checksum, but an open engine still maps the old files.
    _OPEN.pop((handle.path, handle.checksum), None)
    return handle


def find_index(path: str | Path, settings: dict[str, Any]) -> IndexHandle | None:
    """Return the index at `path` if it is complete and has the same settings, else None."""
    try:
        handle = IndexHandle(path)
    except ValueError:
        return None
    return None if differences(handle.settings, settings) else handle


def settings_key(settings: dict[str, Any]) -> str:
    """Return a short hash of some settings, for folder names."""
    return xxhash.xxh3_64_hexdigest(json.dumps(settings, sort_keys=True).encode())
