"""Teachers that were spread, offloaded or quantised before: they stay where they are and say what they always said."""

import copy

import datasets
import peft
import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from trainings import logged, trained

from hf_distill import (
    DistillationTrainer,
    MultiTeacherTrainer,
    adapter_teachers,
    precompute,
)
from hf_distill.capture.signals import Projections, SignalRequest, Signals
from hf_distill.teachers.base import LiveTeacher, first_device, place_of
from hf_distill.teachers.offload import weights_of

EVERYTHING = SignalRequest(
    logits=True, hidden_states=frozenset({0, 3}), projections=frozenset({2}), attention_scores=frozenset({3})
)
ENDS_EARLY = SignalRequest(projections=frozenset({2}))
SPREAD = {
    "bert.embeddings": "cpu",
    "bert.encoder": "disk",
    "bert.pooler": "cpu",
    "dropout": "cpu",
    "classifier": "disk",
}


def quantised(model, folder):
    """As a quantiser leaves it: whoever moves it gets an error."""

    def to(*given, **named):
        raise ValueError("`.to` is not supported for quantised models.")

    model.is_quantized, model.quantization_method, model.to = True, "bitsandbytes", to
    return model


def spread(model, folder):
    return dispatch_model(model, SPREAD, offload_dir=folder)


PLACES = {
    "quantised": quantised,
    "spread over cpu and disk": spread,
    "offloaded to memory": lambda model, folder: cpu_offload(model, torch.device("cpu")),
    "offloaded to disk": lambda model, folder: disk_offload(model, folder, torch.device("cpu")),
}


@pytest.fixture(params=PLACES)
def placed(request, tiny_teacher, tmp_path):
    """A copy of the tiny teacher with a place of its own."""
    return PLACES[request.param](copy.deepcopy(tiny_teacher).eval(), str(tmp_path / "weights"))


@pytest.fixture
def batch(tiny_tokenizer, sentences):
    return dict(tiny_tokenizer(sentences[:4], padding=True, return_tensors="pt"))


@pytest.fixture
def losses(make_trainer, sentences):
    """`losses(teacher, **arguments)`: those of three steps."""
    given = {"train_dataset": [{"text": text} for text in sentences[:16]], "objectives": ["relation", "logits"]}
    given |= {"max_steps": 3, "per_device_train_batch_size": 4}

    def train(teacher, **arguments):
        kind = MultiTeacherTrainer if isinstance(teacher, list) else DistillationTrainer
        return logged(trained(make_trainer(teacher, kind, **given | arguments)))

    return train


def tensors_of(signals):
    found = []
    signals.map(lambda tensor: found.append(tensor) or tensor)
    return found


def on_meta(model):
    return {name for name, weight in model.named_parameters() if weight.device.type == "meta"}


@pytest.mark.parametrize("request_of_teacher", [EVERYTHING, ENDS_EARLY], ids=["everything", "ends early"])
def test_it_says_what_it_says_elsewhere_and_stays_where_it_is(tiny_teacher, placed, batch, request_of_teacher):
    before = on_meta(placed)
    teacher, plain = LiveTeacher(placed), LiveTeacher(copy.deepcopy(tiny_teacher))
    for one in (teacher, plain):
        one.request(request_of_teacher)
    teacher.to(torch.device("meta"))  # The device of training: a model that went there would say nothing.
    assert teacher.device.type == first_device(placed).type == "cpu"
    for _ in range(2):
        for one, other in zip(tensors_of(teacher.signals(batch)), tensors_of(plain.signals(batch)), strict=True):
            torch.testing.assert_close(one, other)
    assert on_meta(placed) == before


def test_it_is_known_by_its_weights_wherever_they_are(tiny_teacher, placed):
    before = on_meta(placed)
    assert LiveTeacher(placed).fingerprint() == LiveTeacher(copy.deepcopy(tiny_teacher)).fingerprint()
    assert {name: value.device.type for name, value in weights_of(placed)}.keys() == tiny_teacher.state_dict().keys()
    assert on_meta(placed) == before


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_student_learns_the_same_from_it(tiny_teacher, placed, losses, bf16):
    expected = losses(copy.deepcopy(tiny_teacher), bf16=bf16)
    assert losses(placed, bf16=bf16) == pytest.approx(expected, rel=1e-5 if not bf16 else 1e-2)


def test_it_is_one_of_several_that_are_offloaded(tiny_teacher, placed, losses):
    settings = {"objectives": ["logits"], "offload_teachers": True}
    expected = losses([copy.deepcopy(tiny_teacher), tiny_teacher], **settings)
    assert losses([placed, tiny_teacher], **settings) == pytest.approx(expected, rel=1e-5)


def test_its_signals_are_stored(tiny_teacher, placed, tiny_tokenizer, sentences, tmp_path, losses):
    rows = datasets.Dataset.from_dict({"text": sentences[:8]})
    for name, model in (("placed", placed), ("plain", copy.deepcopy(tiny_teacher))):
        precompute(rows, model, ["logits"], tmp_path / name, processing_class=tiny_tokenizer, dtype="float32")
    one, other = (
        datasets.Dataset.from_file(str(tmp_path / name / "signals-00000-of-00001.arrow"))
        for name in ("placed", "plain")
    )
    torch.testing.assert_close(torch.tensor(one["teacher_logits"][:]), torch.tensor(other["teacher_logits"][:]))


def test_adapters_share_a_quantised_base(tiny_teacher, tmp_path, batch):
    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False)
        folders.append(str(tmp_path / str(seed)))
        peft.get_peft_model(copy.deepcopy(tiny_teacher), config).save_pretrained(folders[-1])
    plain = adapter_teachers(copy.deepcopy(tiny_teacher), folders)
    shared = adapter_teachers(quantised(copy.deepcopy(tiny_teacher), ""), folders)
    for one, other in zip(plain, shared, strict=True):
        other.to(torch.device("meta"))
        for teacher in (one, other):
            teacher.request(SignalRequest(logits=True))
        torch.testing.assert_close(other.signals(batch).logits, one.signals(batch).logits)
        assert one.fingerprint() == other.fingerprint()
        assert "quantised by bitsandbytes" in other.describe()


def test_where_it_is_stands_in_the_log(tiny_teacher, tmp_path):
    said = {name: place_of(place(copy.deepcopy(tiny_teacher), str(tmp_path / name))) for name, place in PLACES.items()}
    assert list(said.values()) == ["quantised by bitsandbytes", "on cpu, disk", "offloaded", "offloaded"]
    assert place_of(tiny_teacher) == ""
    assert LiveTeacher(quantised(copy.deepcopy(tiny_teacher), "")).describe().endswith(", quantised by bitsandbytes")


def test_another_place_or_arithmetic_is_refused(tiny_teacher):
    model = quantised(copy.deepcopy(tiny_teacher), "")
    with pytest.raises(ValueError, match=r"`--teacher_device cpu` cannot be used .* \(quantised by bitsandbytes\)"):
        LiveTeacher(model, device="cpu")
    with pytest.raises(ValueError, match="`--teacher_dtype int8` cannot be used on a teacher that cannot be moved"):
        LiveTeacher(model, "int8")


def test_signals_of_several_devices_come_together():
    here, there = torch.ones(1, 2), torch.ones(1, 2, device="meta")
    signals = Signals(there, {"logits": there}, {1: here}, {2: Projections(there, here, there, 1)}, {3: there})
    moved = signals.to(torch.device("meta"))
    assert [tensor.device.type for tensor in tensors_of(moved)] == ["meta"] * 7
    assert moved.to(torch.device("meta")) is moved


def test_a_teacher_of_which_a_process_has_a_part_is_refused(tiny_teacher):
    tiny_teacher.bert._tp_size = 2
    with pytest.raises(ValueError, match=r"tensor-parallel over 2 processes.*load it without `tp_plan`"):
        LiveTeacher(tiny_teacher)
    tiny_teacher.bert._tp_size = None
    next(tiny_teacher.parameters()).ds_id = 0
    with pytest.raises(ValueError, match=r"in parts \(DeepSpeed's ZeRO-3\).*set `zero3_init_flag: false`"):
        LiveTeacher(tiny_teacher)
