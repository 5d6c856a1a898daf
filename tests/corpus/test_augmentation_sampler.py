"""What is drawn from a row: words replaced at random, repeats left out, pairs one text after the other."""

from collections import Counter

import pytest

from hf_distill.corpus.augment.sampler import Replacements, draw_row, draw_texts, random_of

FILM = Replacements("A good film!", ["a", "good", "film", "!"], [[], ["bad", "good", "fine"], ["movie", "story"], []])
PLOT = Replacements("The plot", ["the", "plot"], [[], ["story", "tale", "idea"]])
STAYS = Replacements("Of it?", ["of", "it", "?"], [[], [], []])


def naive(source, num_samples, probability, random):
    """TinyBERT's Algorithm 1, read aloud; the two draws of a word in their order."""
    texts = [source.text]
    for _ in range(num_samples):
        words = []
        for word, candidates in zip(source.words, source.candidates, strict=True):
            if candidates:
                candidate = candidates[int(random.random() * len(candidates))]
                word = candidate if random.random() < probability else word
            words.append(word)
        if " ".join(words) not in texts:
            texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("num_samples", [1, 5, 40])
def test_texts_are_those_of_the_algorithm(num_samples):
    for row in range(20):
        found = draw_texts(FILM, num_samples, 0.4, random_of(1, row))
        assert found == naive(FILM, num_samples, 0.4, random_of(1, row))


def test_the_untouched_text_comes_first_and_none_twice():
    found = draw_texts(FILM, 500, 0.4, random_of(0, 0))
    assert found[0] == "A good film!"
    assert len(found) == len(set(found)) == 1 + 3 * 3, "three words for good, three for film, and the text itself"


def test_a_text_in_words_differs_from_the_untouched_one():
    assert draw_texts(STAYS, 3, 0.4, random_of(0, 0)) == ["Of it?", "of it ?"]


def test_words_are_replaced_with_the_probability_and_candidates_drawn_uniformly():
    source = Replacements("-", ["good"], [["a", "b", "c", "d"]])
    counts = Counter(draw_texts(source, 1, 0.4, random_of(7, row))[1] for row in range(20_000))
    assert counts["good"] == pytest.approx(12_000, abs=300)
    for word in "abcd":
        assert counts[word] == pytest.approx(2_000, abs=200)


def test_rows_have_random_numbers_of_their_own():
    rows = [draw_texts(PLOT, 3, 0.9, random_of(5, row)) for row in range(50)]
    assert len({tuple(row) for row in rows}) > 5
    assert rows[7] == draw_texts(PLOT, 3, 0.9, random_of(5, 7))
    assert random_of(1, 0).random() != random_of(0, 1).random()
    assert random_of(42, 0).random() == 0.49003930194721357, "the same on every machine"


def test_a_single_text_gives_single_rows():
    assert draw_row([PLOT], 3, 0.9, random_of(5, 0), keep_last=False) == [
        (text,) for text in draw_texts(PLOT, 3, 0.9, random_of(5, 0))
    ]


def drawn_pair(row=3):
    random = random_of(2, row)
    return draw_texts(FILM, 4, 0.4, random), draw_texts(PLOT, 4, 0.4, random)


def test_of_a_pair_one_text_is_replaced_while_the_other_is_what_it_was():
    first, second = drawn_pair()
    rows = draw_row([FILM, PLOT], 4, 0.4, random_of(2, 3), keep_last=False)
    assert rows == [*((text, "The plot") for text in first), *(("A good film!", text) for text in second[1:])]
    assert len(set(rows)) == len(rows)


def test_in_tinyberts_code_the_first_text_stays_as_it_was_drawn_last():
    first, second = drawn_pair()
    rows = draw_row([FILM, PLOT], 4, 0.4, random_of(2, 3), keep_last=True)
    assert rows == [*((text, "The plot") for text in first), *((first[-1], text) for text in second)]
    assert rows[len(first)] == rows[len(first) - 1], "so one row comes twice"
    assert not any(one == "A good film!" and other != "The plot" for one, other in rows)
