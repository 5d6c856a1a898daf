"""Beam search over many sources at once (UniLM's algorithm, as used in MiniLM's supplement).

The beam has K places for each source. In a step, the K best continuations of a source's open hypotheses are kept.
Those that end with the separator are finished: they free their places for the next step, and are ranked by `log p /
((5 + length) / 6) ** alpha`. A source is done when no open hypothesis can win any more; this early stop does not
change the result.

Shape legend: B open sources, K hypotheses of each (1 before the first step), N = B * K, T generated tokens, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence, Set as AbstractSet
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from hf_distill.capture.forward import evaluating
from hf_distill.generation.cache import KeyValueCache, caching_attention
from hf_distill.generation.packing import IGNORED, attention_bias, pack
from hf_distill.generation.settings import GenerationSettings

# Finished sources are removed when at most this share is open, because removal copies the keys of the others.
_OPEN_SHARE = 0.75
_NEVER = float("-inf")


class Hypothesis(NamedTuple):
    """A generated text.

    Attributes:
        tokens: Its token ids, without the separator.
        score: `log p / ((5 + length) / 6) ** alpha`; the separator is included in both.
    """

    tokens: list[int]
    score: float


class Steps(Protocol):
    """A source of next-token logits."""

    def start(self) -> Tensor:
        """Return (B, V) logits of the first token."""

    def advance(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Return (N, V) next-token logits of the hypotheses.

        Args:
            rows: (N,) index of the hypothesis of the previous call that each one continues.
            tokens: (N, T) all tokens of each hypothesis.
        """

    def select_sources(self, sources: Tensor) -> None:
        """Continue with the sources of these indices; the next `advance` counts only their hypotheses."""


def beam_search(
    model: Any,
    source_ids: Sequence[Sequence[int]],
    settings: GenerationSettings,
    *,
    tokenizer: Any = None,
) -> list[list[int]]:
    """Generate a text for each source.

    Args:
        model: The model.
        source_ids: Token ids of the sources, without special tokens at the ends.
        settings: Settings of the generation.
        tokenizer: Needed only for `settings.ngram_ignore`.

    Returns:
        Token ids of the texts, in the order of the sources.

    Raises:
        ValueError: If a source and its text have more tokens than the model has positions, or a token of
            `settings.ngram_ignore` is unknown.
    """
    return [found.tokens for found in best_hypotheses(model, source_ids, settings, tokenizer=tokenizer)]


def best_hypotheses(
    model: Any,
    source_ids: Sequence[Sequence[int]],
    settings: GenerationSettings,
    *,
    tokenizer: Any = None,
) -> list[Hypothesis]:
    """Generate a text for each source as `beam_search` does, with its score."""
    _check_length(model, source_ids, settings)
    repeatable = _ignored_ids(model, settings, tokenizer)
    # Batch sources of similar length, longest first, so that an out-of-memory error occurs at once or never.
    order = sorted(range(len(source_ids)), key=lambda index: -len(source_ids[index]))
    found: dict[int, Hypothesis] = {}
    with evaluating(model), caching_attention(model.masked_lm):
        for start in range(0, len(order), settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            steps = CachedSteps(model, [source_ids[index] for index in chosen], settings)
            results = Search(steps, len(chosen), settings, model.ids, repeatable, steps.device).run()
            found.update(zip(chosen, results, strict=True))
    return [found[index] for index in range(len(source_ids))]


class Search:
    """Beam search over one batch of sources.

    Args:
        steps: Source of the logits.
        num_sources: B at the start.
        settings: Settings of the generation.
        ids: The special ids.
        repeatable: Tokens whose n-grams may repeat.
        device: Device of the logits.
    """

    def __init__(
        self,
        steps: Steps,
        num_sources: int,
        settings: GenerationSettings,
        ids: Any,
        repeatable: AbstractSet[int] = frozenset(),
        device: torch.device | str = "cpu",
    ) -> None:
        self.steps = steps
        self.settings = settings
        self.separator = ids.separator
        # Special tokens are never generated; neither are rows of the embeddings beyond the vocabulary.
        self.unwritable = [ids.begin, ids.mask, ids.pad]
        self.vocabulary_size = ids.vocabulary_size
        self.repeatable = repeatable
        self.results = [Hypothesis([], _NEVER)] * num_sources
        # For the open sources: indices, best finished score, and scores and tokens of their open hypotheses.
        self.sources = torch.arange(num_sources, device=device)
        self.best = torch.full((num_sources,), _NEVER, device=device)
        self.scores = torch.zeros(num_sources, 1, device=device)
        self.tokens = torch.zeros(num_sources, 1, 0, dtype=torch.long, device=device)

    def run(self) -> list[Hypothesis]:
        """Return the best hypothesis of each source.

        Raises:
            ValueError: If the model's logits are NaN.
        """
        logits = self.steps.start()
        while True:
            rows = self._continue(logits.float())
            done = self._done()
            if done.all():
                return self.results
            self.scores[done] = _NEVER
            if (~done).sum() <= _OPEN_SHARE * len(done):
                rows = self._drop(done, rows)
            logits = self.steps.advance(rows.flatten(), self.tokens.flatten(0, 1))

    def _continue(self, logits: Tensor) -> Tensor:
        """Replace the hypotheses of each source by their best continuations.

        Args:
            logits: (N, V).

        Returns:
            (B, K) index of the hypothesis that each new one continues.
        """
        num_sources, before = self.scores.shape
        normalizer = logits.logsumexp(dim=-1, keepdim=True)
        if normalizer.isnan().any():
            raise ValueError("The model's logits are NaN: its training has diverged.")
        self._forbid(logits)
        places = min(self.settings.num_beams, logits.shape[-1])
        # The best of a source are among the best of each of its hypotheses.
        values, tokens = logits.topk(places, dim=-1)
        values = (values - normalizer + self.scores.view(-1, 1)).view(num_sources, -1)
        scores, chosen = values.topk(places, dim=-1)
        parents = chosen // places
        written = self.tokens.gather(1, parents[..., None].expand(-1, -1, self.tokens.shape[-1]))
        self.tokens = torch.cat([written, tokens.view(num_sources, -1).gather(1, chosen)[..., None]], dim=-1)
        self._finish(scores)
        return parents + before * torch.arange(num_sources, device=parents.device)[:, None]

    def _forbid(self, logits: Tensor) -> None:
        """Exclude tokens that must not come next, in place."""
        settings = self.settings
        logits[:, self.unwritable] = _NEVER
        logits[:, self.vocabulary_size :] = _NEVER
        if self.tokens.shape[-1] < settings.min_new_tokens:
            logits[:, self.separator] = _NEVER
        if settings.no_repeat_ngram_size:
            for row, tokens in enumerate(self.tokens.flatten(0, 1).tolist()):
                banned = repeating_tokens(tokens, settings.no_repeat_ngram_size, self.repeatable)
                logits[row, sorted(banned)] = _NEVER

    def _finish(self, scores: Tensor) -> None:
        """Rank finished hypotheses, at the last step all of them; only open ones keep their (B, K) scores."""
        ended = self.tokens[..., -1] == self.separator
        length = self.tokens.shape[-1]
        competing = ended if length < self.settings.max_new_tokens else torch.ones_like(ended)
        final = (scores / self._penalty(length)).masked_fill(~competing, _NEVER)
        best, place = final.max(dim=-1)
        for row in (best > self.best).nonzero()[:, 0].tolist():
            tokens = self.tokens[row, place[row]].tolist()
            kept = tokens[:-1] if tokens[-1] == self.separator else tokens
            self.results[int(self.sources[row])] = Hypothesis(kept, best[row].item())
        self.best = torch.maximum(self.best, best)
        self.scores = scores.masked_fill(competing, _NEVER)

    def _done(self) -> Tensor:
        """(B,) whether no open hypothesis can win: log p only decreases, and its divisor is largest at full length."""
        length = min(self.tokens.shape[-1] + 1, self.settings.max_new_tokens)
        largest = max(self._penalty(length), self._penalty(self.settings.max_new_tokens))
        return self.best >= self.scores.max(dim=-1).values / largest

    def _drop(self, done: Tensor, rows: Tensor) -> Tensor:
        """Remove sources that are done; return the (B', K) rows of the others among their hypotheses."""
        left = (~done).nonzero()[:, 0]
        self.sources, self.best = self.sources[left], self.best[left]
        self.scores, self.tokens = self.scores[left], self.tokens[left]
        self.steps.select_sources(left)
        return rows[left]

    def _penalty(self, length: int) -> float:
        return ((5 + length) / 6) ** self.settings.length_penalty


def repeating_tokens(tokens: Sequence[int], size: int, repeatable: AbstractSet[int]) -> set[int]:
    """Tokens that would complete an n-gram that the text already has.

    Args:
        tokens: The text.
        size: n.
        repeatable: N-grams with one of these may repeat.
    """
    tail = list(tokens[len(tokens) - size + 1 :])
    if len(tokens) < size or not repeatable.isdisjoint(tail):
        return set()
    ends = range(size - 1, len(tokens))
    return {tokens[end] for end in ends if list(tokens[end - size + 1 : end]) == tail} - repeatable


def _check_length(model: Any, source_ids: Sequence[Sequence[int]], settings: GenerationSettings) -> None:
    longest = min(max(map(len, source_ids), default=0) + 2, settings.max_source_length)
    if longest + settings.max_new_tokens > model.max_length:
        raise ValueError(
            f"A source has {longest} tokens and `max_new_tokens` is {settings.max_new_tokens}, but the model has "
            f"{model.max_length} positions: lower `max_source_length` ({settings.max_source_length}) or "
            "`max_new_tokens`, or make room with `EncoderForGeneration.lengthen`."
        )


def _ignored_ids(model: Any, settings: GenerationSettings, tokenizer: Any) -> frozenset[int]:
    if not settings.no_repeat_ngram_size or not settings.ngram_ignore:
        return frozenset()
    tokenizer = model.tokenizer if tokenizer is None else tokenizer
    if tokenizer is None:
        raise ValueError(
            f"`ngram_ignore` is {settings.ngram_ignore}, but there is no `tokenizer` that knows their ids."
        )
    vocabulary = tokenizer.get_vocab()
    unknown = [token for token in settings.ngram_ignore if token not in vocabulary]
    if unknown:
        raise ValueError(f"`ngram_ignore` has {unknown}, which are no tokens of the tokenizer's vocabulary.")
    return frozenset(vocabulary[token] for token in settings.ngram_ignore)


class CachedSteps:
    """The decoding steps for one batch of sources; the model must run within `caching_attention`.

    Args:
        model: The model.
        source_ids: Token ids of the B sources.
        settings: Settings with the maximum lengths.
    """

    def __init__(self, model: Any, source_ids: Sequence[Sequence[int]], settings: GenerationSettings) -> None:
        self.model = model
        self.device = model.masked_lm.device
        # Pack pairs with an empty target: the position that learns to end it then predicts the first token.
        batch = pack(
            model.way,
            source_ids,
            [[]] * len(source_ids),
            model.ids,
            max_source_length=settings.max_source_length,
            max_target_length=1,
        )
        self.batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        # The real tokens of the source are those that [CLS] sees.
        source_bias = self.batch["attention_mask"][:, :, :1].to(model.masked_lm.dtype)
        source_bias = source_bias.clamp_min(torch.finfo(model.masked_lm.dtype).min)
        self.cache = KeyValueCache(source_bias)
        self.lengths = (source_bias == 0).sum(dim=-1).flatten()
        # The tokens of a step: the last generated one and, in `pseudo`, a [MASK] that the token does not see.
        masks = [model.ids.mask] if model.way == "pseudo" else []
        self.masks = torch.tensor(masks, dtype=torch.long, device=self.device)
        order = torch.arange(1 + len(masks), device=self.device)[None]
        self.bias = attention_bias(order, order)

    def start(self) -> Tensor:
        """Return (B, V) logits of the first token."""
        rows, columns = (self.batch.pop("labels") != IGNORED).nonzero(as_tuple=True)
        with self.cache.in_use():
            return self.model.predict(**self.batch, rows=rows, columns=columns)

    def advance(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Return (N, V) logits of the next token.

        Args:
            rows: (N,) index of the hypothesis of the previous call that each one continues.
            tokens: (N, T) all tokens of each hypothesis.
        """
        self.cache.select_hypotheses(rows)
        count, written = tokens.shape
        input_ids = torch.cat([tokens[:, -1:], self.masks.expand(count, -1)], dim=1)
        width = input_ids.shape[1]
        lengths = self.lengths.repeat_interleave(count // len(self.lengths))
        positions = lengths[:, None] + torch.arange(written - 1, written - 1 + width, device=self.device)
        with self.cache.in_use():
            return self.model.predict(
                input_ids,
                positions,
                torch.ones_like(input_ids),
                self.bias,
                torch.arange(count, device=self.device),
                torch.full((count,), width - 1, device=self.device),
            )

    def select_sources(self, sources: Tensor) -> None:
        """Continue with the sources of these indices."""
        self.cache.select_sources(sources)
        self.lengths = self.lengths[sources]
