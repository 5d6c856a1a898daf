"""Layer numbers and layer maps as values."""

import pytest

from hf_distill.objectives.base import resolve_layer
from hf_distill.objectives.layer_map import format_layer_map, resolve_layer_map, resolve_layer_matches


@pytest.mark.parametrize(("layer", "expected"), [(1, 1), (12, 12), (-1, 12), (-12, 1)])
def test_layers_count_from_one_or_from_the_end(layer, expected):
    assert resolve_layer(layer, 12, flag="--layer") == expected


@pytest.mark.parametrize("layer", [0, 13, -13])
def test_a_layer_that_does_not_exist_names_the_flag_and_the_range(layer):
    with pytest.raises(ValueError, match=rf"student_layer.*no layer {layer}.*legal are 1\.\.12"):
        resolve_layer(layer, 12, flag="student_layer")
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


@pytest.mark.parametrize(
    ("name", "depths", "pairs"),
    [
        ("uniform_with_embeddings", (4, 12), ((0, 0), (1, 3), (2, 6), (3, 9), (4, 12))),
        ("last_with_embeddings", (4, 12), ((0, 0), (4, 12))),
        ("pkd_skip", (6, 12), ((1, 2), (2, 4), (3, 6), (4, 8), (5, 10))),
        ("pkd_skip", (3, 12), ((1, 4), (2, 8))),
        ("pkd_last", (6, 12), ((1, 7), (2, 8), (3, 9), (4, 10), (5, 11))),
    ],
)
def test_maps_with_embeddings_and_those_of_patient_distillation(name, depths, pairs):
    assert resolve_layer_map(name, *depths) == pairs


def test_explicit_pairs():
    assert resolve_layer_map("0:0,-1:-1", 3, 12) == ((0, 0), (3, 12))
    assert resolve_layer_map([[0, 0], (-1, -1)], 3, 12) == ((0, 0), (3, 12))


def test_a_side_may_be_two_layers_where_layers_are_related_to_each_other():
    assert resolve_layer_matches("0+1:0+4,2:-5", 3, 12, flag="layers") == (((0, 1), (0, 4)), (2, 8))
    assert resolve_layer_matches([[[0, 1], [0, 4]]], 3, 12, flag="layers") == (((0, 1), (0, 4)),)
    assert resolve_layer_matches("last", 3, 12, flag="layers") == ((3, 12),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top", "cannot read 'top'.*last2"),
        ("1-2", "cannot read"),
        ("1+2+3:4", "cannot read"),
        ("", "cannot read"),
        (64, "cannot read 64.*in quotes in YAML"),
        ([], "cannot read"),
        ("4:12", "student side.*no layer 4"),
        ("1:13", "teacher side.*no layer 13"),
        ("0+1:0+4", "pairs of layers.*compares single layers"),
    ],
)
def test_unreadable_maps_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        resolve_layer_map(text, 3, 12)


def test_maps_that_an_objective_cannot_use_are_refused():
    with pytest.raises(ValueError, match="has the embeddings"):
        resolve_layer_map("last_with_embeddings", 3, 12, allow_embeddings=False)
    with pytest.raises(ValueError, match=r"no layer 0.*legal are 1\.\.3"):
        resolve_layer_map("0:0", 3, 12, allow_embeddings=False)
    with pytest.raises(ValueError, match="selects no layer of a student of 1"):
        resolve_layer_map("pkd_skip", 1, 12)
    with pytest.raises(ValueError, match=r"two layers of one side.*0\+1:0\+3"):
        resolve_layer_matches("0+1:2", 3, 12, flag="layers")


def test_a_map_prints_as_a_sentence():
    assert format_layer_map(((1, 4), (3, 12))) == "student 1 <- teacher 4, student 3 <- teacher 12"
    assert format_layer_map((((0, 1), [0, 4]),)) == "student 0+1 <- teacher 0+4"
