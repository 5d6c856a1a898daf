"""Several adapters on one base model as several teachers."""

import copy
import json
from pathlib import Path

import peft
import pytest
import torch
from trainings import logged, trained
from transformers import BertForSequenceClassification, BertModel, set_seed

from hf_distill import MultiTeacherTrainer, adapter_teachers
from hf_distill.capture.signals import SignalRequest
from hf_distill.teachers.opening import open_teacher

EVERYTHING = SignalRequest(logits=True, hidden_states=frozenset({0, 2, 3}), projections=frozenset({3}))
INPUTS = {
    "input_ids": torch.tensor([[2, 8, 9, 3], [2, 10, 3, 0]]),
    "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]]),
}


@pytest.fixture
def adapters(tmp_path, tiny_teacher):
    """Folders of three adapters of the tiny teacher, of different ranks, with heads of their own."""
    folders = []
    for index, rank in enumerate((2, 4, 2)):
        set_seed(20 + index)
        config = peft.LoraConfig(
            task_type="SEQ_CLS", r=rank, target_modules=["query", "value"], init_lora_weights=False
        )
        model = peft.get_peft_model(copy.deepcopy(tiny_teacher), config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "modules_to_save" in name:
                    parameter.add_(torch.randn_like(parameter))
        folders.append(str(tmp_path / f"adapter_{index}"))
        model.save_pretrained(folders[-1])
    return folders


def merged(base, folder):
    return peft.PeftModel.from_pretrained(copy.deepcopy(base), folder).merge_and_unload().eval()


def test_every_adapter_answers_as_the_model_it_was_merged_into(tiny_teacher, adapters):
    expected = [merged(tiny_teacher, folder) for folder in adapters]
    teachers = adapter_teachers(copy.deepcopy(tiny_teacher), adapters)
    for teacher in teachers:
        teacher.request(EVERYTHING)
    for index in (0, 1, 2, 0, 2):  # in any order, again and again
        signals = teachers[index].signals(INPUTS)
        own = expected[index](**INPUTS, output_hidden_states=True)
        torch.testing.assert_close(signals.logits["logits"], own.logits, rtol=1e-4, atol=1e-5)
        for layer in EVERYTHING.hidden_states:
            theirs = own.hidden_states[layer][0]
            torch.testing.assert_close(signals.hidden_states[layer][0], theirs, rtol=1e-4, atol=1e-5)
        assert signals.projections[3].query.shape == (2, 4, 24)
    one, other = (teacher.signals(INPUTS).logits["logits"] for teacher in teachers[:2])
    assert not torch.allclose(one, other)


def test_the_base_is_held_once(tiny_teacher, adapters):
    base = sum(parameter.numel() for parameter in tiny_teacher.parameters())
    teachers = adapter_teachers(tiny_teacher, adapters)
    name = "base_model.model.bert.encoder.layer.0.output.dense.weight"
    places = {dict(teacher.model.named_parameters())[name].data_ptr() for teacher in teachers}
    assert len(places) == 1
    everything = {p.data_ptr(): p.numel() for teacher in teachers for p in teacher.model.parameters()}
    assert base < sum(everything.values()) < 1.2 * base


def test_nothing_of_it_is_trained_and_nothing_drops_out(tiny_teacher, adapters):
    teachers = adapter_teachers(tiny_teacher, adapters)
    for teacher in teachers:
        teacher.request(EVERYTHING)
        teacher.signals(INPUTS)
        assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
        assert not teacher.model.training


def test_the_fingerprint_is_that_of_base_and_own_adapter(tiny_teacher, adapters):
    first, second, third = adapters
    one, two, _ = (t.fingerprint() for t in adapter_teachers(copy.deepcopy(tiny_teacher), adapters))
    assert one != two
    alone, *_ = adapter_teachers(copy.deepcopy(tiny_teacher), [first, third])
    assert alone.fingerprint() == one
    _, moved = adapter_teachers(copy.deepcopy(tiny_teacher), [third, second])
    assert moved.fingerprint() == two
    with torch.no_grad():
        next(tiny_teacher.parameters()).add_(1)
    changed, *_ = adapter_teachers(tiny_teacher, [first])
    assert changed.fingerprint() != one


@pytest.mark.parametrize("offload", [False, True])
def test_a_student_learns_from_adapters_as_from_merged_models(
    make_trainer, tiny_teacher, tiny_tokenizer, sentences, adapters, offload
):
    rows = [{**tiny_tokenizer(text), "teacher_id": index % 3} for index, text in enumerate(sentences[:16])]

    def losses(teachers):
        given = {"objectives": ["logits", "relation"], "combine": "route", "offload_teachers": offload}
        return logged(trained(make_trainer(teachers, MultiTeacherTrainer, train_dataset=rows, max_steps=2, **given)))

    separate = losses([merged(tiny_teacher, folder) for folder in adapters])
    assert losses(adapter_teachers(tiny_teacher, adapters)) == pytest.approx(separate, rel=1e-4)


@pytest.fixture
def on_disk(tmp_path, tiny_teacher):
    """Folder of an adapter whose base lies on disk, and the adapted model."""
    tiny_teacher.save_pretrained(tmp_path / "base")
    set_seed(30)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False)
    model = peft.get_peft_model(BertForSequenceClassification.from_pretrained(tmp_path / "base"), config).eval()
    model.save_pretrained(tmp_path / "adapter")
    return str(tmp_path / "adapter"), model


def test_the_folder_of_an_adapter_is_its_base_with_the_adapter_in_it(on_disk):
    folder, adapted = on_disk
    teacher = open_teacher(folder, flag="--teacher_model")
    teacher.request(SignalRequest(logits=True))
    torch.testing.assert_close(teacher.signals(INPUTS).logits["logits"], adapted(**INPUTS).logits)
    assert type(teacher.model) is BertForSequenceClassification
    assert (teacher.place, teacher.source()) == (folder, {"name": "adapter", "hub_id": None, "revision": None})


def test_an_adapter_of_another_base_or_kind_is_refused(on_disk, tmp_path, tiny_teacher):
    folder, _ = on_disk
    settings = json.loads(Path(folder, "adapter_config.json").read_text())
    BertModel(tiny_teacher.config).save_pretrained(tmp_path / "bare")
    for changes, message in (
        ({"base_model_name_or_path": str(tmp_path / "bare")}, r"\(BertModel\) has other layers, by `base_model"),
        ({"base_model_name_or_path": None}, "an adapter of kind 'LORA' on None; only LoRA"),
        ({"peft_type": "PROMPT_TUNING"}, "an adapter of kind 'PROMPT_TUNING' on"),
    ):
        Path(folder, "adapter_config.json").write_text(json.dumps({**settings, **changes}))
        with pytest.raises(ValueError, match=message):
            open_teacher(folder, flag="--teacher_model")


def test_what_is_no_adapter_that_can_be_switched_is_refused(tmp_path, tiny_teacher, adapters):
    with pytest.raises(ValueError, match="`adapters` is empty"):
        adapter_teachers(tiny_teacher, [])
    prompts = peft.get_peft_model(
        copy.deepcopy(tiny_teacher), peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    )
    prompts.save_pretrained(tmp_path / "prompts")
    with pytest.raises(ValueError, match=r"prompts'\] are adapters of prompts.*use LoRA"):
        adapter_teachers(copy.deepcopy(tiny_teacher), [tmp_path / "prompts"])
    (teacher,) = adapter_teachers(tiny_teacher, adapters[:1])
    with pytest.raises(ValueError, match=r"no adapter 'b'; it has \['teacher_0'\]"):
        type(teacher)(teacher.model, "b")
