"""Entities of tag sequences and their scores, as conlleval counts them (CoNLL-2000 and CoNLL-2003 shared tasks).

A tag is `O`, or a prefix, a hyphen and the type: everything after the first hyphen. As in the script, a sequence need
not be well-formed: an `I-` after `O` or after another type starts an entity. So the schemes IOB1, IOB2, IOE1 and IOE2
are all read without knowing which one it is. IOBES, BILOU, BMES and BMEWO, which also mark the last token and
single-token entities, are read by the rules of seqeval; the script does not know them.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Prefixes of all schemes, mapped to those of IOBES.
PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "O": "O", "M": "I", "L": "E", "U": "S", "W": "S"}
# Pairs of prefixes (of the same type) that continue an entity; any other pair begins a new one. conlleval continues
# from an `E` to a `B`: none of its schemes has both, but in IOBES this is where two entities meet.
_CONTINUES = frozenset({("B", "I"), ("B", "E"), ("I", "I"), ("I", "E")})


class Entity(NamedTuple):
    """The tokens `start` to `end` (exclusive) of a sentence, and the type of the entity."""

    start: int
    end: int
    type: str


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sentence, from left to right; the end of the sentence also ends an entity.

    Raises:
        ValueError: If a tag has an unknown prefix.
    """
    found: list[Entity] = []
    start, previous = None, ("O", "")
    for position, tag in enumerate(tags):
        current = prefix, kind = _parse(tag)
        within = kind == previous[1] and (previous[0], prefix) in _CONTINUES
        if start is not None and not within:
            found.append(Entity(start, position, previous[1]))
            start = None
        if prefix != "O" and not within:
            start = position
        previous = current
    if start is not None:
        found.append(Entity(start, len(tags), previous[1]))
    return found


def entity_scores(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 over the entities of all types (micro average) and accuracy over tokens, as fractions.

    An entity is correct if its type and both its boundaries are. A score with a denominator of zero is 0.0. conlleval
    prints percentages.

    Args:
        predictions: Tags of every sentence.
        references: Gold tags of the same sentences.

    Raises:
        ValueError: If the lengths differ, or a tag has an unknown prefix.
    """
    correct, guessed, gold = _counts(predictions, references)
    pairs = [
        _parse(guess) == _parse(tag)
        for prediction, reference in zip(predictions, references, strict=True)
        for guess, tag in zip(prediction, reference, strict=True)
    ]
    scores = _precision_recall_f1(correct.total(), guessed.total(), gold.total())
    return scores | {"accuracy": sum(pairs) / len(pairs) if pairs else 0.0}


def entity_scores_by_type(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and `number` (gold entities) of every predicted or gold type, sorted by type.

    Raises:
        ValueError: As `entity_scores` does.
    """
    correct, guessed, gold = _counts(predictions, references)
    return {
        kind: _precision_recall_f1(correct[kind], guessed[kind], gold[kind]) | {"number": gold[kind]}
        for kind in sorted(guessed.keys() | gold.keys())
    }


@functools.lru_cache(maxsize=4096)
def _parse(tag: str) -> tuple[str, str]:
    """Prefix and type of a tag; a tag without a hyphen has the empty type."""
    prefix, _, kind = tag.partition("-")
    if prefix not in PREFIXES:
        raise ValueError(
            f"The tag {tag!r} has the prefix {prefix!r}; known are {', '.join(PREFIXES)}. Write tags of another "
            "scheme as IOB2 first: `B-` on an entity's first token, `I-` on the others."
        )
    return PREFIXES[prefix], kind


def _counts(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Entities of each type: correct, predicted and gold ones."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predicted sentences do not fit {len(references)} reference sentences.")
    correct, guessed, gold = Counter[str](), Counter[str](), Counter[str]()
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        if len(prediction) != len(reference):
            raise ValueError(f"Sentence {row}: {len(prediction)} predicted tags do not fit {len(reference)} tokens.")
        ours, theirs = set(entities(prediction)), set(entities(reference))
        correct.update(_types(ours & theirs))
        guessed.update(_types(ours))
        gold.update(_types(theirs))
    return correct, guessed, gold


def _types(found: Iterable[Entity]) -> Iterable[str]:
    """Yield the types of entities."""
    return (entity.type for entity in found)


def _precision_recall_f1(correct: int, guessed: int, gold: int) -> dict[str, float]:
    """The three scores from counts; 0.0 where the denominator is zero."""
    return {
        "precision": correct / guessed if guessed else 0.0,
        "recall": correct / gold if gold else 0.0,
        "f1": 2.0 * correct / (guessed + gold) if guessed + gold else 0.0,
    }
