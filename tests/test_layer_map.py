"""Layer numbers and layer maps as values."""

import pytest

from hf_distill.layer_map import format_layer_map, resolve_layer, resolve_layer_map


@pytest.mark.parametrize(("layer", "expected"), [(1, 1), (12, 12), (-1, 12), (-12, 1)])
def test_layers_count_from_one_or_from_the_end(layer, expected):
    assert resolve_layer(layer, 12, flag="--layer") == expected


@pytest.mark.parametrize("layer", [0, 13, -13])
def test_a_layer_that_does_not_exist_names_the_flag_and_the_range(layer):
    with pytest.raises(ValueError, match=rf"--student_layer.*no layer {layer}.*legal are 1\.\.12"):
        resolve_layer(layer, 12, flag="--student_layer")
    if layer == 0:
        assert resolve_layer(0, 12, flag="--layer", allow_embeddings=True) == 0


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("last", ((3, 12),)),
        ("last2", ((2, 8), (3, 12))),
        ("first_last", ((1, 4), (3, 12))),
        ("all", ((1, 4), (2, 8), (3, 12))),
        ("uniform", ((1, 4), (2, 8), (3, 12))),
    ],
)
def test_named_maps_are_those_of_the_minilm_supplement(name, pairs):
    assert resolve_layer_map(name, 3, 12) == pairs


def test_explicit_pairs():
    assert resolve_layer_map("0:0,-1:-1", 3, 12) == ((0, 0), (3, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [("top", "cannot read 'top'.*last2"), ("1-2", "cannot read"), ("4:12", "student side.*no layer 4")],
)
def test_unreadable_maps_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        resolve_layer_map(text, 3, 12)


def test_a_map_prints_as_a_sentence():
    assert format_layer_map(((1, 4), (3, 12))) == "student 1 <- teacher 4, student 3 <- teacher 12"
