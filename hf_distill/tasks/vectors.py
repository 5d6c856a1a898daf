"""Tasks that score vectors of texts: similarity of pairs (STS) and retrieval; and reranking of candidates.

Shape legend: N texts, D dimensions of a vector, P pairs, Q queries, M documents.
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
# The splits of a folder, in the order of preference.
_SPLITS = ("test", "dev", "validation", "train")
# Cutoff of the headline metric and of the reciprocal rank; recall has one more cutoff.
DEPTH, DEEP = 10, 100
# Number of queries whose similarities with all documents are computed at once.
_QUERIES = 64


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts with a similarity score.

    Attributes:
        name: Name of the task.
        split: The split of the pairs.
        texts: The distinct texts.
        left: (P,) indices in `texts` of the first texts.
        right: (P,) indices of the second texts.
        likeness: (P,) gold scores; of two classes 1 for that of like texts.
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
        """Number of pairs that are scored."""
        return len(self.likeness)

    def scores(self, vectors: np.ndarray) -> dict[str, float]:
        """Spearman and Pearson correlation of the cosine similarities with the gold scores.

        Args:
            vectors: (N, D) vectors of `texts`.
        """
        units = unit_rows(vectors)
        return cosine_correlations((units[self.left] * units[self.right]).sum(1), self.likeness)


@dataclass(frozen=True)
class Retrieval:
    """Queries, documents, and relevance judgements.

    Attributes:
        name: Name of the task.
        split: The split of the judgements.
        texts: The documents, followed by the queries.
        documents: Ids of the M documents.
        queries: Ids of the Q queries that have a judgement.
        gains: For every query its relevant documents, by row number, with their relevance (above 0); queries of
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
        """Number of queries that are scored."""
        return len(self.queries)

    def scores(self, vectors: np.ndarray) -> dict[str, float]:
        """Means over the queries of nDCG@10, MRR@10, recall@10 and recall@100, ranked by cosine similarity.

        A document with the id of the query is not counted as a hit.

        Args:
            vectors: (M + Q, D) vectors of `texts`.
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
    """Queries with candidates from a first-stage retriever, which a reranker sorts again.

    Attributes:
        name: Name of the task.
        split: The split of the judgements.
        queries: The Q queries.
        candidates: For every query its candidates, in the order of the first stage.
        gains: For every query the relevance of each candidate; above 0 for at least one of them.
    """

    name: str
    split: str
    queries: Sequence[str]
    candidates: Sequence[Sequence[str]]
    gains: Sequence[Sequence[float]]

    headline = "ndcg@10"

    @property
    def rows(self) -> int:
        """Number of queries that are scored."""
        return len(self.queries)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every query with each of its candidates."""
        listed = zip(self.queries, self.candidates, strict=True)
        return [(query, candidate) for query, candidates in listed for candidate in candidates]

    def scores(self, values: np.ndarray) -> dict[str, float]:
        """Means over the queries of nDCG@10 and MRR@10 of the candidates, sorted by score.

        Args:
            values: The score of every pair, in the order of `pairs`.
        """
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        ends = np.cumsum([len(row) for row in self.gains])
        return self._means(np.argsort(-part, kind="stable") for part in np.split(flat, ends[:-1]))

    def first_scores(self) -> dict[str, float]:
        """The same metrics for the order of the first stage."""
        return self._means(np.arange(len(row)) for row in self.gains)

    def _means(self, orders: Iterable[np.ndarray]) -> dict[str, float]:
        found = [_scores_of_query(order, dict(enumerate(row))) for order, row in zip(orders, self.gains, strict=True)]
        return {name: float(np.mean([one[name] for one in found])) for name in (f"ndcg@{DEPTH}", f"mrr@{DEPTH}")}


VectorTask = Pairs | Retrieval


def cosine_correlations(cosines: np.ndarray, likeness: np.ndarray) -> dict[str, float]:
    """Spearman and Pearson correlation of cosine similarities (P,) with gold scores (P,)."""
    from scipy.stats import pearsonr, spearmanr

    if np.ptp(cosines) == 0 or np.ptp(likeness) == 0:
        # The correlation of a constant is undefined; it counts as 0.
        return {"cosine_spearman": 0.0, "cosine_pearson": 0.0}
    return {
        "cosine_spearman": float(spearmanr(cosines, likeness).statistic),
        "cosine_pearson": float(pearsonr(cosines, likeness).statistic),
    }


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale (N, D) vectors to length 1 in fp32; a zero vector stays zero."""
    rows = np.asarray(vectors, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _best(likeness: np.ndarray) -> np.ndarray:
    """Row numbers of the nearest documents, nearest first; ties in document order."""
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
    """The pairs of a split, by default the headline split; `None` if rows are not two texts and a label.

    Raises:
        ValueError: If the task has more than two classes, which say nothing about how alike texts are.
    """
    spec = task.spec
    if spec.kind != "text_classification" or len(spec.text_columns) != 2:
        return None
    split = split or spec.headline_split
    rows = task.split(split)
    rows = rows.select(visible_labels(rows, spec).nonzero()[0])
    names = spec.label_names
    if names is not None and len(names) != 2:
        raise ValueError(
            f"Task {spec.name!r} has the classes {list(names)}: the cosines of a sentence encoder are compared with "
            "numbers, or with two classes."
        )
    likeness = np.asarray(rows[spec.label_column][:], dtype=np.float64)
    # `not_entailment` behind `entailment`: the first class is that of texts that are alike.
    likeness = 1 - likeness if names is not None and names[1].endswith(names[0]) else likeness
    left, right = (rows[column][:] for column in spec.text_columns)
    number = {text: index for index, text in enumerate(dict.fromkeys([*left, *right]))}
    return Pairs(
        spec.name,
        split,
        list(number),
        np.array([number[text] for text in left]),
        np.array([number[text] for text in right]),
        likeness,
    )


def is_retrieval(folder: Any) -> bool:
    """Whether a folder has queries, documents and judgements in BEIR's layout."""
    root = Path(str(folder)).expanduser()
    return all((root / name).exists() for name in (CORPUS_FILE, QUERIES_FILE, JUDGEMENTS_FOLDER))


def read_retrieval(folder: str, split: str | None = None, limit: int | None = None) -> Retrieval:
    """Read a folder in BEIR's layout: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`.

    Args:
        folder: The folder.
        split: The split of the judgements; by default the first of test, dev, validation and train that exists.
        limit: Score only this many queries, from the beginning.

    Raises:
        ValueError: If a file is damaged, or the split has no judgement.
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
    """The queries of a BEIR folder that may be used for training: those not judged in another split.

    Queries of `qrels/train.tsv` come with their relevant documents; a query without any judgement has none.

    Args:
        folder: The folder.
        limit: Take only this many queries, from the beginning.

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
    """The relevant documents of each query, by row number; ids that the other files do not contain are ignored."""
    place = {identity: row for row, identity in enumerate(corpus)}
    gains: dict[str, dict[int, float]] = {}
    for query, document, gain in _judgements_of(file):
        if gain > 0 and query in queries and document in place:
            gains.setdefault(query, {})[place[document]] = gain
    return gains


def _texts_of(file: Path) -> dict[str, str]:
    """Read texts by id, each with its title in front."""
    found = {}
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                found[str(row["_id"])] = f"{row.get('title') or ''} {row['text']}".strip()
            except (ValueError, KeyError, TypeError) as error:
                raise DamagedFileError(
                    f"{str(file)!r}, line {number} is not a row with _id and text: {error}."
                ) from error
    return found


def _judgements_of(file: Path) -> list[tuple[str, str, float]]:
    """Read query, document and relevance from every line below the header."""
    found = []
    for number, line in enumerate(read_text(file).split("\n")[1:], start=2):
        if line.strip():
            try:
                query, document, gain = line.split("\t")
                found.append((query, document, float(gain)))
            except ValueError as error:
                raise DamagedFileError(
                    f"{str(file)!r}, line {number} is not a query, document and number with tabs between: {error}."
                ) from error
    return found
