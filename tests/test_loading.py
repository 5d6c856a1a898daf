"""Models and tokenizers by id or folder."""

import json

import datasets
import pytest
import torch
from transformers import BertModel

from hf_distill import DistillationArguments, DistillationTrainer, create_student
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning.task_models import load_task_model


@pytest.fixture
def weights_only(tmp_path, tiny_teacher):
    """A folder with a model and no tokenizer, of which `AutoTokenizer` makes one that knows no word."""
    tiny_teacher.save_pretrained(tmp_path / "weights")
    return str(tmp_path / "weights")


def test_a_model_keeps_its_class_and_an_instance_itself(weights_only, tiny_teacher):
    assert type(load_model(weights_only, flag="--x")) is type(tiny_teacher)
    assert load_model(tiny_teacher, flag="--x") is tiny_teacher


def test_a_model_that_returns_attention_maps_can_be_saved(tiny_teacher, tmp_path):
    """Of one whose configuration asks for them transformers refuses to save what it has loaded."""
    tiny_teacher.save_pretrained(tmp_path / "asks")
    file = tmp_path / "asks" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"output_attentions": True}))
    load_model(str(tmp_path / "asks"), flag="--x").save_pretrained(tmp_path / "saved")
    create_student(str(tmp_path / "asks"), "1x12:2h:16").save_pretrained(tmp_path / "student")
    spec = TaskSpec("mood", ("text",), ("negative", "positive"))
    load_task_model(str(tmp_path / "asks"), spec, flag="--x").save_pretrained(tmp_path / "adapted")
    for name in ("saved", "student", "adapted"):
        assert (tmp_path / name / "model.safetensors").is_file()
        assert not load_model(str(tmp_path / name), flag="--x").config.output_attentions
    again = load_model(str(tmp_path / "saved"), flag="--x").state_dict()
    assert all(torch.equal(again[weight], tensor) for weight, tensor in tiny_teacher.state_dict().items())


def test_a_tokenizer_is_loaded(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path), flag="--x").get_vocab() == tiny_tokenizer.get_vocab()


def test_what_is_missing_is_named_with_its_flag(weights_only):
    with pytest.raises(OSError, match=r"`--x`: cannot load 'no/model'"):
        load_model("no/model", flag="--x")
    with pytest.raises(OSError, match=r"`--x`: .*no tokenizer files.*save_pretrained"):
        load_tokenizer(weights_only, flag="--x")


def test_a_teacher_folder_of_weights_only_goes_with_the_students_tokenizer(
    weights_only, tiny_student, tiny_tokenizer, sentences, tmp_path
):
    trainer = DistillationTrainer(
        model=tiny_student,
        teacher_model=weights_only,
        args=DistillationArguments(str(tmp_path / "run"), max_steps=1, use_cpu=True, disable_tqdm=True),
        train_dataset=datasets.Dataset.from_dict({"text": sentences}),
        processing_class=tiny_tokenizer,
    )
    assert trainer.train().global_step == 1


def test_a_model_that_lacks_weights_is_not_taken_as_it_is(tiny_bert_config, tmp_path):
    BertModel(tiny_bert_config(), add_pooling_layer=False).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(
        ValueError, match=r"`--teacher_model` .* lacks weights, which would be random: .*`classifier.weight`"
    ):
        load_model(str(tmp_path), flag="--teacher_model")
