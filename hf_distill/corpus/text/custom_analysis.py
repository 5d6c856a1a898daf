"""A user's own token analysis, named as `package.module:function`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import xxhash

FLAG = "--token_analysis"


class OwnAnalysis:
    """A function from a text to its terms, which takes the place of words, stop words and stemmer.

    Args:
        name: `package.module:function`, where Python finds the module (a file of one's own: in the folder that
            `PYTHONPATH` names).

    Raises:
        ValueError: If there is no such function.
    """

    def __init__(self, name: str) -> None:
        module, _, attribute = name.partition(":")
        if not module or not attribute:
            raise ValueError(f"`{FLAG}` is {name!r}; it must look like package.module:function.")
        try:
            function = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"`{FLAG}` is {name!r}, which cannot be imported: {error}. A file of your own must be where "
                "PYTHONPATH says."
            ) from error
        if not callable(function):
            raise ValueError(f"`{FLAG}` is {name!r}, which is no function but {type(function).__name__}.")
        self.name = name
        self._function: Callable[[str], list[str]] = function

    def __call__(self, text: str) -> list[str]:
        """The terms of a text.

        Raises:
            TypeError: If the function does not return strings.
            ValueError: If a term is empty or has a blank in it: engines join terms with blanks.
        """
        terms = list(self._function(text))
        for term in terms:
            if not isinstance(term, str):
                raise TypeError(
                    f"`{FLAG}` {self.name} must return strings, but one is {type(term).__name__}: {term!r}."
                )
            if not term or term.split() != [term]:
                raise ValueError(
                    f"`{FLAG}` {self.name} returned the term {term!r}; terms are not empty, without blanks."
                )
        return terms

    def settings(self) -> dict[str, Any]:
        """The name, and a checksum of the source: an index made with another text of the function is another one."""
        try:
            source = inspect.getsource(self._function)
        except (OSError, TypeError):
            source = ""
        return {"token_analysis": self.name, "source": xxhash.xxh3_64_hexdigest(source.encode())}
