"""Tokenizers of every kind, tiny masked language models, and TinyBERT's augmentation written down slowly."""

import re

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    set_seed,
)

from hf_distill.corpus.text.analysis import stop_words

WORDS = (
    "the a an of to in and is was it for on with film movie story actor music scene plot good bad great poor fine "
    "dull bright dark long short new old very not never he she they we you cat dog house tree river night day city "
    "road train boat bird fish book page word line runs sees likes hates finds makes takes gives red green white small"
).split()
PIECES = ["##s", "##ing", "##ly", "##break", "##able", "un", "sing", "walk", "play", "don", "n", "t", *"'!,."]
CHINESE = "我爱北京天安门，好的电影不。"


def wordpiece(words=WORDS, *, lower_case=True):
    """BERT's tokenizer over some words, pieces and Chinese characters."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*special, *words, *PIECES, *CHINESE, *"ABC"]))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )


def byte_level(words=WORDS):
    """RoBERTa's kind of tokenizer, learnt from some words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator([" " + " ".join(words)] * 3, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return _sentence_piece_like(backend)


def metaspace(words=WORDS):
    """XLM-R's kind of tokenizer over some words and all letters."""
    letters = sorted(set("".join(words)) | set("abcdefghijklmnopqrstuvwxyz,.:!'▁"))
    scores = {**dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>"], 0.0), "<mask>": 0.0}
    scores |= dict.fromkeys((f"▁{word}" for word in words), -4.0) | dict.fromkeys(letters, -9.0)
    backend = Tokenizer(models.Unigram(list(scores.items()), unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _sentence_piece_like(backend)


def _sentence_piece_like(backend):
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )


def bert(tokenizer, **overrides):
    """A masked language model with random but decided opinions."""
    set_seed(3)
    fields = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    fields |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "initializer_range": 0.3}
    return BertForMaskedLM(BertConfig(**fields | overrides)).eval()


def roberta(tokenizer):
    """The same as RoBERTa, whose positions begin behind the padding's."""
    set_seed(3)
    fields = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    config = RobertaConfig(
        **fields, vocab_size=len(tokenizer), max_position_embeddings=66, pad_token_id=1, initializer_range=0.3
    )
    return RobertaForMaskedLM(config).eval()


def slow_candidates(model, tokenizer, text, count):
    """{word: the set of its candidates by the masked LM}, one forward per word, as methods.md D.3 has it."""
    backend = tokenizer.backend_tokenizer
    words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))]
    pieces = tokenizer.tokenize(text)
    own = [[] for _ in words]
    word = -1
    for place, piece in enumerate(pieces):
        word += not piece.startswith("##")
        own[word].append(place)
    found = {}
    for index, places in enumerate(own):
        is_word = re.fullmatch("[a-zA-Z]+", words[index])
        if not is_word or words[index].lower() in stop_words("english") - {"n"} or len(places) > 1:
            continue
        masked = list(pieces)
        masked[places[0]] = tokenizer.mask_token
        first = [tokenizer.cls_token, *masked, tokenizer.sep_token]
        ids = tokenizer.convert_tokens_to_ids([*first, *pieces, tokenizer.sep_token])[:64]
        segments = ([0] * len(first) + [1] * (len(pieces) + 1))[:64]
        if places[0] + 1 >= 64:
            found[index] = set()
            continue
        with torch.no_grad():
            logits = model(torch.tensor([ids]), token_type_ids=torch.tensor([segments])).logits
        best = logits[0, places[0] + 1].argsort(descending=True)[:count].tolist()
        found[index] = {t for t in tokenizer.convert_ids_to_tokens(best) if not t.startswith("##")}
    return found
