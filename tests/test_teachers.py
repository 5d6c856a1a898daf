"""A live teacher: its arithmetic, its device, and what it says of itself."""

import copy
import sys
from functools import partial

import pytest
import torch
from trainings import logged, trained

from hf_distill import DistillationTrainer, MultiTeacherTrainer, StoredTeacher
from hf_distill.capture.signals import Projections, SignalRequest, Signals
from hf_distill.teachers.adapters import AdapterTeacher
from hf_distill.teachers.base import LiveTeacher
from hf_distill.teachers.stored.precompute import precompute

EVERYTHING = SignalRequest(
    logits=True, hidden_states=frozenset({0, 3}), projections=frozenset({2}), attention_scores=frozenset({3})
)
HAS_CUDA = torch.cuda.is_available()
on_a_gpu = pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")


@pytest.fixture
def batch(tiny_tokenizer, sentences):
    return dict(tiny_tokenizer(sentences[:4], padding=True, return_tensors="pt"))


@pytest.fixture
def build(build):
    objectives = [{"objective": "relation", "teacher": 0}, {"objective": "hidden", "teacher": 0}, "logits"]
    return partial(build, objectives=objectives, learning_rate=5e-3)


def tensors_of(signals):
    found = []
    signals.map(lambda tensor: found.append(tensor) or tensor)
    return found


# ---- int8 ----


@pytest.fixture
def torchao():
    return pytest.importorskip("torchao")


@pytest.mark.usefixtures("torchao")
def test_signals_in_int8_are_close_to_those_in_float32(tiny_teacher, batch):
    found, expected = (LiveTeacher(tiny_teacher, dtype) for dtype in ("int8", "float32"))
    for teacher in (found, expected):
        teacher.request(EVERYTHING)
    for one, other in zip(tensors_of(found.signals(batch)), tensors_of(expected.signals(batch)), strict=True):
        assert ((one - other).float().norm() / other.float().norm()) < 0.05


@pytest.mark.usefixtures("torchao")
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_student_learns_from_an_int8_teacher_nearly_what_it_learns_from_a_full_one(build, tiny_teacher, bf16):
    full, rounded = build(bf16=bf16), build(bf16=bf16, teacher_dtype="int8")
    full.train()
    rounded.train()
    assert logged(rounded) == pytest.approx(logged(full), rel=0.03)
    assert logged(rounded) != logged(full)
    assert type(tiny_teacher.bert.encoder.layer[0].output.dense.weight) is torch.nn.Parameter
    assert "int8" in rounded.describe()


@pytest.mark.usefixtures("torchao")
def test_a_run_with_an_int8_teacher_is_resumed_with_an_int8_teacher(build):
    whole = trained(build(teacher_dtype="int8", save_strategy="steps", save_steps=2))
    resumed = trained(build(teacher_dtype="int8"), f"{whole.args.output_dir}/checkpoint-2")
    assert logged(resumed) == logged(whole)
    with pytest.raises(ValueError, match="teacher_dtype: int8 in the checkpoint, None now"):
        build().train(f"{whole.args.output_dir}/checkpoint-2")


@pytest.mark.usefixtures("torchao")
def test_signals_are_stored_from_an_int8_teacher(tiny_teacher, tiny_tokenizer, rows, tmp_path, build):
    folder = str(tmp_path / "stored")
    settings = {"processing_class": tiny_tokenizer, "dtype": "float32"}
    precompute(rows, tiny_teacher, ["relation", "logits"], folder, teacher_dtype="int8", **settings)
    with pytest.raises(ValueError, match=r"teacher_dtype: int8 stored, auto now"):
        precompute(rows, tiny_teacher, ["relation", "logits"], folder, **settings)
    build(folder, train_dataset=None, objectives=["relation", "logits"]).train()


@pytest.mark.usefixtures("torchao")
def test_int8_is_refused_where_it_cannot_apply(build, tiny_teacher, tiny_tokenizer, rows, tmp_path):
    peft = pytest.importorskip("peft")
    teacher = LiveTeacher(copy.deepcopy(tiny_teacher), "int8")
    with pytest.raises(ValueError, match=r"computes on the CPU.*on 'cuda:0'.*--teacher_device cpu"):
        teacher.to(torch.device("cuda:0"))
    adapted = peft.get_peft_model(copy.deepcopy(tiny_teacher), peft.LoraConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match=r"adapters \(LoRA\).*merge_and_unload"):
        AdapterTeacher(adapted, "default", "int8")
    with pytest.raises(ValueError, match="compiled teacher"):
        build(torch.compile(tiny_teacher, backend="eager"), teacher_dtype="int8")
    folder = str(tmp_path / "stored")
    precompute(rows, tiny_teacher, ["logits"], folder, processing_class=tiny_tokenizer)
    for given in (folder, LiveTeacher(tiny_teacher)):
        with pytest.raises(ValueError, match=r"`--teacher_dtype int8` has no effect: a stored teacher does not run"):
            build(given, train_dataset=None, objectives=["logits"], teacher_dtype="int8")


def test_int8_without_torchao_says_how_to_install_it(tiny_teacher, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ImportError, match=r"`--teacher_dtype int8` needs the package `torchao`.*hf_distill\[int8\]"):
        LiveTeacher(tiny_teacher, "int8")


def test_an_arithmetic_that_does_not_exist_is_refused(tiny_teacher):
    with pytest.raises(ValueError, match=r"`--teacher_dtype` is 'int4'; allowed are auto, .*int8"):
        LiveTeacher(tiny_teacher, "int4")


# ---- Devices ----


def test_every_signal_moves_and_what_is_there_already_stays():
    ones = torch.ones(1, 2)
    signals = Signals(ones, {"logits": ones}, {1: ones}, {2: Projections(ones, ones, ones, 1)}, {3: ones})
    moved = signals.to(torch.device("meta"))
    assert [tensor.device.type for tensor in tensors_of(moved)] == ["meta"] * 7
    assert moved.projections[2].num_heads == 1
    assert signals.to(ones.device) is signals


def test_a_teacher_with_a_device_of_its_own_stays_there(tiny_teacher, batch):
    teacher = LiveTeacher(tiny_teacher, device="cpu")
    teacher.to(torch.device("meta"))
    assert teacher.model.device.type == "cpu"
    teacher.request(EVERYTHING)
    assert all(tensor.device.type == "cpu" for tensor in tensors_of(teacher.signals(batch)))
    follower = LiveTeacher(tiny_teacher)
    follower.to(torch.device("meta"))
    assert follower.model.device.type == "meta"


@pytest.mark.parametrize("trainer_class", [DistillationTrainer, MultiTeacherTrainer])
def test_the_device_of_the_teacher_changes_nothing_where_it_is_the_students(build, tiny_teacher, trainer_class):
    given = [tiny_teacher] if trainer_class is MultiTeacherTrainer else tiny_teacher
    plain, told = build(given, trainer_class), build(given, trainer_class, teacher_device="cpu")
    plain.train()
    told.train()
    assert logged(told) == logged(plain)
    assert "on cpu" in told.describe()


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_does_not_exist_is_refused(build, name):
    with pytest.raises(ValueError, match=rf"`--teacher_device` is '{name}'; this machine has cpu"):
        build(teacher_device=name)


def test_a_device_that_nobody_takes_is_refused(build, tiny_teacher):
    with pytest.raises(ValueError, match=r"`--teacher_device cpu` has no effect.*source of signals"):
        build(LiveTeacher(tiny_teacher), teacher_device="cpu")
    with pytest.raises(ValueError, match=r"--teacher_device cpu.*`--offload_teachers`"):
        build([tiny_teacher], MultiTeacherTrainer, teacher_device="cpu", offload_teachers=True)


@on_a_gpu
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_teacher_on_the_cpu_teaches_a_student_on_the_gpu(build, dtype):
    if dtype == "int8":
        pytest.importorskip("torchao")
    near, far = build(use_cpu=False), build(use_cpu=False, teacher_device="cpu", teacher_dtype=dtype)
    near.train()
    far.train()
    assert far.teacher.model.device.type == "cpu"
    assert logged(far) == pytest.approx(logged(near), rel=0.03)
    with pytest.raises(ValueError, match="--teacher_device cpu"):
        build(use_cpu=False, teacher_dtype="int8")


@on_a_gpu
def test_signals_come_to_the_device_of_the_inputs(tiny_teacher, batch):
    teacher = LiveTeacher(tiny_teacher, device="cpu")
    teacher.request(EVERYTHING)
    found = teacher.signals({name: value.cuda() for name, value in batch.items()})
    assert all(tensor.device.type == "cuda" for tensor in tensors_of(found))


@pytest.mark.parametrize(
    "wrap", [partial(torch.compile, backend="eager"), torch.nn.DataParallel], ids=["compiled", "parallel"]
)
def test_a_teacher_inside_something_else_says_what_it_says_alone(wrap, tiny_teacher, batch):
    request = SignalRequest(logits=True, projections=frozenset({2}))
    config = copy.deepcopy(tiny_teacher.config)
    config.id2label, config.label2id = {0: "positive", 1: "negative"}, {"positive": 0, "negative": 1}
    found = []
    for model in (copy.deepcopy(tiny_teacher), wrap(tiny_teacher)):
        teacher = LiveTeacher(model)
        teacher.ask_for(request, config)
        found.append((tensors_of(teacher.signals(batch)), teacher.fingerprint(), teacher.describe()))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert found[0][1:] == found[1][1:]


@pytest.mark.parametrize("stored", [False, True], ids=["live", "stored"])
def test_a_source_that_two_trainers_ask_gives_each_what_it_asked_for(
    stored, build, tiny_teacher, tiny_student, tiny_tokenizer, rows, tmp_path
):
    source = LiveTeacher(tiny_teacher)
    if stored:
        given = {"processing_class": tiny_tokenizer, "num_student_layers": 2}
        precompute(rows, tiny_teacher, ["relation", "logits"], tmp_path / "stored", **given)
        source = StoredTeacher(tmp_path / "stored")
        rows = source.dataset
    first = build(teacher=source, train_dataset=rows, objectives=["relation", "logits"])
    expected = first.evaluate(first.train_dataset)["eval_loss"]
    other = copy.deepcopy(tiny_student)
    other.config.id2label, other.config.label2id = {0: "positive", 1: "negative"}, {"positive": 0, "negative": 1}
    second = build(teacher=source, train_dataset=rows, student=other, objectives=["logits"])
    assert second.evaluate(second.train_dataset)["eval_loss"] > 0
    assert first.evaluate(first.train_dataset)["eval_loss"] == expected
