"""What a sharding strategy is told of the models that are trained."""

from types import SimpleNamespace

import pytest
from transformers import AutoModelForMaskedLM, BertModel, DistilBertConfig

from hf_distill.settings.mtl import MTLArguments
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.multi_task.loss import MultiTaskLoss
from hf_distill.trainers.multi_task.model import multi_task_model

INSIDE = [["relation"], ["minilm"], ["attention"], ["relation", {"objective": "hidden", "layers": "0:0"}]]
BEYOND = [["relation", "logits"], ["hidden"], ["relation", {"objective": "hidden", "layers": "last"}], ["labels"]]


def test_layers_are_what_is_sharded(make_trainer, tmp_path, tiny_bert_config):
    assert make_trainer(objectives=["relation"]).model._no_split_modules == {"BertLayer"}
    config = DistilBertConfig(vocab_size=120, dim=24, n_layers=2, n_heads=4, hidden_dim=32, max_position_embeddings=64)
    student, teacher = (AutoModelForMaskedLM.from_config(config) for _ in range(2))
    assert make_trainer(teacher, student=student, objectives=["logits"]).model._no_split_modules == {
        "TransformerBlock"
    }
    spec = TaskSpec("mood", ("text",), ("bad", "good"), metrics=("accuracy",))
    model = multi_task_model(BertModel(tiny_bert_config()), [spec])
    loss = MultiTaskLoss(model, {"mood": spec}, {"mood": 16}, MTLArguments(str(tmp_path), use_cpu=True))
    assert loss._no_split_modules == {"BertLayer"}


@pytest.mark.parametrize("objectives", [*INSIDE, *BEYOND])
def test_a_pass_that_ends_inside_a_layer_is_refused_where_layers_are_sharded_again(objectives, make_trainer):
    trainer = make_trainer(objectives=objectives)
    assert trainer.model.ends_inside_a_layer == (objectives in INSIDE)
    plugin = SimpleNamespace(fsdp_version=2, reshard_after_forward=True)
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    if objectives in INSIDE:
        with pytest.raises(ValueError, match="`fsdp_reshard_after_forward: false`"):
            trainer._check_objectives()
        plugin.reshard_after_forward = False
    trainer._check_objectives()
