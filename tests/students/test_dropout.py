"""Dropout of a student is what its distillation wants, and what is saved is as before."""

import pytest
import torch
from capture_cases import CASES, DROPOUTS, classifier_of
from transformers import BertModel, TrainerCallback, set_seed

from hf_distill import DistillationArguments
from hf_distill.students.dropout import set_dropout

HALF = dict.fromkeys(DROPOUTS, 0.5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_dropout_training_and_evaluation_compute_the_same(case):
    model = classifier_of(case, 0, **{name: share for name, share in HALF.items() if name not in case.options})
    words = {"input_ids": torch.randint(3, 40, (4, 12)), "attention_mask": torch.ones(4, 12, dtype=torch.long)}
    expected = model.eval()(**words).logits
    model.train()
    set_seed(1)
    dropped = model(**words).logits
    assert not torch.allclose(dropped, expected, atol=1e-4), "the case has dropout to begin with"
    set_dropout(model, 0.0)
    assert torch.allclose(model(**words).logits, expected, atol=1e-6)


def shares(model):
    """The shares that the modules of a model drop."""
    return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}


def test_a_share_may_be_raised_too(tiny_student):
    set_dropout(tiny_student, 0.3)
    assert shares(tiny_student) == {0.3}


def test_the_trainer_sets_it_and_the_saved_student_keeps_its_own(build, tiny_student, tiny_teacher, tmp_path):
    tiny_student.config.hidden_dropout_prob = 0.25
    set_dropout(tiny_student, 0.25)
    set_dropout(tiny_teacher, 0.1)
    trainer = build(student=tiny_student, student_dropout=0.0)
    assert shares(trainer.student) == {0.0}
    assert shares(tiny_teacher) == {0.1}
    trainer.save_model(tmp_path / "saved")
    assert 0.25 in shares(BertModel.from_pretrained(tmp_path / "saved"))


def test_unless_it_is_set_a_student_keeps_the_share_it_has(build, dropping_student):
    assert shares(build(student=dropping_student).student) == {0.1}


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(share, tmp_path):
    with pytest.raises(ValueError, match=f"`--student_dropout` is {share}; it must be from 0 to below 1"):
        DistillationArguments(str(tmp_path), student_dropout=share)


def test_after_the_training_a_student_has_its_own_share_again(build, dropping_student):
    seen = []

    class Look(TrainerCallback):
        """Keeps the shares of every step, and stops the cell in the second training."""

        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.append(shares(model))
            if len(seen) == 2:
                raise KeyboardInterrupt

    trainer = build(student=dropping_student, student_dropout=0.3, max_steps=1)
    trainer.add_callback(Look())
    trainer.train()
    assert shares(trainer.student) == {0.1}
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert seen == [{0.3}, {0.3}]
    assert shares(trainer.student) == {0.1}
