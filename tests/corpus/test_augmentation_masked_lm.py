"""Candidates by a masked language model: those of one forward per word, whatever runs beside them."""

import copy

import pytest
import torch
from augmentation_cases import bert, byte_level, metaspace, roberta, slow_candidates, wordpiece
from tiny_data import save_model
from transformers import BertModel

from hf_distill.corpus.augment import masked_lm as augmentation_masked_lm
from hf_distill.corpus.augment.masked_lm import MaskedLMCandidates, load_masked_lm, max_tokens
from hf_distill.corpus.augment.words import WordSplitter

TEXTS = [
    "The dull film, walking sings",
    "a good story about unbreakable dogs",
    "cat",
    "long night movie " * 9,
    "",
    "the film of that night was not a fine film , but the music makes it great",
]
PLAIN = {"num_candidates": 15, "exclude_original": False, "exclude_special": False, "batch_tokens": 200}


@pytest.fixture(scope="module")
def tokenizer():
    return wordpiece()


@pytest.fixture
def model(tokenizer):
    return bert(tokenizer)


def candidates(model, tokenizer, texts, language="english", **settings):
    splitter = WordSplitter(tokenizer, language, max_tokens=64, tinybert_words=True)
    finder = MaskedLMCandidates(model, tokenizer, **PLAIN | settings)
    return finder(splitter.split(texts)), finder


def test_they_are_those_of_one_forward_per_word(model, tokenizer):
    found, _ = candidates(model, tokenizer, TEXTS)
    for text, of_text in zip(TEXTS, found, strict=True):
        slow = slow_candidates(model, tokenizer, text, PLAIN["num_candidates"])
        assert {word: set(texts) for word, texts in of_text.items()} == {w: s for w, s in slow.items() if s}
    assert sum(map(len, found)) > 20
    assert any("[" in text or "," in text for of_text in found for texts in of_text.values() for text in texts)


def test_no_batch_changes_them(model, tokenizer):
    alone, _ = candidates(model, tokenizer, TEXTS, batch_tokens=1)
    for batch_tokens in (50, 300, 100_000):
        assert candidates(model, tokenizer, TEXTS, batch_tokens=batch_tokens)[0] == alone
    backwards, _ = candidates(model, tokenizer, TEXTS[::-1])
    assert backwards[::-1] == alone


def test_close_ones_are_decided_in_float64_with_ties_to_the_lower_id(model, tokenizer, monkeypatch):
    expected, finder = candidates(model, tokenizer, TEXTS)
    weights = copy.deepcopy(model.state_dict())
    monkeypatch.setattr(augmentation_masked_lm, "TOO_CLOSE", 100.0)
    found, all_close = candidates(model, tokenizer, TEXTS)
    assert found == expected
    assert finder.rechecked < all_close.rechecked == sum(map(len, found))
    assert model.dtype == torch.float32
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_logits_go_to_the_lower_id(model, tokenizer, dtype):
    with torch.no_grad():
        for parameter in model.cls.predictions.parameters():
            parameter.zero_()
        model.cls.predictions.bias[[4, 7]] = 1.0
    found, finder = candidates(model.to(dtype), tokenizer, ["cat"], num_candidates=4)
    assert found == [{0: ["[PAD]", "[UNK]", "[MASK]", tokenizer.convert_ids_to_tokens(7)]}]
    assert finder.rechecked == (dtype == torch.float32)


def test_a_model_in_bfloat16_finds_nearly_the_same(model, tokenizer):
    exact, _ = candidates(model, tokenizer, TEXTS)
    found, finder = candidates(model.bfloat16(), tokenizer, TEXTS)
    assert finder.rechecked == 0
    pairs = [
        (set(of_exact[word]), set(of_text[word]))
        for of_exact, of_text in zip(exact, found, strict=True)
        for word in of_exact
    ]
    assert sum(len(one & other) for one, other in pairs) > 0.9 * sum(len(one) for one, _ in pairs)


def test_the_model_can_be_trained_afterwards(model, tokenizer, monkeypatch):
    monkeypatch.setattr(augmentation_masked_lm, "TOO_CLOSE", 100.0)
    candidates(model, tokenizer, TEXTS[:1])
    model.requires_grad_(True)
    model(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    weight = model.get_input_embeddings().weight
    assert weight.dtype == torch.float32
    assert weight.grad.abs().sum() > 0


def test_progress_counts_the_texts_that_have_a_masked_word(model, tokenizer):
    seen = []
    splitter = WordSplitter(tokenizer, max_tokens=64, tinybert_words=False)
    MaskedLMCandidates(model, tokenizer, **PLAIN)(splitter.split(TEXTS), seen.append)
    assert sum(seen) == len(TEXTS) - 1
    assert len(seen) > 3


def test_what_is_no_word_is_dropped_if_asked_and_pieces_always(model, tokenizer):
    everything, _ = candidates(model, tokenizer, TEXTS, num_candidates=len(tokenizer) - 1)
    words, _ = candidates(model, tokenizer, TEXTS, num_candidates=len(tokenizer) - 1, exclude_special=True)
    for of_all, of_words in zip(everything, words, strict=True):
        for word, texts in of_all.items():
            assert "##ing" not in texts
            assert "ing" not in texts
            dropped = set(texts) - set(of_words[word])
            assert (
                {"[MASK]", "[unused0]", ","} & set(texts)
                <= dropped
                <= {*"[PAD] [UNK] [CLS] [SEP] [MASK]".split(), *"[unused0] ' ! , .".split(), *"，。"}
            )


def test_the_word_itself_is_dropped_if_asked(model, tokenizer):
    [with_it], _ = candidates(model, tokenizer, ["good film"], num_candidates=len(tokenizer) - 1)
    [without], _ = candidates(
        model, tokenizer, ["good film"], num_candidates=len(tokenizer) - 1, exclude_original=True
    )
    assert set(with_it[1]) - set(without[1]) == {"film"}


@pytest.mark.parametrize("kind", [byte_level, metaspace])
def test_other_vocabularies_give_whole_words_without_their_marks(kind):
    tokenizer = kind()
    model = roberta(tokenizer)
    texts = ["my film is dull", "dull film music", "a film, a night"]
    found, _ = candidates(model, tokenizer, texts, num_candidates=len(tokenizer) - 1, exclude_special=True)
    assert "night" in found[0][1]
    assert not any(text.startswith(("Ġ", "▁")) for of_text in found for t in of_text.values() for text in t)
    # The first word of a byte-level text has no blank before it, so nor have its candidates.
    first = found[1].get(0, [])
    assert kind is metaspace or all(f"Ġ{text}" not in first for text in first)
    assert candidates(model, tokenizer, texts, batch_tokens=1)[0] == candidates(model, tokenizer, texts)[0]


def test_the_longest_input_is_the_models(tokenizer):
    assert max_tokens(bert(tokenizer), tokenizer) == 64
    assert max_tokens(bert(tokenizer, max_position_embeddings=20), tokenizer) == 20
    bpe = byte_level()
    assert max_tokens(roberta(bpe), bpe) == 64  # of 66 positions the padding's and the one before it are not used


def test_a_model_loads_with_its_head(model, tokenizer, tmp_path):
    save_model(tmp_path, model, tokenizer)
    loaded, own = load_masked_lm(str(tmp_path))
    assert candidates(loaded, own, TEXTS)[0] == candidates(model, tokenizer, TEXTS)[0]


def test_an_encoder_without_a_head_is_refused_with_the_way_out(model, tokenizer, tmp_path):
    save_model(tmp_path, BertModel(model.config, add_pooling_layer=False), tokenizer)
    with pytest.raises(ValueError, match=r"without a masked-LM head .*`hf-distill mlm`"):
        load_masked_lm(str(tmp_path))


def test_a_model_that_is_not_there_is_an_error_that_names_the_flag(tmp_path):
    with pytest.raises(OSError, match="`--masked_lm`"):
        load_masked_lm(str(tmp_path / "nothing"))
