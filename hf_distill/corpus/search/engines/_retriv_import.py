"""Imports the sparse half of retriv without its dense half.

`pip install retriv` replaces torch and breaks numpy 2, and `import retriv` loads torch, transformers, faiss, ranx and
optuna, overwrites two environment variables and takes ten seconds. Its BM25 needs none of that: a package object
without retriv's own `__init__` is enough. A program that uses the rest of retriv imports it before this engine.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

INSTALL = "pip install 'hf_distill[retriv]' && pip install --no-deps retriv==0.2.3"


def is_installed() -> bool:
    """Whether retriv is there, without importing it."""
    return importlib.util.find_spec("retriv") is not None


@lru_cache(maxsize=1)
def sparse_retriever_module() -> ModuleType:
    """The module `retriv.sparse_retriever.sparse_retriever`.

    Raises:
        ImportError: If retriv or something that its sparse half needs is missing; the message says what to install.
    """
    spec = importlib.util.find_spec("retriv")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(
            f"`--engine retriv` needs the package `retriv`, which is not installed. Install it with: {INSTALL}"
        )
    if hasattr(sys.modules.get("retriv"), "SparseRetriever"):
        return importlib.import_module("retriv.sparse_retriever.sparse_retriever")
    for name in [name for name in sys.modules if name == "retriv" or name.startswith("retriv.")]:
        del sys.modules[name]  # left over from an `import retriv` that failed half-way
    package = ModuleType("retriv")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    # These stay: numba finds retriv's compiled functions through their modules' names.
    sys.modules["retriv"] = package
    sys.modules["retriv.autotune"] = _stub("retriv.autotune", "tune_bm25", "tune_merger")
    without_krovetz = importlib.util.find_spec("krovetzstemmer") is None
    if without_krovetz:
        sys.modules["krovetzstemmer"] = _stub("krovetzstemmer", "Stemmer")
    try:
        return importlib.import_module("retriv.sparse_retriever.sparse_retriever")
    except ImportError as error:
        del sys.modules["retriv"], sys.modules["retriv.autotune"]
        raise ImportError(
            f"`--engine retriv`: retriv is installed, but its sparse half cannot be imported ({error}). "
            f"Install what it needs with: {INSTALL}"
        ) from error
    finally:
        if without_krovetz:
            del sys.modules["krovetzstemmer"]


@contextmanager
def base_path(folder: Path) -> Iterator[None]:
    """Lets retriv keep its files in `folder` for a while; its own indexing functions always write some."""
    before = os.environ.get("RETRIV_BASE_PATH")
    os.environ["RETRIV_BASE_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["RETRIV_BASE_PATH"]
        else:
            os.environ["RETRIV_BASE_PATH"] = before


def _stub(name: str, *callables: str) -> ModuleType:
    """A module whose callables can be constructed at import but not used."""

    class Unavailable:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __call__(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError(f"{name} is not part of the sparse half of retriv that hf_distill loads.")

    module = ModuleType(name)
    for attribute in callables:
        setattr(module, attribute, Unavailable)
    return module
