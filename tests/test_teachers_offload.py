"""Weights that are on a device only while their model runs: nothing comes back, and what is shared is copied once."""

import copy

import pytest
import torch

from hf_distill.capture.signals import SignalRequest
from hf_distill.teachers.base import LiveTeacher, TeacherSource
from hf_distill.teachers.offload import HostWeights, host_weights

CPU, META = torch.device("cpu"), torch.device("meta")
INPUTS = {"input_ids": torch.tensor([[2, 8, 9, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


@pytest.fixture
def model(tiny_teacher):
    return copy.deepcopy(tiny_teacher).requires_grad_(False).eval()


def places(model):
    return {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}


def test_the_model_has_its_weights_on_the_device_and_then_its_own_again(model):
    before = [*model.parameters(), *model.buffers()]
    weights = HostWeights(model, META)
    with weights.in_place():
        assert places(model) == {"meta"}
        assert all(isinstance(one, torch.nn.Parameter) and not one.requires_grad for one in model.parameters())
    assert all(one is other for one, other in zip([*model.parameters(), *model.buffers()], before, strict=True))
    assert not weights._copies


def test_copies_compute_what_the_weights_compute(model):
    expected = model(**INPUTS).logits
    with HostWeights(model, CPU).in_place():
        torch.testing.assert_close(model(**INPUTS).logits, expected, rtol=0, atol=0)


def test_an_error_inside_leaves_the_model_as_it_was(model):
    with pytest.raises(RuntimeError, match="inside"), HostWeights(model, META).in_place():
        raise RuntimeError("inside")
    assert places(model) == {"cpu"}


def test_tied_weights_are_copied_once(model):
    twice = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    twice[1].weight = twice[0].weight
    weights = HostWeights(twice, META)
    weights.fetch()
    assert len(weights._copies) == 3
    with weights.in_place():
        assert twice[0].weight.shape == twice[1].weight.shape == (2, 2)


def test_what_is_asked_for_meanwhile_stays_there(model):
    """Adapters on one model come one after another: the base is copied once a step."""
    weights = host_weights(model, META)
    assert host_weights(model, META) is weights
    weights.fetch()
    copies = weights._copies
    with weights.in_place():
        weights.fetch()
    assert weights._copies is copies
    with weights.in_place():
        pass
    assert not weights._copies


def test_a_teacher_is_where_it_is_asked_to_be_for_a_while(model):
    teacher = LiveTeacher(model)
    teacher.request(SignalRequest(logits=True))
    teacher.fetch(META)
    with teacher.on_device(META):
        assert teacher.device == META
    assert teacher.device == CPU
    assert teacher.signals(INPUTS).logits["logits"].shape == (1, 2)
    with teacher.on_device(CPU):
        assert teacher.device == CPU


def test_a_source_of_ones_own_goes_and_comes():
    class Moves(TeacherSource):
        places = ()

        def to(self, device):
            self.places += (device.type,)

    teacher = Moves()
    teacher.fetch(META)
    with teacher.on_device(META):
        assert teacher.places == ("meta",)
    assert teacher.places == ("meta", "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_weights_come_from_pinned_memory_while_another_model_computes(model):
    device = torch.device("cuda")
    others = [copy.deepcopy(model) for _ in range(3)]
    expected = [copy.deepcopy(one).to(device)(**{k: v.to(device) for k, v in INPUTS.items()}).logits for one in others]
    weights = [HostWeights(one, device) for one in others]
    for _ in range(3):
        for index, one in enumerate(weights):
            with one.in_place():
                weights[(index + 1) % 3].fetch()
                found = others[index](**{k: v.to(device) for k, v in INPUTS.items()}).logits
            torch.testing.assert_close(found, expected[index])
    assert all(one.is_pinned() and one.device == CPU for one in others[0].parameters())
