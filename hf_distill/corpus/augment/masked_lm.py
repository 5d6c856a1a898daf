"""A masked language model proposes words that could replace a word (TinyBERT, data augmentation).

The input is the text with one word masked, followed by the whole text. Every masked word is a separate row; rows of
similar length from all texts are batched together, and the head is applied only at the masked tokens.

**What is guaranteed.** The candidates of a word are the K pieces with the largest logits, ordered by id, so that the
order of close logits does not matter. If the K-th largest logit exceeds the next by more than `TOO_CLOSE`, the batch
decides which pieces are among the K; the few other rows are computed again in float64. Ties go to the lower id. The
result is therefore the same for any batch size, number of workers or threads, and device, as long as the error of
float32 logits is less than half of `TOO_CLOSE`. In bfloat16 the error is larger than the differences between logits:
the result is then the same for any number of workers, but may depend on batch size and device.

This is the only module of `corpus` that needs torch; it is imported where a model is used.

Shape legend: B rows, T tokens, N masked rows in total, K candidates, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM

from hf_distill.capture.architectures import forward_columns
from hf_distill.capture.forward import logits_at
from hf_distill.hub.loading import UNREADABLE, load_error, load_tokenizer

from .words import MAX_TOKENS, SplitText, Vocabulary

# Large enough for efficient matrix products; on the CPU small enough for intermediate results to stay in the cache.
CPU_TOKENS, ACCELERATOR_TOKENS = 1024, 16_384
# The same logit differs between batches by about 1e-5.
TOO_CLOSE = 2e-4


class MaskedLMCandidates:
    """Candidates for words that are a single piece.

    Args:
        model: A model with a masked-LM head, in float32 or bfloat16; it is frozen and put into eval mode on its
            device.
        tokenizer: Its tokenizer.
        num_candidates: K.
        exclude_original: Whether the masked word itself is excluded.
        exclude_special: Whether pieces that are not words (special and unused tokens, punctuation) are excluded.
        batch_tokens: Tokens of one forward pass, padding included; `None` takes a default for the model's device.

    Attributes:
        rechecked: Number of words so far that were decided in float64.

    Raises:
        ValueError: If the vocabulary has at most K pieces.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        num_candidates: int,
        exclude_original: bool,
        exclude_special: bool,
        batch_tokens: int | None = None,
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        on_cpu = self.model.device.type == "cpu"
        if on_cpu:
            # For these short rows, torch's fused attention on the CPU is several times slower than plain products.
            self.model.set_attn_implementation("eager")
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary.of(tokenizer)
        if num_candidates >= len(self.vocabulary.texts):
            raise ValueError(
                f"`--num_candidates` is {num_candidates}, but the model has only {len(self.vocabulary.texts)} pieces."
            )
        self.num_candidates = num_candidates
        self.exclude_original = exclude_original
        self.exclude_special = exclude_special
        self.batch_tokens = batch_tokens or (CPU_TOKENS if on_cpu else ACCELERATOR_TOKENS)
        self.rechecked = 0
        self._names = [name for name in ("token_type_ids",) if name in forward_columns(model)]

    @torch.no_grad()
    def __call__(
        self, texts: Sequence[SplitText], progress: Callable[[int], Any] = lambda _: None
    ) -> list[dict[int, list[str]]]:
        """Return candidates for every word of some texts that is a single piece.

        Args:
            texts: The texts.
            progress: Called with the number of texts that each batch has begun.

        Returns:
            For each text: word -> candidates, ordered by id; empty if all were excluded.
        """
        masked = [(text, word) for text, split in enumerate(texts) for word, at in enumerate(split.places) if at >= 0]
        lengths = np.array([len(texts[text].inputs["input_ids"]) for text, _ in masked], dtype=np.int64)
        # All masked words of a text give rows of the same length, so they stay together.
        order = np.argsort(-lengths, kind="stable")
        begins_text = np.array([row == 0 or masked[row - 1][0] != text for row, (text, _) in enumerate(masked)])
        best = np.zeros((len(masked), self.num_candidates), dtype=np.int64)
        close: list[int] = []
        for chosen in self._batches(order, lengths):
            best[chosen], gaps = self._best(texts, [masked[row] for row in chosen])
            close.extend(chosen[gaps <= TOO_CLOSE].tolist())
            progress(int(begins_text[chosen].sum()))
        if close and self.model.dtype == torch.float32:
            self._decide(texts, masked, best, np.array(close), lengths)
        found: list[dict[int, list[str]]] = [{} for _ in texts]
        for (text, word), ids in zip(masked, np.sort(best, axis=1), strict=True):
            found[text][word] = self._words(texts[text], word, ids)
        return found

    def _batches(self, order: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Return the rows, longest first, in batches of at most `batch_tokens` with padding."""
        parts, start = [], 0
        while start < len(order):
            size = max(1, self.batch_tokens // int(lengths[order[start]]))
            parts.append(order[start : start + size])
            start += size
        return parts

    def _logits(self, texts: Sequence[SplitText], rows: Sequence[tuple[int, int]]) -> Tensor:
        """Return (B, V) logits at the masked words of B rows; ids that the tokenizer does not have get -inf."""
        splits = [texts[text] for text, _ in rows]
        longest = max(len(split.inputs["input_ids"]) for split in splits)
        shape = (len(rows), longest)
        ids = np.full(shape, self.tokenizer.pad_token_id or 0, dtype=np.int64)
        inputs = {"attention_mask": np.zeros(shape, dtype=np.int64)}
        inputs |= {name: np.zeros(shape, dtype=np.int64) for name in self._names if name in splits[0].inputs}
        for row, split in enumerate(splits):
            length = len(split.inputs["input_ids"])
            ids[row, :length] = split.inputs["input_ids"]
            inputs["attention_mask"][row, :length] = 1
            for name in inputs.keys() & split.inputs.keys():
                inputs[name][row, :length] = split.inputs[name]
        places = np.array([texts[text].places[word] for text, word in rows])
        ids[np.arange(len(rows)), places] = self.tokenizer.mask_token_id
        on_device = {name: torch.from_numpy(array).to(self.model.device) for name, array in inputs.items()}
        on_device["input_ids"] = torch.from_numpy(ids).to(self.model.device)
        at = torch.from_numpy(places).to(self.model.device)
        logits = logits_at(self.model, on_device, torch.arange(len(rows), device=self.model.device), at)
        # Some models have more logits than their tokenizer has pieces.
        logits[:, len(self.vocabulary.texts) :] = -torch.inf
        return logits

    def _best(self, texts: Sequence[SplitText], rows: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """Return (B, K) ids of the largest logits, and (B,) the gap between the K-th logit and the next."""
        logits = self._logits(texts, rows)
        values, ids = logits.topk(self.num_candidates + 1)
        gaps, ids = values[:, -2] - values[:, -1], ids[:, :-1]
        tied = gaps == 0
        if tied.any():
            ids[tied] = _lowest_of_equal(logits[tied], values[tied, -2:-1], self.num_candidates)
        return ids.cpu().numpy(), gaps.double().cpu().numpy()

    def _decide(
        self,
        texts: Sequence[SplitText],
        masked: Sequence[tuple[int, int]],
        best: np.ndarray,
        close: np.ndarray,
        lengths: np.ndarray,
    ) -> None:
        """Replace the best ids of rows with close logits by those from float64."""
        self.rechecked += len(close)
        # Every float32 is exactly representable in float64, so the weights can be converted back unchanged.
        self.model.double()
        try:
            for chosen in self._batches(close, lengths):
                best[chosen], _ = self._best(texts, [masked[row] for row in chosen])
        finally:
            self.model.float()

    def _words(self, split: SplitText, word: int, ids: np.ndarray) -> list[str]:
        """Return the candidates as words: pieces that begin a word if the masked piece does; some are excluded."""
        original = split.inputs["input_ids"][split.places[word]]
        kept = ids[self.vocabulary.begins[ids] == self.vocabulary.begins[original]]
        if self.exclude_special:
            kept = kept[self.vocabulary.is_word[kept]]
        texts = [self.vocabulary.texts[index] for index in kept.tolist()]
        if self.exclude_original:
            texts = [text for text in texts if text.lower() != split.words[word].lower()]
        return [text for text in texts if text]


def _lowest_of_equal(logits: Tensor, last: Tensor, count: int) -> Tensor:
    """Return (B, count) ids of the largest logits; among those equal to the last (B, 1), the lowest ids."""
    ahead, equal = logits > last, logits == last
    room = count - ahead.sum(dim=1, keepdim=True)
    return (ahead | (equal & (equal.cumsum(dim=1) <= room))).nonzero()[:, 1].view(-1, count)


def load_masked_lm(name: str, revision: str | None = None) -> tuple[Any, Any]:
    """Load a model with a masked-LM head, in float32, and its tokenizer.

    Args:
        name: Hub id or local folder.
        revision: Branch, tag or commit.

    Raises:
        OSError: If the model does not exist.
        ValueError: If the model has no masked-LM head.
    """
    tokenizer = load_tokenizer(name, flag="--masked_lm", revision=revision)
    try:
        model, loading = AutoModelForMaskedLM.from_pretrained(
            name, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    except UNREADABLE as error:
        raise load_error(name, error, flag="--masked_lm") from error
    encoder = f"{model.base_model_prefix}."
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith(encoder) and key.endswith("weight"))
    if missing:
        raise ValueError(
            f"`--masked_lm` {name!r} is an encoder without a masked-LM head (it lacks {', '.join(missing)}). Name a "
            "masked language model, or fit a head on this encoder: `hf-distill mlm`."
        )
    return model, tokenizer


def max_tokens(model: Any, tokenizer: Any) -> int:
    """Return the maximum input length of a model, limited to `MAX_TOKENS`."""
    limits = [MAX_TOKENS, tokenizer.model_max_length]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa's first position is the one after the padding index.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - first)
    return min(limits)
