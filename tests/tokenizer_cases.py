"""The tiny tokenizer of words, and others that cut text otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

WORDS = (
    "the a an of to in and is was it for on with as by at from this that film movie story actor music scene plot good "
    "bad great poor fine dull bright dark long short new old very quite not never always often he she they we you i "
    "cat dog house tree river sea sun moon star day night city road bridge train boat bird fish book page word line "
    "runs walks sees likes hates finds makes takes gives keeps loses wins red green blue white black small large"
).split()
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def word_tokenizer():
    """A fast BERT tokenizer over some hundred English words."""
    vocabulary = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS)])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return BertTokenizerFast(tokenizer_object=backend, model_max_length=64)


def character_tokenizer(sentences: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of single characters between `<s>` and `</s>`."""
    letters = sorted({letter for sentence in sentences for letter in sentence if not letter.isspace()})
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")])
    return _tokenizer(letters, split)


def halving_tokenizer(sentences: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that cuts words into pieces of two letters, with another order of tokens."""
    pairs = sorted({word[i : i + 2] for line in sentences for word in line.split() for i in range(0, len(word), 2)})
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.FixedLength(2)])
    return _tokenizer(pairs[::-1], split)


def _tokenizer(tokens: Sequence[str], split: pre_tokenizers.PreTokenizer) -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *tokens])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
