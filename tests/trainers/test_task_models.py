"""Heads that follow the order of a task's labels, whatever the architecture and whatever adapts them."""

import dataclasses

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, set_seed

from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning import task_models
from hf_distill.trainers.fine_tuning.task_models import load_task_model

THREE = TaskSpec("three", ("text",), ("no", "maybe", "yes"))
HEADS = {
    "bert": lambda size: transformers.BertConfig(intermediate_size=16, **size),
    "roberta": lambda size: transformers.RobertaConfig(intermediate_size=16, **size),
    "electra": lambda size: transformers.ElectraConfig(intermediate_size=16, embedding_size=8, **size),
    "distilbert": lambda size: transformers.DistilBertConfig(dim=8, n_layers=1, n_heads=2, hidden_dim=16, **size),
    "deberta": lambda size: transformers.DebertaV2Config(intermediate_size=16, **size),
    "modernbert": lambda size: transformers.ModernBertConfig(intermediate_size=16, pad_token_id=0, **size),
    "xlnet": lambda size: transformers.XLNetConfig(d_model=8, n_layer=1, n_head=2, d_inner=16, **size),
}


@pytest.mark.parametrize("kind", [*HEADS, "words"])
def test_the_rows_of_a_head_follow_the_order_of_the_labels(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(task_models.logger, "warning", pytest.fail)
    size = {"vocab_size": 20, "id2label": {0: "Yes", 1: "no", 2: "maybe"}}
    if kind not in ("distilbert", "xlnet"):
        size |= {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    set_seed(0)
    spec, auto, make = THREE, AutoModelForSequenceClassification, HEADS.get(kind, HEADS["bert"])
    if kind == "words":
        spec = dataclasses.replace(THREE, kind="token_classification", metrics=("accuracy",))
        auto = transformers.AutoModelForTokenClassification
    model = auto.from_config(make(size)).eval()
    with torch.no_grad():
        for _, layer in task_models.output_layers(model):
            layer.weight.normal_()
            layer.bias.normal_()
    model.save_pretrained(tmp_path)
    loaded = load_task_model(str(tmp_path), spec, flag="--m").eval()
    batch = {"input_ids": torch.arange(1, 9)[None]}
    with torch.no_grad():
        before, after = model(**batch).logits, loaded(**batch).logits
    torch.testing.assert_close(after, before[..., [1, 2, 0]])
    assert loaded.config.id2label == {0: "no", 1: "maybe", 2: "yes"}


@pytest.mark.parametrize("on_the_head", [False, True])
def test_rows_are_permuted_under_adapters_too(on_the_head, tiny_bert_config):
    """Heads that train beside LoRA, and heads that LoRA itself changes."""
    peft = pytest.importorskip("peft")
    set_seed(0)
    model = BertForSequenceClassification(
        tiny_bert_config(num_labels=3, id2label={0: "Yes", 1: "no", 2: "maybe"})
    ).eval()
    targets = {"target_modules": ["query", "classifier"]} if on_the_head else {"target_modules": ["query"]}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type=None if on_the_head else "SEQ_CLS", **targets))
    with torch.no_grad():
        for name, values in wrapped.named_parameters():
            if "lora_B" in name:
                values.normal_()
        batch = {"input_ids": torch.arange(1, 9)[None]}
        before = wrapped.eval()(**batch).logits
        task_models.fit_head(wrapped, ["Yes", "no", "maybe"], THREE, where="it")
        torch.testing.assert_close(wrapped(**batch).logits, before[:, [1, 2, 0]])
        torch.testing.assert_close(wrapped.merge_and_unload()(**batch).logits, before[:, [1, 2, 0]])
