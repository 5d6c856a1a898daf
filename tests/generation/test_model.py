"""An encoder that learns to write: what it sees, its loss, saving and loading."""

import copy
import logging
import math

import pytest
import torch
from generation_cases import CONFIGS, IDS, VOCABULARY, make_encoder, make_sources
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    BertModel,
    DebertaV2Config,
    MobileBertConfig,
    ModernBertConfig,
    MPNetConfig,
)

from hf_distill.generation.decoding import beam_search
from hf_distill.generation.model import EncoderForGeneration, smoothed_loss, source_ids
from hf_distill.generation.packing import IGNORED, SpecialIds, pack
from hf_distill.generation.settings import GenerationSettings

LENGTHS = {"max_source_length": 20, "max_target_length": 10}


def states_of(model, batch):
    """(B, S, H) last hidden states of a packed batch."""
    found = {}
    hook = model.masked_lm.base_model.register_forward_hook(
        lambda _module, _inputs, output: found.update(states=output.last_hidden_state), prepend=True
    )
    with torch.no_grad():
        model(**batch)
    hook.remove()
    return found["states"]


def packed(way, *, source=(11, 12, 13), target=(21, 22, 23)):
    return pack(way, [source], [target], IDS, **LENGTHS)


@pytest.mark.parametrize("way", ["pseudo", "shift"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_change_of_the_source_reaches_the_target_but_not_the_other_way(name, way):
    model = make_encoder(name, way)
    plain = states_of(model, packed(way))
    other_source = states_of(model, packed(way, source=(11, 30, 13)))
    other_target = states_of(model, packed(way, target=(21, 22, 30)))
    assert ((plain - other_source).abs().amax(-1) > 1e-4).all()
    assert torch.equal(plain[:, :5], other_target[:, :5])


@pytest.mark.parametrize("way", ["pseudo", "shift"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_change_of_a_token_leaves_all_predictions_up_to_it(name, way):
    model = make_encoder(name, way)
    with torch.no_grad():
        plain = model(**packed(way, target=(21, 22, 23, 24))).logits
        other = model(**packed(way, target=(21, 22, 30, 24))).logits
    torch.testing.assert_close(plain[:3], other[:3], rtol=0, atol=1e-5)
    assert ((plain[3:] - other[3:]).abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_changes_no_prediction(attention):
    model = make_encoder()
    model.masked_lm.set_attn_implementation(attention)
    sources, targets = [[11, 12], [13] * 9], [[21, 22, 23], [24]]
    together = model(**pack("pseudo", sources, targets, IDS, **LENGTHS)).logits
    alone = [model(**pack("pseudo", [s], [t], IDS, **LENGTHS)).logits for s, t in zip(sources, targets, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", ["pseudo", "shift"])
def test_every_attention_reads_the_mask_in_the_same_way(way):
    model, batch = make_encoder(way=way), packed(way)
    logits = {}
    for attention in ("eager", "sdpa"):
        model.masked_lm.set_attn_implementation(attention)
        logits[attention] = model(**batch).logits
    torch.testing.assert_close(logits["eager"], logits["sdpa"], rtol=0, atol=1e-4)


def test_it_learns_and_writes_in_mixed_precision():
    model, batch = make_encoder(), packed("pseudo")
    exact = model(**batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
        found = beam_search(model, [[11, 12, 13]], GenerationSettings(max_new_tokens=4))
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert len(found) == 1
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_the_divergence_from_a_target_that_spares_gold_and_padding(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, VOCABULARY, generator=generator)
    labels = torch.randint(1, VOCABULARY, (5,), generator=generator)
    for row, value in enumerate(smoothed_loss(logits, labels, IDS.pad, smoothing).tolist()):
        log_p, expected = logits[row].double().log_softmax(-1).tolist(), 0.0
        for token in range(VOCABULARY):
            share = 1 - smoothing if token == labels[row] else smoothing / (VOCABULARY - 2)
            if token != IDS.pad and share:
                expected += share * (math.log(share) - log_p[token])
        assert value == pytest.approx(expected, abs=1e-5)


def test_the_loss_is_a_mean_over_target_tokens():
    model = make_encoder()
    model.label_smoothing = 0.1
    pairs = [([11], [21, 22, 23]), ([12, 13], [24])]
    batch = pack("pseudo", *zip(*pairs, strict=True), IDS, **LENGTHS)
    alone = [model(**pack("pseudo", [s], [t], IDS, **LENGTHS)).loss for s, t in pairs]
    assert model(**batch).loss.item() == pytest.approx((4 * alone[0] + 2 * alone[1]).item() / 6, rel=1e-5)
    halves = [
        model(**pack("pseudo", [s], [t], IDS, **LENGTHS), num_items_in_batch=torch.tensor(6)).loss for s, t in pairs
    ]
    assert sum(halves).item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


def test_the_head_sees_the_predicted_places_only():
    model, batch = make_encoder(), packed("pseudo")
    logits = model(**batch).logits
    assert logits.shape == ((batch["labels"] != IGNORED).sum(), VOCABULARY)


@pytest.mark.parametrize("way", ["pseudo", "shift"])
def test_it_learns_to_copy_its_source(way):
    torch.manual_seed(0)
    masked_lm = AutoModelForMaskedLM.from_config(CONFIGS["bert"]())
    with torch.no_grad():
        for parameter in masked_lm.parameters():
            parameter.mul_(0.3 if parameter.dim() == 2 else 1)
    model = EncoderForGeneration(masked_lm, IDS, way=way).train()
    masked_lm.config.hidden_dropout_prob = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    noise = torch.Generator().manual_seed(0)
    for _ in range(150):
        sources = [[token] for token in torch.randint(5, VOCABULARY, (32,), generator=noise).tolist()]
        loss = model(**pack(way, sources, sources, IDS, **LENGTHS, noise=noise)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sources = [[token] for token in range(5, VOCABULARY)]
    found = beam_search(model, sources, GenerationSettings(max_new_tokens=5, num_beams=3))
    assert sum(source == tokens for source, tokens in zip(sources, found, strict=True)) > 0.8 * len(sources)


def test_a_saved_model_writes_the_same_in_two_lines(tmp_path, tiny_tokenizer, tiny_bert_config):
    torch.manual_seed(0)
    masked_lm = AutoModelForMaskedLM.from_config(tiny_bert_config(initializer_range=0.4))
    settings = GenerationSettings(num_beams=2, max_new_tokens=6, max_source_length=20, ngram_ignore=("the",))
    ids = SpecialIds.from_tokenizer(tiny_tokenizer)
    model = EncoderForGeneration(masked_lm, ids, way="shift", settings=settings, tokenizer=tiny_tokenizer)
    texts = ["the cat runs", ("the old house by the sea", "sea")]
    expected = model.generate_texts(texts)
    model.save_pretrained(tmp_path / "model")

    loaded = EncoderForGeneration.from_pretrained(tmp_path / "model")
    assert loaded.generate_texts(texts) == expected
    assert any(expected)
    assert (loaded.way, loaded.settings, loaded.ids) == ("shift", settings, ids)
    # It stays a plain masked language model.
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    assert torch.equal(plain.get_output_embeddings().weight, masked_lm.get_output_embeddings().weight)


def test_a_saved_model_refuses_another_tokenizer(tmp_path, tiny_tokenizer, tiny_bert_config):
    masked_lm = AutoModelForMaskedLM.from_config(tiny_bert_config())
    EncoderForGeneration(masked_lm, SpecialIds.from_tokenizer(tiny_tokenizer)).save_pretrained(tmp_path)
    other = copy.deepcopy(tiny_tokenizer)
    other.mask_token = "the"
    with pytest.raises(ValueError, match=r"was trained with the special ids .*'mask': 4.* the tokenizer has"):
        EncoderForGeneration.from_pretrained(tmp_path, other)


def test_an_encoder_without_a_head_gets_one_tied_to_its_embeddings(tmp_path, tiny_tokenizer, tiny_bert_config, caplog):
    BertModel(tiny_bert_config(), add_pooling_layer=False).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("hf_distill.generation.model")
    logger.addHandler(handler)
    model = EncoderForGeneration.from_pretrained(tmp_path)
    logger.removeHandler(handler)
    assert "has no masked-LM head: it gets a new one, tied to its word embeddings" in messages[0]
    assert model.masked_lm.get_output_embeddings().weight is model.masked_lm.get_input_embeddings().weight
    assert model.way == "pseudo"
    assert model.masked_lm.dtype == torch.float32


def test_a_missing_model_names_its_flag(tmp_path):
    with pytest.raises(OSError, match=r"`--student`: cannot load .*there is no such folder"):
        EncoderForGeneration.from_pretrained(tmp_path / "nothing", flag="--student")


def test_a_long_source_loses_the_end_of_its_longest_text(tiny_tokenizer):
    passage, answer = "the cat runs by the old house", "old house"
    words = tiny_tokenizer.convert_tokens_to_ids
    whole = [*words(passage.split()), IDS.separator, *words(answer.split())]
    assert source_ids([passage, answer], tiny_tokenizer, 10) == whole
    cut = [*words(passage.split()[:4]), IDS.separator, *words(answer.split())]
    assert source_ids([passage, answer], tiny_tokenizer, 7) == cut
    assert source_ids([answer], tiny_tokenizer, 1) == words(["old"])
    assert source_ids([""], tiny_tokenizer, 5) == []


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_the_table_of_positions_is_repeated_for_longer_rows(name, tmp_path, tiny_tokenizer):
    model = make_encoder(name)
    known = model.max_length
    table = model.masked_lm.base_model.embeddings.position_embeddings
    before, batch = table.weight.detach().clone(), packed("pseudo")
    logits = model(**batch).logits
    model.lengthen(known + 25)
    assert model.max_length == known + 25
    first = len(before) - known
    assert torch.equal(table.weight[: len(before)], before)
    assert torch.equal(table.weight[len(before) :], before[first : first + 25])
    assert torch.equal(model(**batch).logits, logits)
    settings = GenerationSettings(max_new_tokens=5)
    long_source = make_sources(1)[0] + [7] * (known + 10)
    expected = beam_search(model, [long_source], settings)
    model.masked_lm.save_pretrained(tmp_path)
    again = EncoderForGeneration(AutoModelForMaskedLM.from_pretrained(tmp_path), IDS)
    assert again.max_length == known + 25
    assert beam_search(again, [long_source], settings) == expected


def test_positions_without_a_table_cannot_be_lengthened():
    model = make_encoder("eurobert")
    assert model.max_length == 40
    with pytest.raises(ValueError, match="EuroBertForMaskedLM has no table of positions to lengthen from 40 to 50"):
        model.lengthen(50)


def test_room_that_is_there_is_not_made():
    model = make_encoder()
    weight = model.masked_lm.base_model.embeddings.position_embeddings.weight
    model.lengthen(30)
    assert model.masked_lm.base_model.embeddings.position_embeddings.weight is weight


def test_token_types_tell_source_and_target_apart_where_the_encoder_knows_two():
    assert make_encoder("bert").pair_types
    assert not make_encoder("bert", pair_types=False).pair_types
    assert not make_encoder("roberta").pair_types
    with pytest.raises(ValueError, match="`pair_types` is True, but RobertaForMaskedLM knows 1 token types"):
        make_encoder("roberta", pair_types=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MPNetConfig, "does not use transformers' attention interface"),
        (DebertaV2Config, "does not use transformers' attention interface"),
        (ModernBertConfig, "has layers with windowed attention"),
        (MobileBertConfig, "mixes the embeddings of neighbours"),
    ],
)
def test_an_encoder_that_sees_otherwise_than_the_mask_says_is_refused(config, message):
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {
        "embedding_size": 8,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "cls_token_id": 1,
        "sep_token_id": 1,
    }
    with torch.device("meta"):
        masked_lm = AutoModelForMaskedLM.from_config(config(**sizes))
    with pytest.raises(ValueError, match=message):
        EncoderForGeneration(masked_lm, IDS)


def test_a_model_without_a_head_is_refused(tiny_bert_config):
    with pytest.raises(ValueError, match="BertModel has no masked-LM head"):
        EncoderForGeneration(BertModel(tiny_bert_config()), IDS)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused():
    masked_lm = AutoModelForMaskedLM.from_config(CONFIGS["bert"]())
    with pytest.raises(ValueError, match="The tokenizer has 41 tokens, but BertForMaskedLM embeds 40"):
        EncoderForGeneration(masked_lm, SpecialIds(2, 3, 4, 0, 41))


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="`way` is 'v1', but must be one of pseudo, shift"):
        make_encoder(way="v1")


def test_generation_needs_a_tokenizer():
    with pytest.raises(ValueError, match="`tokenizer` is missing"):
        make_encoder().generate_texts(["the cat"])


def test_the_configuration_is_that_of_the_encoder():
    assert isinstance(make_encoder().config, type(AutoConfig.for_model("bert")))
