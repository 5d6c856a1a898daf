"""Objectives on the vectors of texts, against slow references."""

import math
import warnings

import pytest
import torch

from hf_distill.capture.signals import Signals
from hf_distill.objectives import build_objectives
from hf_distill.objectives.sentence import EmbeddingObjective, SimilarityObjective


def of(vectors):
    return Signals(attention_mask=torch.ones(len(vectors), 3), pooled=vectors)


@pytest.fixture
def sides():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(5, 6, generator=generator), torch.randn(5, 6, generator=generator)


def terms(objective, student, teacher):
    objective.check(of(student), of(teacher))
    return objective(of(student), of(teacher))


def cosine(a, b):
    return float(a @ b) / (float(a.norm()) * float(b.norm()))


def test_embedding_is_the_distance_of_each_row(sides):
    student, teacher = sides
    found = terms(EmbeddingObjective("both"), student, teacher)
    assert float(found["cosine"]) == pytest.approx(
        sum(1 - cosine(s, t) for s, t in zip(student, teacher, strict=True)) / 5
    )
    assert float(found["mse"]) == pytest.approx(float(((student - teacher) ** 2).sum()) / 30)


def slow_similarity(student, teacher, tau):
    divergence = error = 0.0
    for i in range(len(student)):
        others = [j for j in range(len(student)) if j != i]
        ours, theirs = ([cosine(side[i], side[j]) for j in others] for side in (student, teacher))
        error += sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True))
        p, q = ([math.exp(x / tau) / sum(math.exp(y / tau) for y in side) for x in side] for side in (theirs, ours))
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return divergence / len(student), error / (len(student) * (len(student) - 1))


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_similarity_is_between_the_rows_of_a_batch(sides, tau):
    student, teacher = sides
    found = terms(SimilarityObjective("both", tau), student[:, :4], teacher)
    divergence, error = slow_similarity(student[:, :4].double(), teacher.double(), tau)
    assert float(found["kl"]) == pytest.approx(divergence, rel=1e-4)
    assert float(found["mse"]) == pytest.approx(error, rel=1e-4)


def test_similarity_knows_neither_rotation_nor_scale(sides):
    student, _ = sides
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    found = terms(SimilarityObjective("both"), student, 7 * student @ rotation)
    assert max(map(float, found.values())) < 1e-6


def test_one_text_alone_has_no_neighbours(sides):
    student = sides[0][:1].requires_grad_()
    found = terms(SimilarityObjective("both"), student, sides[1][:1])
    sum(found.values()).backward()
    assert [value.item() for value in found.values()] == pytest.approx([0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize("kind", [EmbeddingObjective, SimilarityObjective])
def test_shorter_vectors_are_compared_with_the_whole_one_of_the_teacher(kind, sides):
    student, teacher = sides
    torch.manual_seed(0)
    objective = kind(dims=[2, 4], **({"projection": "linear"} if kind is EmbeddingObjective else {}))
    found = terms(objective, student, teacher)
    alone = []
    for place, width in enumerate([6, 4, 2]):
        single = kind(**({"projection": "identity"} if kind is EmbeddingObjective else {}))
        part = student[:, :width]
        if kind is EmbeddingObjective:
            part = objective.projections[place](part)
        alone.append(next(iter(terms(single, part, teacher).values())).item())
    assert next(iter(found.values())).item() == pytest.approx(sum(alone) / 3, rel=1e-5)
    assert objective.describe()["dims"] == [4, 2]


def test_what_cannot_be_is_refused(sides):
    with pytest.raises(ValueError, match=r"'embedding', `loss` is 'kl'; allowed are 'cosine', 'mse', 'both'"):
        build_objectives([{"objective": "embedding", "loss": "kl"}])
    with pytest.raises(ValueError, match=r"similarity_temperature.*above 0"):
        SimilarityObjective(similarity_temperature=0.0)
    with pytest.raises(ValueError, match=r"`dims` \[6\], but the student's vector has 6 numbers"):
        terms(SimilarityObjective(dims=[6]), *sides)
    with pytest.raises(ValueError, match="vectors of texts, but one of the two models gives none"):
        SimilarityObjective()(Signals(torch.ones(1, 1)), of(sides[1]))


@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_the_numbers_are_those_of_sentence_transformers(loss, sides):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = pytest.importorskip(
            "sentence_transformers.sentence_transformer.losses", reason="the extra `sentence` is not installed"
        )
    student, teacher = sides
    theirs = losses.EmbedDistillLoss(torch.nn.Module(), distance_metric=loss)
    expected = theirs.compute_loss_from_embeddings([student], [teacher])
    torch.testing.assert_close(terms(EmbeddingObjective(loss), student, teacher)[loss], expected)
