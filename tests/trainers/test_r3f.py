"""R3F: noise on the embeddings, and a divergence that is zero without it."""

import pytest
import torch

from hf_distill.trainers.multi_task.loss import disturbed, r3f_loss, symmetric_divergence


def test_uniform_noise_stays_within_its_size():
    embeddings = torch.zeros(50, 8, 4, requires_grad=True)
    noisy = disturbed(embeddings, 0.1, "uniform")
    assert noisy.abs().max() <= 0.1
    assert noisy.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert not noisy.requires_grad  # noise and embeddings are given; the rest of the model learns


def test_normal_noise_has_its_size_as_deviation():
    assert disturbed(torch.zeros(50, 8, 4), 0.1, "normal").std() == pytest.approx(0.1, rel=0.1)


def test_the_divergence_is_the_sum_of_both_directions():
    p, q = torch.randn(5, 3), torch.randn(5, 3)
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    expected = [
        sum((a.exp() * (a - b)).item() + (b.exp() * (b - a)).item() for a, b in zip(x, y, strict=True))
        for x, y in zip(log_p, log_q, strict=True)
    ]
    assert symmetric_divergence(p, q).tolist() == pytest.approx(expected, rel=1e-4)


def test_equal_predictions_cost_nothing():
    logits = torch.randn(4, 3)
    assert r3f_loss({"logits": logits}, {"logits": logits}, None).item() == pytest.approx(0.0, abs=1e-6)


def test_only_shown_words_count():
    clean, noisy = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    shown = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    expected = symmetric_divergence(clean, noisy)[[0, 1], [0, 1]].mean()
    assert torch.allclose(r3f_loss({"logits": clean}, {"logits": noisy}, shown), expected)


def test_starts_and_ends_are_averaged():
    clean = {"start_logits": torch.randn(2, 5), "end_logits": torch.randn(2, 5)}
    noisy = {"start_logits": torch.randn(2, 5), "end_logits": clean["end_logits"]}
    half = symmetric_divergence(clean["start_logits"], noisy["start_logits"]).mean() / 2
    assert torch.allclose(r3f_loss(clean, noisy, None), half)
