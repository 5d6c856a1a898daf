"""Retrieval as one small protocol: index token streams once, search many queries, get rows and scores.

Every engine gives its hits in the total order of `hf_distill.corpus.search.scoring`, so engines can be exchanged.
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

# Part of every handle's pickled state: results that `Dataset.map` cached with other code are not taken for these.
FORMAT = 3

_ENGINES = {
    "retriv": ("hf_distill.corpus.search.engines.retriv", "RetrivEngine"),
    "bm25s": ("hf_distill.corpus.search.engines.bm25s", "Bm25sEngine"),
    "blocks": ("hf_distill.corpus.search.engines.blocks", "BlocksEngine"),
    "tantivy": ("hf_distill.corpus.search.engines.tantivy", "TantivyEngine"),
    "elasticsearch": ("hf_distill.corpus.search.engines.elasticsearch", "ElasticsearchEngine"),
}
ENGINES: tuple[str, ...] = tuple(_ENGINES)
# Engines of the user's own.
_REGISTERED: dict[str, type[Engine]] = {}

# Open engines of this process by folder and checksum: a memory map must never be part of a pickled function.
_OPEN: dict[tuple[str, str], Engine] = {}


class Engine(Protocol):
    """A searchable index. The class builds, an instance searches.

    Attributes:
        name: What `--engine` calls it.
        max_rows: Rows up to which `--engine auto` takes it; 0 for an engine that has to be named.
        num_rows: Rows of the open index.
        continues: Whether `build` goes on where a killed build left its folder; absent where it cannot.
        lost: Takes a folder and the options of `build`; says what is gone of an index that lies elsewhere, `None` if
            it is whole. Absent where everything is in the folder.
    """

    name: str
    max_rows: int
    num_rows: int

    def __init__(self, folder: Path) -> None:
        """Open the index in `folder`, memory-mapped."""

    @staticmethod
    def check() -> None:
        """Raise ImportError, with the command that helps, if the engine's library cannot be imported."""
        return  # By default nothing is needed that this package does not install.

    @classmethod
    def version(cls) -> str:
        """Return the version of the library behind the engine, by default of the package that has its name."""
        return version(cls.name)

    @staticmethod
    def build(
        streams: TokenStreams, folder: Path, *, k1: float, b: float, statistics: CorpusStatistics | None = None
    ) -> None:
        """Index token streams into `folder`, with the statistics of a whole corpus where they are a shard of it."""

    def search(self, queries: Sequence[Sequence[str]], k: int, *, num_threads: int | None = None) -> Hits:
        """Return the k best rows of every query, in the total order.

        Args:
            queries: Terms of every query; unknown terms are ignored, repeated ones count repeatedly.
            k: Hits per query; a query with fewer matching rows has fewer.
            num_threads: Threads; all cores by default. With 1 no other thread is started, as forked workers need.
        """


EngineClass = TypeVar("EngineClass", bound=Engine)


@dataclass(frozen=True)
class EngineChoice:
    """The engine that was chosen, and why; statistics and card show both."""

    name: str
    why: str


def register_engine(engine: type[EngineClass]) -> type[EngineClass]:
    """Class decorator: make an engine known to `--engine` by its `name`.

    `--engine auto` takes it only where no engine of this package fits and its `max_rows` allows so many rows.

    Raises:
        ValueError: If another engine has that name.
    """
    known = _REGISTERED.get(engine.name)
    if engine.name in ("auto", *ENGINES) or (known is not None and known is not engine):
        raise ValueError(f"There is already an engine {engine.name!r}; there are {['auto', *list_engines()]}.")
    _REGISTERED[engine.name] = engine
    return engine


def list_engines() -> list[str]:
    """Return names of all engines, those of this package first."""
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
    """Opens the index that an engine saved in `folder`.

    Raises:
        ValueError: If there is no engine of that name.
        ImportError: If the engine's package is missing.
    """
    return engine_class(name)(Path(folder))


def choose_engine(name: str, num_rows: int) -> EngineChoice:
    """Return the engine for a corpus: the named one, or for `auto` the first that is installed and holds so many rows.

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
    """Names a saved index and opens it on first use, once per process.

    Its pickled state is the path, the index's checksum, its settings and this module's format: small, the same in
    every process, and different for another index, as the fingerprints of `Dataset.map` need.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the index's marker.

        Args:
            path: Folder that `save_index` wrote.

        Raises:
            ValueError: If the folder holds no complete index of this format, or a file is missing or of another size.
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
        """Return the engine, opened in this process if it is not yet."""
        key = (self.path, self.checksum)
        if key not in _OPEN:
            importlib.import_module(self.module)
            _OPEN[key] = make_engine(self.settings["engine"], self.path)
        return _OPEN[key]

    def verify(self, **options: Any) -> None:
        """Compare the content of the index with what was written, once in a process; opening it compares sizes only.

        Args:
            options: Those of `save_index`.

        Raises:
            ValueError: If a file is damaged, or what the engine keeps elsewhere is not there.
        """
        self._check(content=True)
        look: Any = getattr(engine_class(self.settings["engine"]), "lost", None)
        lost = None if look is None else look(Path(self.path), **options)
        if lost is not None:
            raise ValueError(f"{self.path!r} is no whole index: {lost}. Delete the folder to build it anew.")

    def _check(self, *, content: bool) -> None:
        damage = damage_of_step(self.path, content=content)
        if damage is not None:
            raise ValueError(f"{self.path!r} is no whole index: {damage}. Delete the folder to build it anew.")

    def close(self) -> None:
        """Lets the engine of this process go, with its memory and its view of the files."""
        _OPEN.pop((self.path, self.checksum), None)

    def size(self) -> int:
        """Return the bytes on disk."""
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
    """Index token streams and save the index, which counts as there only once it is complete.

    Args:
        streams: What to index.
        path: Folder to write.
        settings: `engine`, `k1`, `b`, and anything else that tells this index from others, JSON-able. An index with
            given statistics is another one: their checksum belongs here.
        statistics: Those of the whole corpus where the streams are a shard of it; their own by default.
        options: What only this engine takes, and no hit depends on (`url` of a search server).
    """
    path = Path(path)
    engine = engine_class(settings["engine"])
    with disk_space(path, "an index", "--index_dir, --work_dir"):
        if not getattr(engine, "continues", False) or go_on(path, settings)["finished"]:
            begin(path, settings)
        engine.build(streams, path, k1=settings["k1"], b=settings["b"], statistics=statistics, **options)
        finish(path, settings, {"format": FORMAT, "rows": streams.num_texts, "terms": len(streams.vocabulary)})
    handle = IndexHandle(path)
    # An index that is made again has the same checksum; what is open maps the files of before.
    _OPEN.pop((handle.path, handle.checksum), None)
    return handle


def find_index(path: str | Path, settings: dict[str, Any]) -> IndexHandle | None:
    """Return the index at `path` if it is complete and was made with the same settings, else None."""
    try:
        handle = IndexHandle(path)
    except ValueError:
        return None
    return None if differences(handle.settings, settings) else handle


def settings_key(settings: dict[str, Any]) -> str:
    """Return a short name of some settings, for folders."""
    return xxhash.xxh3_64_hexdigest(json.dumps(settings, sort_keys=True).encode())
