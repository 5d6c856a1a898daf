"""Projections between widths."""

import pytest
import torch
from torch import nn

from hf_distill.objectives import make_projection
from hf_distill.objectives.projections import MatchProjections


@pytest.mark.parametrize("kind", ["linear", "fitted", "relu", "tanh"])
def test_a_projection_is_linear_with_or_without_an_activation(kind):
    activation = {"linear": lambda x: x, "fitted": lambda x: x, "relu": torch.relu, "tanh": torch.tanh}[kind]
    projection = make_projection(kind, 12, 24)
    linear = projection if isinstance(projection, nn.Linear) else projection[0]
    x = torch.randn(2, 3, 12)
    torch.testing.assert_close(projection(x), activation(x @ linear.weight.T + linear.bias))


def test_weights_begin_small_and_biases_at_zero():
    torch.manual_seed(0)
    projection = make_projection("linear", 300, 400)
    assert projection.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert projection.weight.mean().abs() < 1e-3
    assert not projection.bias.any()


@pytest.mark.parametrize("kind", [None, "auto"])
def test_by_default_features_are_projected_only_where_the_widths_differ(kind):
    assert isinstance(make_projection(kind, 12, 24), nn.Linear)
    assert isinstance(make_projection(kind, 24, 24), nn.Identity)
    assert isinstance(make_projection("linear", 24, 24), nn.Linear)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gelu", "`projection` is 'gelu'; allowed are auto, fitted, linear, relu, tanh, identity"),
        ("identity", "12 wide and the teacher's 24; choose 'linear'"),
    ],
)
def test_what_cannot_be_is_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        make_projection(kind, 12, 24)


def test_matches_have_a_projection_each_or_one_for_all():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12)
    own, shared = (MatchProjections("auto", [(12, 24), (12, 24)], shared) for shared in (False, True))
    assert not torch.equal(own(x, 0), own(x, 1))
    assert torch.equal(shared(x, 0), shared(x, 1))
    assert sum(p.numel() for p in own.parameters()) == 2 * sum(p.numel() for p in shared.parameters()) == 2 * 312
    assert own.describe() == "fitted 12 -> 24, one a match"
    assert shared.describe() == "fitted 12 -> 24, one for all"
    assert MatchProjections("auto", [(24, 24)]).describe() == "none, widths are equal"


def test_one_projection_cannot_serve_several_widths():
    with pytest.raises(ValueError, match=r"shared_projection.*\(8, 24\), \(12, 24\).*one projection a match"):
        MatchProjections("auto", [(12, 24), (8, 24)], shared=True)


def test_a_student_in_half_precision_is_projected_in_the_precision_of_the_projection():
    projections = MatchProjections("tanh", [(12, 24)])
    assert projections(torch.randn(2, 3, 12, dtype=torch.bfloat16), 0).dtype == torch.float32
