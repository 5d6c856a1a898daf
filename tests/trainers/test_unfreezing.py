"""Gradual unfreezing from the head down."""

import pytest
import torch
from trainings import assert_same_weights, trained
from transformers import TrainerCallback

from hf_distill import DistillationArguments
from hf_distill.trainers.callbacks import GradualUnfreezing, groups_from_top


@pytest.fixture
def build(make_trainer, rows):
    given = {"objectives": ["logits"], "gradual_unfreezing": [0.0, 0.75], "max_steps": 8, "learning_rate": 1e-2}
    return lambda **arguments: make_trainer(train_dataset=rows, **given | arguments)


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(model, before):
    names = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    parts = {"embeddings": "bert.embeddings", "first": "layer.0.", "last": "layer.1.", "head": "classifier"}
    return {part for part, path in parts.items() if any(path in name for name in names)}


def test_groups_free_one_after_the_other_between_two_shares():
    callback = GradualUnfreezing(0.2, 0.8)
    assert [callback.num_free(progress, 3) for progress in (0, 0.19, 0.2, 0.39, 0.41, 0.61, 0.79, 0.8, 1)] == [
        3, 3, 0, 0, 1, 2, 2, 3, 3,
    ]  # fmt: skip


def test_layers_are_frozen_from_the_embeddings_up(tiny_student):
    last, first, embeddings = groups_from_top(tiny_student)
    names = {id(parameter): name for name, parameter in tiny_student.named_parameters()}
    assert all("layer.1." in names[id(parameter)] for parameter in last)
    assert all("layer.0." in names[id(parameter)] for parameter in first)
    assert all(".embeddings." in names[id(parameter)] for parameter in embeddings)
    everything = {*map(id, (*last, *first, *embeddings))}
    assert {name.split(".")[0] for i, name in names.items() if i not in everything} == {"bert", "classifier"}


@pytest.mark.parametrize(
    ("steps", "parts"),
    [
        (2, {"head"}),
        (4, {"head", "last"}),
        (6, {"head", "last", "first"}),
        (8, {"head", "last", "first", "embeddings"}),
    ],
)
def test_what_is_frozen_does_not_change(build, steps, parts):
    trainer = build()
    before = weights(trainer.student)
    seen = {}
    trainer.callback_handler.on_step_end = lambda args, state, control: (
        seen.update({state.global_step: changed(trainer.student, before)}) or control
    )
    trainer.train()
    assert seen[steps] == parts


def test_a_frozen_student_trained_before_stays_still(build):
    trainer = build(gradual_unfreezing=[0.5, 1.0], max_steps=6)
    held = {}

    def note(args, state, control):
        held[state.global_step] = weights(trainer.student)
        return control

    trainer.callback_handler.on_step_end = note
    trainer.train()
    assert changed(trainer.student, held[3]) >= {"head"}
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(held[2][name], held[3][name])
    assert torch.equal(held[3][name], held[6][name])


def test_parameters_that_were_frozen_stay_so_and_the_rest_is_free_at_the_end(build):
    trainer = build()
    position = trainer.student.bert.embeddings.position_embeddings.weight.requires_grad_(False)
    before = position.detach().clone()
    trainer.train()
    assert torch.equal(position, before)
    assert {name for name, p in trainer.student.named_parameters() if not p.requires_grad} == {
        "bert.embeddings.position_embeddings.weight"
    }


def test_a_resumed_run_continues_bit_for_bit(build):
    whole = trained(build(save_strategy="steps", save_steps=3))
    resumed = trained(build(), f"{whole.args.output_dir}/checkpoint-3")
    assert_same_weights(whole.student, resumed.student)


def test_what_cannot_work_is_refused(build, tmp_path):
    with pytest.raises(ValueError, match=r"--gradual_unfreezing.*no objective reads the head.*'relation'"):
        build(objectives=["relation"]).train()
    with pytest.raises(ValueError, match=r"--gradual_unfreezing.*two rising shares"):
        DistillationArguments(str(tmp_path), gradual_unfreezing=[0.5], use_cpu=True)
    with pytest.raises(ValueError, match="two rising shares"):
        GradualUnfreezing(0.5, 0.5)


def test_a_training_that_is_broken_off_leaves_nothing_frozen(make_trainer, rows):
    class BreakOff(TrainerCallback):
        """The user stops the cell."""

        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    given = {"train_dataset": rows, "trainer": {"callbacks": [BreakOff()]}}
    trainer = make_trainer(objectives=["logits"], gradual_unfreezing=[0.0, 1.0], neftune_noise_alpha=5.0, **given)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert all(parameter.requires_grad for parameter in trainer.student.parameters())
    assert not trainer.student.get_input_embeddings()._forward_hooks
    assert not trainer.is_in_train
