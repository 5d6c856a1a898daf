"""Tokenizers are the same if they make the same of text; the message shows the text on which they are not."""

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from hf_distill.hub import tokenizers as tokens
from hf_distill.hub.loading import load_tokenizer
from hf_distill.hub.tokenizers import check_same_tokens, first_difference, tokenizer_hash, warn_of_other_rules

WORDS = "alpha beta gamma Alpha Beta red green école ecole the and one two three".split()
SINGLE, PAIR = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"


def make(lowercase=True, accents=None, single=SINGLE, pair=PAIR, words=tuple(WORDS), **options):
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=accents)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=specials)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    options = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"], **options}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names, **options)


def test_the_same_rules_are_the_same_tokenizer(tmp_path):
    make().save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert first_difference(make(), loaded, pairs=True) is None
    assert tokenizer_hash(make()) == tokenizer_hash(loaded)
    check_same_tokens(make(), loaded, pairs=True)


@pytest.mark.parametrize(
    "other",
    [
        {"lowercase": False},
        {"accents": False},
        {"single": "[CLS] $A"},
        {"single": "$A [SEP]"},
        {"truncation_side": "left"},
    ],
    ids=str,
)
def test_other_rules_are_another_tokenizer(other):
    with pytest.raises(ValueError, match=r"tokenizers differ \(their tokens are the same.* gives .* against .*align"):
        check_same_tokens(make(), make(**other))
    assert tokenizer_hash(make()) != tokenizer_hash(make(**other))


@pytest.mark.parametrize("pair", ["[CLS] $A [SEP] $B [SEP]", "[CLS] $A [SEP] [SEP] $B:1 [SEP]:1"])
def test_pairs_are_compared_where_the_rows_are_pairs(pair):
    check_same_tokens(make(), make(pair=pair))
    with pytest.raises(ValueError, match="'The first text\\?' and 'And the SECOND one\\.' gives"):
        check_same_tokens(make(), make(pair=pair), pairs=True)


def test_segments_count_where_the_teacher_was_told_of_them():
    silent = make(model_input_names=["input_ids", "attention_mask"])
    check_same_tokens(silent, make(), pairs=True)
    with pytest.raises(ValueError, match="segment"):
        check_same_tokens(make(), silent, pairs=True)


def test_other_tokens_are_named():
    with pytest.raises(ValueError, match=r"19 and 20 tokens; ids of 'four': None against 19"):
        check_same_tokens(make(), make(words=(*WORDS, "four")))


def test_what_has_no_vocabulary_has_no_hash():
    assert tokenizer_hash(object()) == "none"
    assert first_difference(make(), object()) is None


def test_a_folder_whose_files_contradict_each_other_is_questioned(tmp_path, warnings_of):
    """transformers makes BERT's tokenizer anew, with lower case where the configuration does not say otherwise."""
    said = warnings_of(tokens)
    for name, options in (("cased", {}), ("told", {"do_lower_case": False})):
        folder = tmp_path / name
        BertTokenizerFast(tokenizer_object=make(lowercase=False).backend_tokenizer, **options).save_pretrained(folder)
        warn_of_other_rules(str(folder), load_tokenizer(str(folder), flag="--teacher_model"))
    assert len(said) == 1
    assert "The files of the tokenizer in" in said[0]
    assert "against" in said[0]
    warn_of_other_rules("nobody/nothing", make())


def test_an_added_token_is_tried_within_words():
    added = make()
    added.add_tokens(["red"])
    for sides in ((make(), added), (added, make())):
        with pytest.raises(ValueError, match="'aredb red RED' gives"):
            check_same_tokens(*sides)


def test_a_comparison_leaves_the_length_at_which_a_tokenizer_cuts():
    ours, theirs = make(), make()
    ours("alpha beta gamma", truncation=True, max_length=11)
    check_same_tokens(theirs, ours, pairs=True)
    assert ours.backend_tokenizer.truncation["max_length"] == 11
    assert theirs.backend_tokenizer.truncation is None
