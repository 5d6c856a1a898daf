"""Tasks that vectors of texts are scored on, pairs of texts that are more or less alike and retrieval; and reranking.

Shape legend: N texts, D numbers of a vector, Q queries, M documents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..storage.files import DamagedFileError, read_text
from .labels import visible_labels
from .loading import LoadedTask

CORPUS_FILE, QUERIES_FILE, JUDGEMENTS_FOLDER = "corpus.jsonl", "queries.jsonl", "qrels"
# The splits of a folder in the order in which one is looked for.
_SPLITS = ("test", "dev", "validation", "train")
# Hits that count for the headline and the reciprocal rank; recall has one more depth.
DEPTH, DEEP = 10, 100
# Queries whose similarities with all documents are held at once.
_QUERIES = 64


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts with a number that says how alike they are.

    Attributes:
        name: Name of the task.
        split: The split that the pairs are from.
        texts: Every text once.
        left: (P,) row numbers in `texts` of the first texts.
        right: (P,) those of the second ones.
        likeness: (P,) the gold numbers; of two classes the class.
    """

    name: str
    split: str
    texts: Sequence[str]
    left: np.ndarray
    right: np.ndarray
    likeness: np.ndarray

    headline = "cosine_spearman"

    @property
    def rows(self) -> int:
        """Pairs that are scored."""
        return len(self.likeness)

    def scores(self, vectors: np.ndarray) -> dict[str, float]:
        """Rank and linear correlation of the cosines with the gold numbers.

        Args:
            vectors: (N, D) those of `texts`.
        """
        units = unit_rows(vectors)
        return cosine_correlations((units[self.left] * units[self.right]).sum(1), self.likeness)


@dataclass(frozen=True)
class Retrieval:
    """Queries, documents, and which documents answer which query.

    Attributes:
        name: Name of the task.
        split: The split of the judgements.
        texts: The documents, then the queries.
        documents: M, ids of the documents.
        queries: Q, ids of the queries that have a judgement.
        gains: For every query the documents that answer it, by row number, with how well (above 0); those of
            `training_queries` may have none.
    """

    name: str
    split: str
    texts: Sequence[str]
    documents: Sequence[str]
    queries: Sequence[str]
    gains: Sequence[Mapping[int, float]]

    headline = "ndcg@10"

    @property
    def rows(self) -> int:
        """Queries that are scored."""
        return len(self.queries)

    def scores(self, vectors: np.ndarray) -> dict[str, float]:
        """Means over the queries: nDCG@10 and MRR@10, recall@10 and recall@100, by cosine.

        A document that has the id of the query is no hit.

        Args:
            vectors: (M + Q, D) those of `texts`.
        """
        units = unit_rows(vectors)
        documents, queries = units[: len(self.documents)], units[len(self.documents) :]
        place = {identity: row for row, identity in enumerate(self.documents)}
        found = []
        for start in range(0, len(queries), _QUERIES):
            similarities = queries[start : start + _QUERIES] @ documents.T
            for row, likeness in enumerate(similarities, start=start):
                itself = place.get(self.queries[row])
                if itself is not None:
                    likeness[itself] = -math.inf
                found.append(_scores_of_query(_best(likeness), self.gains[row]))
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


@dataclass(frozen=True)
class Reranking:
    """Queries with candidates that a first search found, which a reranker puts in another order.

    Attributes:
        name: Name of the task.
        split: The split of the judgements.
        queries: Q queries.
        candidates: For every query its candidates, the best of the first search first.
        gains: For every query how well each candidate answers it; above 0 for at least one of them.
    """

    name: str
    split: str
    queries: Sequence[str]
    candidates: Sequence[Sequence[str]]
    gains: Sequence[Sequence[float]]

    headline = "ndcg@10"

    @property
    def rows(self) -> int:
        """Queries that are scored."""
        return len(self.queries)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every query with each of its candidates."""
        listed = zip(self.queries, self.candidates, strict=True)
        return [(query, candidate) for query, candidates in listed for candidate in candidates]

    def scores(self, values: np.ndarray) -> dict[str, float]:
        """Means over the queries: nDCG@10 and MRR@10 of the candidates in the order of their scores.

        Args:
            values: The score of every pair, in the order of `pairs`.
        """
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        ends = np.cumsum([len(row) for row in self.gains])
        return self._means(np.argsort(-part, kind="stable") for part in np.split(flat, ends[:-1]))

    def first_scores(self) -> dict[str, float]:
        """The same of the order in which the first search found them."""
        return self._means(np.arange(len(row)) for row in self.gains)

    def _means(self, orders: Iterable[np.ndarray]) -> dict[str, float]:
        found = [_scores_of_query(order, dict(enumerate(row))) for order, row in zip(orders, self.gains, strict=True)]
        return {name: float(np.mean([one[name] for one in found])) for name in (f"ndcg@{DEPTH}", f"mrr@{DEPTH}")}


VectorTask = Pairs | Retrieval


def cosine_correlations(cosines: np.ndarray, likeness: np.ndarray) -> dict[str, float]:
    """Rank and linear correlation of the cosines (P,) of pairs with gold numbers (P,)."""
    from scipy.stats import pearsonr, spearmanr

    if np.ptp(cosines) == 0 or np.ptp(likeness) == 0:
        # What never changes goes along with nothing.
        return {"cosine_spearman": 0.0, "cosine_pearson": 0.0}
    return {
        "cosine_spearman": float(spearmanr(cosines, likeness).statistic),
        "cosine_pearson": float(pearsonr(cosines, likeness).statistic),
    }


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """(N, D) vectors of length 1 in fp32; a zero vector stays zero."""
    rows = np.asarray(vectors, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _best(likeness: np.ndarray) -> np.ndarray:
    """Row numbers of the nearest documents, the nearest first; of equal ones the first."""
    depth = min(DEEP, len(likeness))
    return np.argsort(-likeness, kind="stable")[:depth]


def _scores_of_query(hits: np.ndarray, gains: Mapping[int, float]) -> dict[str, float]:
    got = [gains.get(int(hit), 0.0) for hit in hits]
    ideal = sorted(gains.values(), reverse=True)
    first = next((rank for rank, gain in enumerate(got[:DEPTH], start=1) if gain > 0), None)
    return {
        f"ndcg@{DEPTH}": _discounted(got[:DEPTH]) / _discounted(ideal[:DEPTH]),
        f"mrr@{DEPTH}": 0.0 if first is None else 1.0 / first,
        **{f"recall@{k}": sum(gain > 0 for gain in got[:k]) / len(gains) for k in (DEPTH, DEEP)},
    }


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


# ---- Reading ----


def pairs_of(task: LoadedTask, split: str | None = None) -> Pairs | None:
    """The pairs of a split, by default the headline's; `None` of a task whose rows are not two texts and a label."""
    spec = task.spec
    if spec.kind != "text_classification" or len(spec.text_columns) != 2:
        return None
    split = split or spec.headline_split
    rows = task.split(split)
    rows = rows.select(visible_labels(rows, spec).nonzero()[0])
    left, right = (rows[column][:] for column in spec.text_columns)
    number = {text: index for index, text in enumerate(dict.fromkeys([*left, *right]))}
    return Pairs(
        spec.name,
        split,
        list(number),
        np.array([number[text] for text in left]),
        np.array([number[text] for text in right]),
        np.asarray(rows[spec.label_column][:], dtype=np.float64),
    )


def is_retrieval(folder: Any) -> bool:
    """Whether a folder has queries, documents and judgements in BEIR's layout."""
    root = Path(str(folder)).expanduser()
    return all((root / name).exists() for name in (CORPUS_FILE, QUERIES_FILE, JUDGEMENTS_FOLDER))


def read_retrieval(folder: str, split: str | None = None, limit: int | None = None) -> Retrieval:
    """A folder in BEIR's layout: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`.

    Args:
        folder: The folder.
        split: The split of the judgements; by default the first of test, dev, validation and train that is there.
        limit: Score the first so many queries.

    Raises:
        ValueError: If a file is damaged, or there is no judgement of that split.
    """
    root = Path(folder).expanduser()
    judgements = root / JUDGEMENTS_FOLDER
    there = [one for one in ((split,) if split else _SPLITS) if (judgements / f"{one}.tsv").is_file()]
    if not there:
        raise ValueError(f"{str(judgements)!r} has no {split or ' or '.join(_SPLITS)}.tsv.")
    corpus, asked = _texts_of(root / CORPUS_FILE), _texts_of(root / QUERIES_FILE)
    gains = _gains_of(judgements / f"{there[0]}.tsv", corpus, asked)
    queries = [query for query in asked if query in gains][:limit]
    if not queries:
        raise ValueError(f"{str(judgements / there[0])!r}.tsv names no query and document of the other files.")
    return _retrieval(root.name, there[0], corpus, {query: asked[query] for query in queries}, gains)


def training_queries(folder: str, limit: int | None = None) -> Retrieval:
    """The queries of a folder in BEIR's layout that a training may see: none that is judged in another split.

    Those of `qrels/train.tsv` come with what answers them; a query that no split judges has no answers.

    Args:
        folder: The folder.
        limit: Take the first so many queries.

    Raises:
        ValueError: If a file is damaged, or every query is judged in another split.
    """
    root = Path(folder).expanduser()
    corpus, asked = _texts_of(root / CORPUS_FILE), _texts_of(root / QUERIES_FILE)
    judged = {file.stem: _gains_of(file, corpus, asked) for file in sorted((root / JUDGEMENTS_FOLDER).glob("*.tsv"))}
    train = judged.pop("train", {})
    held_out = set().union(*judged.values())
    queries = {query: text for query, text in asked.items() if query not in held_out}
    if not queries:
        raise ValueError(
            f"{str(root)!r} has no query to train on: each of {len(asked):,} is judged in {' or '.join(judged)}."
        )
    return _retrieval(root.name, "train", corpus, dict(list(queries.items())[:limit]), train)


def _retrieval(
    name: str,
    split: str,
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    gains: Mapping[str, Mapping[int, float]],
) -> Retrieval:
    texts = [*corpus.values(), *queries.values()]
    return Retrieval(name, split, texts, list(corpus), list(queries), [gains.get(query, {}) for query in queries])


def _gains_of(file: Path, corpus: Mapping[str, str], queries: Mapping[str, str]) -> dict[str, dict[int, float]]:
    """What answers each query, by the document's row number; only of what the other files hold."""
    place = {identity: row for row, identity in enumerate(corpus)}
    gains: dict[str, dict[int, float]] = {}
    for query, document, gain in _judgements_of(file):
        if gain > 0 and query in queries and document in place:
            gains.setdefault(query, {})[place[document]] = gain
    return gains


def _texts_of(file: Path) -> dict[str, str]:
    """Read texts by their ids, each with its title before it."""
    found = {}
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                found[str(row["_id"])] = f"{row.get('title') or ''} {row['text']}".strip()
            except (ValueError, KeyError, TypeError) as error:
                raise DamagedFileError(
                    f"{str(file)!r}, line {number} is no row with _id and text: {error}."
                ) from error
    return found


def _judgements_of(file: Path) -> list[tuple[str, str, float]]:
    """Read query, document and gain from every line below the header."""
    found = []
    for number, line in enumerate(read_text(file).split("\n")[1:], start=2):
        if line.strip():
            try:
                query, document, gain = line.split("\t")
                found.append((query, document, float(gain)))
            except ValueError as error:
                raise DamagedFileError(
                    f"{str(file)!r}, line {number} is no query, document and number with tabs between: {error}."
                ) from error
    return found
