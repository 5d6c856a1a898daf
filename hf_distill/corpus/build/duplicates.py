"""Finds duplicates: equal texts, near-duplicates, and texts of validation and test sets.

Texts count as equal if they have the same 64-bit xxh3 hash, of the text itself or of its normalised form. Among four
million rows, a collision by chance has a probability of 4e-7.

Texts are near-duplicates if their Jaccard similarity (the share of common shingles) reaches a threshold. MinHash with
locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3) finds candidate pairs,
with datasketch's signatures. Each pair is then compared exactly, so a row is never dropped by chance; one in a hundred
pairs at the threshold is missed.

A row is excluded from a corpus if it equals an evaluation text, contains one, or shares an n-gram with one. Rows and
texts are compared without case, punctuation and spacing. N-grams are of words; in scripts without spaces, of
characters.

Shape legend: M texts, W words over all of them, n words of an n-gram, B bands of a signature.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import regex
import xxhash

from hf_distill._optional import require

from ..text.analysis import UNSPACED, units
from ..text.rows import clean, several_texts

# --- equal texts -----------------------------------------------------------------------------------------------------

# Marks belong to their word: a Hindi word without its vowel signs is another word. A mark that follows no letter
# belongs to a character that is not a word: an emoji, or an accent used as an apostrophe.
_NON_WORD = regex.compile(r"(?:\A\p{M}+|[^\p{L}\p{N}\p{M}]\p{M}*)+")
_ASCII_NON_WORD = re.compile(r"[^a-z0-9]+")
# Soft hyphens, joiners and zero-width spaces.
_INVISIBLE = regex.compile(r"\p{Cf}+")
_BESIDE_UNSPACED = regex.compile(rf"(?<={UNSPACED}) | (?={UNSPACED})")
_BRACKETS = regex.compile(r"-[lr][rsc]b-")
_SPLIT_NEGATION = regex.compile(r"(?<=\p{L}) n t(?!\S)")
_SPLIT_CANNOT = regex.compile(r"(?<!\S)can not(?!\S)")


def normalize(text: str) -> str:
    """Normalise compatibility forms (NFKC), fold case, and replace everything between words by one space.

    Text in the style of the Penn Treebank (`does n't`, `can not`, `-LRB-`) becomes equal to running text, and spaces
    beside characters of a script without spaces are removed. A text without any word ("!!!") stays unchanged, so that
    such texts do not all become equal.
    """
    is_ascii = text.isascii()
    folded = text.casefold() if is_ascii else _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold()
    # Every text of a corpus is normalised, and few contain what these three patterns match, so test for it first.
    if "b-" in folded:
        folded = _BRACKETS.sub(" ", folded)
    folded = (_ASCII_NON_WORD if is_ascii else _NON_WORD).sub(" ", folded)
    if not is_ascii:
        folded = _BESIDE_UNSPACED.sub("", folded)
    if " n t" in folded:
        folded = _SPLIT_NEGATION.sub("n t", folded)
    if "can not" in folded:
        folded = _SPLIT_CANNOT.sub("cannot", folded)
    return folded.strip() or text


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """Return the hash of every text, (M,) uint64."""
    # xxhash 4 accepts only bytes. A lone surrogate cannot be encoded strictly, and must not stop a build.
    return np.fromiter((xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) for text in texts), np.uint64)


def first_of_equal(hashes: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Return (M,) int64: for each text the position of the text that is kept for it; its own position if it is kept.

    Args:
        hashes: (M,) hashes.
        priority: (M,) distinct numbers; the lowest of a group is kept, so the result does not depend on the order.
    """
    order = np.lexsort((priority, hashes))
    ordered = hashes[order]
    begins = np.ones(len(hashes), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    stays = np.empty(len(hashes), dtype=np.int64)
    stays[order] = order[begins][np.cumsum(begins) - 1]
    return stays


# --- nearly equal texts ----------------------------------------------------------------------------------------------

# Words of a shingle; in scripts without spaces, characters.
SHINGLE = 3
_PERMUTATIONS = 128
_SEED = 1
# An odd number without pattern (the fraction of the golden ratio): each bit affects about half of the higher bits of a
# product.
_MIXER = np.uint64(0x9E3779B97F4A7C15)
# A pair at the threshold shares a band, and so is compared, with at least this probability.
_RECALL = 0.99


def shingles(text: str) -> np.ndarray:
    """Return (S,) uint32, ascending distinct hashes of a text's shingles; a shorter text is one shingle."""
    # A text without any word is only similar to itself.
    words = units(text) or [text]
    parts = (" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1)))
    return np.unique(
        np.fromiter((xxhash.xxh32_intdigest(part.encode("utf-8", "surrogatepass")) for part in parts), dtype=np.uint32)
    )


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Jaccard similarity (intersection over union) of two sets, given as ascending distinct numbers."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


def rows_per_band(threshold: float) -> int:
    """Return the largest number of rows per band with which a pair at the threshold is still found."""
    for rows in range(_PERMUTATIONS, 1, -1):
        if 1 - (1 - threshold**rows) ** (_PERMUTATIONS // rows) >= _RECALL:
            return rows
    return 1


def find_near_duplicates(
    num_texts: int,
    texts_of: Callable[[np.ndarray], Iterable[list[str]]],
    threshold: float,
) -> np.ndarray:
    """Find the texts that are near-duplicates of a text that is kept.

    Texts are processed in order, and a text is dropped if it is a near-duplicate of an earlier kept text. So the
    result for the first texts does not depend on later ones.

    Args:
        num_texts: M.
        texts_of: Function from ascending positions to their texts, in batches.
        threshold: Minimum Jaccard similarity of near-duplicates.

    Returns:
        (M,) int64, the position of the kept text of which a text is a near-duplicate, or -1 for a kept text.

    Raises:
        ImportError: If datasketch is not installed.
    """
    bands = np.concatenate(
        [_band_hashes(texts, threshold) for texts in texts_of(np.arange(num_texts))] or [np.empty((0, 1), np.uint32)]
    )
    suspects = _share_a_band(bands)
    nearly = np.full(num_texts, -1, dtype=np.int64)
    kept: list[dict[int, list[int]]] = [{} for _ in range(bands.shape[1])]
    sets: dict[int, np.ndarray] = {}
    for position, text in zip(suspects.tolist(), _flat(texts_of(suspects)), strict=True):
        own = shingles(text)
        keys = bands[position].tolist()
        others = sorted({other for band, key in zip(kept, keys, strict=True) for other in band.get(key, ())})
        nearest = next((other for other in others if jaccard(own, sets[other]) >= threshold), None)
        if nearest is not None:
            nearly[position] = nearest
            continue
        sets[position] = own
        for band, key in zip(kept, keys, strict=True):
            band.setdefault(key, []).append(position)
    return nearly


def _band_hashes(texts: list[str], threshold: float) -> np.ndarray:
    """Return (M, B) uint32 band hashes; 32 bits are enough, because every pair is compared exactly."""
    datasketch: Any = require("datasketch", extra="near_duplicates", needed_by="`--deduplicate near`")
    # The shingles are already hashed.
    signatures = datasketch.MinHash.bulk(
        (shingles(text).tolist() for text in texts), num_perm=_PERMUTATIONS, seed=_SEED, hashfunc=int
    )
    rows = rows_per_band(threshold)
    num_bands = _PERMUTATIONS // rows
    values = np.stack([signature.hashvalues for signature in signatures])[:, : num_bands * rows]
    parts = values.astype(np.uint64).reshape(len(texts), num_bands, rows)
    mixed = np.zeros((len(texts), num_bands), dtype=np.uint64)
    for row in range(rows):
        mixed = (mixed ^ parts[:, :, row]) * _MIXER
    return (mixed >> np.uint64(32)).astype(np.uint32)


def _share_a_band(bands: np.ndarray) -> np.ndarray:
    """Return the ascending positions of texts that share a band with another."""
    shared = np.zeros(len(bands), dtype=bool)
    for band in bands.T:
        _, places, counts = np.unique(band, return_inverse=True, return_counts=True)
        shared |= counts[places] > 1
    return np.flatnonzero(shared)


def _flat(batches: Iterable[list[str]]) -> Iterator[str]:
    for batch in batches:
        yield from batch


# --- evaluation texts ------------------------------------------------------------------------------------------------

# An evaluation text is searched inside longer rows only if it has at least this many words: shorter ones ("a good
# movie") occur in unrelated sentences.
MIN_CONTAINED_WORDS = 8

# Odd, so that its powers do not vanish modulo 2**64.
_BASE = np.uint64(0x9E3779B97F4A7C15)


class EvaluationTexts:
    """The texts of validation and test sets.

    Args:
        texts: The texts; None and empty ones are ignored.
        contains: Whether to search for them inside longer rows too.
        ngram: Whether to search for rows that share this many consecutive words with one of them; 13 is the usual
            number (Brown et al. 2020, appendix C). Texts with fewer words have no n-gram.

    Raises:
        TypeError: If a text is not a string, or `texts` is a single text.
    """

    def __init__(self, texts: Iterable[str | None], *, contains: bool = False, ngram: int | None = None) -> None:
        # Rows of a corpus are cleaned before they are compared.
        cleaned = (clean(text) for text in several_texts(texts, "evaluation_texts") if text is not None)
        normalized = sorted({normalize(text) for text in cleaned if text})
        self.num_texts = len(normalized)
        self.contains, self.ngram = contains, ngram
        self._hashes = np.sort(hash_texts(normalized))
        self.checksum = xxhash.xxh3_64_hexdigest(self._hashes.astype("<u8").tobytes())
        self._by_opening: dict[str, list[str]] = {}
        for text in normalized if contains else ():
            words = units(text)
            if len(words) >= MIN_CONTAINED_WORDS:
                opening = " ".join(words[:MIN_CONTAINED_WORDS])
                self._by_opening.setdefault(opening, []).append(f" {' '.join(words)} ")
        self._ngrams = np.unique(ngram_hashes(normalized, ngram)[0]) if ngram else np.empty(0, np.uint64)

    def equal(self, normalized_hashes: np.ndarray) -> np.ndarray:
        """Return (M,) bool: which normalised rows, given by their hashes, equal an evaluation text."""
        return _among(normalized_hashes, self._hashes)

    def contained(self, normalized: Sequence[str]) -> np.ndarray:
        """Return (M,) bool: which normalised rows contain an evaluation text (`MIN_CONTAINED_WORDS` or more words)."""
        if not self._by_opening:
            return np.zeros(len(normalized), dtype=bool)
        return np.fromiter((self._holds_one(units(text)) for text in normalized), dtype=bool, count=len(normalized))

    def shared(self, normalized: Sequence[str]) -> np.ndarray:
        """Return (M,) bool: which normalised rows share an n-gram with an evaluation text."""
        found = np.zeros(len(normalized), dtype=bool)
        if self.ngram and len(self._ngrams):
            hashes, owners = ngram_hashes(normalized, self.ngram)
            found[owners[_among(hashes, self._ngrams)]] = True
        return found

    def _holds_one(self, words: list[str]) -> bool:
        text = f" {' '.join(words)} "
        for start in range(len(words) - MIN_CONTAINED_WORDS + 1):
            candidates = self._by_opening.get(" ".join(words[start : start + MIN_CONTAINED_WORDS]))
            if candidates and any(candidate in text for candidate in candidates):
                return True
        return False


def ngram_hashes(normalized: Sequence[str], ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all n-grams of some texts, and the text of each.

    The hash of an n-gram is the polynomial of its words' 64-bit hashes modulo 2**64, so that all n-grams of a batch
    are computed in n steps.

    Args:
        normalized: Normalised texts.
        ngram: n.

    Returns:
        uint64 hashes and int64 positions of the texts, of the same length.
    """
    split = [units(text) for text in normalized]
    lengths = np.fromiter(map(len, split), dtype=np.int64, count=len(split))
    owners = np.repeat(np.arange(len(split)), lengths)
    words = hash_texts(word for text in split for word in text)
    num_places = len(words) - ngram + 1
    if num_places <= 0:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    hashes = np.zeros(num_places, dtype=np.uint64)
    for offset in range(ngram):
        hashes = hashes * _BASE + words[offset : offset + num_places]
    within = owners[:num_places] == owners[ngram - 1 :]
    return hashes[within], owners[:num_places][within]


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return (M,) bool: which values are among the known ones, which must be ascending."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return known[places] == values
