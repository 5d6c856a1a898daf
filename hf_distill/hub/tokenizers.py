"""Compares tokenizers by their effect on text, not only by their vocabulary.

Two models that read the same `input_ids` need the same tokens for every text: words in any case, with accents, in any
script, with the same special tokens around them, alone and in pairs, and truncated at the same side.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import xxhash
from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Case, accents, compatibility forms, scripts, spaces, punctuation, contractions, numbers.
TEXTS = (
    "The quick Brown FOX doesn't jump over 1,234.56 lazy dogs (U.S.A., 2026)!",
    "École naïve café Straße ŒUVRE İstanbul Ångström e\u0301te\u0301",
    "ＡＢＣ １２３ ﬁne ½ ™ x² … — “quotes” ‘single’",
    "中文字符，日本語のテスト 한국어 문장 ไทย",
    "Привет, Ёлка! Ελληνικά ΑΣΟΦΟΣ العَرَبِيَّة हिन्दी עברית",
    "  leading,  double   spaces\tand\nlines \u00a0 \u200b ",
    "#tag @user http://example.org/a_b?c=d 🙂👍🏽 C++ snake_case camelCase",
    "",
)
PAIR = ("The first text?", "And the SECOND one.")
LONG = "one two three four five six seven eight nine ten eleven twelve"
WORDS = 48
CUT_AT = 6


class Probe(NamedTuple):
    """A text for comparing tokenizers, with its second text if it is a pair, and the truncation length if any."""

    text: str
    pair: str | None = None
    max_length: int | None = None


class Difference(NamedTuple):
    """The first probe for which two tokenizers differ, and the tokens of each."""

    probe: Probe
    theirs: list[str]
    ours: list[str]


def probes_of(tokenizer: Any, *, pairs: bool) -> Iterator[Probe]:
    """Yield texts that reveal the rules of a tokenizer, including words of its own vocabulary.

    Args:
        tokenizer: Tokenizer whose words and special tokens are included.
        pairs: Whether to include pairs of texts.
    """
    yield from (Probe(text) for text in TEXTS)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_tokens)
    step = max(1, len(vocabulary) // WORDS)
    chosen = [token for token, _ in vocabulary[::step] if token not in special]
    words = " ".join(tokenizer.convert_tokens_to_string([token]).strip() for token in chosen)
    yield from (Probe(text) for text in dict.fromkeys((words, words.lower(), words.upper(), words.title())))
    yield from (Probe(f"a {token} b") for token in sorted(special))
    # Added tokens may match inside words, and may absorb the spaces around them.
    added = sorted(getattr(tokenizer, "get_added_vocab", dict)())
    yield from (Probe(f"a{token}b {token} {token.upper()}") for token in added[:WORDS] if token not in special)
    yield Probe(LONG, max_length=CUT_AT)
    if pairs:
        yield Probe(*PAIR)
        yield Probe(LONG, LONG, CUT_AT + 4)


def encode(tokenizer: Any, probe: Probe) -> tuple[list[int], list[int] | None]:
    """Ids of a probe, and the segment of each id if the tokenizer returns segments."""
    cut = {} if probe.max_length is None else {"truncation": True, "max_length": probe.max_length}
    texts = (probe.text,) if probe.pair is None else (probe.text, probe.pair)
    with _cutting_as_before(tokenizer):
        # Suppress the warning that a probe is longer than the model's limit.
        encoded = tokenizer(*texts, verbose=False, **cut)
    return list(encoded["input_ids"]), encoded.get("token_type_ids")


@contextmanager
def _cutting_as_before(tokenizer: Any) -> Iterator[None]:
    """Restore the truncation of a tokenizer afterwards: it is saved with the setting of the last call."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    before: Any = getattr(backend, "truncation", None)
    try:
        yield
    finally:
        if backend is not None and before is None:
            backend.no_truncation()
        elif backend is not None:
            backend.enable_truncation(**before)


def first_difference(theirs: Any, ours: Any, *, pairs: bool = False) -> Difference | None:
    """The first text for which two tokenizers give different tokens or segments; `None` if there is none.

    A model whose tokenizer returns no segments was trained without them: they are compared only if it returns them.

    Args:
        theirs: The tokenizer that a model was trained with.
        ours: The tokenizer that it will be used with.
        pairs: Whether it will read pairs.
    """
    if theirs is ours or not all(isinstance(side, PreTrainedTokenizerBase) for side in (theirs, ours)):
        return None
    probes = dict.fromkeys((*probes_of(theirs, pairs=pairs), *probes_of(ours, pairs=pairs)))
    for probe in probes:
        (their_ids, their_types), (our_ids, our_types) = encode(theirs, probe), encode(ours, probe)
        if their_ids != our_ids:
            sides = (theirs.convert_ids_to_tokens(their_ids), ours.convert_ids_to_tokens(our_ids))
            return Difference(probe, *sides)
        if their_types is not None and list(their_types) != list(our_types or [0] * len(our_ids)):
            return Difference(
                probe, *([f"segment {kind}" for kind in types or [0]] for types in (their_types, our_types))
            )
    return None


def warn_of_other_rules(name: str, tokenizer: Any) -> None:
    """Warn if a folder's `tokenizer.json` tokenizes plain words differently from the tokenizer that was loaded.

    transformers rebuilds tokenizers of some classes from their vocabulary and the settings in `tokenizer_config.json`;
    if the original rules were different, the model gets other tokens than in its training.

    Args:
        name: Local folder, or a Hub id whose files are in the cache.
        tokenizer: The tokenizer that was loaded from it.
    """
    path: Any = Path(name).expanduser() / "tokenizer.json"
    if not path.is_file():
        path = try_to_load_from_cache(name, "tokenizer.json") if name.count("/") <= 1 else None
    if not isinstance(path, (str, Path)) or not isinstance(tokenizer, PreTrainedTokenizerBase):
        return
    stored = PreTrainedTokenizerFast(tokenizer_file=str(path))
    for probe in probes_of(tokenizer, pairs=False):
        if probe.text in TEXTS[1:] or probe.max_length is not None:
            continue
        loaded, found = encode(tokenizer, probe)[0], encode(stored, probe)[0]
        if loaded != found:
            sides: Any = (tokenizer.convert_ids_to_tokens(loaded), stored.convert_ids_to_tokens(found))
            logger.warning_once(
                f"The files of the tokenizer in {name!r} contradict each other: as it is loaded, "
                f"{_shown(Difference(probe, *sides))} of its tokenizer.json. It cannot be told which of them the "
                "model was trained with: mend tokenizer_config.json (`do_lower_case`), or give the right one as "
                "`teacher_processing_class`."
            )
            return


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of a tokenizer's tokens, their ids, and its results for texts; `none` without a vocabulary."""
    if not hasattr(tokenizer, "get_vocab"):
        return "none"
    facts: list[Any] = [sorted(tokenizer.get_vocab().items())]
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        facts += [encode(tokenizer, probe)[0] for probe in probes_of(tokenizer, pairs=True)]
    return xxhash.xxh3_128(json.dumps(facts).encode()).hexdigest()


def ids_of_same_pieces(theirs: Any, ours: Any) -> list[int] | None:
    """Map every id of one tokenizer to the id of the same piece in another, larger one.

    This works for a trimmed vocabulary: both tokenizers have the same rules, and one has some of the other's pieces,
    in the same order. Text with a missing piece is split into smaller pieces, which the larger tokenizer has too.

    Args:
        theirs: The tokenizer with more pieces.
        ours: The tokenizer with some of them.

    Returns:
        The ids; `None` if the rules or the order differ, a piece is unknown to `theirs`, or one of them is not a fast
        tokenizer.
    """
    if not (getattr(theirs, "is_fast", False) and getattr(ours, "is_fast", False)):
        return None
    ids, numbers = theirs.get_vocab(), ours.get_vocab()
    (their_rules, their_scores, their_merges), (our_rules, our_scores, our_merges) = _rules(theirs), _rules(ours)
    if their_rules != our_rules or not ids.keys() >= numbers.keys():
        return None
    # Scores may differ in the last digit after they were written and read.
    if not all(math.isclose(their_scores.get(piece, math.nan), score) for piece, score in our_scores.items()):
        return None
    kept = set(our_merges)
    # The order of merges is significant.
    if [merge for merge in their_merges if merge in kept] != our_merges:
        return None
    order = sorted(numbers, key=lambda piece: numbers[piece])
    if any(ids[one] >= ids[next_one] for one, next_one in itertools.pairwise(order)):
        return None
    found = [ids.get(theirs.unk_token, 0)] * (max(numbers.values()) + 1)
    for piece, number in numbers.items():
        found[number] = ids[piece]
    return found


def _rules(tokenizer: Any) -> tuple[dict[str, Any], dict[str, float], list[tuple[str, ...]]]:
    """Return everything but the vocabulary that decides how a text is split: rules without ids, scores, merges."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    model = rules["model"]
    vocabulary, merges = model.pop("vocab", {}), model.pop("merges", None) or []
    if "unk_id" in model:
        model["unk_id"] = None if model["unk_id"] is None else vocabulary[model["unk_id"]][0]
    scores = dict(vocabulary) if model.get("type") == "Unigram" else {}
    added = {token["content"]: {**token, "id": None} for token in rules.pop("added_tokens")}
    _leave_out_ids(rules.get("post_processor"))
    sides = {"cuts": tokenizer.truncation_side, "pads": tokenizer.padding_side}
    merged = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    return {**rules, "added": added, "truncation": None, "padding": None, **sides}, scores, merged


def _leave_out_ids(processor: Any) -> None:
    """Remove the ids from a post-processor, in place; it also names the tokens."""
    if isinstance(processor, dict):
        for token in (processor.get("special_tokens") or {}).values():
            token["ids"] = None
        for name in ("cls", "sep"):
            if isinstance(processor.get(name), list):
                processor[name] = processor[name][0]
        for inner in processor.get("processors") or []:
            _leave_out_ids(inner)


def check_same_tokens(teacher_tokenizer: Any, student_tokenizer: Any, *, pairs: bool = False) -> None:
    """Check that two tokenizers give the same tokens for every text, because both models read the same `input_ids`.

    Args:
        teacher_tokenizer: The tokenizer that the teacher was trained with.
        student_tokenizer: The tokenizer for both models.
        pairs: Whether the rows are pairs of texts.

    Raises:
        ValueError: If they differ; the message shows where, and what to do.
    """
    theirs, ours = teacher_tokenizer.get_vocab(), student_tokenizer.get_vocab()
    if theirs != ours:
        examples = sorted(token for token in set(theirs) | set(ours) if theirs.get(token) != ours.get(token))[:3]
        shown = ", ".join(f"{token!r}: {theirs.get(token)} against {ours.get(token)}" for token in examples)
        found = f"{len(theirs)} and {len(ours)} tokens; ids of {shown}"
    else:
        difference = first_difference(teacher_tokenizer, student_tokenizer, pairs=pairs)
        if difference is None:
            return
        found = f"their tokens are the same, but they split text differently: {_shown(difference)}"
    raise ValueError(
        f"Teacher and student tokenizers differ ({found}). Use the teacher's tokenizer as `processing_class`, and "
        "create the student from the teacher's configuration; or let each side read its own with `--align_tokenizers`."
    )


def _shown(difference: Difference) -> str:
    """Show where the tokens of two tokenizers for a probe begin to differ."""
    probe, theirs, ours = difference
    text = repr(probe.text[:40]) + (f" and {probe.pair[:40]!r}" if probe.pair else "")
    start = next((i for i, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), 0)
    return f"{text} gives {theirs[start : start + 4]} against {ours[start : start + 4]} from token {start + 1} on"
