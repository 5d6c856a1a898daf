"""Replacement candidates for each word of a text, from a masked language model or from similar embeddings.

A word that is a single piece for the model is masked. A word of several pieces gets its nearest neighbours among
embeddings (TinyBERT, data augmentation). A word without candidates is never replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from hf_distill.hub.loading import update_digest
from hf_distill.hub.tokenizers import tokenizer_hash

from .embeddings import Neighbours, PieceVectors, WordVectors
from .words import BEYOND_LIMIT, SEVERAL_PIECES, STAYS, SplitText, WordSplitter, check_tokenizer

if TYPE_CHECKING:
    from hf_distill.settings import AugmentationArguments

# Counts over all distinct texts.
COUNTS = ("texts", "words", "one_piece", "several_pieces", "beyond_limit", "without_candidates", "rechecked")


@dataclass(frozen=True)
class WordCandidates:
    """A text as words.

    Attributes:
        words: Its words.
        candidates: For each word its possible replacements; empty for a word that stays.
    """

    words: list[str]
    candidates: list[list[str]]


class CandidateFinder:
    """Finds candidates with one model and one table of embeddings; every process has its own instance.

    Args:
        args: Model, embeddings and rules.
        masked_lm: The model in float32, if it is already loaded.
        tokenizer: Its tokenizer.

    Raises:
        OSError: If model or embeddings do not exist.
        ValueError: If they cannot be used.
    """

    def __init__(self, args: AugmentationArguments, masked_lm: Any = None, tokenizer: Any = None) -> None:
        import torch

        from hf_distill.kernels.cpu import configure_fp32_matmul

        from .masked_lm import MaskedLMCandidates, load_masked_lm, max_tokens

        if masked_lm is None:
            if args.masked_lm is None:
                raise ValueError("`--masked_lm` is missing: give the Hub id or folder of a masked language model.")
            masked_lm, tokenizer = load_masked_lm(args.masked_lm, args.masked_lm_revision)
            if not args.use_cpu:
                masked_lm.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
        check_tokenizer(tokenizer)
        configure_fp32_matmul()
        self.args = args
        self._num_neighbours = args.num_candidates
        self._weights = xxhash.xxh3_128()
        update_digest(self._weights, masked_lm.state_dict())
        vectors = masked_lm.get_input_embeddings().weight.detach().float().cpu().numpy()
        self._by_mask = MaskedLMCandidates(
            masked_lm.to(getattr(torch, args.masked_lm_dtype)),
            tokenizer,
            num_candidates=args.num_candidates,
            exclude_original=args.exclude_original,
            exclude_special=args.excludes_special,
            batch_tokens=args.batch_tokens,
        )
        self._splitter = WordSplitter(
            tokenizer,
            args.language,
            max_tokens=max_tokens(masked_lm, tokenizer),
            tinybert_words=args.tinybert_compat,
        )

        self._by_embedding: Neighbours = (
            PieceVectors(tokenizer, vectors, self._by_mask.vocabulary)
            if args.embeddings is None
            else WordVectors.read(Path(args.embeddings), args.embedding_words)
        )

    def describe(self) -> dict[str, Any]:
        """Return everything about model and embeddings that affects the candidates, as JSON values."""
        return {
            "masked_lm": type(self._by_mask.model).__name__,
            "weights": self._weights.hexdigest(),
            "tokenizer": tokenizer_hash(self._by_mask.tokenizer),
            "lower_case": self._splitter.lower_case,
            "max_tokens": self._splitter.max_tokens,
            "dtype": self.args.masked_lm_dtype,
            # In float32 the batch size does not affect the candidates.
            "batch_tokens": None if self.args.masked_lm_dtype == "float32" else self._by_mask.batch_tokens,
            "embeddings": self._by_embedding.describe(),
        }

    def __call__(
        self, texts: Sequence[str], progress: Callable[[int], Any] = lambda _: None
    ) -> tuple[list[WordCandidates], dict[str, int]]:
        """Return the candidates for some texts.

        Args:
            texts: The texts, all different.
            progress: Called from time to time with a number of texts; the numbers add up to all texts.

        Returns:
            One entry for each text, and the counts (`COUNTS`).
        """
        rechecked = self._by_mask.rechecked
        splits = self._splitter.split(texts)
        progress(sum(1 for split in splits if max(split.places, default=STAYS) < 0))
        masked = self._by_mask(splits, progress)
        neighbours = self._neighbours_of(splits)
        counts = Counter(dict.fromkeys(COUNTS, 0))
        found = []
        for split, of_mask in zip(splits, masked, strict=True):
            candidates: list[list[str]] = []
            for word, place in enumerate(split.places):
                text = split.words[word]
                if place == STAYS:
                    candidates.append([])
                    continue
                if place == SEVERAL_PIECES:
                    counts["several_pieces"] += 1
                elif place == BEYOND_LIMIT:
                    counts["beyond_limit"] += 1
                else:
                    counts["one_piece"] += 1
                these = neighbours.get(text, []) if place == SEVERAL_PIECES else of_mask.get(word, [])
                counts["without_candidates"] += not these
                candidates.append(these or [text])
            counts["words"] += len(split.words)
            found.append(WordCandidates(split.words, candidates))
        counts["texts"] = len(texts)
        counts["rechecked"] = self._by_mask.rechecked - rechecked
        return found, dict(counts)

    def _neighbours_of(self, splits: Sequence[SplitText]) -> dict[str, list[str]]:
        """Return the neighbours of every word of several pieces; each word is looked up once."""
        words = dict.fromkeys(
            word
            for split in splits
            for word, place in zip(split.words, split.places, strict=True)
            if place == SEVERAL_PIECES
        )
        found = self._by_embedding.neighbours(list(words), self._num_neighbours)
        return dict(zip(words, found, strict=True))
