"""Near-duplicates against a comparison of all pairs."""

import sys

import numpy as np
import pytest

pytest.importorskip("datasketch", reason="pip install 'hf_distill[near_duplicates]'")

from hf_distill.corpus.build.duplicates import find_near_duplicates, jaccard, rows_per_band, shingles

WORDS = "fox dog river movie actor plot scene music bridge garden winter story city train letter sea".split()


def find(texts, threshold=0.7, size=7):
    def texts_of(positions):
        for start in range(0, len(positions), size):
            yield [texts[position] for position in positions[start : start + size].tolist()]

    return find_near_duplicates(len(texts), texts_of, threshold)


def all_pairs(texts, threshold):
    """The same by comparing every text with every one that was kept."""
    sets, kept, nearly = [shingles(text) for text in texts], [], []
    for position, own in enumerate(sets):
        nearest = next((other for other in kept if jaccard(own, sets[other]) >= threshold), -1)
        nearly.append(nearest)
        if nearest < 0:
            kept.append(position)
    return nearly


def variants(seed, count):
    """Texts of 20 words, many of them another one with words changed at its end."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS, 20)) for _ in range(count // 3)]
    for _ in range(count - len(texts)):
        words = texts[random.integers(len(texts))].split()
        kept = 20 - random.integers(0, 6)
        texts.append(" ".join([*words[:kept], *random.choice(WORDS, 20 - kept)]))
    return [texts[place] for place in random.permutation(len(texts))]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 1.0])
def test_what_is_found_is_what_comparing_all_pairs_finds(threshold):
    texts = variants(seed=1, count=240)
    expected, found = all_pairs(texts, threshold), find(texts, threshold).tolist()
    assert sum(place >= 0 for place in expected) > 10
    different = sum(one != other for one, other in zip(expected, found, strict=True))
    assert different <= 0.02 * len(texts)  # a pair at the threshold is overlooked once in a hundred


def test_nothing_is_dropped_that_is_not_similar_enough():
    texts = variants(seed=2, count=240)
    sets = [shingles(text) for text in texts]
    for position, nearest in enumerate(find(texts, 0.6).tolist()):
        assert nearest < 0 or (nearest < position and jaccard(sets[position], sets[nearest]) >= 0.6)


def test_the_first_texts_alone_give_the_same_for_them():
    texts = variants(seed=3, count=150)
    whole = find(texts)
    for count in (1, 40, 149):
        assert np.array_equal(find(texts[:count]), whole[:count])


def test_batches_do_not_matter():
    texts = variants(seed=4, count=60)
    assert np.array_equal(find(texts, size=1), find(texts, size=60))


def test_a_text_that_was_dropped_does_not_drop_another():
    # Each is similar to the one before it only.
    words = [f"w{number}" for number in range(40)]
    texts = [" ".join(words[start : start + 20]) for start in (0, 3, 6)]
    sets = [shingles(text) for text in texts]
    assert jaccard(sets[0], sets[1]) == jaccard(sets[1], sets[2]) > 0.7 > jaccard(sets[0], sets[2])
    assert find(texts).tolist() == [-1, 0, -1]


def test_shingles_are_three_words_in_a_row_without_case_and_punctuation():
    assert np.array_equal(shingles("The red, fox runs"), shingles("the RED fox runs!"))
    assert len(shingles("the red fox runs")) == 2
    assert len(shingles("red fox")) == 1
    assert len(shingles("!!!")) == 1
    assert len(shingles("\u6211\u559c\u6b22\u7535\u5f71")) == 3


def test_short_texts_are_near_duplicates_only_of_equal_ones():
    assert find(["red fox", "red dog", "Red fox!"]).tolist() == [-1, -1, 0]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 0.99])
def test_bands_find_a_pair_at_the_threshold_in_99_of_100_cases(threshold):
    rows = rows_per_band(threshold)
    assert rows == 1 or 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99


def test_no_text_at_all():
    assert find([]).tolist() == []


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(ImportError, match=r"`--deduplicate near` needs .*pip install 'hf_distill\[near_duplicates\]'"):
        find(["a"])
