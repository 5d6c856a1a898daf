"""Scores of vectors of texts: cosines of pairs, and retrieval."""

import math
import warnings

import numpy as np
import pytest
import torch
from tiny_data import write_rows

from hf_distill import load_task
from hf_distill.tasks.vectors import Pairs, Retrieval, is_retrieval, pairs_of, read_retrieval


def write_beir(folder, documents, queries, judgements, split="test"):
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", documents), ("queries", queries)):
        write_rows(folder / f"{name}.jsonl", rows)
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, one)) for one in judgements)]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.fixture
def beir(tmp_path):
    return write_beir(
        tmp_path / "set",
        [
            {"_id": "d1", "title": "Cats", "text": "sleep"},
            {"_id": "d2", "text": "dogs"},
            {"_id": "q1", "text": "same"},
        ],
        [{"_id": "q1", "text": "cat"}, {"_id": "q2", "text": "dog"}, {"_id": "q3", "text": "nobody asks"}],
        [("q1", "d1", 2), ("q1", "d2", 1), ("q2", "d2", 1), ("q2", "d1", 0), ("q9", "d1", 1)],
    )


def test_a_folder_in_the_layout_of_beir_is_read(beir, tmp_path):
    assert is_retrieval(beir)
    assert not is_retrieval(tmp_path)
    task = read_retrieval(beir)
    assert (task.name, task.split, task.queries, task.rows) == ("set", "test", ["q1", "q2"], 2)
    assert task.texts == ["Cats sleep", "dogs", "same", "cat", "dog"]
    assert task.gains == [{0: 2.0, 1: 1.0}, {1: 1.0}]
    with pytest.raises(ValueError, match=r"has no dev\.tsv"):
        read_retrieval(beir, "dev")


def test_a_damaged_line_is_named(beir):
    with open(f"{beir}/corpus.jsonl", "a") as file:
        file.write('{"text": "no id"}\n')
    with pytest.raises(ValueError, match=r"corpus\.jsonl', line 4"):
        read_retrieval(beir)


def test_scores_of_a_ranking_that_is_known(beir):
    """q1 finds d2 before d1, and never the document of its own name; q2 finds d2 second."""
    task = read_retrieval(beir)
    vectors = np.array([[0.8, 0.6], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    scores = task.scores(vectors)
    first = (1 / math.log2(2) + 2 / math.log2(3)) / (2 / math.log2(2) + 1 / math.log2(3))
    assert scores["ndcg@10"] == pytest.approx((first + 1 / math.log2(3)) / 2)
    assert scores["mrr@10"] == pytest.approx((1 + 1 / 2) / 2)
    assert scores["recall@10"] == 1.0


@pytest.mark.parametrize(
    ("names", "likeness"),
    [(["not_entailment", "entailment"], [0, 1]), (["entailment", "not_entailment"], [1, 0]), (["0", "1"], [0, 1])],
)
def test_texts_of_which_one_follows_from_the_other_are_alike(names, likeness, tmp_path):
    rows = [{"one": "a", "two": "b", "label": 0}, {"one": "c", "two": "d", "label": 1}]
    for split in ("train", "validation"):
        write_rows(tmp_path / f"{split}.jsonl", rows)
    task = load_task(str(tmp_path), text_columns=["one", "two"], label_names=names)
    assert pairs_of(task).likeness.tolist() == likeness


def test_three_classes_are_no_likeness(tmp_path):
    rows = [{"one": "a", "two": "b", "label": number} for number in range(3)]
    for split in ("train", "validation"):
        write_rows(tmp_path / f"{split}.jsonl", rows)
    with pytest.raises(ValueError, match=r"has the classes \['0', '1', '2'\]: the cosines .* or with two classes"):
        pairs_of(load_task(str(tmp_path), text_columns=["one", "two"]))


def test_pairs_of_a_task_become_texts_once(tmp_path):
    rows = [("a cat", "a dog", 1.5), ("a dog", "a cat", 2.0), ("a cat", "a fish", 5.0)]
    for split in ("train", "validation"):
        write_rows(tmp_path / f"{split}.jsonl", [{"one": a, "two": b, "label": c} for a, b, c in rows])
    task = load_task(str(tmp_path), text_columns=["one", "two"])
    pairs = pairs_of(task)
    assert (pairs.texts, pairs.left.tolist(), pairs.right.tolist()) == (
        ["a cat", "a dog", "a fish"],
        [0, 1, 0],
        [1, 0, 2],
    )
    scores = pairs.scores(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    assert scores["cosine_spearman"] == pytest.approx(math.sqrt(3) / 2)
    assert pairs.scores(np.ones((3, 2)))["cosine_spearman"] == 0.0
    assert pairs_of(load_task(str(tmp_path), text_columns=["one"])) is None


@pytest.fixture
def evaluation():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "sentence_transformers.sentence_transformer.evaluation", reason="the extra `sentence` is not installed"
        )


class Encoder:
    """What the evaluators of sentence-transformers ask of a model: texts are the names of rows of a table."""

    similarity_fn_name = "cosine"
    model_card_data = type("Card", (), {"set_evaluation_metrics": lambda *_: None})()

    def __init__(self, vectors):
        self.vectors = torch.tensor(vectors)

    def encode(self, texts, **_):
        return self.vectors[[int(text) for text in texts]]

    encode_query = encode_document = encode

    def similarity(self, a, b):
        return torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).T


def test_the_numbers_are_those_of_the_evaluators_of_sentence_transformers(evaluation):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 5)).astype(np.float32)
    left, right, gold = rng.integers(0, 60, 30), rng.integers(0, 60, 30), rng.random(30)
    theirs = evaluation.EmbeddingSimilarityEvaluator(
        [str(i) for i in left], [str(i) for i in right], gold.tolist(), main_similarity="cosine"
    )(Encoder(vectors))
    ours = Pairs("p", "test", [str(i) for i in range(60)], left, right, gold).scores(vectors)
    assert ours["cosine_spearman"] == pytest.approx(theirs["spearman_cosine"], abs=1e-5)
    assert ours["cosine_pearson"] == pytest.approx(theirs["pearson_cosine"], abs=1e-5)

    relevant = {f"q{q}": {str(d) for d in rng.choice(50, 3, replace=False)} for q in range(50, 60)}
    theirs = evaluation.InformationRetrievalEvaluator(
        {f"q{q}": str(q) for q in range(50, 60)},
        {str(d): str(d) for d in range(50)},
        relevant,
        mrr_at_k=[10], ndcg_at_k=[10], accuracy_at_k=[10], precision_recall_at_k=[10], map_at_k=[10],
    )(Encoder(vectors))  # fmt: skip
    gains = [{int(d): 1.0 for d in relevant[f"q{q}"]} for q in range(50, 60)]
    task = Retrieval("r", "test", [""] * 60, [str(d) for d in range(50)], list(relevant), gains)
    ours = task.scores(vectors)
    for name in ("ndcg@10", "mrr@10", "recall@10"):
        assert ours[name] == pytest.approx(theirs[f"cosine_{name}"], abs=1e-5)
