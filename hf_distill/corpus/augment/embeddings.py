"""Words with similar embeddings: candidates for words that a masked language model splits into pieces.

Vectors are normalised to length one, so that the dot product is the cosine; a word is never its own neighbour
(TinyBERT, data augmentation).

Shape legend: W words of a table, D width, Q words to look up.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash

from .words import Vocabulary

# Number of words whose products are computed together: 64 rows of 100,000 numbers are 26 MB.
_BLOCK = 64
_PART = 10_000
# The nearest words by float32, plus this many more, are sorted again in float64.
_SPARE = 16


class Neighbours(Protocol):
    """A source of words with similar embeddings."""

    def neighbours(self, words: Sequence[str], count: int) -> list[list[str]]:
        """Return the `count` nearest words of each word, nearest first; none for an unknown word."""

    def describe(self) -> dict[str, Any]:
        """Return a description as JSON values, with a checksum of the vectors."""


class WordVectors:
    """A table of words and vectors, such as GloVe's.

    Args:
        words: W distinct words.
        vectors: (W, D) vectors, none of them zero.
        name: Name of the table.
    """

    def __init__(self, words: Sequence[str], vectors: np.ndarray, name: str) -> None:
        self.words = list(words)
        self.name = name
        self._row = {word: row for row, word in enumerate(self.words)}
        self._vectors = _unit(vectors)

    @classmethod
    def read(cls, path: str | Path, max_words: int = 100_000) -> WordVectors:
        """Read the first words of a text file with a word and its numbers on each line; a word2vec header is allowed.

        Empty lines are skipped.

        Args:
            path: The file; if its name ends in `.gz`, it is decompressed while reading.
            max_words: Number of words to read.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If a line is not a word with as many finite numbers as the first line, or the file is not text
                in UTF-8.
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"`--embeddings`: there is no file {str(path)!r}.")
        try:
            found = cls._read_lines(file, max_words)
        except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(
                f"`--embeddings` {str(path)!r} cannot be read as text in UTF-8 ({error}): name the text file of word "
                "embeddings, unpacked or as .gz."
            ) from error
        if not found:
            raise ValueError(f"`--embeddings` {str(path)!r} holds no word.")
        return cls(list(found), np.stack(list(found.values())), file.name)

    @staticmethod
    def _read_lines(file: Path, max_words: int) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        width = 0
        opened = gzip.open if file.suffix == ".gz" else open
        with opened(file, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if len(found) == max_words:
                    break
                fields = line.rstrip().split(" ")
                if fields == [""]:
                    continue
                if number == 1 and len(fields) == 2:
                    continue
                width = width or len(fields) - 1
                vector = _numbers(fields[-width:]) if 0 < width < len(fields) else None
                if vector is None:
                    raise ValueError(
                        f"`--embeddings` {str(file)!r}, line {number}: expected a word and {max(width, 1)} numbers "
                        f"with blanks between them, but found {line[:60]!r}."
                    )
                if vector.any():
                    found.setdefault(" ".join(fields[:-width]), vector)
        return found

    def describe(self) -> dict[str, Any]:
        """Return the name, size and checksum."""
        return {"table": self.name, "words": len(self.words), "checksum": _checksum(self.words, self._vectors)}

    def neighbours(self, words: Sequence[str], count: int) -> list[list[str]]:
        """Return the nearest words, capitalised if the word is: most tables are in lower case."""
        rows = [self._row.get(word, self._row.get(word.lower(), -1)) for word in words]
        known = [index for index, row in enumerate(rows) if row >= 0]
        at = np.array([rows[index] for index in known], dtype=np.int64)
        nearest = _nearest(self._vectors, self._vectors[at], at, count)
        found: list[list[str]] = [[] for _ in words]
        for index, others in zip(known, nearest, strict=True):
            texts = [self.words[row] for row in others]
            found[index] = [text.title() for text in texts] if words[index].istitle() else texts
        return found


class PieceVectors:
    """A masked language model's own input embeddings, used without a table: a word's vector is the mean of its pieces.

    Its neighbours are the pieces that are whole words. This deviates from TinyBERT, which uses GloVe.

    Args:
        tokenizer: The model's tokenizer.
        embeddings: (V, D) input embeddings.
        vocabulary: The pieces as words.
    """

    def __init__(self, tokenizer: Any, embeddings: np.ndarray, vocabulary: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._embeddings = embeddings
        self._vocabulary = vocabulary
        self._ids = np.flatnonzero(
            vocabulary.begins & vocabulary.is_word & np.any(embeddings[: len(vocabulary.texts)] != 0, axis=1)
        )
        self._vectors = _unit(embeddings[self._ids])

    def describe(self) -> dict[str, Any]:
        """Return the name, size and checksum."""
        words = [self._vocabulary.texts[index] for index in self._ids.tolist()]
        return {"table": "input embeddings", "words": len(words), "checksum": _checksum(words, self._vectors)}

    def neighbours(self, words: Sequence[str], count: int) -> list[list[str]]:
        """Return the nearest whole words."""
        if not words:
            return []
        # Encode the word with a blank before it, as it occurs inside a sentence.
        pieces = self._tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        means = np.stack([self._embeddings[ids].astype(np.float64).mean(axis=0) for ids in pieces])
        own = np.full(len(words), -1)
        nearest = _nearest(self._vectors, _unit(means), own, count)
        return [[self._vocabulary.texts[self._ids[row]] for row in rows] for rows in nearest]


def _numbers(fields: Sequence[str]) -> np.ndarray | None:
    try:
        with np.errstate(over="ignore"):
            vector = np.array(fields, dtype=np.float32)
    except ValueError:
        return None
    return vector if np.isfinite(vector).all() else None


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Normalise (W, D) vectors to length one, in float32."""
    unit = np.empty(vectors.shape, dtype=np.float32)
    # Work in parts: a multilingual vocabulary in float64 takes more than a gigabyte.
    for start in range(0, len(vectors), _PART):
        exact = np.asarray(vectors[start : start + _PART], dtype=np.float64)
        unit[start : start + _PART] = exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-30)
    return unit


def _nearest(table: np.ndarray, queries: np.ndarray, own: np.ndarray, count: int) -> list[list[int]]:
    """Return the rows of the table with the largest products with each query, descending; ties go to the lower row.

    Args:
        table: (W, D) unit vectors.
        queries: (Q, D) unit vectors.
        own: (Q,) row of each query in the table, which is excluded, or -1.
        count: Number of rows for each query.
    """
    found = []
    wide = min(count + _SPARE + 1, len(table))
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        products = block @ table.T
        near = np.argpartition(-products, wide - 1, axis=1)[:, :wide]
        for query, rows, self_row in zip(block, near, own[start : start + _BLOCK], strict=True):
            rows = np.sort(rows[rows != self_row])
            # Multiply one query at a time, so that other queries of the block do not affect the rounding.
            exact = (table[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
            found.append(rows[np.argsort(-exact, kind="stable")][:count].tolist())
    return found


def _checksum(words: Sequence[str], vectors: np.ndarray) -> str:
    digest = xxhash.xxh3_64("\n".join(words).encode("utf-8", "surrogatepass"))
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()
