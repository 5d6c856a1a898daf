"""Attention maps are what the model attended to, of any layer and head."""

import pytest
import torch
from transformers import BertForSequenceClassification, BertModel, LlamaConfig, LlamaModel, set_seed

from hf_distill.commands.attention import run as draw_attention_of
from hf_distill.reports.attention import attention_map, draw_attention
from hf_distill.settings import AttentionArguments

TEXT = "the cat likes a good film"


@pytest.mark.parametrize("layer", [1, 2, -1])
def test_a_map_is_the_attention_of_the_layer(layer, tiny_bert_config, tiny_tokenizer):
    set_seed(0)
    model = BertModel(tiny_bert_config())
    found = attention_map(model, tiny_tokenizer, TEXT, layer=layer)
    plain = BertModel._from_config(tiny_bert_config(), attn_implementation="eager")
    plain.load_state_dict(model.state_dict())
    expected = plain.eval()(**tiny_tokenizer(TEXT, return_tensors="pt"), output_attentions=True).attentions
    number = layer if layer > 0 else 3
    assert (found.layer, found.tokens[0], len(found.tokens)) == (number, "[CLS]", 8)
    assert torch.allclose(found.weights, expected[number - 1][0], atol=1e-5)
    assert torch.allclose(found.weights.sum(-1), torch.ones(4, 8))


def test_a_training_model_goes_on_training(tiny_bert_config, tiny_tokenizer):
    model = BertForSequenceClassification(tiny_bert_config()).train()
    attention_map(model, tiny_tokenizer, TEXT)
    assert model.training


def test_teacher_and_students_are_drawn_below_each_other(tiny_bert_config, tiny_tokenizer, tmp_path):
    pytest.importorskip("matplotlib")
    for name, layers in (("teacher", 3), ("student", 2)):
        BertModel(tiny_bert_config(num_hidden_layers=layers)).save_pretrained(tmp_path / name)
        tiny_tokenizer.save_pretrained(tmp_path / name)
    models = [str(tmp_path / name) for name in ("teacher", "student")]
    picture = tmp_path / "new" / "attention.svg"
    results = draw_attention_of(AttentionArguments(models, TEXT, heads=[1, 4], output=str(picture)))
    assert [(one["name"], one["layer"], one["heads"]) for one in results["models"]] == [
        ("teacher", 3, 4),
        ("student", 2, 4),
    ]
    assert picture.read_text().startswith("<?xml")


def test_all_maps_have_one_scale_and_a_bar_says_it(tiny_bert_config, tiny_tokenizer, tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    save = figures.Figure.savefig
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda figure, *a, **k: drawn.append(figure) or save(figure, *a, **k)
    )
    found = attention_map(BertModel(tiny_bert_config()), tiny_tokenizer, TEXT)
    draw_attention([found, found], tmp_path / "map.png", heads=[2])
    images = [image for axes in drawn[0].axes for image in axes.get_images()]
    highest = max(float(found.weights.mean(0).max()), float(found.weights[1].max()))
    assert [image.get_clim() for image in images] == [(0.0, pytest.approx(highest))] * 4
    assert [axes.get_ylabel() for axes in drawn[0].axes if axes.get_ylabel()] == [
        "attention, the same scale in all maps"
    ]


def test_signs_of_formulas_are_text(tiny_bert_config, tiny_tokenizer, tmp_path):
    pytest.importorskip("matplotlib")
    found = attention_map(BertModel(tiny_bert_config()), tiny_tokenizer, TEXT)
    found.tokens[1] = "$x_{$"
    draw_attention([found], tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": 4}, "`--layers` has 4; model has the layers 1 to 3"),
        ({"layer": 0}, "`--layers` has 0"),
        ({"text": "  "}, "`--text` is empty"),
        ({"text": "cat " * 63}, "`--text` has 65 tokens; a map has room for 64"),
    ],
)
def test_what_cannot_be_drawn_is_named(fields, message, tiny_bert_config, tiny_tokenizer):
    given = {"text": TEXT, **fields}
    with pytest.raises(ValueError, match=message):
        attention_map(BertModel(tiny_bert_config()), tiny_tokenizer, given.pop("text"), **given)


def test_a_picture_has_an_ending_that_can_be_drawn():
    with pytest.raises(ValueError, match=r"`--output` is 'map.xyz'; its ending must be one of .png, .svg, .pdf"):
        AttentionArguments(models=["teacher"], text=TEXT, output="map.xyz")


def test_a_head_must_exist(tiny_bert_config, tiny_tokenizer, tmp_path):
    found = attention_map(BertModel(tiny_bert_config()), tiny_tokenizer, TEXT)
    with pytest.raises(ValueError, match=r"`--heads` has \[5\]; model has the heads 1 to 4"):
        draw_attention([found], tmp_path / "map.png", heads=[1, 5])


def test_models_that_look_back_only_are_refused(tiny_tokenizer):
    config = LlamaConfig(
        vocab_size=200, hidden_size=24, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32
    )
    with pytest.raises(ValueError, match="has causal attention"):
        attention_map(LlamaModel(config), tiny_tokenizer, TEXT)


def test_there_is_a_layer_for_each_model():
    with pytest.raises(ValueError, match="`--layers` has 1 numbers for 2 models"):
        AttentionArguments(["a", "b"], TEXT, layers=[1])
