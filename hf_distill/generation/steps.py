"""Logits of the next tokens, computed with the keys and values of what came before.

Shape legend: B sources, N hypotheses, T tokens written, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_distill.generation.cache import KeyValueCache
from hf_distill.generation.packing import IGNORED, attention_bias, pack
from hf_distill.generation.settings import GenerationSettings


class CachedSteps:
    """The steps of one batch of sources; the model must run with `attention_that_caches`.

    Args:
        model: The model.
        source_ids: Token ids of the B sources.
        settings: Their greatest length.
    """

    def __init__(self, model: Any, source_ids: Sequence[Sequence[int]], settings: GenerationSettings) -> None:
        self.model = model
        self.device = model.masked_lm.device
        # A pair without target: the place that learns to end it is the one that predicts the first token.
        batch = pack(
            model.way,
            source_ids,
            [[]] * len(source_ids),
            model.ids,
            max_source_length=settings.max_source_length,
            max_target_length=1,
        )
        self.batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        # What [CLS] sees is the source.
        source_bias = self.batch["attention_mask"][:, :, :1].to(model.masked_lm.dtype)
        source_bias = source_bias.clamp_min(torch.finfo(model.masked_lm.dtype).min)
        self.cache = KeyValueCache(source_bias)
        self.lengths = (source_bias == 0).sum(dim=-1).flatten()
        # The tokens of a step: the last written one and, in `pseudo`, the [MASK] that it does not see.
        masks = [model.ids.mask] if model.way == "pseudo" else []
        self.masks = torch.tensor(masks, dtype=torch.long, device=self.device)
        order = torch.arange(1 + len(masks), device=self.device)[None]
        self.bias = attention_bias(order, order)

    def start(self) -> Tensor:
        """(B, V) logits of the first token."""
        rows, columns = (self.batch.pop("labels") != IGNORED).nonzero(as_tuple=True)
        with self.cache.reading():
            return self.model.predict(**self.batch, rows=rows, columns=columns)

    def advance(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """(N, V) logits of the next token.

        Args:
            rows: (N,) which hypothesis of the call before each one continues.
            tokens: (N, T) all its tokens.
        """
        self.cache.select_hypotheses(rows)
        count, written = tokens.shape
        input_ids = torch.cat([tokens[:, -1:], self.masks.expand(count, -1)], dim=1)
        width = input_ids.shape[1]
        lengths = self.lengths.repeat_interleave(count // len(self.lengths))
        positions = lengths[:, None] + torch.arange(written - 1, written - 1 + width, device=self.device)
        with self.cache.reading():
            return self.model.predict(
                input_ids,
                positions,
                torch.ones_like(input_ids),
                self.bias,
                torch.arange(count, device=self.device),
                torch.full((count,), width - 1, device=self.device),
            )

    def select_sources(self, sources: Tensor) -> None:
        """Go on with the sources of those numbers."""
        self.cache.select_sources(sources)
        self.lengths = self.lengths[sources]
