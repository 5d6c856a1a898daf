"""Tokenizers that cut text otherwise than the tiny one of `conftest`."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


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
