"""What the tests of stored teachers share."""

import pytest

from hf_distill.capture.signals import SignalRequest

OBJECTIVES = ["relation:1", "logits:0.5", "labels:0.3"]
EVERYTHING = SignalRequest(
    logits=True, hidden_states=frozenset({0, 2}), projections=frozenset({3}), attention_scores=frozenset({1})
)


def logs(trainer):
    return [{k: v for k, v in e.items() if "loss" in k or k == "grad_norm"} for e in trainer.state.log_history[:-1]]


def train(trainer, **options):
    trainer.train(**options)
    return logs(trainer)


def assert_same_logs(found, expected, rel):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=rel)
