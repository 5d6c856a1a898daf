"""What every engine's tests share: which engines there are here, how to index texts with one, hard little texts."""

import importlib.util
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hf_distill.corpus.search.engines import retriv
from hf_distill.corpus.search.retrieval import ENGINES, save_index
from hf_distill.corpus.text.analysis import Analyzer

needs_retriv = pytest.mark.skipif(
    importlib.util.find_spec("retriv") is None, reason=f"retriv is not installed: {retriv.INSTALL}"
)
NEEDS = {"retriv": retriv.INSTALL, "tantivy": "pip install 'hf_distill[tantivy]'"}
PLAIN = Analyzer("none")


def engine_cases(*names):
    """Parameters for `pytest.mark.parametrize`; an engine that is not installed is skipped with the way to get it."""
    return [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                name in NEEDS and importlib.util.find_spec(name) is None, reason=f"{name}: {NEEDS.get(name)}"
            ),
        )
        for name in names or ENGINES
    ]


@contextmanager
def full_disk(prefix):
    """Every write to files whose names begin so fails, as the kernel's device for a full disk does it."""
    real = Path.open

    def open_or_full(self, mode="r", *args, **options):
        # To read from the device would never end.
        full = self.name.startswith(prefix) and "r" not in mode
        return real(Path("/dev/full") if full else self, mode, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_or_full)
        yield


class Indexer:
    """`indexer(texts)` indexes texts with one engine and opens the index.

    Args:
        engine: Name of the engine.
        folder: Where indexes go.
        url: Address of a search server, for the engine that has one.
    """

    def __init__(self, engine, folder, url=None):
        self.engine, self.folder = engine, folder
        self.options = {"url": url} if engine == "elasticsearch" else {}
        self.made = 0

    def __call__(self, texts, analyzer=PLAIN, k1=1.2, b=0.75, statistics=None):
        return self.streams(analyzer.encode([texts]), k1, b, statistics)

    def streams(self, streams, k1=1.2, b=0.75, statistics=None):
        self.made += 1
        settings = {"engine": self.engine, "k1": k1, "b": b}
        folder = self.folder / f"{self.engine}-{self.made}"
        return save_index(streams, folder, settings, statistics=statistics, **self.options).open()


def random_texts(seed, count=60, words=12, longest=9):
    """Short texts over few words: full of ties and repeats."""
    random = np.random.default_rng(seed)
    return [" ".join(f"w{w}" for w in random.integers(0, words, random.integers(0, longest))) for _ in range(count)]


QUERIES = [
    [],
    ["w1"],
    ["w1", "w1", "w1"],
    ["w2", "w5", "w1", "w9"],
    ["unknown"],
    ["w3", "unknown", "w3"],
    [f"w{index}" for index in range(12)],
    [],
]
