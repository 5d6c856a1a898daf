"""Trimmed vocabularies: the pieces of the full tokenizer on every text that they cover."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings, strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from trainings import logged, trained
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertForMaskedLM,
    BertModel,
    ByT5Tokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from hf_distill import create_student
from hf_distill.hub.tokenizers import ids_of_same_pieces
from hf_distill.students.vocabulary import trim_vocabulary, with_rows
from hf_distill.teachers.base import TeacherSource
from hf_distill.teachers.opening import share_tokens

TRAINING = [
    "the quick brown fox jumps over the lazy dog and runs along the river until the evening",
    "a quiet cat sleeps under the old bridge while the moon rises over the sleeping city",
    "der schnelle braune fuchs springt über den faulen hund und läuft am fluss entlang",
    "numbers 12 345 6789 and marks, such as these; are (also) text!",
    "unhappiness unhappily happily happiness happier sleeping sleeper slept jumped jumping",
] * 6
ENGLISH = [text for text in TRAINING if "schnelle" not in text]
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def tokenizer_of(kind):
    if kind == "WordPiece":
        backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=SPECIALS)
    elif kind == "Unigram":
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIALS, unk_token="<unk>")
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIALS, initial_alphabet=alphabet)
    backend.train_from_iterator(TRAINING, trainer)
    ids = {token: backend.token_to_id(token) for token in SPECIALS}
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[(t, ids[t]) for t in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=64,
    )


@pytest.fixture(scope="module", params=["WordPiece", "Unigram", "BPE"])
def full(request):
    return tokenizer_of(request.param)


@pytest.fixture(scope="module")
def trimmed(full):
    return trim_vocabulary(full, None, ENGLISH)


WORDS = sorted({word for text in ENGLISH for word in text.split()})


class TestTokens:
    def test_fewer_pieces_stay(self, full, trimmed):
        assert len(trimmed.tokenizer) == len(trimmed.kept) < len(full)
        assert set(trimmed.tokenizer.get_vocab()) < set(full.get_vocab())

    def test_the_texts_have_the_pieces_of_the_full_tokenizer(self, full, trimmed):
        for text in ENGLISH:
            expected = full(text)["input_ids"]
            assert [trimmed.kept[token] for token in trimmed.tokenizer(text)["input_ids"]] == expected

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8), st.booleans())
    def test_and_so_has_every_text_of_kept_pieces(self, full, trimmed, words, joined):
        text = ("" if joined else " ").join(words)
        expected = full(text)["input_ids"]
        if set(expected) <= set(trimmed.kept):
            assert [trimmed.kept[token] for token in trimmed.tokenizer(text)["input_ids"]] == expected

    def test_pairs_and_special_tokens_work_as_before(self, full, trimmed):
        expected = full("the fox", "a dog")["input_ids"]
        assert [trimmed.kept[token] for token in trimmed.tokenizer("the fox", "a dog")["input_ids"]] == expected
        for name in ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id", "unk_token_id"):
            assert trimmed.kept[getattr(trimmed.tokenizer, name)] == getattr(full, name)

    def test_it_is_a_tokenizer_of_transformers(self, trimmed, tmp_path):
        trimmed.tokenizer.save_pretrained(tmp_path)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        assert loaded(ENGLISH)["input_ids"] == trimmed.tokenizer(ENGLISH)["input_ids"]
        assert loaded.model_max_length == 64

    def test_a_size_keeps_the_most_frequent_pieces(self, full, trimmed):
        smaller = trim_vocabulary(full, None, ENGLISH, size=len(trimmed.kept) - 20)
        assert len(smaller.kept) <= len(trimmed.kept) - 20
        assert set(smaller.kept) < set(trimmed.kept)
        spelt = "".join(smaller.tokenizer.tokenize("the lazy fox"))
        assert re.sub("[#▁Ġ]", "", spelt) == "thelazyfox"

    def test_texts_of_another_language_show_what_changed(self, full):
        found = trim_vocabulary(full, None, ["the fox", *["der schnelle braune fuchs"] * 40])
        assert found.measured_texts > 0
        assert 0 <= found.unknown <= 1
        assert f"{len(found.kept):,} of {len(full):,} pieces" in str(found)

    def test_what_cannot_be_done_is_said(self, full):
        with pytest.raises(ValueError, match=r"size=3 \(--size\) is too small"):
            trim_vocabulary(full, None, ENGLISH, size=3)
        with pytest.raises(ValueError, match="No text"):
            trim_vocabulary(full, None, [])
        with pytest.raises(TypeError, match="by several texts, but it is one: 'the fox'"):
            trim_vocabulary(full, None, "the fox")
        with pytest.raises(TypeError, match=r"by texts, but one is \{'text': 'the fox'\}"):
            trim_vocabulary(full, None, [{"text": "the fox"}])
        with pytest.raises(ValueError, match="vocabulary of a ByT5Tokenizer cannot be trimmed: it is no fast one"):
            trim_vocabulary(ByT5Tokenizer(), None, ["the fox"])

    def test_a_text_that_is_measured_counts_too(self, full):
        """Of two texts the second is measured on the pieces of the first; the student will read both."""
        texts = ["the quick brown fox", "der schnelle braune fuchs"]
        found = trim_vocabulary(full, None, texts)
        assert found.changed > 0
        for text in texts:
            assert found.tokenizer.tokenize(text) == full.tokenize(text)

    def test_prompts_stay_whatever_the_size(self, full):
        least = trim_vocabulary(full, None, ["der fuchs"] * 40, prompts=["unhappiness: "])
        found = trim_vocabulary(full, None, ["der fuchs"] * 40, prompts=["unhappiness: "], size=len(least.kept) - 1)
        assert found.tokenizer.tokenize("unhappiness: ") == full.tokenize("unhappiness: ")
        without = trim_vocabulary(full, None, ["der fuchs"] * 40)
        assert without.tokenizer.tokenize("unhappiness: ") != full.tokenize("unhappiness: ")

    def test_rules_of_ones_own_stay(self, tiny_tokenizer, sentences):
        """Classes such as BERT's make their rules anew from settings when a tokenizer is loaded."""
        own = copy.deepcopy(tiny_tokenizer)
        own.backend_tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Replace("ough", "o"), own.backend_tokenizer.normalizer]
        )
        for full in (tiny_tokenizer, own):
            found = trim_vocabulary(full, None, [*sentences[:20], "thoughe cat", "the dog"])
            for text in ("The cat", "thoughe cat", "catough"):
                assert [found.kept[token] for token in found.tokenizer(text)["input_ids"]] == full(text)["input_ids"]
            assert ids_of_same_pieces(full, found.tokenizer) == list(found.kept)

    def test_added_tokens_are_no_pieces_of_words(self, full):
        """A token that was added for whole words would be found at the beginning of others."""
        more = copy.deepcopy(full)
        more.add_tokens([AddedToken("sleep", single_word=True), AddedToken("jump"), AddedToken("moon", lstrip=True)])
        more.add_special_tokens({"additional_special_tokens": ["<new>"]})
        found = trim_vocabulary(more, None, [*ENGLISH, "s l e e p s sleepyhead"])
        for text in ("sleeps sleep", "a jumpy  moon<new> jump", "sleepyhead SLEEP"):
            one, other = (each(text, return_offsets_mapping=True) for each in (more, found.tokenizer))
            assert [found.kept[token] for token in other["input_ids"]] == one["input_ids"]
            assert other["offset_mapping"] == one["offset_mapping"]
        assert ids_of_same_pieces(more, found.tokenizer) == list(found.kept)


class TestIdsOfSamePieces:
    """A trimmed tokenizer and the full one differ in their pieces only, which are known by name."""

    def test_they_lead_from_a_trimmed_tokenizer_to_the_full_one(self, full, trimmed):
        assert ids_of_same_pieces(full, trimmed.tokenizer) == list(trimmed.kept)
        assert ids_of_same_pieces(full, full) == list(range(len(full)))

    def test_they_lead_nowhere_from_the_full_one_to_a_trimmed_one(self, full, trimmed):
        assert ids_of_same_pieces(trimmed.tokenizer, full) is None

    def test_other_rules_are_no_trimmed_vocabulary(self, full, trimmed):
        other = copy.deepcopy(trimmed.tokenizer)
        other.backend_tokenizer.normalizer = normalizers.Replace("a", "b")
        assert ids_of_same_pieces(full, other) is None
        assert ids_of_same_pieces(tokenizer_of("WordPiece"), tokenizer_of("Unigram")) is None

    def test_what_is_no_fast_tokenizer_is_not_compared(self, full):
        assert ids_of_same_pieces(full, lambda text: text) is None


class TestModels:
    def test_a_model_computes_the_same_from_fewer_embeddings(self, full, tiny_bert_config):
        torch.manual_seed(0)
        model = BertModel(tiny_bert_config(vocab_size=len(full), pad_token_id=full.pad_token_id)).eval()
        found = trim_vocabulary(full, model, ENGLISH)
        assert found.model.config.vocab_size == len(found.kept)
        assert model.config.vocab_size == len(full)
        with torch.no_grad():
            expected = model(**full(ENGLISH[:4], padding=True, return_tensors="pt")).last_hidden_state
            result = found.model(**found.tokenizer(ENGLISH[:4], padding=True, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(result, expected)

    def test_positions_behind_the_padding_token_stay(self, full, tiny_bert_config):
        torch.manual_seed(0)
        fields = {k: v for k, v in tiny_bert_config().to_dict().items() if k not in ("model_type", "pad_token_id")}
        config = RobertaConfig(**{**fields, "vocab_size": len(full)}, pad_token_id=full.pad_token_id)
        model = RobertaModel(config).eval()
        found = trim_vocabulary(full, model, ENGLISH)
        keys = ("input_ids", "attention_mask")
        with torch.no_grad():
            before, after = (
                m(**{k: t(ENGLISH[:4], padding=True, return_tensors="pt")[k] for k in keys}).last_hidden_state
                for m, t in ((model, full), (found.model, found.tokenizer))
            )
        torch.testing.assert_close(after, before)

    @pytest.mark.parametrize("kind", [BertModel, RobertaModel])
    def test_a_padding_token_may_stand_behind_other_pieces(self, kind, tiny_bert_config, tmp_path):
        """RoBERTa counts positions from its number, and no gradient reaches its row."""
        pieces = ["<unk>", "dog", "cat", "<pad>", "bird", "the", "fox"]
        backend = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        full = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")
        torch.manual_seed(0)
        fields = {k: v for k, v in tiny_bert_config().to_dict().items() if k not in ("model_type", "pad_token_id")}
        config = kind.config_class(**{**fields, "vocab_size": len(full)}, pad_token_id=full.pad_token_id)
        model = kind(config).eval()
        found = trim_vocabulary(full, model, ["the fox"])
        pad = found.tokenizer.pad_token_id
        stays = (
            ["<unk>", "dog", "cat", "<pad>", "the", "fox"]
            if kind is RobertaModel
            else ["<unk>", "<pad>", "the", "fox"]
        )
        assert found.tokenizer.convert_ids_to_tokens(range(len(found.tokenizer))) == stays
        assert found.model.config.pad_token_id == found.model.get_input_embeddings().padding_idx == pad
        found.model.save_pretrained(tmp_path)
        with torch.no_grad():
            before, after = (
                m(**t(["the fox", "fox"], padding=True, return_tensors="pt", return_token_type_ids=False))[0]
                for m, t in ((model, full), (kind.from_pretrained(tmp_path).eval(), found.tokenizer))
            )
        torch.testing.assert_close(after, before)

    def test_a_trimmed_model_is_trimmed_again(self, full, tiny_bert_config):
        torch.manual_seed(0)
        model = BertForMaskedLM(tiny_bert_config(vocab_size=len(full) + 5, pad_token_id=full.pad_token_id)).eval()
        first = trim_vocabulary(full, model, ENGLISH)
        again = trim_vocabulary(first.tokenizer, first.model, ENGLISH[:1])
        kept = [first.kept[number] for number in again.kept]
        with torch.no_grad():
            expected = model(**full(ENGLISH[:1], return_tensors="pt")).logits[..., kept]
            result = again.model(**again.tokenizer(ENGLISH[:1], return_tensors="pt")).logits
        torch.testing.assert_close(result, expected)

    def test_a_tied_head_gives_the_logits_of_the_kept_pieces(self, full, tiny_bert_config, tmp_path):
        torch.manual_seed(0)
        model = BertForMaskedLM(tiny_bert_config(vocab_size=len(full))).eval()
        with torch.no_grad():
            model.cls.predictions.bias.normal_()
        found = trim_vocabulary(full, model, ENGLISH)
        found.model.save_pretrained(tmp_path)
        loaded = BertForMaskedLM.from_pretrained(tmp_path).eval()
        assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight
        with torch.no_grad():
            expected = model(**full(ENGLISH[:2], padding=True, return_tensors="pt")).logits[..., list(found.kept)]
            result = loaded(**found.tokenizer(ENGLISH[:2], padding=True, return_tensors="pt")).logits
        torch.testing.assert_close(result, expected)

    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "mobilebert", "distilbert", "modernbert"])
    def test_heads_of_every_kind_give_the_logits_of_the_kept_pieces(self, kind, tied, tmp_path):
        """Their biases lie in several places, and not all of them become smaller with the embeddings."""
        full, sizes = tokenizer_of("WordPiece"), {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        sizes |= {"num_hidden_layers": 1, "max_position_embeddings": 40, "embedding_size": 8}
        sizes |= {"true_hidden_size": 8, "intra_bottleneck_size": 8} if kind == "mobilebert" else {}
        tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, vocab_size=len(full) + 3, tie_word_embeddings=tied, **sizes, **tokens)
        model = AutoModelForMaskedLM.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_()
        found = trim_vocabulary(full, model, ENGLISH)
        found.model.save_pretrained(tmp_path)
        loaded, report = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        options = {"padding": True, "return_tensors": "pt", "return_token_type_ids": False}
        with torch.no_grad():
            expected = model(**full(ENGLISH[:2], **options)).logits[..., list(found.kept)]
            result = loaded.eval()(**found.tokenizer(ENGLISH[:2], **options)).logits
        torch.testing.assert_close(result, expected)


class TestDistillation:
    """A student with a trimmed vocabulary learns from the teacher with the full one."""

    @pytest.fixture
    def teacher(self, full, tiny_bert_config):
        torch.manual_seed(0)
        return BertForMaskedLM(tiny_bert_config(vocab_size=len(full) + 3, pad_token_id=full.pad_token_id)).eval()

    @pytest.fixture
    def losses(self, make_trainer):
        """`losses(teacher, its tokenizer, tokenizer, student, objectives)`: those of three steps."""
        given = {"train_dataset": Dataset.from_dict({"text": ENGLISH}), "max_steps": 3, "mlm_probability": 0.3}
        given |= {"per_device_train_batch_size": 4, "learning_rate": 1e-3}

        def train(teacher, its_tokenizer, tokenizer, student, objectives):
            both = {"tokenizer": tokenizer, "trainer": {"teacher_processing_class": its_tokenizer}}
            teacher = copy.deepcopy(teacher)
            return logged(trained(make_trainer(teacher, student=student, objectives=objectives, **both, **given)))

        return train

    def test_it_learns_what_a_trimmed_teacher_would_teach(self, full, trimmed, teacher, losses):
        small = with_rows(teacher, trimmed.kept)
        student = create_student(small, "1x8:2h:16", init="random")
        objectives = ["relation", "hidden", "logits"]
        expected = losses(small, trimmed.tokenizer, trimmed.tokenizer, student, objectives)
        found = losses(teacher, full, trimmed.tokenizer, student, objectives)
        assert found == pytest.approx(expected, rel=1e-5)

    def test_heads_with_padded_vocabularies_are_compared_on_the_common_rows(self, full, teacher, losses):
        student = create_student(with_rows(teacher, range(len(full))), "1x8:2h:16", init="random")
        expected = losses(with_rows(teacher, range(len(full))), full, full, student, ["logits"])
        assert losses(teacher, full, full, student, ["logits"]) == pytest.approx(expected, rel=1e-5)

    def test_a_source_of_signals_that_knows_one_tokenizer_says_so(self, full, trimmed):
        with pytest.raises(ValueError, match="reads the ids of its own tokenizer"):
            share_tokens(TeacherSource(), None, trimmed.tokenizer, full, pairs=False)


def test_what_a_generation_ends_with_has_its_new_number(tmp_path):
    tokenizer = tokenizer_of("BPE")
    tokenizer.add_special_tokens({"eos_token": "<end>", "additional_special_tokens": ["<turn>"]})
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    end, turn = tokenizer.convert_tokens_to_ids(["<end>", "<turn>"])
    gone = max(tokenizer.encode(" sleeping", add_special_tokens=False))
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=end, pad_token_id=1
        )
    )
    model.generation_config.eos_token_id = [end, turn, gone]
    found = trim_vocabulary(tokenizer, model, ["the lazy dog"])
    numbers = [found.kept.index(end), found.kept.index(turn)]
    assert gone not in found.kept
    assert found.model.config.eos_token_id == numbers[0] != end
    found.model.save_pretrained(tmp_path)
    found.tokenizer.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == numbers
    assert model.generation_config.eos_token_id == [end, turn, gone]
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.padding_side == again.truncation_side == "left"


def test_letters_at_the_end_of_words_stay():
    backend = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(TRAINING, trainers.BpeTrainer(special_tokens=SPECIALS, end_of_word_suffix="</w>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    found = trim_vocabulary(tokenizer, None, ["old bridge"])
    assert found.tokenizer.tokenize("dog") == ["d", "o", "g</w>"]
