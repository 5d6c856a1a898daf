"""Splits texts into words, and finds which may be replaced and which a masked language model knows as one piece.

Words are those of BERT's basic tokenization (TinyBERT, data augmentation): lower-cased and without accents if the
model's tokenizer does so, with punctuation and Chinese characters separated. They are aligned with the pieces of the
model's tokenizer by character offsets, so any fast tokenizer works: WordPiece, byte-level BPE, SentencePiece.

Shape legend: W words, T pieces, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import models, normalizers, pre_tokenizers

from ..text.analysis import WORD, stop_words

# Longer inputs are truncated to this length, as in TinyBERT, even if the model could read more.
MAX_TOKENS = 512
# Prefixes that byte-level BPE and SentencePiece give to a piece that begins a word.
_WORD_BEGINNINGS = ("Ġ", "▁")
_LATIN_WORD = re.compile("[A-Za-z]+")
# Chinese characters, their punctuation, and full-width forms.
_CJK = "\u2e80-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0002fa1f"
_HAS_CJK = re.compile(f"[{_CJK}]")
_BLANK_BESIDE_CJK = re.compile(f"(?<=[{_CJK}]) | (?=[{_CJK}])")

# Stop words that TinyBERT's code (`StopWordsList`) does not have.
TINYBERT_REPLACES = {"how", "n", "what", "when", "where", "which", "who", "whom", "why"}

# Values of `SplitText.places` for words that are not replaced by the masked language model.
STAYS, SEVERAL_PIECES, BEYOND_LIMIT = -1, -2, -3


@dataclass(frozen=True)
class SplitText:
    """A text as words, together with the model input.

    Attributes:
        words: W words.
        places: For each of the W words the index of its only piece in `inputs`, or `STAYS` (not replaceable),
            `SEVERAL_PIECES`, or `BEYOND_LIMIT` (one piece, but truncated).
        inputs: The tokenizer's outputs for the text followed by itself, (T,) each; nothing is masked yet.
    """

    words: list[str]
    places: list[int]
    inputs: dict[str, list[int]]


class WordSplitter:
    """Splits texts for one tokenizer and language.

    Args:
        tokenizer: A fast tokenizer with a mask token.
        language: Determines the stop words; in English only words of the letters a to z may be replaced, in other
            languages words of any letters.
        max_tokens: Maximum input length of the model, up to `MAX_TOKENS`.
        tinybert_words: Whether to use the stop words of TinyBERT's code, which replaces question words and the `n`
            that is left of "n't".

    Raises:
        ValueError: If the tokenizer has no mask token, is not fast, or marks the ends of words and not their
            beginnings.
    """

    def __init__(
        self, tokenizer: Any, language: str = "english", *, max_tokens: int = MAX_TOKENS, tinybert_words: bool
    ) -> None:
        check_tokenizer(tokenizer)
        self.tokenizer = tokenizer
        self.max_tokens = min(max_tokens, MAX_TOKENS)
        self.lower_case = _makes(tokenizer, "A", "a")
        self._is_english = language in {"english", "en"}
        self._stop_words = stop_words(language) - (TINYBERT_REPLACES if tinybert_words else set())
        # Some tokenizers lower-case but keep accents: without its accents, a German word is another word.
        strips_accents = _makes(tokenizer, "\u00e9", "e")
        self._normalizer = normalizers.BertNormalizer(lowercase=self.lower_case, strip_accents=strips_accents)
        self._pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def is_eligible(self, word: str) -> bool:
        """Whether a word may be replaced: it has only letters and is not a stop word."""
        letters = _LATIN_WORD.fullmatch(word) is not None if self._is_english else word.isalpha()
        return letters and word.lower() not in self._stop_words

    def split(self, texts: Sequence[str]) -> list[SplitText]:
        """Split texts; the model input is the text as segment A and again as segment B (TinyBERT)."""
        if not texts:
            return []
        normalized = [self._normalizer.normalize_str(text) for text in texts]
        encoded = self.tokenizer(normalized, normalized, return_offsets_mapping=True, truncation=False, verbose=False)
        found = []
        for row, text in enumerate(normalized):
            spans = self._pre_tokenizer.pre_tokenize_str(text)
            places = self._places(spans, encoded["offset_mapping"][row], encoded.sequence_ids(row))
            inputs = {
                name: encoded[name][row][: self.max_tokens]
                for name in ("input_ids", "token_type_ids")
                if name in encoded
            }
            found.append(SplitText([word for word, _ in spans], places, inputs))
        return found

    def _places(
        self,
        spans: Sequence[tuple[str, tuple[int, int]]],
        offsets: Sequence[tuple[int, int]],
        segments: Sequence[int | None],
    ) -> list[int]:
        """Return the places of W words, from the character spans of words and pieces."""
        word_at: dict[int, int] = {}
        for index, (_, (start, end)) in enumerate(spans):
            word_at.update(dict.fromkeys(range(start, end), index))
        pieces: list[list[int]] = [[] for _ in spans]
        for place, ((start, end), segment) in enumerate(zip(offsets, segments, strict=True)):
            if segment == 0:
                # If a piece covers parts of several words, none of them is a single piece.
                for index in {word_at[c] for c in range(start, end) if c in word_at}:
                    pieces[index].append(place)
        return [self._place(word, span, owned, offsets) for (word, span), owned in zip(spans, pieces, strict=True)]

    def _place(
        self, word: str, span: tuple[int, int], pieces: Sequence[int], offsets: Sequence[tuple[int, int]]
    ) -> int:
        if not self.is_eligible(word):
            return STAYS
        # Some tokenizers include the blank before a word in the word's offsets.
        if len(pieces) != 1 or offsets[pieces[0]][1] != span[1] or offsets[pieces[0]][0] < span[0] - 1:
            return SEVERAL_PIECES
        return pieces[0] if pieces[0] < self.max_tokens else BEYOND_LIMIT


def join_words(words: Sequence[str]) -> str:
    """Join words with blanks, except beside Chinese characters."""
    text = " ".join(words)
    return _BLANK_BESIDE_CJK.sub("", text) if _HAS_CJK.search(text) else text


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of a tokenizer as words.

    Attributes:
        texts: V texts, as they appear in a sentence.
        begins: (V,) bool: whether the piece begins a word (no `##`, or with a blank before it).
        is_word: (V,) bool: whether it has only letters and digits; false for special and unused tokens and
            punctuation.
    """

    texts: list[str]
    begins: np.ndarray
    is_word: np.ndarray

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Read the vocabulary from a tokenizer."""
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        model = tokenizer.backend_tokenizer.model
        special = set(tokenizer.all_special_tokens)
        if isinstance(model, models.WordPiece):
            prefix = model.continuing_subword_prefix
            texts = [token.removeprefix(prefix) for token in tokens]
            begins = [not token.startswith(prefix) for token in tokens]
        else:
            texts = [t if t in special else tokenizer.convert_tokens_to_string([t]).strip() for t in tokens]
            begins = [token.startswith(_WORD_BEGINNINGS) for token in tokens]
        is_word = [
            t not in special and WORD.fullmatch(text) is not None for t, text in zip(tokens, texts, strict=True)
        ]
        return cls(texts, np.array(begins), np.array(is_word))


def check_tokenizer(tokenizer: Any) -> None:
    """Raise an error that names the reason if a tokenizer cannot be used here.

    Raises:
        ValueError: If it has no mask token, is not fast, or marks the ends of words and not their beginnings.
    """
    name = type(tokenizer).__name__
    if getattr(tokenizer, "mask_token_id", None) is None:
        raise ValueError(f"`--masked_lm`: its tokenizer ({name}) has no mask token; name a masked language model.")
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"`--masked_lm`: its tokenizer ({name}) is not fast, so it has no offsets of pieces.")
    if getattr(tokenizer.backend_tokenizer.model, "end_of_word_suffix", None):
        raise ValueError(
            f"`--masked_lm`: its tokenizer ({name}) marks where words end, not where they begin; such vocabularies "
            "are not supported. BERT's, RoBERTa's and SentencePiece's are."
        )


def _makes(tokenizer: Any, given: str, expected: str) -> bool:
    """Whether a tokenizer's normalizer turns the character `given` into `expected`."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str(given).strip("▁ ") == expected
