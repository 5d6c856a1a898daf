"""Trainers of ours stand where `Trainer` stands: places, defaults, and what is honoured or refused."""

import copy
import inspect

import pytest
from transformers import Trainer, TrainingArguments

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    GenerationTrainer,
    MTLTrainer,
    MultiTeacherArguments,
    MultiTeacherTrainer,
)

STOCK = list(inspect.signature(Trainer.__init__).parameters)


@pytest.mark.parametrize("ours", [DistillationTrainer, MultiTeacherTrainer, MTLTrainer, GenerationTrainer])
def test_arguments_stand_where_trainer_has_them(ours):
    parameters = inspect.signature(ours.__init__).parameters
    assert list(parameters)[: len(STOCK)] == STOCK
    own = [parameters[name].kind for name in list(parameters)[len(STOCK) :]]
    assert set(own) <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


@pytest.fixture
def quiet(tmp_path):
    return {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "disable_tqdm": True}


def test_a_teacher_may_stand_in_second_place(quiet, tiny_teacher, tiny_student):
    args = DistillationArguments(**quiet)
    for places, named in [
        ((args,), {"teacher_model": tiny_teacher}),
        ((tiny_teacher, args), {}),
    ]:
        trainer = DistillationTrainer(copy.deepcopy(tiny_student), *places, **named)
        assert trainer.distilling
        assert trainer.teacher.model is tiny_teacher
        assert trainer.args.output_dir == quiet["output_dir"]
    plain = DistillationTrainer(tiny_student, None, args)
    assert not plain.distilling
    assert plain.args.output_dir == quiet["output_dir"]
    several = MultiTeacherTrainer(copy.deepcopy(tiny_student), [tiny_teacher], MultiTeacherArguments(**quiet))
    assert several.teachers[0].model is tiny_teacher


def test_what_is_no_training_arguments_is_refused_by_name(quiet, tiny_teacher, tiny_student):
    args = DistillationArguments(**quiet)
    with pytest.raises(TypeError, match=r"`args` is of type dict.*`teacher_model=`"):
        DistillationTrainer(tiny_student, {"learning_rate": 1.0})
    with pytest.raises(TypeError, match=r"`args` is of type DistillationArguments.*`teacher_model=`"):
        DistillationTrainer(tiny_student, args, args)
    with pytest.raises(TypeError, match="two teachers"):
        DistillationTrainer(tiny_student, tiny_teacher, args, teacher_model=tiny_teacher)
    with pytest.raises(TypeError, match=r"`args` is of type list.*by its name"):
        MTLTrainer(tiny_student, [], args, tasks=[])
    with pytest.raises(TypeError, match="tasks"):
        MTLTrainer(tiny_student, args)


def test_arguments_without_a_use_are_refused_by_name(quiet, tiny_student):
    args = TrainingArguments(**quiet)
    with pytest.raises(ValueError, match=r"MTLTrainer takes.*`train_dataset`, `compute_metrics` would have no effect"):
        MTLTrainer(tiny_student, args, train_dataset=[], compute_metrics=len, tasks=[])
    with pytest.raises(ValueError, match=r"GenerationTrainer.*`data_collator`"):
        GenerationTrainer(tiny_student, args, data_collator=len)
