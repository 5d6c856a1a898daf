"""Words are BERT's basic tokens; their pieces are found in the input of any fast tokenizer."""

import pytest
from augmentation_cases import byte_level, metaspace, wordpiece
from tokenizers import Tokenizer, models
from tokenizers.normalizers import BertNormalizer
from transformers import PreTrainedTokenizerFast

from hf_distill.corpus.augment.words import (
    BEYOND_LIMIT,
    SEVERAL_PIECES,
    STAYS,
    Vocabulary,
    WordSplitter,
    join_words,
)


def split(tokenizer, text, language="english", **options):
    options = {"tinybert_words": False, **options}
    return WordSplitter(tokenizer, language, **options).split([text])[0]


@pytest.fixture(scope="module")
def tokenizer():
    return wordpiece()


def test_words_are_lower_cased_with_punctuation_apart_as_the_tokenizer_does(tokenizer):
    assert split(tokenizer, "The film, don't!").words == ["the", "film", ",", "don", "'", "t", "!"]
    cased = wordpiece(["The", "film"], lower_case=False)
    assert split(cased, "The film").words == ["The", "film"]


@pytest.mark.parametrize("lower_case", [True, False])
@pytest.mark.parametrize("strips", [True, False])
def test_accents_stay_where_the_tokenizer_keeps_them(lower_case, strips):
    tokenizer = wordpiece(["schön", "schon", "Schön", "Schon"], lower_case=lower_case)
    tokenizer.backend_tokenizer.normalizer = BertNormalizer(lowercase=lower_case, strip_accents=strips)
    found = split(tokenizer, "Schön", "german")
    word = "Schon" if strips else "Schön"
    assert found.words == [word.lower() if lower_case else word]
    assert tokenizer.convert_ids_to_tokens(found.inputs["input_ids"][found.places[0]]) == found.words[0]


def test_only_words_of_letters_that_are_no_stop_words_may_be_replaced(tokenizer):
    found = split(tokenizer, "The film, not bad 4 x9 we")
    assert [word for word, place in zip(found.words, found.places, strict=True) if place != STAYS] == ["film", "bad"]


def test_a_word_of_one_piece_has_its_place_in_the_input(tokenizer):
    found = split(tokenizer, "a walking film plays well")
    pieces = tokenizer.convert_ids_to_tokens(found.inputs["input_ids"])
    assert pieces[found.places[2]] == "film"
    assert found.places[:2] == [STAYS, SEVERAL_PIECES]
    assert found.places[3] == SEVERAL_PIECES


def test_an_unknown_word_is_one_piece(tokenizer):
    found = split(tokenizer, "film xylophone")
    assert tokenizer.convert_ids_to_tokens(found.inputs["input_ids"])[found.places[1]] == "[UNK]"


def test_the_input_is_the_text_twice_in_two_segments(tokenizer):
    found = split(tokenizer, "good film")
    assert tokenizer.decode(found.inputs["input_ids"]) == "[CLS] good film [SEP] good film [SEP]"
    assert found.inputs["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_what_is_beyond_the_longest_input_is_cut_off_and_has_no_place(tokenizer):
    found = split(tokenizer, "good film " * 10, max_tokens=8)
    assert len(found.inputs["input_ids"]) == 8
    assert found.places[6:8] == [7, BEYOND_LIMIT]


def test_the_n_of_a_split_negation_is_a_word_for_tinybert_alone(tokenizer):
    text = "did n't play"
    assert split(tokenizer, text).places[1] == STAYS
    assert split(tokenizer, text, tinybert_words=True).places[1] > 0


def test_question_words_are_replaced_by_tinybert_alone():
    questions = ["who", "whom", "what", "which", "when", "where", "why", "how"]
    ours, theirs = (WordSplitter(wordpiece(), tinybert_words=compat) for compat in (False, True))
    assert not any(map(ours.is_eligible, questions))
    assert all(map(theirs.is_eligible, questions))
    assert not any(map(theirs.is_eligible, ["this", "that", "there", "then", "while", "because", "don", "ain"]))


def test_every_chinese_character_is_a_word(tokenizer):
    found = split(tokenizer, "我爱好的电影 film！", "chinese")
    assert found.words == ["我", "爱", "好", "的", "电", "影", "film", "！"]
    replaced = [word for word, place in zip(found.words, found.places, strict=True) if place != STAYS]
    assert replaced == ["爱", "好", "电", "影", "film"]


def test_outside_english_words_have_letters_of_any_alphabet(tokenizer):
    assert split(tokenizer, "größe", "german").places == [1]
    assert split(tokenizer, "дом", "none").places == [1]
    assert split(tokenizer, "дом", "english").places == [STAYS]


@pytest.mark.parametrize("kind", [byte_level, metaspace])
def test_pieces_with_the_blank_before_them_are_matched_by_their_places_in_the_text(kind):
    tokenizer = kind()
    text = "my film night, music's actor: doghouse"
    found = split(tokenizer, text)
    assert found.words == ["my", "film", "night", ",", "music", "'", "s", "actor", ":", "doghouse"]
    ids = found.inputs["input_ids"]
    assert [tokenizer.convert_ids_to_tokens(ids[p]).strip("Ġ▁") for p in found.places if p >= 0] == [
        *("film", "night", "music", "actor")
    ]
    assert found.places[-1] == SEVERAL_PIECES


def test_an_empty_text_has_no_words(tokenizer):
    found = split(tokenizer, "  ")
    assert (found.words, found.places) == ([], [])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a", "film", "!"], "a film !"),
        (["我", "爱", "，", "film", "2"], "我爱，film 2"),
        (["안녕", "하세요"], "안녕 하세요"),
        ([], ""),
    ],
)
def test_words_are_joined_with_blanks_but_not_beside_chinese_characters(words, text):
    assert join_words(words) == text


def test_the_vocabulary_tells_words_from_pieces_and_from_what_is_no_word(tokenizer):
    vocabulary = Vocabulary.of(tokenizer)
    ids = tokenizer.convert_tokens_to_ids(["film", "##ing", "[SEP]", "[unused0]", ",", "我"])
    assert [vocabulary.texts[i] for i in ids] == ["film", "ing", "[SEP]", "[unused0]", ",", "我"]
    assert vocabulary.begins[ids].tolist() == [True, False, True, True, True, True]
    assert vocabulary.is_word[ids].tolist() == [True, True, False, False, False, True]


@pytest.mark.parametrize("kind", [byte_level, metaspace])
def test_words_begin_with_a_blank_in_other_vocabularies(kind):
    tokenizer = kind()
    vocabulary = Vocabulary.of(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    word, letter = (next(tokens.index(t) for t in kinds if t in tokens) for kinds in (("Ġfilm", "▁film"), ("q",)))
    assert (vocabulary.texts[word], vocabulary.begins[word]) == ("film", True)
    assert (vocabulary.texts[letter], vocabulary.begins[letter]) == ("q", False)
    assert not vocabulary.is_word[tokenizer.mask_token_id]


def test_tokenizers_that_will_not_do_are_refused_by_name():
    backend = Tokenizer(models.BPE(vocab={"a</w>": 0, "[MASK]": 1}, merges=[], end_of_word_suffix="</w>"))
    ends = PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]")
    with pytest.raises(ValueError, match="marks where words end"):
        WordSplitter(ends, tinybert_words=False)
    with pytest.raises(ValueError, match=r"`--masked_lm`: its tokenizer .* has no mask token"):
        WordSplitter(PreTrainedTokenizerFast(tokenizer_object=backend), tinybert_words=False)
    with pytest.raises(ValueError, match="no stop word list for language 'elvish'"):
        WordSplitter(wordpiece(), "elvish", tinybert_words=False)
