"""Trims a vocabulary to the language of a task: a tokenizer and embeddings with only the pieces that its texts need.

With a large vocabulary, most parameters of a small student are embeddings. A trimmed tokenizer keeps special tokens,
bytes or characters, and the pieces that occur in the given texts. It tokenizes every text that needs only these pieces
as the full tokenizer does: WordPiece takes the longest piece, Unigram the likeliest pieces, and byte-pair encoding the
merges in their order, and all of these are kept. Other text is split into smaller pieces.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedModel

from hf_distill.capture.architectures import first_position
from hf_distill.storage.files import write_text
from hf_distill.storage.plain_values import shown

# Of the texts, one in so many is not counted but kept to measure what the trimmed tokenizer changes.
MEASURED_EVERY = 20
_ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class TrimmedVocabulary:
    """A trimmed tokenizer, and how much the tokens of other texts change.

    Attributes:
        tokenizer: The trimmed tokenizer.
        model: A copy of the model with the embeddings of its pieces; `None` if no model was given.
        kept: For every piece in its new order, its id in the full vocabulary.
        pieces_before: Size of the full vocabulary.
        unknown_before: Share of unknown tokens in held-out texts, with the full tokenizer.
        unknown: The same share with the trimmed tokenizer.
        changed: Share of the full tokenizer's tokens in these texts for which the trimmed one has no piece.
        measured_texts: Number of held-out texts.
    """

    tokenizer: Any
    model: PreTrainedModel | None
    kept: tuple[int, ...]
    pieces_before: int
    unknown_before: float
    unknown: float
    changed: float
    measured_texts: int

    def __str__(self) -> str:
        """One line for a person."""
        line = f"{len(self.kept):,} of {self.pieces_before:,} pieces"
        if not self.measured_texts:
            return line
        return (
            f"{line}; in {self.measured_texts:,} other texts {self.changed:.2%} of the pieces change, unknown are "
            f"{self.unknown:.2%} (before: {self.unknown_before:.2%})"
        )


def trim_vocabulary(
    tokenizer: Any,
    model: PreTrainedModel | None,
    texts: Iterable[str],
    *,
    size: int | None = None,
    prompts: Iterable[str] = (),
) -> TrimmedVocabulary:
    """Trim a vocabulary to the pieces that texts need.

    How much other texts change is measured on every twentieth text, with a vocabulary of the others; the returned
    vocabulary counts all texts.

    Args:
        tokenizer: A tokenizer with a WordPiece, Unigram or byte-pair model.
        model: A model with this vocabulary, of which a trimmed copy is made; `None` to trim the tokenizer only.
        texts: Texts of the kind that will be read.
        size: Largest number of pieces to keep, the most frequent ones in `texts`. Default: all that occur.
        prompts: Texts whose pieces are always kept, such as the prompts of a sentence encoder.

    Returns:
        The trimmed tokenizer, the trimmed copy of the model, and the measured changes.

    Raises:
        ValueError: If the tokenizer has another kind of model, `size` is too small for the pieces that must be kept,
            there is no text, or the model has fewer embeddings than the tokenizer has pieces.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"The vocabulary of a {type(tokenizer).__name__} cannot be trimmed: it is no fast one, which has its "
            "rules in a tokenizer.json."
        )
    kind = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("type")
    if kind not in ("WordPiece", "Unigram", "BPE"):
        raise ValueError(f"A vocabulary of the kind {kind!r} cannot be trimmed: WordPiece, Unigram and BPE can.")
    counts, characters, unseen = _count(tokenizer, texts)
    if not counts:
        raise ValueError("No text to trim the vocabulary by: give texts like those that will be read.")
    ids = tokenizer.get_vocab()
    pieces = {number: piece for piece, number in ids.items()}
    further = {pieces[number] for number in _count(tokenizer, prompts, every=None)[0]} | _before_padding(model, ids)
    trimmed, numbers = _trimmed(tokenizer, counts, characters, size, further)
    shares = _measure(tokenizer, trimmed, set(numbers), unseen)
    if unseen:
        rest, others, _ = _count(tokenizer, unseen, every=None)
        trimmed, numbers = _trimmed(tokenizer, counts + rest, characters | others, size, further)
    small = None if model is None else with_rows(model, numbers)
    if small is not None:
        _renumber_tokens(small, tokenizer, trimmed)
        embeddings: Any = small.get_input_embeddings()
        if getattr(model.get_input_embeddings(), "padding_idx", None) is not None:  # type: ignore[union-attr]
            # The row that has no gradient.
            embeddings.padding_idx = small.config.pad_token_id
    return TrimmedVocabulary(trimmed, small, numbers, len(ids), *shares, len(unseen))


def with_rows(model: PreTrainedModel, rows: Sequence[int]) -> PreTrainedModel:
    """A copy of a model whose vocabulary is these rows of its own, in this order.

    Raises:
        ValueError: If it has fewer embeddings.
    """
    size = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[index]
    if max(rows) >= size:
        raise ValueError(
            f"The model has {size} word embeddings, but the tokenizer has a piece with number {max(rows)}."
        )
    small: Any = copy.deepcopy(model)
    outputs, index = small.get_output_embeddings(), torch.tensor(rows)
    tables = [(module, name, 0) for module in (small.get_input_embeddings(), outputs) for name in ("weight", "bias")]
    further = list(_further_tables(small, outputs, size))
    # Tied tables are one tensor, which is put in order once.
    tensors = {id(getattr(module, name, None)): (module, name, dim) for module, name, dim in (*tables, *further)}
    with torch.no_grad():
        for module, name, dim in tensors.values():
            tensor = getattr(module, name, None)
            if tensor is not None:
                tensor.narrow(dim, 0, len(rows)).copy_(tensor.index_select(dim, index))
    biases = [(module, module.bias, module.bias is outputs.bias) for module, name, _ in further if name == "bias"]
    small.resize_token_embeddings(len(rows))
    for module, bias, shared in biases:
        # Some heads are left with the whole one, others share now what they did not.
        module.bias = torch.nn.Parameter(bias.detach()[: len(rows)].clone(), requires_grad=bias.requires_grad)
        if shared:
            outputs = small.get_output_embeddings()
            outputs.bias = module.bias
    return small


def _further_tables(model: Any, outputs: Any, size: int) -> Iterator[tuple[Any, str, int]]:
    """What a head has for every piece beside its output layer: module, name and dimension."""
    inside = {*model.base_model.modules(), outputs}
    for module in model.modules():
        own = {} if module in inside else dict(module.named_parameters(recurse=False))
        if own.keys() == {"bias"} and own["bias"].shape == (size,):
            yield module, "bias", 0
        elif "weight" in own and own["weight"].shape[1:] == (size,) and own["weight"].shape[0] != size:
            # MobileBERT's widens the embeddings.
            yield module, "weight", 1


def _count(
    tokenizer: Any, texts: Iterable[str], *, every: int | None = MEASURED_EVERY
) -> tuple[Counter[int], set[str], list[str]]:
    """Token numbers by how often they occur, the characters of the texts, and the texts kept for measuring.

    Of the texts, one in `every` is kept, and none if that is `None`. Letters count as they are and as the tokenizer
    normalises them.
    """
    counts: Counter[int] = Counter()
    characters: set[str] = set()
    unseen: list[str] = []
    normalizer = tokenizer.backend_tokenizer.normalizer
    for rows in _parts(texts):
        measured = rows[1::every] if every is not None and len(rows) > 1 else []
        counted = rows if not measured else [text for i, text in enumerate(rows) if i % MEASURED_EVERY != 1]
        unseen += measured
        for ids in tokenizer(counted, add_special_tokens=False, return_attention_mask=False)["input_ids"]:
            counts.update(ids)
        letters = "".join({letter: None for text in counted for letter in text})
        characters.update(letters, "" if normalizer is None else normalizer.normalize_str(letters))
    return counts, characters, unseen


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    if isinstance(texts, str):
        raise TypeError(f"The vocabulary is trimmed by several texts, but it is one: {texts[:40]!r}.")
    rest = iter(texts)
    while rows := list(islice(rest, _ROWS_AT_ONCE)):
        wrong = next((row for row in rows if not isinstance(row, str)), None)
        if wrong is not None:
            raise TypeError(f"The vocabulary is trimmed by texts, but one is {shown(wrong)}.")
        yield rows


def _trimmed(
    tokenizer: Any, counts: Counter[int], characters: set[str], size: int | None, further: set[str]
) -> tuple[Any, tuple[int, ...]]:
    """The tokenizer of the pieces that stay, and the number of each in the full one."""
    ids, state = tokenizer.get_vocab(), json.loads(tokenizer.backend_tokenizer.to_str())
    kept = _kept_pieces(state, ids, tokenizer, counts, characters, size, further)
    own = _own_pieces(state["model"])
    # Added tokens that the model does not know itself have the last numbers.
    order = sorted(kept, key=lambda piece: (piece not in own, ids[piece]))
    return _rebuilt(tokenizer, state, order), tuple(ids[piece] for piece in order)


def _own_pieces(model: dict[str, Any]) -> set[str]:
    """The pieces of a tokenizer's model, without tokens that were added beside it."""
    return {piece for piece, _ in model["vocab"]} if model["type"] == "Unigram" else set(model["vocab"])


def _unknown_piece(model: dict[str, Any]) -> str | None:
    """The piece that stands for what no other does."""
    if model["type"] == "Unigram":
        return None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
    return model.get("unk_token")


def _kept_pieces(
    state: dict[str, Any],
    ids: dict[str, int],
    tokenizer: Any,
    counts: Counter[int],
    characters: set[str],
    size: int | None,
    further: set[str],
) -> set[str]:
    """The pieces that stay: what has to and `further` ones, then what the texts use, the most frequent first."""
    pieces, merged_from = {number: piece for piece, number in ids.items()}, _merges(state["model"])
    kept = {token["content"] for token in state["added_tokens"]} | set(tokenizer.all_special_tokens)
    kept |= {part for piece in further for part in _with_parts(piece, merged_from)}
    kept |= {piece for piece in ids if _is_letter(piece, state["model"], characters)}
    kept = (kept | {_unknown_piece(state["model"])}) & set(ids)
    if size is not None and size < len(kept):
        raise ValueError(
            f"size={size} (--size) is too small: {len(kept)} special tokens and letters have to stay "
            "(--student_vocabulary)."
        )
    for number, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        needed = _with_parts(pieces[number], merged_from) - kept
        if size is not None and len(kept) + len(needed) > size:
            continue
        kept |= needed
    return kept


def _before_padding(model: PreTrainedModel | None, ids: dict[str, int]) -> set[str]:
    """The pieces before the padding token of a model that counts positions from its number, which must stay then."""
    last = 0 if model is None else first_position(model.config) - 1
    return {piece for piece, number in ids.items() if number < last}


def _is_letter(piece: str, model: dict[str, Any], characters: set[str]) -> bool:
    """Whether a piece is a byte, or a single character that is ASCII or occurs in the texts."""
    if model.get("byte_fallback") and len(piece) == 6 and piece.startswith("<0x"):
        return True
    prefix = model.get("continuing_subword_prefix") or ""
    letter = piece.removeprefix(prefix) if prefix else piece
    letter = letter.removeprefix("▁").removesuffix(model.get("end_of_word_suffix") or "") or letter
    if len(letter) != 1:
        return False
    # Byte-level byte-pair encoding writes bytes as printable characters, none of which is above this one.
    return (
        letter.isascii() or letter in characters or letter == "▁" or (model["type"] == "BPE" and ord(letter) < 0x144)
    )


def _merges(model: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Piece -> the pairs that are merged into it; none in other models than byte-pair ones."""
    found: dict[str, list[tuple[str, str]]] = {}
    for merge in model.get("merges") or []:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        found.setdefault(_joined(left, right, model), []).append((left, right))
    return found


def _joined(left: str, right: str, model: dict[str, Any]) -> str:
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _with_parts(piece: str, merged_from: dict[str, list[tuple[str, str]]]) -> set[str]:
    """A piece and all that it may be merged from."""
    found, rest = set(), [piece]
    while rest:
        each = rest.pop()
        if each not in found:
            found.add(each)
            rest += [part for pair in merged_from.get(each, ()) for part in pair]
    return found


def _rebuilt(tokenizer: Any, state: dict[str, Any], order: Sequence[str]) -> Any:
    """The tokenizer with these pieces in this order; everything else of it stays."""
    number = {piece: index for index, piece in enumerate(order)}
    model = state["model"]
    unknown, own = _unknown_piece(model), _own_pieces(model)
    if model["type"] == "Unigram":
        scores = {piece: score for piece, score in model["vocab"]}
        model["vocab"] = [[piece, scores[piece]] for piece in order if piece in own]
        model["unk_id"] = None if unknown is None else number[unknown]
    else:
        model["vocab"] = {piece: index for piece, index in number.items() if piece in own}
        if model["type"] == "BPE":
            model["merges"] = [m for m in model["merges"] if _is_kept(m, number, model)]
    for token in state["added_tokens"]:
        token["id"] = number[token["content"]]
    _renumber_template(state.get("post_processor"), number)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        write_text(Path(folder, "tokenizer.json"), json.dumps(state, ensure_ascii=False))
        settings = Path(folder, "tokenizer_config.json")
        config = json.loads(settings.read_text(encoding="utf-8"))
        decoder = config.get("added_tokens_decoder")
        if decoder:
            config["added_tokens_decoder"] = {str(number[t["content"]]): t for t in decoder.values()}
            write_text(settings, json.dumps(config))
        # They may have been set since it was loaded.
        sides = {name: getattr(tokenizer, name) for name in ("padding_side", "truncation_side")}
        loaded = AutoTokenizer.from_pretrained(folder, **sides)
    if _without_pieces(json.loads(loaded.backend_tokenizer.to_str())) != _without_pieces(state):
        # Some classes make their rules anew from settings when they are loaded: the full tokenizer's may be others.
        loaded._tokenizer = Tokenizer.from_str(json.dumps(state))
    return loaded


def _without_pieces(state: dict[str, Any]) -> dict[str, Any]:
    """The rules of a tokenizer, without its pieces and what the last call has set."""
    model = {name: value for name, value in state["model"].items() if name not in ("vocab", "merges")}
    return {**state, "model": model, "padding": None, "truncation": None}


def _is_kept(merge: Any, number: dict[str, int], model: dict[str, Any]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in number and right in number and _joined(left, right, model) in number


def _renumber_template(processor: Any, number: dict[str, int]) -> None:
    """Give the tokens that a post-processor adds their new numbers; in place."""
    if isinstance(processor, dict):
        for token in (processor.get("special_tokens") or {}).values():
            token["ids"] = [number[piece] for piece in token["tokens"]]
        for name in ("cls", "sep"):
            if isinstance(processor.get(name), list):
                processor[name] = [processor[name][0], number[processor[name][0]]]
        for inner in processor.get("processors") or []:
            _renumber_template(inner, number)


def _renumber_tokens(model: PreTrainedModel, tokenizer: Any, trimmed: Any) -> None:
    """Give the tokens that the settings of a model name their new numbers; in place.

    A token without a piece in the new vocabulary is `None`; a number that no piece has stays.
    """
    numbers = trimmed.get_vocab()
    new = {number: numbers.get(piece) for piece, number in tokenizer.get_vocab().items()}
    for settings in (model.config, getattr(model, "generation_config", None)):
        for name, old in () if settings is None else settings.to_dict().items():
            if not name.endswith("_token_id"):
                continue
            if isinstance(old, list):
                # A generation may end with any of several tokens.
                setattr(settings, name, [new.get(each, each) for each in old if new.get(each, each) is not None])
            elif isinstance(old, int):
                setattr(settings, name, new.get(old, old))


def _measure(tokenizer: Any, trimmed: Any, kept: set[int], texts: Sequence[str]) -> tuple[float, float, float]:
    """Share of unknown tokens before and after, and share of tokens that have no piece any more."""
    if not texts:
        return 0.0, 0.0, 0.0
    options = {"add_special_tokens": False, "return_attention_mask": False}
    before = [token for ids in tokenizer(list(texts), **options)["input_ids"] for token in ids]
    after = [token for ids in trimmed(list(texts), **options)["input_ids"] for token in ids]
    unknown_before = before.count(tokenizer.unk_token_id) / max(1, len(before))
    unknown = after.count(trimmed.unk_token_id) / max(1, len(after))
    return unknown_before, unknown, sum(token not in kept for token in before) / max(1, len(before))
