"""Batches that train an encoder to generate text (UniLM; MiniLM supplement, section 5).

A row is `[CLS] source [SEP] target`, and a mask lets every token of the target see the source and the target tokens
before it. There are two training objectives:

- `pseudo` (UniLM v2): after the target there is, for each of its tokens and for the separator that ends it, a [MASK]
  at that token's position, which sees the source, the *true* target before it, and itself. All tokens are trained in
  one pass, under the same conditions as in generation. The row has n_s + 2 n_t - 1 tokens.
- `shift` (v0): each token predicts the next one, as in a causal model; n_s + n_t - 1 tokens.

The target's own separator is never in the row: no later token could see it.

Shape legend: B rows, S padded length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_distill.generation.settings import WAYS

# The label of tokens that predict nothing.
IGNORED = -100
# BERT's noise: a share of the masks is replaced by the true token, another share by a random token.
KEPT, RANDOM = 0.1, 0.1

# Attention pattern: a query sees the keys whose order is at most its reach, and itself.
_UNSEEN = torch.iinfo(torch.long).max
_BLIND = -1


@dataclass(frozen=True)
class SpecialIds:
    """Ids that packing and decoding need.

    Attributes:
        begin: First token of a row ([CLS]).
        separator: Last token of source and target ([SEP]).
        mask: Placeholder of a token to predict ([MASK]).
        pad: Padding token.
        vocabulary_size: All ids are below it.
    """

    begin: int
    separator: int
    mask: int
    pad: int
    vocabulary_size: int

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> SpecialIds:
        """Read the ids from a tokenizer.

        Raises:
            ValueError: If the tokenizer lacks one of the special tokens.
        """
        names = {"begin": "cls_token", "separator": "sep_token", "mask": "mask_token", "pad": "pad_token"}
        ids: dict[str, Any] = {ours: getattr(tokenizer, f"{name}_id", None) for ours, name in names.items()}
        missing = [names[ours] for ours, value in ids.items() if value is None]
        if missing:
            raise ValueError(
                f"{type(tokenizer).__name__} has no {', '.join(missing)}: generation needs the tokenizer of an "
                "encoder, with cls_token, sep_token, mask_token and pad_token."
            )
        # Some vocabularies have gaps.
        return cls(**ids, vocabulary_size=max(tokenizer.get_vocab().values()) + 1)


@dataclass
class _Row:
    """One packed row; all lists have its length."""

    tokens: list[int]
    positions: list[int]
    types: list[int]
    labels: list[int]
    order: list[int] = field(default_factory=list)
    reach: list[int] = field(default_factory=list)


def pack(
    way: str,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    ids: SpecialIds,
    *,
    max_source_length: int,
    max_target_length: int,
    noise: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Make a batch for a way: see `pack_pseudo_masked`, and for `shift`, which has no noise, `pack_shifted`.

    Raises:
        ValueError: If the way is unknown, and as they do.
    """
    if way not in WAYS:
        raise ValueError(f"`way` is {way!r}, but must be one of {', '.join(WAYS)}.")
    lengths = {"max_source_length": max_source_length, "max_target_length": max_target_length}
    if way == "shift":
        return pack_shifted(sources, targets, ids, **lengths)
    return pack_pseudo_masked(sources, targets, ids, **lengths, noise=noise)


def pack_pseudo_masked(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    ids: SpecialIds,
    *,
    max_source_length: int,
    max_target_length: int,
    noise: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Make a batch for the way `pseudo`.

    Args:
        sources: Token ids without special tokens at the ends; longer ones lose their end.
        targets: Token ids without special tokens at the ends; longer ones lose their end.
        ids: The special ids.
        max_source_length: Maximum tokens of a source, including [CLS] and [SEP].
        max_target_length: Maximum tokens of a target, including its [SEP].
        noise: For training, the generator of the noise (checkpoints store `torch.default_generator`): a share `KEPT`
            of the masks is replaced by the true token and a share `RANDOM` by a random token. None for evaluation.

    Returns:
        `input_ids`, `position_ids`, `token_type_ids` and `labels` (-100 where nothing is predicted), each (B, S), and
        `attention_mask`, (B, 1, S, S), which is added to attention scores.

    Raises:
        ValueError: If the numbers of sources and targets differ or a length leaves no room for the special tokens.
    """
    rows = []
    for source, target in _pairs(sources, targets, ids, max_source_length, max_target_length):
        row = _source_row(source)
        start, written = len(source), len(target) - 1
        row.tokens += target[:-1] + [ids.mask] * len(target)
        row.positions += [*range(start, start + written), *range(start, start + written + 1)]
        row.types += [1] * (written + len(target))
        row.labels += [IGNORED] * written + target
        row.order += [*range(1, written + 1), *[_UNSEEN] * len(target)]
        row.reach += [*range(1, written + 1), *range(written + 1)]
        rows.append(row)
    batch = _batch(rows, ids)
    if noise is not None:
        batch["input_ids"] = _noisy(batch, ids, noise)
    return batch


def pack_shifted(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    ids: SpecialIds,
    *,
    max_source_length: int,
    max_target_length: int,
) -> dict[str, Tensor]:
    """Make a batch for the way `shift`; see `pack_pseudo_masked`. The source's [SEP] predicts the first token."""
    rows = []
    for source, target in _pairs(sources, targets, ids, max_source_length, max_target_length):
        row = _source_row(source)
        start, written = len(source), len(target) - 1
        row.tokens += target[:-1]
        row.positions += range(start, start + written)
        row.types += [1] * written
        row.labels = row.labels[:-1] + target
        row.order += range(1, written + 1)
        row.reach += range(1, written + 1)
        rows.append(row)
    return _batch(rows, ids)


def attention_bias(order: Tensor, reach: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the bias for attention scores that lets each token see only the tokens that it may see.

    A float mask is the only kind that every attention of transformers interprets in the same way: eager attention adds
    a boolean mask of four dimensions as 0 and 1.

    Args:
        order: (B, S) position of a key in the order of generation: 0 in the source, 1 at the first token of the
            target, and so on; the largest integer for keys that only they themselves see.
        reach: (B, S) the largest order of the keys that a query sees. Every token sees itself.
        dtype: Dtype of the result.

    Returns:
        (B, 1, S, S) of 0 and the smallest number of `dtype`.
    """
    seen = order[:, None, :] <= reach[:, :, None]
    seen = seen | torch.eye(order.shape[1], dtype=torch.bool, device=order.device)
    bias = torch.zeros(seen.shape, dtype=dtype, device=order.device)
    return bias.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _pairs(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    ids: SpecialIds,
    max_source_length: int,
    max_target_length: int,
) -> list[tuple[list[int], list[int]]]:
    """Sources and targets, truncated, with their special tokens."""
    if len(sources) != len(targets):
        raise ValueError(f"There are {len(sources)} sources but {len(targets)} targets.")
    for name, value, least in (("source", max_source_length, 3), ("target", max_target_length, 1)):
        if value < least:
            raise ValueError(f"`max_{name}_length` is {value}, but must be at least {least}.")
    return [
        (
            [ids.begin, *source[: max_source_length - 2], ids.separator],
            [*target[: max_target_length - 1], ids.separator],
        )
        for source, target in zip(sources, targets, strict=True)
    ]


def _source_row(source: list[int]) -> _Row:
    length = len(source)
    blank = [0] * length
    return _Row([*source], [*range(length)], [*blank], [IGNORED] * length, [*blank], [*blank])


def _batch(rows: Sequence[_Row], ids: SpecialIds) -> dict[str, Tensor]:
    """Pad rows to the longest. A padding token sees only itself: a softmax over no keys would be NaN."""
    length = max((len(row.tokens) for row in rows), default=0)

    def padded(name: str, value: int) -> Tensor:
        filled = [getattr(row, name) + [value] * (length - len(row.tokens)) for row in rows]
        return torch.tensor(filled, dtype=torch.long).view(len(rows), length)

    return {
        "input_ids": padded("tokens", ids.pad),
        "position_ids": padded("positions", 0),
        "token_type_ids": padded("types", 0),
        "attention_mask": attention_bias(padded("order", _UNSEEN), padded("reach", _BLIND)),
        "labels": padded("labels", IGNORED),
    }


def _noisy(batch: dict[str, Tensor], ids: SpecialIds, noise: torch.Generator) -> Tensor:
    """Return the tokens with some masks replaced by the true token or by a random one."""
    tokens, labels = batch["input_ids"], batch["labels"]
    draw = torch.rand(tokens.shape, generator=noise).masked_fill(labels == IGNORED, 1.0)
    any_token = torch.randint(ids.vocabulary_size, tokens.shape, generator=noise)
    tokens = torch.where(draw < KEPT, labels, tokens)
    return torch.where((draw >= KEPT) & (draw < KEPT + RANDOM), any_token, tokens)
