"""Entities are those of conlleval, or of seqeval in schemes that conlleval does not know, however broken they are."""

import random

import pytest

from hf_distill.tasks.metrics.entities import Entity, entities, entity_scores, entity_scores_by_type


def chunk_starts(previous, current):
    """conlleval's rule for a chunk that starts between two tags, both as (prefix, type); seqeval's from E to B."""
    pair = previous[0] + current[0]
    return pair in ("BB", "IB", "EB", "OB", "OI", "EE", "EI", "OE") or (
        current[0] != "O" and previous[1] != current[1]
    )


def chunk_ends(previous, current):
    """conlleval's rule for a chunk that ends between two tags; seqeval's from E to B."""
    pair = previous[0] + current[0]
    return pair in ("BB", "BO", "IB", "IO", "EB", "EE", "EI", "EO") or (
        previous[0] != "O" and previous[1] != current[1]
    )


def plain_counts(predictions, references):
    """Right, predicted and gold chunks and right tags, counted tag by tag in one stream with sentence breaks."""
    split = [tuple(tag.split("-", 1)) if "-" in tag else (tag, "") for row in references for tag in (*row, "O")]
    guess = [tuple(tag.split("-", 1)) if "-" in tag else (tag, "") for row in predictions for tag in (*row, "O")]
    right = found = gold = 0
    on_track = False
    last, last_guess = ("O", ""), ("O", "")
    for now, now_guess in zip(split, guess, strict=True):
        ends, guess_ends = chunk_ends(last, now), chunk_ends(last_guess, now_guess)
        if on_track and ends and guess_ends:
            right, on_track = right + 1, False
        elif on_track and (ends != guess_ends or now[1] != now_guess[1]):
            on_track = False
        starts, guess_starts = chunk_starts(last, now), chunk_starts(last_guess, now_guess)
        gold, found = gold + starts, found + guess_starts
        on_track |= starts and guess_starts and now[1] == now_guess[1]
        last, last_guess = now, now_guess
    breaks = len(references)
    return right, found, gold, sum(a == b for a, b in zip(split, guess, strict=True)) - breaks, len(split) - breaks


def draw(seed, prefixes, types):
    generator = random.Random(seed)
    labels = ["O", "O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in types)]
    references = [generator.choices(labels, k=generator.randint(1, 12)) for _ in range(40)]
    predictions = [
        [tag if generator.random() < 0.7 else generator.choice(labels) for tag in row] for row in references
    ]
    return predictions, references


@pytest.mark.parametrize("prefixes", ["BI", "I", "IE", "BIE"])
@pytest.mark.parametrize("types", [["PER"], ["PER", "LOC"], ["A", "A-B", "B-A"]])
def test_scores_equal_conllevals_count_tag_by_tag(prefixes, types):
    for seed in range(20):
        predictions, references = draw(seed, prefixes, types)
        right, found, gold, right_tags, tags = plain_counts(predictions, references)
        precision, recall = right / found if found else 0.0, right / gold if gold else 0.0
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        expected = {"precision": precision, "recall": recall, "f1": f1, "accuracy": right_tags / tags}
        assert entity_scores(predictions, references) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-PER I-PER O", [(0, 2, "PER")]),
        ("O B-PER", [(1, 2, "PER")]),
        ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("I-PER I-PER B-PER I-PER", [(0, 2, "PER"), (2, 4, "PER")]),
        ("O I-LOC I-LOC", [(1, 3, "LOC")]),
        ("B-PER I-LOC I-LOC", [(0, 1, "PER"), (1, 3, "LOC")]),
        ("I-PER I-LOC I-PER", [(0, 1, "PER"), (1, 2, "LOC"), (2, 3, "PER")]),
        ("I-X E-X I-X E-X E-X", [(0, 2, "X"), (2, 4, "X"), (4, 5, "X")]),
        ("B-X E-X O E-X", [(0, 2, "X"), (3, 4, "X")]),
        ("B-A-B I-A-B I-A", [(0, 2, "A-B"), (2, 3, "A")]),
        ("B I O I", [(0, 2, ""), (3, 4, "")]),
    ],
)
def test_entities_of_hard_sequences(tags, expected):
    assert entities(tags.split()) == [Entity(*entity) for entity in expected]


def test_iob1_and_iob2_of_the_same_entities_agree():
    assert entities("I-PER I-PER B-PER O I-LOC".split()) == entities("B-PER I-PER B-PER O B-LOC".split())


@pytest.mark.parametrize(
    "tags",
    [
        "O B-PER I-PER E-PER S-PER S-PER B-PER E-PER B-PER E-PER S-LOC B-LOC I-LOC E-LOC",
        "O B-PER I-PER L-PER U-PER U-PER B-PER L-PER B-PER L-PER U-LOC B-LOC I-LOC L-LOC",
        "O B-PER M-PER E-PER S-PER S-PER B-PER E-PER B-PER E-PER S-LOC B-LOC M-LOC E-LOC",
        "O B-PER M-PER E-PER W-PER W-PER B-PER E-PER B-PER E-PER W-LOC B-LOC M-LOC E-LOC",
    ],
    ids=["IOBES", "BILOU", "BMES", "BMEWO"],
)
def test_every_scheme_has_the_entities_of_iob2(tags):
    same = "O B-PER I-PER I-PER B-PER B-PER B-PER I-PER B-PER I-PER B-LOC B-LOC I-LOC I-LOC"
    assert entities(tags.split()) == entities(same.split())
    assert entity_scores([tags.split()], [tags.split()])["f1"] == 1.0


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("S-X I-X E-X", [(0, 1), (1, 3)]),
        ("B-X S-X", [(0, 1), (1, 2)]),
        ("I-X S-X I-X", [(0, 1), (1, 2), (2, 3)]),
        ("E-X S-X E-X", [(0, 1), (1, 2), (2, 3)]),
        ("B-X B-X E-X I-X O E-X", [(0, 1), (1, 3), (3, 4), (5, 6)]),
    ],
)
def test_broken_sequences_of_iobes_are_read_as_seqeval_reads_them(tags, expected):
    assert entities(tags.split()) == [Entity(*place, "X") for place in expected]


def test_an_entity_is_right_only_with_its_type_and_both_its_ends():
    reference = ["B-PER I-PER O B-LOC".split()]
    for prediction, f1 in [
        ("B-PER I-PER O B-LOC", 1.0),
        ("B-PER I-PER O B-ORG", 0.5),
        ("B-PER O O B-LOC", 0.5),
        ("B-PER I-PER I-PER B-LOC", 0.5),
        ("O B-PER O O", 0.0),
    ]:
        assert entity_scores([prediction.split()], reference)["f1"] == pytest.approx(f1)


def test_the_end_of_a_sentence_ends_an_entity():
    reference = [["O", "B-PER"], ["I-PER", "O"]]
    assert entity_scores(reference, reference)["f1"] == 1.0
    assert entity_scores_by_type(reference, reference)["PER"]["number"] == 2


def test_empty_denominators_score_zero():
    nothing = [["O", "O"]]
    assert entity_scores(nothing, nothing) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1.0}
    assert entity_scores(nothing, [["B-X", "I-X"]]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 0.0}
    assert entity_scores([["B-X", "O"]], nothing) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 0.5}
    assert entity_scores([], []) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 0.0}
    assert entity_scores([[]], [[]])["accuracy"] == 0.0


def test_scores_by_type_name_every_type_that_is_predicted_or_there():
    scores = entity_scores_by_type([["B-PER", "O", "B-NEW"]], [["B-PER", "B-LOC", "O"]])
    assert list(scores) == ["LOC", "NEW", "PER"]
    assert scores["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1}
    assert scores["LOC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 1}
    assert scores["NEW"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 0}


def test_lengths_that_differ_are_errors():
    with pytest.raises(ValueError, match="2 predicted sentences do not fit 1"):
        entity_scores([["O"], ["O"]], [["O"]])
    with pytest.raises(ValueError, match="Sentence 1: 1 predicted tags do not fit 2"):
        entity_scores([["O"], ["O"]], [["O"], ["O", "O"]])


@pytest.mark.parametrize("tag", ["N-PER", "NN", "PER-B", ""])
def test_a_tag_of_no_scheme_is_an_error(tag):
    with pytest.raises(ValueError, match="known are B, I, E, S, O"):
        entity_scores([["O", tag]], [["O", "O"]])
