"""What every trainer of the package has: methods that a plain `Trainer` lacks, and random states that are kept."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_distill.trainers.base import random_state_kept, refuse_lost_rows, refuse_uneven_batches, unless_stock


class Stock:
    def step(self):
        return ["stock"]


class Base(Stock):
    def step(self):
        return ["base", *super().step()]


class Ours(Base):
    def __init__(self, is_stock):
        self.is_stock = is_stock

    @unless_stock
    def step(self):
        """Say who runs."""
        return ["ours", *super().step()]


class Users(Ours):
    def step(self):
        return ["users", *super().step()]


@pytest.mark.parametrize("kind", [Ours, Users])
def test_a_stock_trainer_has_the_method_of_the_next_class(kind):
    own = ["users"] if kind is Users else []
    assert kind(is_stock=False).step() == [*own, "ours", "base", "stock"]
    assert kind(is_stock=True).step() == [*own, "base", "stock"]


def test_of_the_class_it_is_a_function_like_any_other():
    assert Ours.step.__doc__ == "Say who runs."
    assert Ours.step(Ours(is_stock=True)) == ["ours", "base", "stock"]


def test_no_generator_of_random_numbers_moves():
    def drawn():
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002

    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    with random_state_kept(torch.device("cpu")):
        first = drawn()
    assert drawn() == first


def test_processes_with_batches_of_different_number_are_refused_before_the_first_step(make_trainer, monkeypatch):
    def shares(processes, even, dispatch=None):
        return SimpleNamespace(num_processes=processes, even_batches=even, dispatch_batches=dispatch)

    with pytest.raises(ValueError, match=r"`--accelerator_config` has `even_batches: false`.* of the 2 processes"):
        refuse_uneven_batches(shares(2, False), drops_last=False)
    for fine, drops in ((shares(2, True), False), (shares(2, False), True), (shares(2, False, True), False)):
        refuse_uneven_batches(fine, drops_last=drops)
    assert make_trainer(accelerator_config={"even_batches": False}).accelerator.even_batches is False, "one process"
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(ValueError, match="even_batches"):
        make_trainer(accelerator_config={"even_batches": False})


def test_an_evaluation_in_several_processes_that_would_lose_rows_is_refused():
    with pytest.raises(ValueError, match="`--eval_use_gather_object` loses most rows of an evaluation in 2 processes"):
        refuse_lost_rows(SimpleNamespace(eval_use_gather_object=True, world_size=2))
    refuse_lost_rows(SimpleNamespace(eval_use_gather_object=True, world_size=1))
    refuse_lost_rows(SimpleNamespace(eval_use_gather_object=False, world_size=2))
