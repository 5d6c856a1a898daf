"""The fused relation loss: values in Triton's interpreter, registers as compiled for several devices."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
# A gradient is rounded to the dtype of its tensor at the end.
LIMITS = {"narrow": 1e-5, "odd": 1e-5, "widest": 1e-4, "half": 1e-3, "brain": 5e-3}


@pytest.fixture(scope="module")
def interpreted():
    """What `fused_relation_cases.py` found."""
    # Triton's interpreter uses what numpy has deprecated.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(HERE / "fused_relation_cases.py")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"})
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("kind", LIMITS)
def test_loss_and_gradient_are_those_of_the_formula(interpreted, kind):
    cases = {name: found for name, found in interpreted.items() if name.split()[0] == kind}
    assert cases
    for name, found in cases.items():
        assert found["loss"] < 1e-5, name
        assert found["gradient"] < LIMITS[kind], name
        assert found["padding"] == 0, name


@needs_triton
def test_a_row_of_one_token_has_nothing_to_learn(interpreted):
    assert interpreted["one token"]["loss"] < 1e-6
    assert interpreted["one token"]["gradient"] < 1e-6


@needs_triton
def test_small_gradients_in_half_precision_survive(interpreted):
    """At a small divergence, under a loss scale, fp16 is no worse than bf16."""
    found = interpreted["small divergence"]
    assert found["fp32"] < 1e-3
    assert found["fp16"] < 2e-3
    assert found["fp16"] <= found["bf16"]


@needs_triton
def test_it_is_an_operator_of_its_own(interpreted):
    found = interpreted["operator"]
    assert found["views"] < 1e-6
    assert found["compiled"] < 1e-6
    assert "no second derivative" in found["refused"]
