"""Beam search with stored keys and values against one that computes everything anew."""

import itertools
from dataclasses import replace

import pytest
import torch
from generation_cases import CONFIGS, IDS, VOCABULARY, make_encoder, make_sources, plain_beam_search

from hf_distill.generation.cache import CACHED_ATTENTION
from hf_distill.generation.decoding import beam_search, best_hypotheses, repeating_tokens
from hf_distill.generation.settings import GenerationSettings


def assert_like_plain_search(model, sources, settings, repeatable=(), **options):
    found = best_hypotheses(model, sources, settings, **options)
    for source, (tokens, score) in zip(sources, found, strict=True):
        expected, expected_score = plain_beam_search(model, source, settings, repeatable)
        assert tokens == expected
        assert score == pytest.approx(expected_score, abs=1e-5)


@pytest.mark.parametrize("way", ["pseudo", "shift"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_changes_neither_tokens_nor_scores(name, way):
    settings = GenerationSettings(num_beams=3, max_new_tokens=6, length_penalty=1.0, batch_size=4)
    assert_like_plain_search(make_encoder(name, way), make_sources(), settings)


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.7, 3.0])
@pytest.mark.parametrize("num_beams", [1, 5])
def test_stopping_early_changes_nothing(num_beams, length_penalty):
    settings = GenerationSettings(num_beams=num_beams, max_new_tokens=8, length_penalty=length_penalty)
    assert_like_plain_search(likely_to_end(make_encoder()), make_sources(), settings)


def likely_to_end(model):
    with torch.no_grad():
        model.masked_lm.get_output_embeddings().bias[IDS.separator] += 5
    return model


def test_one_beam_takes_the_likeliest_token_each_time():
    model, sources = make_encoder(), make_sources()
    settings = GenerationSettings(num_beams=1, max_new_tokens=5)
    assert_like_plain_search(model, sources, settings)


def test_more_beams_find_likelier_texts():
    model, sources = make_encoder(), make_sources(12)

    def scores(num_beams):
        settings = GenerationSettings(num_beams=num_beams, max_new_tokens=6, length_penalty=0.0)
        return torch.tensor([score for _, score in best_hypotheses(model, sources, settings)])

    assert scores(8).mean() > scores(1).mean()


def test_no_text_ends_before_its_least_length():
    model, sources = likely_to_end(make_encoder()), make_sources()
    settings = GenerationSettings(num_beams=3, max_new_tokens=8, min_new_tokens=4, length_penalty=0.0)
    assert_like_plain_search(model, sources, settings)
    assert min(map(len, beam_search(model, sources, settings))) == 4


def test_no_ngram_comes_twice():
    model, sources = make_encoder(seed=2), make_sources()
    settings = GenerationSettings(num_beams=3, max_new_tokens=12, no_repeat_ngram_size=2, min_new_tokens=11)
    assert_like_plain_search(model, sources, settings)
    for tokens in beam_search(model, sources, settings):
        pairs = list(itertools.pairwise(tokens))
        assert len(set(pairs)) == len(pairs)


def test_ngrams_with_an_ignored_token_may_come_twice(tiny_tokenizer):
    model, sources = make_encoder(seed=2), make_sources()
    free = GenerationSettings(num_beams=3, max_new_tokens=12, min_new_tokens=11)
    written = list(itertools.chain(*beam_search(model, sources, free)))
    frequent = max(written, key=written.count)
    word = tiny_tokenizer.convert_ids_to_tokens(frequent)
    settings = GenerationSettings(
        num_beams=3, max_new_tokens=12, min_new_tokens=11, no_repeat_ngram_size=1, ngram_ignore=(word,)
    )
    assert_like_plain_search(model, sources, settings, repeatable=[frequent], tokenizer=tiny_tokenizer)
    found = beam_search(model, sources, settings, tokenizer=tiny_tokenizer)
    assert any(tokens.count(frequent) > 1 for tokens in found)


@pytest.mark.parametrize(
    ("tokens", "size", "repeatable", "banned"),
    [
        ([], 3, (), set()),
        ([5, 6], 3, (), set()),
        ([5, 6, 5], 2, (), {6}),
        ([5, 6, 7, 5, 6], 3, (), {7}),
        ([5, 6, 7, 5, 6, 8, 5, 6], 3, (), {7, 8}),
        ([5, 6, 7, 5, 6], 3, (6,), set()),
        ([5, 6, 7, 5, 6, 8, 5, 6], 3, (7,), {8}),
        ([5, 6], 1, (), {5, 6}),
        ([5, 6], 1, (6,), {5}),
    ],
)
def test_tokens_that_would_repeat_an_ngram(tokens, size, repeatable, banned):
    assert repeating_tokens(tokens, size, frozenset(repeatable)) == banned


def test_neither_batches_nor_order_change_the_texts():
    model, sources = likely_to_end(make_encoder()), make_sources(15)
    settings = [GenerationSettings(num_beams=3, max_new_tokens=8, batch_size=size) for size in (1, 4, 100)]
    found = [beam_search(model, sources, each) for each in settings]
    assert found[0] == found[1] == found[2]
    assert beam_search(model, sources[::-1], settings[1]) == found[0][::-1]


def test_texts_have_no_special_tokens():
    model = make_encoder()
    with torch.no_grad():
        model.masked_lm.get_output_embeddings().bias[[IDS.begin, IDS.mask, IDS.pad]] += 50
    for tokens in beam_search(model, make_sources(), GenerationSettings(max_new_tokens=6)):
        assert not {IDS.begin, IDS.separator, IDS.mask, IDS.pad} & set(tokens)


def test_rows_of_the_embeddings_beyond_the_vocabulary_are_not_written():
    model = make_encoder()
    model.ids = replace(IDS, vocabulary_size=VOCABULARY - 8)
    with torch.no_grad():
        model.masked_lm.get_output_embeddings().bias[-8:] += 50
    for tokens in beam_search(model, make_sources(), GenerationSettings(max_new_tokens=6)):
        assert max(tokens, default=0) < VOCABULARY - 8


def test_an_empty_source_and_no_source_are_fine():
    model, settings = make_encoder(), GenerationSettings(max_new_tokens=4)
    assert len(beam_search(model, [[]], settings)) == 1
    assert beam_search(model, [], settings) == []


def test_a_long_source_is_cut_at_its_end():
    model, settings = make_encoder(), GenerationSettings(max_new_tokens=4, max_source_length=8)
    source = make_sources(1, longest=0)[0] + list(range(5, 35))
    assert beam_search(model, [source], settings) == beam_search(model, [source[:6]], settings)


def test_a_source_that_leaves_no_room_is_refused():
    settings = GenerationSettings(max_new_tokens=20)
    with pytest.raises(ValueError, match=r"A source has 32 tokens and `max_new_tokens` is 20, but the model has 40"):
        beam_search(make_encoder(), [list(range(5, 35))], settings)


def test_ignored_tokens_must_be_known(tiny_tokenizer):
    settings = GenerationSettings(max_new_tokens=4, no_repeat_ngram_size=3, ngram_ignore=("?!",))
    with pytest.raises(ValueError, match=r"`ngram_ignore` has \['\?!'\], which are no tokens"):
        beam_search(make_encoder(), [[5]], settings, tokenizer=tiny_tokenizer)
    with pytest.raises(ValueError, match=r"there is no `tokenizer` that knows their ids"):
        beam_search(make_encoder(), [[5]], settings)


def test_a_model_that_has_diverged_is_refused():
    model = make_encoder()
    with torch.no_grad():
        model.masked_lm.get_output_embeddings().bias[7] = float("nan")
    with pytest.raises(ValueError, match="logits are NaN"):
        beam_search(model, [[5, 6]], GenerationSettings(max_new_tokens=4))


def test_the_model_is_left_as_it_was():
    model = make_encoder().train()
    before = model.config._attn_implementation
    beam_search(model, make_sources(2), GenerationSettings(max_new_tokens=4))
    assert model.training
    assert model.masked_lm.training
    assert model.config._attn_implementation == before != CACHED_ATTENTION


def test_half_precision_writes_too():
    model = make_encoder()
    model.masked_lm.bfloat16()
    assert len(beam_search(model, make_sources(), GenerationSettings(max_new_tokens=4))) == 5
