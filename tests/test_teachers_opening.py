"""Whatever is given as a teacher becomes a source of signals in one place, and nobody asks afterwards what it was."""

import re
from pathlib import Path

import datasets
import pytest
import torch
from trainings import logged, trained

import hf_distill
from hf_distill import DistillationTrainer, MultiTeacherTrainer
from hf_distill.capture.signals import SignalRequest, Signals
from hf_distill.objectives import WeightedObjective, build_objectives
from hf_distill.teachers.alignment import AlignedTeacher
from hf_distill.teachers.base import LiveTeacher, TeacherSource
from hf_distill.teachers.opening import OtherSource, may_teach, open_teacher
from hf_distill.teachers.several import SeveralTeachers
from hf_distill.teachers.stored.precompute import precompute
from hf_distill.teachers.stored.teacher import StoredTeacher

PACKAGE = Path(hf_distill.__file__).parent


class Sure(TeacherSource):
    """Is always sure of class 1; has nothing that a teacher need not have."""

    def signals(self, inputs):
        mask = inputs["attention_mask"]
        return Signals(mask, logits={"logits": torch.tensor([[-2.0, 2.0]], device=mask.device).expand(len(mask), 2)})


class SaysSo:
    """As `Sure`, and no `TeacherSource`."""

    signals = Sure.signals


@pytest.fixture(scope="module")
def rows(sentences):
    return datasets.Dataset.from_dict({"text": sentences[:16]})


@pytest.fixture
def build(build):
    """`build(teacher)`: a trainer of the tiny student; of several teachers for a list."""

    def make(teacher, trainer_class=None):
        kind = trainer_class or (MultiTeacherTrainer if isinstance(teacher, list) else DistillationTrainer)
        return build(teacher, kind, objectives=["logits"], max_steps=3, learning_rate=1e-2, warmup_steps=0)

    return make


class Once(TeacherSource):
    """Says one thing for all rows."""

    def signals(self, inputs):
        return Signals(inputs["attention_mask"], logits={"logits": torch.tensor([[-2.0, 2.0]])})


class Mapped(TeacherSource):
    """Gives tensors in place of signals."""

    def signals(self, inputs):
        return {"logits": torch.zeros(len(inputs["attention_mask"]), 2)}


def test_what_a_source_gives_is_looked_at(build):
    with pytest.raises(ValueError, match=r"the teacher's logits have 1 rows, but the batch has 8"):
        build(Once()).train()
    with pytest.raises(ValueError, match=r"must return `Signals`.*its `signals` gave a mapping with a Tensor"):
        build(Mapped())
    with pytest.raises(ValueError, match=r"The teacher \(1, Once\): its logits have 1 rows, but it was given 8"):
        build([Sure(), Once()]).train()
    with pytest.raises(ValueError, match=r"The teacher \(0, Mapped\) must return `Signals`"):
        build([Mapped(), Sure()])


def test_a_source_without_layers_is_named(make_trainer, rows):
    with pytest.raises(
        ValueError, match=r"'relation' compares layers, but the teacher \(Sure\).*give it `num_layers`"
    ):
        make_trainer(Sure(), train_dataset=rows, objectives=["relation"])


@pytest.mark.parametrize("size", [1e-60, 3e38, 1e308])
def test_weights_of_any_size_are_shares(size):
    assert SeveralTeachers([Sure(), Sure()], weights=[size * 0.75, size * 0.25]).weights.tolist() == [0.75, 0.25]


@pytest.mark.parametrize("teacher", [Sure(), SaysSo()], ids=["TeacherSource", "signals alone"])
def test_a_source_with_signals_alone_teaches(build, teacher):
    trainer = build(teacher)
    assert trainer.describe().startswith(f"teacher: {type(teacher).__name__}\n")
    first, _, last = logged(trained(trainer))
    assert 0 < last < first
    assert trainer.manifest()["teacher"] == type(teacher).__name__
    assert trainer.input_folders()["teacher_model"] == [None]
    assert trainer.predict(trainer.train_dataset).predictions.shape == (16, 2)


def test_a_source_with_signals_alone_is_one_of_several(build, tiny_teacher):
    alone, both = (trained(build(teachers)) for teachers in ([SaysSo()], [SaysSo(), tiny_teacher]))
    assert logged(alone) == logged(trained(build(Sure())))
    assert logged(both) != logged(alone)
    assert "0 (SaysSo of None layers), 1 (bert of 3 layers)" in both.teacher.describe()


def test_what_an_object_has_of_a_teacher_is_used():
    class Has(SaysSo):
        num_layers, model_type, dataset = 3, "bert", "its own affair"

        def request(self, request):
            self.input_columns = ["weights"]

    source = open_teacher(Has(), flag="--teacher_model")
    assert (source.num_layers, source.model_type, source.dataset, list(source.input_columns)) == (3, "bert", None, [])
    source.request(SignalRequest(logits=True))
    assert source.input_columns == ["weights"]
    assert source.fingerprint() == {"teacher": "Has"}


def test_every_kind_is_a_source(tiny_teacher, tiny_tokenizer, rows, tmp_path):
    model, stored = str(tmp_path / "model"), str(tmp_path / "stored")
    tiny_teacher.save_pretrained(model)
    precompute(rows, tiny_teacher, ["logits"], stored, processing_class=tiny_tokenizer)
    kinds = {StoredTeacher: [stored, Path(stored)], LiveTeacher: [tiny_teacher, model, Path(model)]}
    kinds |= {Sure: [Sure()], OtherSource: [SaysSo()]}
    for kind, several in kinds.items():
        for given in several:
            source = open_teacher(given, flag="--teacher_model")
            assert type(source) is kind
            assert isinstance(source, TeacherSource)
            assert type(open_teacher(source, flag="--teacher_model")) is kind
            assert source.members == [source]
            assert may_teach(given)
    for kind in (AlignedTeacher, SeveralTeachers):
        assert issubclass(kind, TeacherSource)


def test_what_is_no_teacher_is_refused(build, tiny_teacher):
    for given in (7, {"signals": 1}, object()):
        assert not may_teach(given)
        with pytest.raises(TypeError, match=rf"`--teacher_model` is of type {type(given).__name__}; a teacher is"):
            build(given)
    with pytest.raises(TypeError, match="`--teacher_models` is of type int"):
        build([tiny_teacher, 7])
    with pytest.raises(ValueError, match="is a list of 2: MultiTeacherTrainer has several"):
        build([tiny_teacher, tiny_teacher], DistillationTrainer)
    with pytest.raises(NotImplementedError, match="TeacherSource lacks `signals`"):
        TeacherSource().signals({})


def test_one_teacher_is_number_0(tiny_teacher):
    teacher = LiveTeacher(tiny_teacher)
    [item] = build_objectives(["logits"])
    assert teacher.of(item) is teacher
    with pytest.raises(ValueError, match="`teacher` 1, but there is one teacher, number 0"):
        teacher.of(WeightedObjective("logits", item.objective, teacher=1))


def test_nobody_asks_what_kind_a_teacher_is():
    classes = r"(Live|Stored|Aligned|Adapter|Placed|Several)Teachers?\b|(Teacher|Other)Source\b"
    asking = re.compile(rf"(isinstance|issubclass)\([^()]*,\s*\(?[^()]*?({classes})")
    probing = re.compile(r"(hasattr|getattr)\((self\.)?(teacher|source|one_teacher|live)\w*,")
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix() != "teachers/opening.py" and "students" not in path.parts:
            text = path.read_text(encoding="utf-8")
            assert not asking.findall(text), path
            assert not probing.findall(text), path
